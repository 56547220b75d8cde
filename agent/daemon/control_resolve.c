#include "control_resolve.h"

#include "control_arguments.h"
#include "daemon.h"
#include "recover.h"

#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>

/* A migration's id or a VM's name. */
#define REFERENCE_SIZE 256

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}

json_t *control_unreadable(const struct daemon *daemon, const char *id_or_vm)
{
    json_t *all = must_json(recover_unreadable_describe(daemon));
    json_t *wanted;
    json_t *entry;
    size_t index;

    if (!id_or_vm) {
        return all;
    }
    wanted = must_json(json_array());
    json_array_foreach(all, index, entry)
    {
        if (strcmp(text_of(entry, "id"), id_or_vm) == 0 ||
            strcmp(text_of(entry, "vm"), id_or_vm) == 0) {
            json_array_append(wanted, entry);
        }
    }
    json_decref(all);
    return wanted;
}

static void not_found(const struct daemon *daemon, const char *wanted, struct error *error)
{
    json_t *unreadable = control_unreadable(daemon, wanted);

    if (json_array_size(unreadable) > 0) {
        error_set(error, "journal-damaged", "%s", text_of(json_array_get(unreadable, 0), "text"));
    } else {
        error_set(error, "migration-not-found",
                  "there is no migration \"%s\" on %s: `watari status` shows those it knows, by id",
                  wanted, daemon->host);
    }
    json_decref(unreadable);
}

struct migration *control_find_migration(struct daemon *daemon, struct control_call *call,
                                         json_t *arguments)
{
    struct migration *migration = NULL;
    const char *wanted;
    struct error error;

    if (control_argument_string(arguments, "migration", true, REFERENCE_SIZE, &wanted, &error)) {
        migration = migration_find(daemon, wanted);
        if (!migration) {
            not_found(daemon, wanted, &error);
        }
    }
    if (!migration) {
        control_refuse(call, &error);
    }
    return migration;
}

static bool parse_decision(json_t *arguments, enum resolve_decision *decision, bool *source_is_off,
                           struct error *error)
{
    const char *word = text_of(arguments, "decision");
    const json_t *off = json_object_get(arguments, "source_is_off");
    bool run_here = strcmp(word, "run-here") == 0;

    *decision = run_here ? RESOLVE_RUN_HERE : RESOLVE_GIVE_UP;
    *source_is_off = json_is_true(off);
    if (off && !json_is_boolean(off)) {
        return error_set(error, "invalid-argument", "\"source_is_off\" must be true or false");
    }
    return run_here || strcmp(word, "give-up") == 0 ||
           error_set(error, "invalid-argument", "\"decision\" must be \"run-here\" or \"give-up\"");
}

static void show_evidence(const struct migration *migration, struct control_call *call)
{
    json_t *described = must_json(migration_describe(migration));

    if (!migration->result) {
        migration->ops->evidence(migration, described);
    }
    control_answer(call, must_json(json_pack("{s:o}", "migration", described)));
}

static bool decide(struct migration *migration, json_t *arguments, struct error *error)
{
    enum resolve_decision decision;
    bool source_is_off;

    if (!parse_decision(arguments, &decision, &source_is_off, error)) {
        return false;
    }
    if (migration->result) {
        return error_set(error, "too-late", "migration %s of VM %s has ended already: %s",
                         migration->id, migration->vm, text_of(migration->result, "result"));
    }
    return migration->ops->resolve(migration, decision, source_is_off, error);
}

void control_resolve(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    struct migration *migration = control_find_migration(daemon, call, arguments);
    struct error error;

    if (!migration) {
        return;
    }
    if (!json_object_get(arguments, "decision")) {
        show_evidence(migration, call);
    } else if (!decide(migration, arguments, &error)) {
        control_refuse(call, &error);
    } else {
        char *text = must_format("the decision for %s was taken; follow it with `watari status %s`",
                                 migration->vm, migration->id);

        control_answer(call, must_json(json_pack("{s:b,s:s}", "accepted", 1, "text", text)));
        free(text);
    }
}

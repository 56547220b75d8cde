/*
 * The commands of the control socket: one function each, and the table of them. See control.h for
 * what they take and give.
 */
#include "control_call.h"

#include "control_arguments.h"
#include "control_migrate.h"
#include "control_plan.h"
#include "control_resolve.h"
#include "control_set.h"
#include "daemon.h"
#include "inspect.h"
#include "peer.h"
#include "source.h"
#include "start.h"
#include "agent/common/json_line.h"
#include "agent/common/log.h"
#include "agent/common/must.h"
#include "tls/trust.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define MAX_ARGUMENTS 5

struct command {
    const char *name;
    const char *arguments[MAX_ARGUMENTS]; /* those it knows, ended by NULL */
    bool checks_itself;                   /* instead of by that list */
    void (*run)(struct daemon *daemon, struct control_call *call, json_t *arguments);
};

static void on_inspected(json_t *result, void *context)
{
    control_answer(context, result);
}

static void run_list(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    (void)arguments;
    inspect_all(daemon, on_inspected, call);
}

static void run_id(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    bool v6 = strchr(daemon->config.listen_address, ':') != NULL;
    char *listen = must_format(v6 ? "[%s]:%u" : "%s:%u", daemon->config.listen_address,
                               (unsigned)daemon->config.listen_port);

    (void)arguments;
    control_answer(call, must_json(json_pack("{s:s,s:s,s:s}", "fingerprint",
                                             tls_identity_fingerprint(daemon->identity), "host",
                                             daemon->host, "listen", listen)));
    free(listen);
}

static json_t *describe_peer(const struct tls_peer *peer)
{
    json_t *allow = must_json(json_array());

    if (peer->allow & TLS_ALLOW_SEND) {
        json_array_append_new(allow, must_json(json_string("send")));
    }
    if (peer->allow & TLS_ALLOW_RECEIVE) {
        json_array_append_new(allow, must_json(json_string("receive")));
    }
    return must_json(json_pack("{s:s,s:s,s:s,s:o}", "name", peer->name, "address", peer->address,
                               "fingerprint", peer->fingerprint, "allow", allow));
}

static bool parse_allow(json_t *arguments, unsigned *allow, struct error *error)
{
    const json_t *list = json_object_get(arguments, "allow");
    const json_t *entry;
    size_t index;

    *allow = list ? 0 : TLS_ALLOW_SEND | TLS_ALLOW_RECEIVE;
    json_array_foreach(list, index, entry)
    {
        const char *word = json_string_value(entry);

        if (word && strcmp(word, "send") == 0) {
            *allow |= TLS_ALLOW_SEND;
        } else if (word && strcmp(word, "receive") == 0) {
            *allow |= TLS_ALLOW_RECEIVE;
        } else {
            *allow = 0;
            break;
        }
    }
    return *allow != 0 || error_set(error, "invalid-argument",
                                    "\"allow\" must be a list of \"send\" and \"receive\"");
}

static bool parse_peer(json_t *arguments, struct tls_peer *peer, struct error *error)
{
    const char *name, *address, *fingerprint;

    *peer = (struct tls_peer){0};
    if (!control_argument_string(arguments, "name", true, sizeof peer->name, &name, error) ||
        !control_argument_string(arguments, "address", true, sizeof peer->address, &address,
                                 error) ||
        !control_argument_string(arguments, "fingerprint", true, sizeof peer->fingerprint,
                                 &fingerprint, error)) {
        return false;
    }
    strcpy(peer->name, name);
    strcpy(peer->address, address);
    strcpy(peer->fingerprint, fingerprint);
    return parse_allow(arguments, &peer->allow, error);
}

static void run_trust_add(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    char text[ERROR_TEXT_SIZE] = "";
    struct tls_peer peer;
    struct error error;
    int result;

    if (!parse_peer(arguments, &peer, &error)) {
        control_refuse(call, &error);
        return;
    }
    if (strcmp(peer.fingerprint, tls_identity_fingerprint(daemon->identity)) == 0) {
        error_set(&error, "invalid-argument",
                  "%s is this host's own fingerprint: take the one that `watari id` prints at %s",
                  peer.fingerprint, peer.name);
        control_refuse(call, &error);
        return;
    }
    result = tls_trust_add(daemon->trust, &peer, text, sizeof text);
    if (result < 0) {
        error_set(&error,
                  result == -EEXIST   ? "peer-exists"
                  : result == -EINVAL ? "invalid-argument"
                                      : "trust-unwritable",
                  "%s", text);
        control_refuse(call, &error);
        return;
    }
    log_info("peer %s (%s, %s) is trusted now", peer.name, peer.address, peer.fingerprint);
    control_answer(call, describe_peer(&peer));
}

static void run_trust_list(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    json_t *peers = must_json(json_array());

    (void)arguments;
    for (size_t i = 0; i < tls_trust_count(daemon->trust); i++) {
        json_array_append_new(peers, describe_peer(tls_trust_at(daemon->trust, i)));
    }
    control_answer(call, must_json(json_pack("{s:o}", "peers", peers)));
}

static void on_peer_checked(json_t *result, const struct error *error, void *context)
{
    if (result) {
        control_answer(context, json_incref(result));
    } else {
        control_refuse(context, error);
    }
}

static bool parse_name(json_t *arguments, const char **name, struct error *error)
{
    return control_argument_string(arguments, "name", true, TLS_PEER_NAME_SIZE, name, error);
}

static void run_trust_check(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    struct error error;
    const char *name;

    if (!parse_name(arguments, &name, &error)) {
        control_refuse(call, &error);
    } else {
        peer_check(daemon, name, on_peer_checked, call);
    }
}

static void run_trust_remove(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    char text[ERROR_TEXT_SIZE] = "";
    struct error error;
    const char *name;
    int result;

    if (!parse_name(arguments, &name, &error)) {
        control_refuse(call, &error);
        return;
    }
    result = tls_trust_remove(daemon->trust, name, text, sizeof text);
    if (result < 0) {
        error_set(&error, result == -ENOENT ? "peer-unknown" : "trust-unwritable", "%s", text);
        control_refuse(call, &error);
        return;
    }
    log_info("peer %s is not trusted any more", name);
    control_answer(call, must_json(json_object()));
}

static void run_migrate(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    struct migrate_request request;
    struct migration *migration;
    struct error error;

    if (!control_migrate_parse(arguments, &request, &error)) {
        control_refuse(call, &error);
        return;
    }
    migration = source_start(daemon, &request, &error);
    if (!migration) {
        control_refuse(call, &error);
        return;
    }
    control_answer(call, must_json(json_pack("{s:s}", "migration", migration->id)));
}

static void append_described(json_t *list, const struct migration *migration)
{
    json_array_append_new(list, must_json(migration_describe(migration)));
}

static json_t *describe_all(struct daemon *daemon)
{
    json_t *list = control_unreadable(daemon, NULL);
    const struct migration *migration;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (!migration->result) {
            append_described(list, migration);
        }
    }
    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (migration->result && !migration->trial) {
            append_described(list, migration);
        }
    }
    return list;
}

static void run_status(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    const char *wanted = json_string_value(json_object_get(arguments, "migration"));
    const struct migration *migration;
    json_t *list;

    if (!json_object_get(arguments, "migration")) {
        control_answer(call, must_json(json_pack("{s:o}", "migrations", describe_all(daemon))));
        return;
    }
    list = control_unreadable(daemon, wanted ? wanted : "");
    if (json_array_size(list) == 0) {
        migration = control_find_migration(daemon, call, arguments);
        if (!migration) {
            json_decref(list);
            return;
        }
        append_described(list, migration);
    }
    control_answer(call, must_json(json_pack("{s:o}", "migrations", list)));
}

static void run_watch(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    struct migration *migration = control_find_migration(daemon, call, arguments);

    if (migration) {
        control_answer_watch(call, migration);
    }
}

static void run_cancel(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    struct migration *migration = control_find_migration(daemon, call, arguments);
    const char *outcome;
    struct error error;

    if (!migration) {
        return;
    }
    if (migration->result) {
        outcome = json_string_value(json_object_get(migration->result, "result"));
        error_set(&error, "too-late", "migration %s of VM %s has ended already: %s", migration->id,
                  migration->vm, outcome ? outcome : "unknown");
        control_refuse(call, &error);
    } else if (!migration->ops->cancel(migration, &error)) {
        control_refuse(call, &error);
    } else {
        control_answer(call, must_json(json_object()));
    }
}

static void on_started(json_t *result, const struct error *error, void *context)
{
    if (result) {
        control_answer(context, json_incref(result));
    } else {
        control_refuse(context, error);
    }
}

static void run_start(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    struct error error;
    const char *name;

    if (!control_argument_string(arguments, "name", true, NAME_MAX, &name, &error)) {
        control_refuse(call, &error);
    } else {
        start_vm(daemon, name, on_started, call);
    }
}

static const struct command commands[] = {
    {"list", {NULL}, false, run_list},
    {"id", {NULL}, false, run_id},
    {"trust-add", {"name", "address", "fingerprint", "allow", NULL}, false, run_trust_add},
    {"trust-list", {NULL}, false, run_trust_list},
    {"trust-check", {"name", NULL}, false, run_trust_check},
    {"trust-remove", {"name", NULL}, false, run_trust_remove},
    {"plan", {NULL}, true, control_plan},
    {"migrate", {NULL}, true, run_migrate},
    {"status", {"migration", NULL}, false, run_status},
    {"watch", {"migration", NULL}, false, run_watch},
    {"cancel", {"migration", NULL}, false, run_cancel},
    {"set", {"migration", "max_bandwidth", "switchover_bandwidth", NULL}, false, control_set},
    {"resolve", {"migration", "decision", "source_is_off", NULL}, false, control_resolve},
    {"start", {"name", NULL}, false, run_start},
};

void control_command(struct daemon *daemon, struct control_call *call, const char *command,
                     json_t *arguments)
{
    struct error error;

    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, command) != 0) {
            continue;
        }
        if (!commands[i].checks_itself &&
            !control_arguments_known(arguments, commands[i].arguments, &error)) {
            control_refuse(call, &error);
        } else {
            commands[i].run(daemon, call, arguments);
        }
        return;
    }
    error_set(&error, "command-not-found", "watarid %s has no command \"%.100s\"", WATARI_VERSION,
              command);
    control_refuse(call, &error);
}

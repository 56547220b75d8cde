#include "resolve_text.h"

#include "handoff_text.h"
#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>

/* The members of a description that the sentences need. */
struct facts {
    const char *id, *vm, *peer, *state;
    bool source;
    bool ended;   /* its QEMU here */
    char pid[32]; /* " (pid 4711)", or "" */
};

static const char *word(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

static struct facts facts_of(const json_t *migration)
{
    json_int_t pid = json_integer_value(json_object_get(json_object_get(migration, "qemu"), "pid"));
    struct facts facts = {
        .id = word(migration, "id"),
        .vm = word(migration, "vm"),
        .peer = word(migration, "peer"),
        .state = word(migration, "handoff"),
        .source = strcmp(word(migration, "side"), "source") == 0,
        .ended = strcmp(handoff_text_qemu(migration), "ended") == 0,
    };

    if (pid > 0) {
        snprintf(facts.pid, sizeof facts.pid, " (pid %lld)", (long long)pid);
    }
    return facts;
}

static bool is(const struct facts *facts, const char *state)
{
    return strcmp(facts->state, state) == 0;
}

/* --- before --- */

static struct resolve_effect source_takes_disks_back(const struct facts *facts)
{
    return (struct resolve_effect){
        must_format("put everything here back as it was before the migration, and drop the copy "
                    "that %s may have. The QEMU here has ended, so nothing is resumed: start %s "
                    "afterwards, from its disks, as after a power failure",
                    facts->peer, facts->vm),
        must_format("you would rather have its disks now than wait for %s, which may have all of "
                    "its memory: that is lost then. %s was never told to run it, so no second copy "
                    "comes of this",
                    facts->peer, facts->peer)};
}

static struct resolve_effect source_runs_here(const struct facts *facts)
{
    char *will =
        facts->ended
            ? must_format(
                  "write down that %s may not run %s any more, and give its disks here their own "
                  "names back. The QEMU here has ended, so nothing is resumed: start %s "
                  "afterwards, from its disks, as after a power failure",
                  facts->peer, facts->vm, facts->vm)
            : must_format(
                  "write down that %s may not run %s any more, give its disks here their own names "
                  "back, and resume it here%s. %s is told to let go of its copy when it is heard "
                  "again",
                  facts->peer, facts->vm, facts->pid, facts->peer);

    return (struct resolve_effect){
        will, must_format("%s does not run at %s, and nobody starts it there: %s is switched off, "
                          "or `watari status` there shows its copy paused. If it does run there, "
                          "there are two of it from now on, until the hosts hear of each other "
                          "again: then the one here is paused",
                          facts->vm, facts->peer, facts->peer)};
}

static struct resolve_effect source_gives_up(const struct facts *facts)
{
    if (is(facts, "conflict")) {
        return (struct resolve_effect){
            must_format("end the paused copy of %s here%s. Its disks stay, under their marked "
                        "names. %s goes on at %s",
                        facts->vm, facts->pid, facts->vm, facts->peer),
            must_format("the copy at %s is the one to keep: what the one here did since it was "
                        "resumed is on the disks here, and nowhere else",
                        facts->peer)};
    }
    return (struct resolve_effect){
        must_format("end the QEMU of %s here%s, and with it its memory as it is here. Its disks "
                    "stay, under their marked names. This host goes on asking %s",
                    facts->vm, facts->pid, facts->peer),
        must_format("%s runs it, or has a whole copy that can run (`watari status` there says so). "
                    "If it has none, %s can only be started from its disks, as after a power "
                    "failure",
                    facts->peer, facts->vm)};
}

static struct resolve_effect destination_runs_here(const struct facts *facts)
{
    return (struct resolve_effect){
        must_format("write down that %s belongs to this host, and let the copy here%s run from "
                    "where it stopped",
                    facts->vm, facts->pid),
        must_format("%s is switched off, and stays so until it can talk to this host: it may run "
                    "%s otherwise, and then there are two of it, until the hosts hear of each "
                    "other again: then the one here is paused",
                    facts->peer, facts->vm)};
}

static struct resolve_effect destination_gives_up(const struct facts *facts)
{
    if (is(facts, "conflict")) {
        return (struct resolve_effect){
            must_format("end the paused copy of %s here%s. Its disks stay. %s goes on at %s",
                        facts->vm, facts->pid, facts->vm, facts->peer),
            must_format("the copy at %s is the one to keep: what the one here did since it was "
                        "started is on the disks here, and nowhere else",
                        facts->peer)};
    }
    return (struct resolve_effect){
        must_format("end the copy of %s here%s, which has not run. Its disks stay, renamed to "
                    "their name and \".given-up-%s\". %s is told that it may run %s again",
                    facts->vm, facts->pid, facts->id, facts->peer, facts->vm),
        must_format("%s still has %s: its QEMU, or at least its disks. The memory that came here "
                    "is gone after this",
                    facts->peer, facts->vm)};
}

struct resolve_effect resolve_text_effect(const json_t *migration, enum resolve_choice choice)
{
    struct facts facts = facts_of(migration);

    if (choice == RESOLVE_CHOICE_GIVE_UP) {
        return facts.source ? source_gives_up(&facts) : destination_gives_up(&facts);
    }
    if (!facts.source) {
        return destination_runs_here(&facts);
    }
    return is(&facts, "paused") ? source_takes_disks_back(&facts) : source_runs_here(&facts);
}

void resolve_effect_clear(struct resolve_effect *effect)
{
    free(effect->will);
    free(effect->safe_if);
    *effect = (struct resolve_effect){0};
}

/* --- after --- */

static const char *result_of(const json_t *migration)
{
    return word(json_object_get(migration, "result"), "result");
}

bool resolve_text_carried_out(const json_t *now, enum resolve_choice choice)
{
    const char *state = handoff_text_qemu(now);

    if (*result_of(now)) {
        return true;
    }
    if (strcmp(word(now, "awaited_from"), "this host") == 0) {
        return false;
    }
    return strcmp(state, "ended") == 0 ||
           (choice == RESOLVE_CHOICE_RUN_HERE && strcmp(state, "running") == 0);
}

/* Its QEMU was there to be resumed, and is gone now. */
static bool is_lost(const json_t *before, const json_t *now, enum resolve_choice choice)
{
    bool ended =
        strcmp(result_of(now), "lost") == 0 || strcmp(handoff_text_qemu(now), "ended") == 0;

    return choice == RESOLVE_CHOICE_RUN_HERE && ended && !facts_of(before).ended;
}

int resolve_text_exit_code(const json_t *before, const json_t *now, enum resolve_choice choice)
{
    if (!resolve_text_carried_out(now, choice)) {
        return CLIENT_UNDECIDED;
    }
    return is_lost(before, now, choice) ? CLIENT_LOST : CLIENT_DONE;
}

/* On this host, without what is awaited. */
static char *deed(const json_t *before, const json_t *now, enum resolve_choice choice)
{
    struct facts facts = facts_of(before);

    if (is_lost(before, now, choice)) {
        return must_format("The QEMU of VM %s here has ended meanwhile: it does not run here.",
                           facts.vm);
    }
    if (choice == RESOLVE_CHOICE_GIVE_UP) {
        return must_format("The copy of VM %s here was given up: its QEMU has ended, its disks are "
                           "kept.",
                           facts.vm);
    }
    if (facts.ended) {
        return must_format("VM %s is this host's again, and its disks have their own names. It "
                           "does not run: start it now.",
                           facts.vm);
    }
    return must_format("VM %s runs here now%s.", facts.vm, facts.pid);
}

char *resolve_text_outcome(const json_t *before, const json_t *now, enum resolve_choice choice)
{
    struct facts facts = facts_of(before);
    const char *from = word(now, "awaited_from"), *what = word(now, "awaited");
    char *done, *text;

    if (!resolve_text_carried_out(now, choice)) {
        return must_format("The decision for VM %s was taken, but is not carried out yet: awaited "
                           "from %s: %s. watarid goes on; look with `watari status %s`.",
                           facts.vm, *from ? from : "?", *what ? what : "?", facts.id);
    }
    done = deed(before, now, choice);
    if (*result_of(now) || !*from) {
        return done;
    }
    text = must_format("%s Still awaited from %s: %s.", done, from, what);
    free(done);
    return text;
}

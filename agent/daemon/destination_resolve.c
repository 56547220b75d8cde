/*
 * How the handoff stands at the destination, for the operator: status, the evidence that `resolve` shows, and the decision.
 */
#include "destination_state.h"

#include "clock.h"
#include "daemon.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/handoff_names.h"

#include <stdlib.h>
#include <string.h>

/* --- status --- */

struct waiting {
    const char *what, *from;
};

static struct waiting awaited(const struct destination *destination)
{
    const char *peer = destination->migration.peer;

    if (destination->recovering) {
        return (struct waiting){"QEMU's word whether it runs the guest", "this host"};
    }
    switch (destination->handoff.state) {
    case DESTINATION_PREPARING:
        return (struct waiting){"its data", peer};
    case DESTINATION_LOADING:
    case DESTINATION_COMMITTING:
    case DESTINATION_REFUSING:
        return (struct waiting){"the journal", "this host"};
    case DESTINATION_LOADED:
        return (struct waiting){"its commit", peer};
    case DESTINATION_STARTING:
        return (struct waiting){"QEMU's answer to cont", "this host"};
    case DESTINATION_OWNED:
        return (struct waiting){"its word that it has tidied up", peer};
    case DESTINATION_REFUSED:
        return (struct waiting){"its word that it has taken the VM back", peer};
    case DESTINATION_GIVING_UP:
        return (struct waiting){"QEMU to end", "this host"};
    case DESTINATION_CONFLICT:
        return (struct waiting){"a decision: both hosts own the VM", "an operator"};
    case DESTINATION_ABANDONED:
        return destination->left
                   ? (struct waiting){"the journal", "this host"}
                   : (struct waiting){"what was made here to be removed", "this host"};
    case DESTINATION_ENDED:
        break;
    }
    return (struct waiting){"nothing", NULL};
}

static bool is_undecided(const struct destination *destination)
{
    switch (destination->handoff.state) {
    case DESTINATION_LOADED:
    case DESTINATION_COMMITTING:
    case DESTINATION_STARTING:
    case DESTINATION_REFUSING:
    case DESTINATION_REFUSED:
    case DESTINATION_CONFLICT:
        return true;
    default:
        return destination->recovering;
    }
}

static char *advice(const struct destination *destination)
{
    const char *id = destination->migration.id, *peer = destination->migration.peer;

    switch (destination->handoff.state) {
    case DESTINATION_LOADED:
    case DESTINATION_REFUSED:
        return must_format(
            "bring %s and the link to it back, it then ends by itself; or decide at %s; or, when %s is "
            "off for certain and stays off: watari resolve %s --run-here --source-is-off",
            peer, peer, peer, id);
    case DESTINATION_CONFLICT:
        return must_format("watari resolve %s --give-up ends the copy here", id);
    default:
        return NULL;
    }
}

static const char *qemu_state(const struct destination *destination)
{
    if (destination->handoff.qemu_dead) {
        return "ended";
    }
    return destination->handoff.state == DESTINATION_OWNED ? "running" : "paused";
}

void destination_describe(const struct migration *migration, json_t *into)
{
    const struct destination *destination = (const struct destination *)migration;
    struct waiting waiting = awaited(destination);
    bool undecided = is_undecided(destination);
    char *text = undecided ? advice(destination) : NULL;

    json_object_update_new(
        into,
        must_json(json_pack(
            "{sb,ss,ss?,ss,sb,so,sI,s{si,ss},ss?}", "undecided", undecided, "awaited", waiting.what,
            "awaited_from", waiting.from, "handoff",
            handoff_destination_state_name(destination->handoff.state), "connected",
            destination->peer != NULL, "pause_age_ms",
            undecided ? must_json(json_integer(
                            (json_int_t)(clock_boottime_ms() - destination->loaded_ms)))
                      : json_null(),
            "wire_bytes",
            (json_int_t)(destination->sample.wire_sent + destination->sample.wire_received), "qemu",
            "pid", (int)destination->pid, "state", qemu_state(destination), "advice", text)));
    free(text);
}

/* --- resolve --- */

void destination_evidence(const struct migration *migration, json_t *into)
{
    const struct destination *destination = (const struct destination *)migration;
    json_t *disks = must_json(json_array());

    for (size_t i = 0; i < destination->disk_count; i++) {
        json_array_append_new(disks,
                              must_json(json_pack("{ss}", "path", destination->disks[i].path)));
    }
    json_object_set_new(into, "disks", disks);
    json_object_set_new(into, "log", must_json(json_string(destination->log_path)));
}

static bool refuse_now(const struct destination *destination, struct error *error)
{
    return error_set(
        error, "resolve-nothing",
        "nothing is to be decided here: %s of %s is in the state %s (watari status %s)",
        destination->migration.id, destination->migration.vm,
        handoff_destination_state_name(destination->handoff.state), destination->migration.id);
}

static bool run_here(struct destination *destination, bool source_is_off, struct error *error)
{
    const char *vm = destination->migration.vm, *peer = destination->migration.peer;

    switch (handoff_destination_run_here(&destination->handoff)) {
    case HANDOFF_MAY:
        break;
    case HANDOFF_OTHER_SIDE:
        return error_set(error, "resolve-elsewhere",
                         "there is no copy of %s left here that could run: decide at %s", vm, peer);
    default:
        return refuse_now(destination, error);
    }
    if (!source_is_off) {
        return error_set(
            error, "source-is-off",
            "%s may run %s: only when it is switched off for certain, and stays so, may this copy run "
            "(--source-is-off says that it is)",
            peer, vm);
    }
    if (destination->peer) {
        return error_set(error, "resolve-connected",
                         "%s is connected, so it is not off: decide there (watari status at %s)",
                         peer, peer);
    }
    destination_handoff(destination, DESTINATION_IN_RUN_HERE, NULL);
    return true;
}

bool destination_resolve(struct migration *migration, enum resolve_decision decision,
                         bool source_is_off, struct error *error)
{
    struct destination *destination = destination_of(migration);

    if (destination->recovering) {
        return refuse_now(destination, error);
    }
    if (decision == RESOLVE_RUN_HERE) {
        if (!run_here(destination, source_is_off, error)) {
            return false;
        }
        log_warning("migration %s of %s: resolve --run-here --source-is-off", migration->id,
                    migration->vm);
        return true;
    }
    switch (handoff_destination_may_give_up(&destination->handoff)) {
    case HANDOFF_MAY:
        break;
    case HANDOFF_OTHER_SIDE:
        return error_set(
            error, "resolve-elsewhere",
            "%s was handed over to this host, and the copy here may have run: it cannot be given up as if "
            "it had not. Decide at %s",
            migration->vm, migration->peer);
    default:
        return refuse_now(destination, error);
    }
    error_set(&destination->error, "given-up", "an operator gave up the copy of %s at %s",
              migration->vm, migration->daemon->host);
    log_warning("migration %s of %s: resolve --give-up", migration->id, migration->vm);
    destination_handoff(destination, DESTINATION_IN_GIVE_UP, NULL);
    return true;
}

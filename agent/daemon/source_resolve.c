/*
 * How the handoff stands at the source, for the operator: status, the evidence that `resolve` shows, and the decision.
 */
#include "source_state.h"

#include "clock.h"
#include "daemon.h"
#include "journal.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/handoff_names.h"

#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>

/* --- status --- */

struct waiting {
    const char *what, *from;
};

static struct waiting awaited(const struct source *source)
{
    const char *peer = source->migration.peer;

    switch (source->handoff.state) {
    case SOURCE_PAUSED:
        return source->handoff.qemu_dead
                   ? (struct waiting){"whether it has a whole copy: the QEMU here has ended", peer}
                   : (struct waiting){"its copy; a rollback is possible", peer};
    case SOURCE_COMMITTING:
    case SOURCE_RETAKING:
    case SOURCE_TRYING_AGAIN:
    case SOURCE_TAKEN_BACK:
    case SOURCE_WITHDRAWING:
    case SOURCE_GIVING_UP:
        return (struct waiting){"the journal", "this host"};
    case SOURCE_COMMITTED:
        return (struct waiting){"its word that it runs the VM", peer};
    case SOURCE_TAKING_BACK:
        return (struct waiting){"QEMU: the guest is being resumed", "this host"};
    case SOURCE_WITHDRAWN:
        return (struct waiting){"its word that it has let go of its copy", peer};
    case SOURCE_CONFLICT:
        return (struct waiting){"a decision: both hosts own the VM", "an operator"};
    case SOURCE_CLEANING:
        return (struct waiting){"the old QEMU to quit", "this host"};
    case SOURCE_ROLLING_BACK:
        return (struct waiting){"everything to be put back", "this host"};
    case SOURCE_OPEN:
    case SOURCE_ENDED:
        break;
    }
    return (struct waiting){"nothing", NULL};
}

static bool is_undecided(const struct source *source)
{
    return source->handoff.state != SOURCE_CLEANING &&
           (handoff_source_wants_link(&source->handoff) ||
            source->handoff.state == SOURCE_CONFLICT);
}

static const char *qemu_state(const struct source *source)
{
    if (source->handoff.qemu_dead) {
        return "ended";
    }
    if (source->handoff.runs_here || source->handoff.state == SOURCE_OPEN) {
        return "running";
    }
    return source->handoff.state == SOURCE_WITHDRAWN && source->handoff.resumed ? "running"
                                                                                : "paused";
}

static json_t *age_or_null(uint64_t since_ms)
{
    return since_ms ? must_json(json_integer((json_int_t)(clock_boottime_ms() - since_ms)))
                    : json_null();
}

static char *advice(const struct source *source)
{
    const char *id = source->migration.id, *peer = source->migration.peer;

    switch (source->handoff.state) {
    case SOURCE_PAUSED:
        return source->handoff.qemu_dead
                   ? must_format(
                         "bring the link to %s back; or, without its copy, from the disks here: watari "
                         "resolve %s --run-here",
                         peer, id)
                   : NULL;
    case SOURCE_COMMITTED:
        return must_format(
            "bring the link to %s back, it then ends by itself; or, when the VM certainly does not "
            "run at %s: watari resolve %s --run-here; or, when it is to stay there: watari "
            "resolve %s --give-up",
            peer, peer, id, id);
    case SOURCE_CONFLICT:
        return must_format(
            "watari resolve %s --give-up ends the copy here; or end the VM at %s, and resume this "
            "one with QMP cont",
            id, peer);
    default:
        return NULL;
    }
}

void source_describe_handoff(const struct source *source, json_t *into)
{
    struct waiting waiting = awaited(source);
    bool undecided = is_undecided(source);
    char *text = undecided ? advice(source) : NULL;

    json_object_update_new(
        into,
        must_json(json_pack(
            "{sb,ss,ss?,ss,sb,ss?,so,so,s{si,ss},ss?,ss?}", "undecided", undecided, "awaited",
            waiting.what, "awaited_from", waiting.from, "handoff",
            handoff_source_state_name(source->handoff.state), "connected", source->peer != NULL,
            "peer_word", source->peer_word, "peer_word_age_ms", age_or_null(source->peer_word_ms),
            "commit_age_ms", age_or_null(source->handoff.commit_sent_ms), "qemu", "pid",
            (int)source->vm.pid, "state", qemu_state(source), "held",
            source->handoff.held
                ? "the VM runs here, or its disks have their old names, although it was handed over"
                : NULL,
            "advice", text)));
    free(text);
}

/* --- resolve --- */

void source_evidence(const struct migration *migration, json_t *into)
{
    const struct source *source = (const struct source *)migration;
    json_t *disks = must_json(json_array());

    for (size_t i = 0; i < source->disk_count; i++) {
        const struct source_disk *disk = &source->disks[i];
        bool marked = disk->mark && access(disk->mark, F_OK) == 0;

        json_array_append_new(disks, must_json(json_pack("{ss,ss?,sb}", "path", disk->path, "mark",
                                                         disk->mark, "marked", marked)));
    }
    json_object_set_new(into, "disks", disks);
    json_object_set_new(into, "journal",
                        source->journal_path ? must_json(json_string(source->journal_path))
                                             : json_null());
}

static bool may_run_here(const struct source *source, struct error *error)
{
    uint64_t wait_ms;

    switch (handoff_source_run_here(&source->handoff, clock_boottime_ms(), &wait_ms)) {
    case HANDOFF_MAY:
        return true;
    case HANDOFF_MUST_WAIT:
        return error_set(
            error, "resolve-wait",
            "%s may still start %s by the last COMMIT, which counts for another %llu s: say it again then",
            source->migration.peer, source->migration.vm,
            (unsigned long long)(wait_ms + 999) / 1000);
    case HANDOFF_OTHER_SIDE:
        return error_set(
            error, "resolve-elsewhere",
            "%s owns %s as well, and runs it: end it there first, then resume the copy here (pid %d, QMP %s, "
            "cont); or give this one up (--give-up)",
            source->migration.peer, source->migration.vm, (int)source->vm.pid, source->vm.qmp_path);
    case HANDOFF_NOT_NOW:
        break;
    }
    return error_set(error, "resolve-nothing",
                     "nothing is undecided here: %s of %s is in the state %s (watari status %s)",
                     source->migration.id, source->migration.vm,
                     handoff_source_state_name(source->handoff.state), source->migration.id);
}

bool source_resolve(struct migration *migration, enum resolve_decision decision, bool source_is_off,
                    struct error *error)
{
    struct source *source = source_of(migration);

    (void)source_is_off; /* this is the source */
    if (decision == RESOLVE_RUN_HERE) {
        if (!may_run_here(source, error)) {
            return false;
        }
        error_set(&source->error, "resolved", "an operator decided that %s runs at %s",
                  migration->vm, migration->daemon->host);
        log_warning("migration %s of %s: resolve --run-here", migration->id, migration->vm);
        source_handoff(source, SOURCE_IN_RUN_HERE, NULL);
        return true;
    }
    if (handoff_source_may_give_up(&source->handoff) != HANDOFF_MAY) {
        return error_set(
            error, "resolve-nothing",
            "there is nothing to give up here: %s of %s is in the state %s (watari status %s)",
            migration->id, migration->vm, handoff_source_state_name(source->handoff.state),
            migration->id);
    }
    log_warning("migration %s of %s: resolve --give-up", migration->id, migration->vm);
    source_handoff(source, SOURCE_IN_GIVE_UP, NULL);
    return true;
}

/*
 * The source's doing of what policy/handoff.h decides: marks on the disks and the COMMITTED record, commit and query messages, taking the
 * VM back after a refusal, and tidying up when the destination owns it.
 */
#include "source_state.h"

#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "journal.h"
#include "peer.h"
#include "qmp.h"
#include "tree.h"
#include "undo.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <errno.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU in postmigrate has nothing left to write: quitting takes milliseconds. After this it is killed. */
#define QUIT_MS 10000
/* How long the destination's acknowledgement is waited for before the operator is told that all is done, which it is. */
#define DONE_ACK_MS 2000

/* --- commit --- */

/* Nothing that starts by name may find the old images: they get another name, and the directory is synced with the record. */
static bool mark_disk(struct source *source, struct source_disk *disk, struct error *error)
{
    char *key, *copy;
    bool good;

    if (!disk->mark) {
        return true; /* a block device keeps its name; `watari may-start` answers for it */
    }
    key = must_format("mark:%u", disk->index);
    copy = must_copy(disk->path);
    good = undo_add(source->undo, key,
                    must_json(json_pack("{s[ss]}", "rename", disk->path, disk->mark)), error);
    if (good && rename(disk->path, disk->mark) < 0) {
        good = error_set(error, "mark-failed", "%s could not be renamed: %s", disk->path,
                         strerror(errno));
    }
    if (good) {
        journal_also_sync(source->journal, dirname(copy));
    }
    free(copy);
    free(key);
    return good;
}

static void journal_failed(struct source *source, const struct error *error)
{
    source->error = *error;
    source_handoff(source, SOURCE_IN_JOURNAL_FAILED, NULL);
}

static void on_committed(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct source *source = context;

    (void)nanoseconds;
    if (error) {
        journal_failed(source, error);
        return;
    }
    source->committed_ms = clock_boottime_ms();
    event_del(source->pause_clock);
    source_handoff(source, SOURCE_IN_JOURNALED, NULL);
    if (!source->peer) {
        source_dial(source);
    }
}

static void commit(struct source *source)
{
    struct error error;

    source_limit(source, NULL, 0);
    for (size_t i = 0; i < source->disk_count; i++) {
        if (!mark_disk(source, &source->disks[i], &error)) {
            journal_failed(source, &error);
            return;
        }
    }
    if (!journal_append(source->journal, "committed",
                        must_json(json_pack("{ss,sO}", "nonce", source->handoff.nonce, "accepted",
                                            source->accepted)),
                        &error)) {
        journal_failed(source, &error);
        return;
    }
    journal_sync(source->journal, on_committed, source);
}

/* --- the destination owns it --- */

void source_done_acknowledged(struct source *source)
{
    source_limit(source, NULL, 0);
    source_hang_up(source);
    source_finish(source);
}

static void on_acknowledge_limit(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    source_done_acknowledged(context);
}

static void on_done_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct source *source = context;

    (void)nanoseconds;
    if (error) {
        log_warning("%s", error->text);
    }
    event_free(source->limit);
    source->limit = evtimer_new(source->migration.daemon->base, on_acknowledge_limit, source);
    source_limit(source, NULL, DONE_ACK_MS);
    source_handoff(source, SOURCE_IN_CLEANED, NULL);
    if (!source->peer) {
        source_done_acknowledged(source);
    }
}

static void cleaned(struct source *source)
{
    struct error error;

    process_watch_free(source->process);
    source->process = NULL;
    source_limit(source, NULL, 0);
    if (source->undo) {
        undo_forget_all(source->undo);
    }
    if (tree_remove(source->run_dir) < 0) {
        log_warning("%s could not be removed: %s", source->run_dir, strerror(errno));
    }
    if (!journal_append(source->journal, "done", NULL, &error)) {
        on_done_synced(&error, 0, source);
        return;
    }
    journal_sync(source->journal, on_done_synced, source);
}

void source_qemu_gone(struct source *source)
{
    if (source->handoff.state == SOURCE_CLEANING) {
        cleaned(source);
    }
}

static void on_quit_limit(evutil_socket_t fd, short what, void *context)
{
    struct source *source = context;

    (void)fd;
    (void)what;
    log_warning(
        "the old QEMU of %s (pid %d) does not quit; it is killed (it has given everything away)",
        source->migration.vm, (int)source->vm.pid);
    process_watch_signal(source->process, SIGKILL);
}

static void clean(struct source *source)
{
    migration_phase(&source->migration, PHASE_CLEANUP,
                    "%s runs at %s; the old QEMU quits, the old disks are kept under another name",
                    source->migration.vm, source->migration.peer);
    if (!source->process) {
        cleaned(source);
        return;
    }
    event_free(source->limit);
    source->limit = evtimer_new(source->migration.daemon->base, on_quit_limit, source);
    if (source->qmp_ready) {
        qmp_execute(source->qmp, "quit", NULL, -1, NULL, NULL);
        source_limit(source, NULL, QUIT_MS);
    } else {
        source_limit(source, NULL, 1);
    }
}

void source_owned(struct source *source, const json_t *message)
{
    uint64_t resumed = (uint64_t)json_integer_value(json_object_get(message, "resumed_at"));
    int64_t offset;

    if (resumed && source->paused_ns && source->resumed_ns == 0 &&
        peer_clock(source->peer, &offset, &source->downtime_error_ns)) {
        source->resumed_ns = (uint64_t)((int64_t)resumed + offset);
    }
    source_handoff(source, SOURCE_IN_OWNED, NULL);
}

/* --- taking it back --- */

/*
 * The guest has been resumed here, and the journal cannot say so: the destination must neither try again nor let go of its copy. It stays
 * undecided, which costs nothing but the paused copy there.
 */
static void runs_unjournaled(struct source *source, const struct error *error)
{
    source->runs_here = true;
    log_error(
        "%s was taken back and runs here, but the journal cannot say so: %s. %s keeps its paused copy; mend the journal's "
        "disk and restart watarid here",
        source->migration.vm, error->text, source->migration.peer);
    source_handoff(source, SOURCE_IN_TAKE_BACK_FAILED, NULL);
}

/* Not resumed after all: the names of a VM that moves, again, before the destination may try again. */
static void not_taken_back(struct source *source, const char *reason)
{
    struct error error;

    log_error("%s could not be taken back: %s", source->migration.vm, reason);
    for (size_t i = 0; i < source->disk_count; i++) {
        if (!mark_disk(source, &source->disks[i], &error)) {
            log_error("%s", error.text);
        }
    }
    source_handoff(source, SOURCE_IN_TAKE_BACK_FAILED, NULL);
}

static void on_taken_back_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct source *source = context;

    (void)nanoseconds;
    if (error) {
        runs_unjournaled(source, error);
        return;
    }
    source_handoff(source, SOURCE_IN_TAKEN_BACK, NULL);
}

static void on_taken_back(const json_t *left, void *context)
{
    struct source *source = context;
    struct error error;

    if (undo_left(left, "migration")) {
        not_taken_back(source, "QEMU did not resume the guest");
        return;
    }
    json_array_extend(source->left, (json_t *)left);
    if (!journal_append(source->journal, "taken-back", NULL, &error)) {
        runs_unjournaled(source, &error);
        return;
    }
    journal_sync(source->journal, on_taken_back_synced, source);
}

static void take_back(struct source *source)
{
    if (source->handoff.qemu_dead || !source->qmp_ready) {
        /* There is nothing left here to resume: the destination may try again. */
        source_handoff(source, SOURCE_IN_TAKE_BACK_FAILED, NULL);
        return;
    }
    migration_phase(&source->migration, PHASE_ROLLBACK, "taking %s back: %s", source->migration.vm,
                    source->error.text);
    undo_run(source->undo, source->qmp, on_taken_back, source);
}

void source_handoff_do(struct source *source, unsigned actions)
{
    if (actions & SOURCE_DO_COMMIT) {
        commit(source);
    }
    if ((actions & SOURCE_DO_SEND_COMMIT) && !source->runs_here) {
        migration_phase(&source->migration, PHASE_COMMITTED, "%s may run it now",
                        source->migration.peer);
        source_send(source, "commit", must_json(json_pack("{ss}", "nonce", source->handoff.nonce)));
    }
    if (actions & SOURCE_DO_SEND_QUERY) {
        source_send(source, "query", NULL);
    }
    if (actions & SOURCE_DO_TAKE_BACK) {
        take_back(source);
    }
    if (actions & SOURCE_DO_SEND_TAKEN_BACK) {
        source_send(source, "taken-back", NULL);
    }
    if ((actions & SOURCE_DO_SEND_TRY_AGAIN) && !source->runs_here) {
        source_send(source, "try-again", NULL);
    }
    if (actions & SOURCE_DO_CLEAN) {
        clean(source);
    }
    if (actions & SOURCE_DO_SEND_DONE) {
        source_send(source, "done", NULL);
    }
}

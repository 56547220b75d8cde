/*
 * The source's doing of what policy/handoff.h decides: marks on the disks and records, messages, and tidying up when the destination
 * owns the VM. Taking it back is in source_take_back.c.
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
#include "agent/common/pause_point.h"
#include "agent/policy/handoff_names.h"
#include "agent/policy/phase.h"

#include <errno.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* QEMU in postmigrate has nothing left to write: quitting takes milliseconds. After this it is killed. */
#define QUIT_MS 10000
/* How long the destination's acknowledgement is waited for before the operator is told that all is done, which it is. */
#define DONE_ACK_MS 2000

/* --- marks and records --- */

/* Nothing that starts by name may find the old images: they get another name, and the directory is synced with the record. */
static bool mark_disk(struct source *source, struct source_disk *disk, struct error *error)
{
    char *key, *copy;
    bool good;

    if (!disk->mark || (access(disk->path, F_OK) < 0 && access(disk->mark, F_OK) == 0)) {
        return true; /* a block device keeps its name (`watari may-start` answers for it), a marked one its mark */
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

bool source_mark_disks(struct source *source, struct error *error)
{
    for (size_t i = 0; i < source->disk_count; i++) {
        if (!mark_disk(source, &source->disks[i], error)) {
            return false;
        }
    }
    return true;
}

static void journal_failed(struct source *source, const struct error *error)
{
    log_error("migration %s of %s: %s", source->migration.id, source->migration.vm, error->text);
    if (handoff_source_can_roll_back(&source->handoff) ||
        source->handoff.state == SOURCE_COMMITTING) {
        source->error = *error;
    }
    source_handoff(source, SOURCE_IN_JOURNAL_FAILED, NULL);
}

static void on_journaled(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct source *source = context;

    (void)nanoseconds;
    if (error) {
        journal_failed(source, error);
    } else {
        source_handoff(source, SOURCE_IN_JOURNALED, NULL);
    }
}

static json_t *record_members(const struct source *source)
{
    switch (source->handoff.record) {
    case SOURCE_RECORD_COMMITTED:
        return must_json(
            json_pack("{ss,sO}", "nonce", source->handoff.nonce, "accepted", source->accepted));
    case SOURCE_RECORD_TRY_AGAIN:
    case SOURCE_RECORD_TAKING_BACK:
        return must_json(json_pack("{sI}", "refusal", (json_int_t)source->handoff.refusal));
    default:
        return NULL;
    }
}

static void write_record(struct source *source)
{
    struct error error;

    source_limit(source, NULL, 0);
    if (source->handoff.record == SOURCE_RECORD_COMMITTED && !source_mark_disks(source, &error)) {
        journal_failed(source, &error);
        return;
    }
    if (!journal_append(source->journal, handoff_source_record_name(source->handoff.record),
                        record_members(source), &error)) {
        journal_failed(source, &error);
        return;
    }
    journal_sync(source->journal, on_journaled, source);
}

/* Before the guest is paused. Not synced: after a power failure that loses it the VM starts from its disks, as after any. */
void source_journal_paused(struct source *source)
{
    struct error error;

    if (!journal_append(source->journal, handoff_source_record_name(SOURCE_RECORD_PAUSED),
                        must_json(json_pack("{sO}", "accepted", source->accepted)), &error)) {
        log_warning("%s", error.text);
    }
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
    /* After a conflict, and after images were given their names back by hand, they have the old ones. */
    if (!source_mark_disks(source, &error)) {
        log_error("%s", error.text);
    }
    undo_forget_all(source->undo);
    if (tree_remove(source->run_dir) < 0) {
        log_warning("%s could not be removed: %s", source->run_dir, strerror(errno));
    }
    if (!journal_append(source->journal, handoff_source_record_name(SOURCE_RECORD_DONE), NULL,
                        &error)) {
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
    if (source->process) {
        log_warning("the old QEMU of %s (pid %d) does not quit; it is killed (it has given "
                    "everything away)",
                    source->migration.vm, (int)source->vm.pid);
        process_watch_signal(source->process, SIGKILL);
    }
}

static void quit_qemu(struct source *source)
{
    if (!source->process) {
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

static void clean(struct source *source)
{
    migration_phase(
        &source->migration, PHASE_CLEANUP,
        "%s belongs to %s; the old QEMU quits, the old disks are kept under another name",
        source->migration.vm, source->migration.peer);
    if (source->process) {
        quit_qemu(source);
    } else {
        cleaned(source);
    }
}

/* --- words --- */

static void send_commit(struct source *source)
{
    /* Once: the repetitions after a lost answer are no news. */
    if (strcmp(source->migration.phase, PHASE_COMMITTED) != 0) {
        migration_phase(&source->migration, PHASE_COMMITTED, "%s may run it now",
                        source->migration.peer);
    }
    source_send(source, "commit", must_json(json_pack("{ss}", "nonce", source->handoff.nonce)));
}

static void send_abort(struct source *source)
{
    const struct error *error = &source->error;

    source_send(source, "abort",
                must_json(json_pack("{ss,so}", "error", error->id[0] ? error->id : "rolled-back",
                                    "text", must_json(message_text(error->text)))));
}

static void on_stopped(json_t *value, const struct error *error, void *context)
{
    const struct source *source = context;

    (void)value;
    if (error) {
        log_error("%s could not be paused here: %s", source->migration.vm, error->text);
    }
}

/* A stray copy: QEMU gets the command even if this daemon dies now. */
static void stop(struct source *source)
{
    log_error("the guest of %s ran at %s, which has handed it over to %s: it is paused again here. "
              "`watari resolve` is the way to decide otherwise",
              source->migration.vm, source->migration.daemon->host, source->migration.peer);
    if (source->qmp_ready) {
        qmp_execute(source->qmp, "stop", NULL, -1, on_stopped, source);
    }
}

static void report_conflict(struct source *source)
{
    char *text = must_format(
        "both %s and %s own %s: it was started at %s, and an operator decided for %s. The copy at %s is "
        "paused now. End the one that is not wanted: `watari resolve %s --give-up` at %s, or its QEMU at %s",
        source->migration.daemon->host, source->migration.peer, source->migration.vm,
        source->migration.peer, source->migration.daemon->host, source->migration.daemon->host,
        source->migration.id, source->migration.daemon->host, source->migration.peer);

    log_error("conflict: %s", text);
    migration_publish(&source->migration, "warning",
                      must_json(json_pack("{so}", "text", must_json(message_text(text)))));
    source_send(source, "conflict",
                must_json(json_pack("{so}", "text", must_json(message_text(text)))));
    free(text);
}

/* --- what the policy says --- */

static void carry_out(struct source *source, unsigned actions)
{
    if (actions & SOURCE_DO_REPORT_LOST) {
        source->lost = true; /* first: the rollback's result says so */
    }
    if (actions & SOURCE_DO_STOP) {
        stop(source);
    }
    if (actions & SOURCE_DO_JOURNAL) {
        write_record(source);
    }
    if (actions & SOURCE_DO_SEND_ABORT) {
        send_abort(source);
    }
    if (actions & SOURCE_DO_SEND_TAKEN_BACK) {
        source_send(source, "taken-back", NULL);
    }
    if (actions & SOURCE_DO_ROLL_BACK) {
        source_roll_back(source);
    }
    if (actions & SOURCE_DO_SEND_COMMIT) {
        send_commit(source);
    }
    if (actions & SOURCE_DO_SEND_QUERY) {
        source_send(source, "query",
                    must_json(json_pack("{sb}", "sending", source->mover != NULL)));
    }
    if (actions & SOURCE_DO_TAKE_BACK) {
        source_take_back(source);
    }
    if (actions & SOURCE_DO_SEND_TRY_AGAIN) {
        source_send(source, "try-again",
                    must_json(json_pack("{sI}", "refusal", (json_int_t)source->handoff.refusal)));
    }
    if (actions & SOURCE_DO_CLEAN) {
        clean(source);
    }
    if (actions & SOURCE_DO_SEND_DONE) {
        source_send(source, "done", NULL);
    }
    if (actions & SOURCE_DO_QUIT_QEMU) {
        quit_qemu(source);
    }
    if (actions & SOURCE_DO_REPORT_CONFLICT) {
        report_conflict(source);
    }
}

/* The clocks of the time before the commit have nothing to say any more, and from now on the destination is asked until it answers. */
static void entered(struct source *source)
{
    if (source->handoff.state == SOURCE_COMMITTED) {
        event_del(source->pause_clock);
        source->committed_ms = source->committed_ms ? source->committed_ms : clock_boottime_ms();
    }
    if (handoff_source_rolls_back(&source->handoff) && !source->failing) {
        source->failing = true;
        migration_phase(&source->migration, PHASE_ROLLBACK, "putting everything back: %s",
                        source->error.text);
    }
    if (!source->peer && !source->redial && handoff_source_wants_link(&source->handoff)) {
        source_redial(source);
    }
}

void source_handoff_begin(struct source *source, unsigned actions)
{
    entered(source);
    carry_out(source, actions);
}

static void pause_at(enum source_state state, const char *suffix)
{
    char name[64];

    snprintf(name, sizeof name, "source-%s%s", handoff_source_state_name(state), suffix);
    pause_point(name);
}

void source_handoff(struct source *source, enum source_input input, const struct handoff_word *word)
{
    enum source_state before = source->handoff.state;
    unsigned actions = handoff_source_step(&source->handoff, input, word, clock_boottime_ms());
    enum source_state after = source->handoff.state;

    if (after == before) {
        carry_out(source, actions);
        return;
    }
    pause_at(after, "");
    entered(source);
    carry_out(source, actions);
    pause_at(after, "-done");
}

void source_on_handoff_time(evutil_socket_t fd, short what, void *context)
{
    struct source *source = context;

    (void)fd;
    (void)what;
    if (!source->migration.result) {
        source_take_back_again(source);
        source_handoff(source, SOURCE_IN_TIME, NULL);
    }
}

void source_owned(struct source *source, const json_t *message)
{
    uint64_t resumed = (uint64_t)json_integer_value(json_object_get(message, "resumed_at"));
    int64_t offset;

    if (resumed && source->paused_ns && source->resumed_ns == 0 &&
        peer_clock(source->peer, &offset, &source->downtime_error_ns)) {
        source->resumed_ns = (uint64_t)((int64_t)resumed + offset);
        source_record_mark(source, "resumed");
    }
    if (!json_is_true(json_object_get(message, "running"))) {
        source->ended_there = source->lost = true;
        error_set(
            &source->error, "qemu-ended-there",
            "it was handed over to %s, where its QEMU has ended since: the guest powered off, or QEMU was killed "
            "or crashed",
            source->migration.peer);
    }
    source_handoff(source, SOURCE_IN_OWNED, NULL);
}

/*
 * The destination's doing of what policy/handoff.h decides.
 */
#include "destination_state.h"

#include "bandwidth.h"
#include "batch.h"
#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "journal.h"
#include "mover_link.h"
#include "peer.h"
#include "qmp.h"
#include "tree.h"
#include "undo.h"
#include "vm.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/pause_point.h"
#include "agent/policy/handoff_names.h"
#include "agent/policy/phase.h"

#include <errno.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU's default: five announcements, growing apart. */
#define ANNOUNCE_ROUNDS 5

static void journal_failed(struct destination *destination, const struct error *error)
{
    log_error("migration %s of %s: %s", destination->migration.id, destination->migration.vm,
              error->text);
    if (destination->error.id[0] == '\0') {
        destination->error = *error;
    }
    destination_handoff(destination, DESTINATION_IN_JOURNAL_FAILED, NULL);
}

static void on_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct destination *destination = context;

    (void)nanoseconds;
    if (error) {
        journal_failed(destination, error);
    } else {
        destination_handoff(destination, DESTINATION_IN_JOURNALED, NULL);
    }
}

static json_t *record_members(const struct destination *destination)
{
    switch (destination->handoff.record) {
    case DESTINATION_RECORD_LOADED: /* to be said again after a restart */
        return must_json(json_pack("{sI,ss}", "bytes", (json_int_t)destination->stream_bytes,
                                   "hash", destination->stream_hash));
    case DESTINATION_RECORD_REFUSED:
        return must_json(json_pack("{sI}", "refusal", (json_int_t)destination->handoff.refusals));
    case DESTINATION_RECORD_COMMITTED:
        return must_json(json_pack("{sb}", "forced", destination->handoff.forced));
    default:
        return NULL;
    }
}

static void write_record(struct destination *destination)
{
    struct error error;

    if (!journal_append(destination->journal,
                        handoff_destination_record_name(destination->handoff.record),
                        record_members(destination), &error)) {
        journal_failed(destination, &error);
        return;
    }
    journal_sync(destination->journal, on_synced, destination);
}

/* For records whose loss a restart makes good: what they say is found again by asking QEMU or the source. */
static void journal_only(struct destination *destination, enum destination_record record)
{
    struct error error;

    if (!journal_append(destination->journal, handoff_destination_record_name(record), NULL,
                        &error)) {
        log_warning("%s", error.text);
    }
}

static void send_loaded(struct destination *destination)
{
    uint8_t random[(HANDOFF_NONCE_SIZE - 1) / 2];
    char nonce[HANDOFF_NONCE_SIZE];

    if (destination->loaded_ms == 0) {
        destination->loaded_ms = clock_boottime_ms();
        migration_phase(&destination->migration, PHASE_LOADED,
                        "a whole copy of %s waits for %s to give up its own",
                        destination->migration.vm, destination->migration.peer);
    }
    if (!destination->peer) {
        return; /* the source dials again, and asks */
    }
    if (RAND_bytes(random, sizeof random) != 1) {
        log_error("the system gives no random bytes; %s waits", destination->migration.vm);
        return;
    }
    for (size_t i = 0; i < sizeof random; i++) {
        snprintf(nonce + 2 * i, 3, "%02x", random[i]);
    }
    handoff_destination_sent(&destination->handoff, nonce, clock_boottime_ms());
    destination_send(destination, "loaded",
                     must_json(json_pack("{ss,sI,ss}", "nonce", nonce, "bytes",
                                         (json_int_t)destination->stream_bytes, "hash",
                                         destination->stream_hash)));
}

/* --- running it --- */

static void on_status_after_cont(json_t *value, const struct error *error, void *context)
{
    struct destination *destination = context;

    if (error) {
        return; /* QEMU is gone: its pidfd decides */
    }
    if (json_is_true(json_object_get(value, "running")) || destination->resumed_ns) {
        destination_handoff(destination, DESTINATION_IN_RUNNING, NULL);
    } else {
        destination_handoff(destination, DESTINATION_IN_CONT_REFUSED, NULL);
    }
}

static void on_continued(json_t *value, const struct error *error, void *context)
{
    struct destination *destination = context;

    (void)value;
    if (!error) {
        destination_handoff(destination, DESTINATION_IN_RUNNING, NULL);
        return;
    }
    if (strcmp(error->id, "qmp-gone") == 0) {
        return; /* no answer is no refusal: QEMU's pidfd, or the next start of this daemon, decides */
    }
    destination->error = *error;
    qmp_execute(destination->qmp, "query-status", NULL, -1, on_status_after_cont, destination);
}

/* With its commit the source has said that it needs no word of the mover any more. */
static void end_mover(struct destination *destination)
{
    mover_link_free(destination->mover);
    destination->mover = NULL;
    destination_share_bandwidth(destination->migration.daemon);
}

static void run(struct destination *destination)
{
    migration_phase(&destination->migration, PHASE_COMMITTED,
                    destination->handoff.forced
                        ? "by an operator's decision, with %s off: running it"
                        : "%s has given it up: running it",
                    destination->migration.peer);
    qmp_execute(destination->qmp, "cont", NULL, -1, on_continued, destination);
    end_mover(destination);
}

static void show_sockets(struct destination *destination)
{
    for (size_t i = 0; i < destination->launch.socket_count; i++) {
        const struct launch_socket *socket = &destination->launch.sockets[i];

        if (rename(socket->private_path, socket->public_path) < 0) {
            log_warning("%s could not be put at its place %s: %s", socket->private_path,
                        socket->public_path, strerror(errno));
        }
    }
}

/* The VM is the operator's now, and so is its monitor: the next migration of it opens its own connection. */
static void on_announced(json_t *value, const struct error *error, void *context)
{
    struct destination *destination = context;

    (void)value;
    if (error) {
        log_warning("%s", error->text);
    }
    qmp_free(destination->qmp);
    destination->qmp = NULL;
    destination->qmp_ready = false;
}

/* The switches learn the guest's new place: every millisecond before that the guest is silent, though it runs. */
static void announce(struct destination *destination)
{
    if (!destination->qmp_ready) {
        return;
    }
    qmp_execute(destination->qmp, "announce-self",
                must_json(json_pack("{si,si,si,si}", "initial", 50, "max", 550, "rounds",
                                    ANNOUNCE_ROUNDS, "step", 100)),
                -1, NULL, NULL);
    qmp_execute(destination->qmp, "migrate-set-parameters",
                must_json(json_pack("{si}", "announce-rounds", ANNOUNCE_ROUNDS)), -1, on_announced,
                destination);
}

static void own(struct destination *destination)
{
    journal_only(destination, DESTINATION_RECORD_OWNED);
    destination->migration.decided = true;
    announce(destination);
    destination_settle(destination);
}

void destination_settle(struct destination *destination)
{
    undo_forget_all(destination->undo);
    show_sockets(destination);
    if (tree_remove(destination->run_dir) < 0) {
        log_warning("%s could not be removed: %s", destination->run_dir, strerror(errno));
    }
}

static void send_owned(struct destination *destination)
{
    destination_send(destination, "owned",
                     must_json(json_pack("{sb,sI}", "running", !destination->handoff.qemu_dead,
                                         "resumed_at", (json_int_t)destination->resumed_ns)));
}

static void send_refused(struct destination *destination)
{
    destination_send(
        destination, "refused",
        must_json(json_pack("{sI,sb,so}", "refusal", (json_int_t)destination->handoff.refusals,
                            "copy", !destination->handoff.qemu_dead, "text",
                            must_json(message_text(destination->error.text)))));
}

static void kill_qemu(struct destination *destination)
{
    if (destination->process) {
        process_watch_signal(destination->process, SIGKILL);
    } else if (destination->child) {
        child_signal(destination->child, SIGKILL);
    }
}

/* An operator gave the copy up: what it has written is kept, where nothing starts or removes it. */
static void keep_images(struct destination *destination)
{
    char *suffix = must_format(".given-up-%s", destination->migration.id);

    undo_keep_files(destination->undo, suffix);
    free(suffix);
}

static void on_stopped(json_t *value, const struct error *error, void *context)
{
    const struct destination *destination = context;

    (void)value;
    if (error) {
        log_error("%s could not be paused here: %s", destination->migration.vm, error->text);
    }
}

static void on_qmp_for_stop(const struct error *error, void *context)
{
    struct destination *destination = context;

    if (error) {
        on_stopped(NULL, error, destination);
        return;
    }
    destination->qmp_ready = true;
    qmp_execute(destination->qmp, "stop", NULL, -1, on_stopped, destination);
}

/* Its monitor was let go of when the VM became this host's. */
static void stop(struct destination *destination)
{
    if (destination->qmp_ready) {
        qmp_execute(destination->qmp, "stop", NULL, -1, on_stopped, destination);
    } else if (!destination->handoff.qemu_dead) {
        destination_qmp_open(destination, on_qmp_for_stop);
    }
}

static void report_conflict(struct destination *destination)
{
    char *text = must_format(
        "both %s and %s own %s: an operator started it at %s, and %s runs it too. The copy at %s is paused now: "
        "`watari resolve %s --give-up` at %s ends it",
        destination->migration.peer, destination->migration.daemon->host, destination->migration.vm,
        destination->migration.daemon->host, destination->migration.peer,
        destination->migration.daemon->host, destination->migration.id,
        destination->migration.daemon->host);

    log_error("conflict: %s", text);
    migration_publish(&destination->migration, "warning",
                      must_json(json_pack("{so}", "text", must_json(message_text(text)))));
    destination_send(destination, "conflict",
                     must_json(json_pack("{so}", "text", must_json(message_text(text)))));
    free(text);
}

static void carry_out(struct destination *destination, unsigned actions)
{
    if (actions & DESTINATION_DO_KILL_QEMU) {
        kill_qemu(destination);
    }
    if (actions & DESTINATION_DO_KEEP_IMAGES) {
        keep_images(destination);
    }
    if (actions & DESTINATION_DO_ABANDON) {
        destination_abandon_begin(destination);
    }
    if (actions & DESTINATION_DO_JOURNAL) {
        write_record(destination);
    }
    if (actions & DESTINATION_DO_SEND_LOADED) {
        send_loaded(destination);
    }
    if (actions & DESTINATION_DO_CONT) {
        run(destination);
    }
    if (actions & DESTINATION_DO_STOP) {
        stop(destination);
    }
    if (actions & DESTINATION_DO_SEND_OWNED) {
        send_owned(destination); /* first: the source's operator waits for it */
    }
    if (actions & DESTINATION_DO_OWN) {
        own(destination);
    }
    if (actions & DESTINATION_DO_SEND_REFUSED) {
        send_refused(destination);
    }
    if (actions & DESTINATION_DO_END) {
        journal_only(destination, DESTINATION_RECORD_DONE);
    }
    if (actions & DESTINATION_DO_REPORT_CONFLICT) {
        report_conflict(destination);
    }
    if (actions & DESTINATION_DO_SEND_DONE_ACK) {
        destination_send(destination, "done-ack", NULL);
        migration_phase(&destination->migration, PHASE_CLEANUP, "%s belongs to this host",
                        destination->migration.vm);
        destination_finish(destination, "done");
    }
}

static void pause_at(enum destination_state state, const char *suffix)
{
    char name[64];

    snprintf(name, sizeof name, "destination-%s%s", handoff_destination_state_name(state), suffix);
    pause_point(name);
}

void destination_handoff_begin(struct destination *destination, unsigned actions)
{
    carry_out(destination, actions);
}

void destination_handoff(struct destination *destination, enum destination_input input,
                         const struct handoff_word *word)
{
    enum destination_state before = destination->handoff.state;
    unsigned actions =
        handoff_destination_step(&destination->handoff, input, word, clock_boottime_ms());
    enum destination_state after = destination->handoff.state;

    if (after == before) {
        carry_out(destination, actions);
        return;
    }
    pause_at(after, "");
    carry_out(destination, actions);
    pause_at(after, "-done");
}

void destination_on_handoff_time(evutil_socket_t fd, short what, void *context)
{
    struct destination *destination = context;

    (void)fd;
    (void)what;
    if (!destination->migration.result && !destination->recovering) {
        destination_watch_link(destination);
        destination_abandon_again(destination);
        destination_handoff(destination, DESTINATION_IN_TIME, NULL);
    }
}

/*
 * The destination's doing of what policy/handoff.h decides, and taking it up again after a restart of the daemon.
 */
#include "destination_state.h"

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
#include "agent/policy/phase.h"

#include <errno.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU's default: five announcements, growing apart. */
#define ANNOUNCE_ROUNDS 5

static void on_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct destination *destination = context;

    (void)nanoseconds;
    if (error) {
        destination->error = *error;
    }
    destination_handoff(destination,
                        error ? DESTINATION_IN_JOURNAL_FAILED : DESTINATION_IN_JOURNALED, NULL);
}

static void journal_and_sync(struct destination *destination, const char *record)
{
    struct error error;

    if (!journal_append(destination->journal, record, NULL, &error)) {
        destination->error = error;
        destination_handoff(destination, DESTINATION_IN_JOURNAL_FAILED, NULL);
        return;
    }
    journal_sync(destination->journal, on_synced, destination);
}

/* For records whose loss a restart makes good: what they say is found again by asking QEMU or the source. */
static void journal_only(struct destination *destination, const char *record)
{
    struct error error;

    if (!journal_append(destination->journal, record, NULL, &error)) {
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

static void run(struct destination *destination)
{
    migration_phase(&destination->migration, PHASE_COMMITTED, "%s has given it up: running it",
                    destination->migration.peer);
    qmp_execute(destination->qmp, "cont", NULL, -1, on_continued, destination);
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

static void owned(struct destination *destination)
{
    destination->migration.decided = true;
    announce(destination);
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
        must_json(json_pack("{so}", "text", must_json(message_text(destination->error.text)))));
}

static void on_refused_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct destination *destination = context;

    (void)nanoseconds;
    if (error) {
        log_error(
            "%s; %s is not told that it was refused: it stays undecided until watarid is restarted here",
            error->text, destination->migration.peer);
        return;
    }
    send_refused(destination);
}

/* On stable storage before it is said: else a reboot here would forget it, and take the copy for one that may have run. */
static void journal_refused(struct destination *destination)
{
    struct error error;

    if (!journal_append(destination->journal, "refused", NULL, &error)) {
        on_refused_synced(&error, 0, destination);
        return;
    }
    journal_sync(destination->journal, on_refused_synced, destination);
}

void destination_handoff_do(struct destination *destination, unsigned actions)
{
    if (actions & DESTINATION_DO_ABANDON) {
        destination_abandon_begin(destination);
    }
    if (actions & DESTINATION_DO_JOURNAL_LOADED) {
        journal_and_sync(destination, "loaded");
    }
    if (actions & DESTINATION_DO_SEND_LOADED) {
        send_loaded(destination);
    }
    if (actions & DESTINATION_DO_JOURNAL_COMMITTED) {
        journal_and_sync(destination, "committed");
    }
    if (actions & DESTINATION_DO_CONT) {
        run(destination);
    }
    if (actions & DESTINATION_DO_SEND_OWNED) {
        send_owned(destination);
    }
    if (actions & DESTINATION_DO_JOURNAL_OWNED) {
        journal_only(destination, "owned");
        owned(destination);
    }
    if (actions & DESTINATION_DO_JOURNAL_REFUSED) {
        journal_refused(destination);
    } else if (actions & DESTINATION_DO_SEND_REFUSED) {
        send_refused(destination);
    }
    if (actions & DESTINATION_DO_JOURNAL_DONE) {
        journal_only(destination, "done");
    }
    if (actions & DESTINATION_DO_SEND_DONE_ACK) {
        destination_send(destination, "done-ack", NULL);
        migration_phase(&destination->migration, PHASE_CLEANUP, "%s belongs to this host",
                        destination->migration.vm);
        destination_finish(destination, "done");
    }
}

/* --- status --- */

static const char *awaited(const struct destination *destination)
{
    switch (destination->handoff.state) {
    case DESTINATION_PREPARING:
        return "the source's data";
    case DESTINATION_LOADING:
    case DESTINATION_COMMITTING:
        return "this host's journal";
    case DESTINATION_LOADED:
        return "the source's commit";
    case DESTINATION_STARTING:
        return "QEMU's answer to cont";
    case DESTINATION_OWNED:
        return "the source's word that it has tidied up";
    case DESTINATION_REFUSED:
        return "the source's word that it has taken the VM back";
    case DESTINATION_ABANDONED:
    case DESTINATION_ENDED:
        break;
    }
    return "nothing";
}

void destination_describe(const struct migration *migration, json_t *into)
{
    const struct destination *destination = (const struct destination *)migration;
    bool waits = destination->handoff.state == DESTINATION_LOADED ||
                 destination->handoff.state == DESTINATION_REFUSED;

    json_object_set_new(into, "awaited", must_json(json_string(awaited(destination))));
    json_object_set_new(into, "undecided", json_boolean(waits));
    json_object_set_new(into, "connected", json_boolean(destination->peer != NULL));
    json_object_set_new(
        into, "pause_age_ms",
        waits ? must_json(json_integer((json_int_t)(clock_boottime_ms() - destination->loaded_ms)))
              : json_null());
    json_object_set_new(into, "wire_bytes",
                        must_json(json_integer((json_int_t)(destination->sample.wire_sent +
                                                            destination->sample.wire_received))));
}

/*
 * Memory into the destination's QEMU, and what must be true before LOADED may be said: the load completed, both movers' hashes agree, no NBD
 * write can come any more (with an export still open QEMU accepts writes into the running guest's disk), and QEMU is no longer inmigrate.
 */
#include "destination_state.h"

#include "batch.h"
#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "mover_link.h"
#include "qmp.h"
#include "undo.h"
#include "unix_socket.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a dead mover had handed to its kernel comes within this time, or not at all. */
#define LAST_BYTES_MS 10000

static void on_incoming(const json_t *replies, const struct error *error, void *context)
{
    struct destination *destination = context;

    (void)replies;
    destination->batch = NULL;
    if (error) {
        destination_fail(destination, error);
        return;
    }
    destination->memory_ready = true;
    destination_send(destination, "memory-ready", NULL);
}

void destination_memory(struct destination *destination)
{
    struct order order = {.type = ORDER_MEMORY};
    struct error error;
    int pair[2];

    if (destination->memory_ready) {
        destination_send(destination, "memory-ready", NULL); /* the answer was lost with the link */
        return;
    }
    if (destination->memory_begun) {
        return; /* it will be said */
    }
    if (destination->mover_lost.id[0]) {
        return; /* the source is told, and says it again to the next one */
    }
    if (!destination->accepted || destination->batch) {
        destination_fail_text(destination, "peer-protocol", "%s begins memory out of turn",
                              destination->migration.peer);
        return;
    }
    destination->memory_begun = true;
    if (!unix_socket_pair(pair, &error)) {
        destination_fail(destination, &error);
        return;
    }
    migration_phase(&destination->migration, PHASE_MEMORY, "memory comes in");
    destination->batch = batch_new(destination->qmp, destination->undo);
    batch_add_fd(destination->batch, "watari-stream", pair[0]);
    batch_add(destination->batch, "migrate-incoming",
              must_json(json_pack("{ss}", "uri", "fd:watari-stream")));
    /* migrate-incoming has taken the descriptor over. */
    batch_add_forget(destination->batch, "fd:watari-stream");
    mover_link_send(destination->mover, &order, pair[1]);
    batch_run(destination->batch, on_incoming, destination);
}

/* --- everything is there? --- */

static void on_settled(const json_t *replies, const struct error *error, void *context)
{
    struct destination *destination = context;
    size_t count = json_array_size(replies);
    const char *status;

    destination->batch = NULL;
    if (error) {
        destination_fail(destination, error);
        return;
    }
    status = json_string_value(json_object_get(json_array_get(replies, count - 1), "status"));
    if (json_array_size(json_array_get(replies, count - 2)) > 0) {
        destination_fail_text(destination, "exports-left",
                              "QEMU still exports disks after their exports were ended");
        return;
    }
    if (!status || strcmp(status, "inmigrate") == 0) {
        destination_fail_text(destination, "not-loaded",
                              "QEMU says that the load completed, but is still in the state %s",
                              status ? status : "?");
        return;
    }
    destination_handoff(destination, DESTINATION_IN_LOADED, NULL);
}

static void settle_if_ready(struct destination *destination)
{
    if (!destination->completed || !destination->sent || !destination->mover_done ||
        !destination->exports_gone || destination->batch ||
        destination->handoff.state != DESTINATION_PREPARING) {
        return;
    }
    if (destination->sent_bytes != destination->stream_bytes ||
        strcmp(destination->sent_hash, destination->stream_hash) != 0) {
        destination_fail_text(
            destination, "hash",
            "the memory stream differs: %llu bytes, hash %s sent; %llu bytes, hash %s arrived",
            (unsigned long long)destination->sent_bytes, destination->sent_hash,
            (unsigned long long)destination->stream_bytes, destination->stream_hash);
        return;
    }
    /* Our mover lives on until the commit: its last acknowledgements may still be on their way. */
    destination->batch = batch_new(destination->qmp, destination->undo);
    batch_add(destination->batch, "query-block-exports", NULL);
    batch_add(destination->batch, "query-status", NULL);
    batch_run(destination->batch, on_settled, destination);
}

/* --- exports away --- */

static void on_nbd_stopped(const json_t *replies, const struct error *error, void *context)
{
    struct destination *destination = context;

    (void)replies;
    destination->batch = NULL;
    if (error) {
        destination_fail(destination, error);
        return;
    }
    destination->exports_gone = true;
    settle_if_ready(destination);
}

static void stop_nbd(struct destination *destination)
{
    destination->batch = batch_new(destination->qmp, destination->undo);
    for (size_t i = 0; i < destination->carried; i++) {
        char id[32];

        snprintf(id, sizeof id, "watari-%zu", i);
        batch_add_closefd(destination->batch, id);
    }
    batch_add(destination->batch, "nbd-server-stop", NULL);
    batch_run(destination->batch, on_nbd_stopped, destination);
}

static void on_export_del(json_t *value, const struct error *error, void *context)
{
    (void)value;
    if (error) {
        destination_fail(context, error);
    }
}

static void end_exports(struct destination *destination)
{
    destination->quiesced = true;
    destination->exports_left = (uint32_t)destination->carried;
    if (destination->exports_left == 0) {
        stop_nbd(destination);
        return;
    }
    for (size_t i = 0; i < destination->carried; i++) {
        char id[32];

        snprintf(id, sizeof id, "watari-%zu", i);
        qmp_execute(destination->qmp, "block-export-del",
                    must_json(json_pack("{ssss}", "id", id, "mode", "hard")), -1, on_export_del,
                    destination);
    }
}

static void on_export_deleted(struct destination *destination, const char *id)
{
    if (strncmp(id, "watari-", 7) != 0) {
        return;
    }
    if (destination->exports_left == 0) {
        destination_fail_text(destination, "export-ended", "somebody else ended the export %s", id);
    } else if (--destination->exports_left > 0) {
        return;
    } else if (!destination->replacing) {
        stop_nbd(destination);
    } else if (!destination->batch) {
        destination_exports_again(destination);
    }
}

/* --- what comes in --- */

static void stream_over(struct destination *destination, const struct report_memory *report)
{
    struct order quiesce = {.type = ORDER_QUIESCE};

    destination->mover_done = true;
    destination->stream_bytes = report->bytes;
    for (size_t i = 0; i < ORDERS_HASH_SIZE; i++) {
        snprintf(destination->stream_hash + 2 * i, 3, "%02x", report->hash[i]);
    }
    /* The source lets its QEMU finish only after the last disk pass was acknowledged: no extent can follow the stream's end. */
    mover_link_send(destination->mover, &quiesce, -1);
}

void destination_report(const struct report *report, void *context)
{
    struct destination *destination = context;

    switch (report->type) {
    case REPORT_SAMPLE:
        destination->sample = report->sample;
        break;
    case REPORT_FAILED:
        if (destination->later.id[0]) {
            struct error later = destination->later; /* QEMU's own word for it */

            destination_fail(destination, &later);
            break;
        }
        destination_fail_text(destination, report->failure.id, "the mover at %s failed: %s",
                              destination->migration.daemon->host, report->failure.text);
        break;
    case REPORT_LANE_LOST:
        /* The source goes on with new ones, or says why not. */
        log_info("migration %s of %s: lane %u from %s was lost: %s", destination->migration.id,
                 destination->migration.vm, report->lane.index, destination->migration.peer,
                 report->lane.text);
        break;
    case REPORT_RESUMED:
        destination_mover_resumed(destination);
        break;
    case REPORT_MEMORY_DONE:
        stream_over(destination, &report->memory);
        break;
    case REPORT_QUIESCED:
        end_exports(destination);
        break;
    default:
        break; /* LANE_UP: the source counts */
    }
}

void destination_sent(struct destination *destination, const json_t *message)
{
    destination->sent = true;
    destination->sent_bytes = (uint64_t)json_integer_value(json_object_get(message, "bytes"));
    snprintf(destination->sent_hash, sizeof destination->sent_hash, "%s",
             json_string_value(json_object_get(message, "hash")));
    settle_if_ready(destination);
}

void destination_queried(struct destination *destination, bool sending)
{
    if (destination->handoff.state != DESTINATION_PREPARING || sending || destination->sent) {
        destination_handoff(destination, DESTINATION_IN_LINK_UP, NULL);
        return;
    }
    if (destination->mover_done) {
        /* Our mover has compared the stream with the hash at its end: whole without the source's word of it. */
        destination->sent = true;
        destination->sent_bytes = destination->stream_bytes;
        memcpy(destination->sent_hash, destination->stream_hash, sizeof destination->sent_hash);
        settle_if_ready(destination);
    } else if (destination->sourceless_ms == 0) {
        destination->sourceless_ms = clock_boottime_ms();
    } else if (clock_boottime_ms() - destination->sourceless_ms > LAST_BYTES_MS) {
        destination_fail_text(destination, "source-restarted",
                              "%s was started again before all of %s's memory had left it",
                              destination->migration.peer, destination->migration.vm);
    }
}

static void on_migration_status(struct destination *destination, const char *status)
{
    if (strcmp(status, "completed") == 0) {
        destination->completed = true;
        settle_if_ready(destination);
    } else if (strcmp(status, "failed") == 0) {
        struct error error;

        error_set(&error, "load-failed",
                  "the destination's QEMU could not load the VM (its log %s has more)",
                  destination->log_path);
        if (!destination_qemu_failed(destination, false, &error)) {
            destination_fail(destination, &error);
        }
    }
}

/* RESUME before COMMITTED: somebody's `cont` from outside would make two copies. That QEMU must not live. */
static void resumed(struct destination *destination)
{
    enum destination_state state = destination->handoff.state;

    destination->resumed_ns = clock_monotonic_ns();
    if (state == DESTINATION_PREPARING || state == DESTINATION_LOADING ||
        state == DESTINATION_LOADED || state == DESTINATION_REFUSED) {
        error_set(
            &destination->error, "resumed-early",
            "somebody resumed the copy of %s at %s before it was handed over; that copy was killed",
            destination->migration.vm, destination->migration.daemon->host);
        log_error("%s", destination->error.text);
        destination_handoff(destination, DESTINATION_IN_RESUMED_EARLY, NULL);
    }
}

void destination_event(struct destination *destination, const char *name, json_t *data)
{
    const char *text;

    if (destination->failing || destination->migration.result) {
        return;
    }
    if (strcmp(name, "MIGRATION") == 0 &&
        (text = json_string_value(json_object_get(data, "status")))) {
        on_migration_status(destination, text);
    } else if (strcmp(name, "BLOCK_EXPORT_DELETED") == 0 &&
               (text = json_string_value(json_object_get(data, "id")))) {
        on_export_deleted(destination, text);
    } else if (strcmp(name, "RESUME") == 0) {
        resumed(destination);
    }
}

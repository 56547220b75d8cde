/*
 * The source's way from an authenticated peer to open lanes and exports: journal, offer, accept, mover, lanes, NBD server.
 */
#include "source_state.h"

#include "batch.h"
#include "clock.h"
#include "daemon.h"
#include "dial.h"
#include "host_memory.h"
#include "journal.h"
#include "mover_link.h"
#include "offer.h"
#include "peer.h"
#include "qmp.h"
#include "undo.h"
#include "unix_socket.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/pause_point.h"
#include "agent/common/process.h"
#include "agent/policy/page_budget.h"
#include "agent/policy/phase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The destination makes images and starts a QEMU in this time: seconds, but on a busy host with slow disks. */
#define ACCEPT_MS 120000
#define LANES_MS 15000

static void add_disk(struct source *source, const struct inspected_disk *inspected)
{
    struct source_disk *disk = &source->disks[source->disk_count];
    struct stat status;

    disk->source = source;
    disk->index = (uint32_t)source->disk_count++;
    disk->device = must_copy(inspected->device);
    disk->node = must_copy(inspected->node);
    disk->path = must_copy(inspected->path);
    disk->size = inspected->size;
    disk->nbd_fd = -1;
    if (stat(disk->path, &status) == 0 && S_ISREG(status.st_mode)) {
        disk->mark = must_format("%s.watari-%s-moved", disk->path, source->migration.id);
    }
}

/* The offer lists every disk; only the writable ones are carried, so that an index means the same on both sides. */
static void list_disks(struct source *source)
{
    source->disks = must_alloc((source->inspection.disk_count + 1) * sizeof *source->disks);
    for (size_t i = 0; i < source->inspection.disk_count; i++) {
        if (!source->inspection.disks[i].read_only) {
            add_disk(source, &source->inspection.disks[i]);
        }
    }
}

static void send_offer(struct source *source)
{
    char version[QMP_VERSION_SIZE];
    json_t *offer;

    source->page_memory_bytes =
        page_budget(source->migration.daemon->config.page_cache, source->inspection.memory_bytes,
                    host_memory_available());
    offer = offer_build(&source->vm, &source->inspection, &source->request,
                        qmp_version_text(source->qmp, version), source->lanes,
                        source->page_memory_bytes);
    if (!offer) {
        source->refused = true;
        source_fail_text(source, OFFER_NOT_UTF8, OFFER_NOT_UTF8_TEXT);
        return;
    }
    migration_phase(&source->migration, PHASE_PREPARE, "%s makes disks and starts its QEMU",
                    source->migration.peer);
    source_limit(source, "preparing the destination", ACCEPT_MS);
    source->offered = true;
    source_send(source, "offer", offer);
}

static void on_begin_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct source *source = context;

    if (source->failing) {
        return;
    }
    if (error) {
        source_fail(source, error);
        return;
    }
    source->journal_sync_ns = nanoseconds;
    send_offer(source);
}

static json_t *begin_record(const struct source *source)
{
    json_t *disks = must_json(json_array());
    char boot_id[PROCESS_BOOT_ID_SIZE] = "";

    process_boot_id(boot_id);
    for (size_t i = 0; i < source->disk_count; i++) {
        json_array_append_new(disks, must_json(json_pack("{ss,ss?}", "path", source->disks[i].path,
                                                         "mark", source->disks[i].mark)));
    }
    return must_json(json_pack(
        "{ss,sI,ss,ss,ss,ss,ss,si,sI,ss,sI,sb,so}", "side", "source", "began_s",
        (json_int_t)migration_begins(source->migration.daemon), "migration", source->migration.id,
        "vm", source->migration.vm, "peer", source->migration.peer, "qmp", source->vm.qmp_path,
        "mode", source->request.mode == MIGRATION_QUICK ? "quick" : "live", "pid",
        (int)source->vm.pid, "start_time", (json_int_t)source->vm.start_time, "boot_id", boot_id,
        "reconnect_timeout_ms", (json_int_t)source->request.reconnect_timeout_ms, "trial",
        source->request.trial, "disks", disks));
}

void source_prepare_begin(struct source *source)
{
    struct daemon *daemon = source->migration.daemon;
    struct error error;

    list_disks(source);
    source->lanes = offer_lanes(&source->request);
    source->journal_path =
        must_format("%s/journal/%s.source", daemon->config.state_dir, source->migration.id);
    source->journal = journal_create(daemon->syncer, source->journal_path, &error);
    if (!source->journal) {
        source_fail(source, &error);
        return;
    }
    source->undo = undo_new(daemon->base, source->journal);
    if (!journal_append(source->journal, "begin", begin_record(source), &error)) {
        source_fail(source, &error);
        return;
    }
    journal_sync(source->journal, on_begin_synced, source);
}

/* --- the mover --- */

static void on_report(const struct report *report, void *context)
{
    struct source *source = context;

    switch (report->type) {
    case REPORT_SAMPLE:
        source_take_sample(source, &report->sample);
        source_note_link(source);
        if (source->request.trial) {
            source_trial_note(source);
        }
        return;
    case REPORT_FAILED:
        source_fail_text(source, report->failure.id, "the mover of this host failed: %s",
                         report->failure.text);
        return;
    case REPORT_LANE_LOST:
        source_lane_lost(source, &report->lane);
        return;
    case REPORT_RESUMED:
        source_mover_resumed(source);
        return;
    default:
        break;
    }
    if (source->failing) {
        return;
    }
    switch (report->type) {
    case REPORT_LANE_UP:
        source_lane_up(source);
        break;
    case REPORT_PASS_DONE:
        source_pass_done(source, &report->pass);
        break;
    case REPORT_VERIFIED:
        source_verified(source, &report->verified);
        break;
    case REPORT_READS_HELD:
        source_reads_held(source);
        break;
    case REPORT_HELD:
        source_memory_held(source);
        break;
    case REPORT_LAST_HELD:
        source_memory_last_held(source);
        break;
    case REPORT_MEMORY_SENT:
        source_memory_sent(source, &report->memory);
        break;
    case REPORT_MEMORY_DONE:
        source_memory_done(source);
        break;
    default:
        source_fail_text(source, "mover-failed",
                         "the mover of this host reports what a source cannot (%d)",
                         (int)report->type);
        break;
    }
}

static void on_mover_ended(const struct error *error, void *context)
{
    struct source *source = context;

    if (!source->stream_done) {
        source_mover_lost(source, error);
    }
}

static uint64_t accepted_page_cache(const json_t *accept)
{
    return (uint64_t)json_integer_value(json_object_get(accept, "page_cache_bytes"));
}

bool source_start_mover(struct source *source)
{
    static const struct mover_handlers handlers = {on_report, on_mover_ended};
    struct order begin = {
        .type = ORDER_BEGIN,
        .begin = {.role = ORDER_SOURCE,
                  .lanes = source->lanes,
                  .level = source->request.compress_auto ? ORDER_LEVEL_AUTO : source->request.level,
                  .flags =
                      (source->request.verify ? ORDER_FLAG_VERIFY : 0u) |
                      (pause_point_ahead(PAUSE_POINT_DEVICE_STATE) ? ORDER_FLAG_HOLD_LAST : 0u),
                  .in_flight_ms = source->migration.daemon->config.in_flight_ms,
                  .patience_ms = source->migration.daemon->config.patience_ms,
                  .page_memory_bytes = source->page_memory_bytes,
                  .page_cache_bytes = accepted_page_cache(source->accepted),
                  .key_bytes = source->migration.daemon->config.key_bytes}};
    struct error error;

    source->mover = mover_link_new(source->migration.daemon, &handlers, source, &error);
    if (!source->mover) {
        source_fail(source, &error);
        return false;
    }
    source_order(source, &begin, -1);
    for (size_t i = 0; i < source->disk_count; i++) {
        struct order order = {.type = ORDER_DISK,
                              .disk = {.disk = (uint32_t)i,
                                       .size = source->disks[i].size,
                                       .reads_as_zero = source->disks[i].reads_as_zero}};

        source_order(source, &order, -1);
    }
    source_mover_begins(source);
    return true;
}

/* The accept's disks are those of the offer, in its order; what is read-only there is not carried. */
static bool take_disks(struct source *source, const json_t *accept)
{
    const json_t *list = json_object_get(accept, "disks");
    size_t carried = 0;

    if (json_array_size(list) != source->inspection.disk_count) {
        return false;
    }
    for (size_t i = 0; i < source->inspection.disk_count; i++) {
        if (!source->inspection.disks[i].read_only) {
            source->disks[carried++].reads_as_zero =
                json_is_true(json_object_get(json_array_get(list, i), "reads_as_zero"));
        }
    }
    return true;
}

void source_accepted(struct source *source, json_t *accept)
{
    const json_t *tickets = json_object_get(accept, "tickets");

    if (source->accepted || json_array_size(tickets) != source->lanes ||
        accepted_page_cache(accept) > source->page_memory_bytes || !take_disks(source, accept)) {
        source_fail_text(source, "peer-protocol",
                         "%s accepted something else than what was offered",
                         source->migration.peer);
        return;
    }
    source->accepted = json_incref(accept);
    if (!source_start_mover(source)) {
        return;
    }
    source_limit(source, "opening the lanes", LANES_MS);
    source_open_lanes(source, tickets);
    /* The rest is journaled with COMMITTED; keys are not for the disk. */
    json_object_del(source->accepted, "tickets");
}

/* --- exports --- */

int source_nbd_connect(struct source *source, struct batch *batch, const char *name,
                       struct error *error)
{
    char *path = must_format("%s/nbd.sock", source->run_dir);
    int fd = unix_socket_connect(path, error);
    int parked;

    free(path);
    if (fd < 0) {
        return -1;
    }
    /* With an iothread QEMU 7.2 aborts when a client leaves: its own copy of our end keeps the connection from ever being left. */
    parked = unix_socket_duplicate(fd, error);
    if (parked < 0) {
        close(fd);
        return -1;
    }
    batch_add_fd(batch, name, parked);
    return fd;
}

static void on_nbd_started(const json_t *replies, const struct error *error, void *context)
{
    struct source *source = context;

    (void)replies;
    source->batch = NULL;
    if (error) {
        struct error copy = *error;

        if (strstr(copy.text, "NBD server already running")) {
            source->refused = true;
            error_set(
                &copy, "nbd-server-busy",
                "an NBD server runs in this QEMU already (a backup tool?); watari needs it for itself and does not stop what it did not start");
        }
        source_fail(source, &copy);
        return;
    }
    source_bulk_begin(source);
}

void source_start_nbd(struct source *source)
{
    char *path = must_format("%s/nbd.sock", source->run_dir);
    char *key = must_format("directory:%s", source->run_dir);
    struct error error;
    int fd = -1;

    source->nbd_started = true;
    if (!undo_add(source->undo, key, must_json(json_pack("{ss}", "tree", source->run_dir)),
                  &error)) {
        source_fail(source, &error);
    } else if (mkdir(source->run_dir, 0700) < 0 && errno != EEXIST) {
        source_fail_text(source, "run-dir", "%s cannot be made: %s", source->run_dir,
                         strerror(errno));
    } else if ((fd = unix_socket_listen(path, &error)) < 0) {
        source_fail(source, &error);
    } else {
        source->batch = batch_new(source->qmp, source->undo);
        batch_add_fd(source->batch, "watari-nbd", fd);
        batch_add_change(source->batch, "nbd-server",
                         must_json(json_pack("{ss}", "qmp", "nbd-server-stop")), "nbd-server-start",
                         must_json(json_pack("{s{sss{ss}}}", "addr", "type", "fd", "data", "str",
                                             "watari-nbd")));
        /* nbd-server-start has taken the descriptor over. */
        batch_add_forget(source->batch, "fd:watari-nbd");
        batch_run(source->batch, on_nbd_started, source);
    }
    free(path);
    free(key);
}

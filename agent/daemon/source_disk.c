/*
 * The disks at the source. Each has one export that stays open for the whole migration ("disk<i>": the bulk pass reads it, and it keeps
 * the disk from being resized), and one per dirty pass ("pass<i>", with the bitmap of that pass). All by QMP here; the bytes go through
 * the mover.
 *
 *   bitmap 0 added, export "disk<i>"  ->  pass 0 (allocated extents)
 *   transaction: bitmap n+1 added, bitmap n disabled; export "pass<i>" with bitmap n  ->  pass n+1 (dirty extents)
 *   pass done: export deleted (hard, awaited), the mover's connection released, descriptor and bitmap n dropped
 *
 * Both drain disks, and so happen while the mover begins nothing (source_reads.c).
 *
 * The last pass, in the pause, only disables its bitmap.
 *
 * A mover that dies leaves connections that QEMU must not see end (source_nbd_connect()). A pass that it had under way gets a new export
 * and a new connection; the one that stays open is only needed by the bulk pass, and stays as it is after that.
 */
#include "source_state.h"

#include "batch.h"
#include "clock.h"
#include "qmp.h"
#include "undo.h"

#include "agent/common/must.h"
#include "agent/policy/granularity.h"
#include "agent/policy/phase.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An export that nobody of ours ended: QEMU's end follows within this time, if that is the reason. */
#define EXPORT_ENDED_MS 2000
/* A pass of less is mostly round trips and a flush: it says nothing of how fast data goes. */
#define RATE_WORTH_BYTES (4u << 20)

static uint64_t granularity(const struct source *source)
{
    uint64_t total = 0;

    for (size_t i = 0; i < source->disk_count; i++) {
        total += source->disks[i].size;
    }
    return granularity_of(total);
}

static void add_bitmap(struct batch *batch, const struct source_disk *disk, json_t *actions)
{
    char *name = must_format("watari-%u", disk->bitmap);
    char *key = must_format("bitmap:%u:%u", disk->index, disk->bitmap);
    json_t *what = must_json(json_pack("{sss{ssss}}", "qmp", "block-dirty-bitmap-remove",
                                       "arguments", "node", disk->node, "name", name));
    json_t *arguments = must_json(json_pack("{ss,ss,sI}", "node", disk->node, "name", name,
                                            "granularity", (json_int_t)granularity(disk->source)));

    if (actions) {
        /* In front: the disabling of the one before is in ACTIONS already. */
        json_array_insert_new(
            actions, 0,
            must_json(json_pack("{ss,so}", "type", "block-dirty-bitmap-add", "data", arguments)));
        batch_add_change(batch, key, what, "transaction",
                         must_json(json_pack("{sO}", "actions", actions)));
    } else {
        batch_add_change(batch, key, what, "block-dirty-bitmap-add", arguments);
    }
    free(name);
    free(key);
}

static void add_export(struct batch *batch, const struct source_disk *disk, const char *kind,
                       const char *id, const char *bitmap)
{
    char *name = must_format("%s%u", kind, disk->index);
    char *key = must_format("export:%s", id);
    json_t *arguments = must_json(json_pack("{ss,ss,ss,ss,sb}", "id", id, "type", "nbd",
                                            "node-name", disk->node, "name", name, "writable", 0));

    if (bitmap) {
        json_object_set_new(arguments, "bitmaps", must_json(json_pack("[s]", bitmap)));
    }
    batch_add_change(batch, key, must_json(json_pack("{ss}", "export", id)), "block-export-add",
                     arguments);
    free(name);
    free(key);
}

/* The pass that disk->bitmap numbers: of the bulk pass what is left, of another one what is in the bitmap that was frozen for it. */
static void order_pass(struct source_disk *disk)
{
    bool bulk = disk->bitmap == 0;
    const char *kind = bulk ? "disk" : "pass";
    struct order order = {
        .type = ORDER_PASS,
        .pass = {.disk = disk->index, .pass = disk->bitmap, .from = bulk ? disk->reached : 0}};

    if (bulk) {
        disk->bulk_mover = disk->source->movers;
    } else {
        disk->pass_mover = disk->source->movers;
        snprintf(order.pass.context, sizeof order.pass.context, "qemu:dirty-bitmap:watari-%u",
                 disk->frozen);
    }
    snprintf(order.pass.export_name, sizeof order.pass.export_name, "%s%u", kind, disk->index);
    disk->state = PASS_RUNNING;
    disk->pass_started_ns = clock_monotonic_ns();
    source_order(disk->source, &order, disk->nbd_fd);
    disk->nbd_fd = -1;
}

/* --- bulk --- */

static void on_opened(const json_t *replies, const struct error *error, void *context)
{
    struct source_disk *disk = context;
    struct source *source = disk->source;

    (void)replies;
    disk->batch = NULL;
    if (error) {
        source_fail(source, error);
        return;
    }
    order_pass(disk);
}

static void open_disk(struct source_disk *disk)
{
    struct source *source = disk->source;
    char *id = must_format("watari-keep-%u", disk->index);
    struct error error;

    disk->batch = batch_new(source->qmp, source->undo);
    disk->nbd_fd = source_nbd_connect(source, disk->batch, id, &error);
    if (disk->nbd_fd < 0) {
        source_fail(source, &error);
    } else {
        disk->state = PASS_STARTING;
        add_bitmap(disk->batch, disk, NULL);
        add_export(disk->batch, disk, "disk", id, NULL);
        batch_run(disk->batch, on_opened, disk);
    }
    free(id);
}

void source_bulk_begin(struct source *source)
{
    struct convergence_limits limits;
    uint64_t allocated = 0;

    for (size_t i = 0; i < source->inspection.disk_count; i++) {
        allocated +=
            source->inspection.disks[i].read_only ? 0 : source->inspection.disks[i].allocated;
    }
    source->bulk_bytes = allocated;
    source->bulk_began_ns = clock_monotonic_ns();
    source->trial.prepare_ms = clock_boottime_ms() - source->migration.started_ms;
    limits = source_convergence_limits(source);
    convergence_init(&source->convergence, &limits);
    migration_phase(&source->migration, PHASE_BULK, "%zu disk%s, %.0f MiB allocated",
                    source->disk_count, source->disk_count == 1 ? "" : "s",
                    (double)allocated / 1048576.0);
    for (size_t i = 0; i < source->disk_count && !source->failing; i++) {
        open_disk(&source->disks[i]);
    }
    source->bulk_started = true;
}

/* --- passes --- */

static void on_pass_started(const json_t *replies, const struct error *error, void *context)
{
    struct source_disk *disk = context;

    (void)replies;
    disk->batch = NULL;
    if (error) {
        source_fail(disk->source, error);
        return;
    }
    disk->bitmap = disk->frozen + 1;
    order_pass(disk);
    source_reads_go(disk->source);
}

static void exchange_bitmaps(void *context)
{
    struct source_disk *disk = context;
    struct source *source = disk->source;
    char *id = must_format("watari-pass-%u", disk->index);
    char *frozen = must_format("watari-%u", disk->bitmap);
    json_t *actions = must_json(json_pack("[{ss,s{ssss}}]", "type", "block-dirty-bitmap-disable",
                                          "data", "node", disk->node, "name", frozen));
    struct error error;

    disk->batch = batch_new(source->qmp, source->undo);
    disk->nbd_fd = source_nbd_connect(source, disk->batch, id, &error);
    if (disk->nbd_fd < 0) {
        source_fail(source, &error);
    } else {
        if (disk->last) {
            batch_add(disk->batch, "transaction", must_json(json_pack("{sO}", "actions", actions)));
        } else {
            disk->bitmap++;
            add_bitmap(disk->batch, disk, actions);
        }
        add_export(disk->batch, disk, "pass", id, frozen);
        batch_run(disk->batch, on_pass_started, disk);
    }
    json_decref(actions);
    free(frozen);
    free(id);
}

void source_start_pass(struct source_disk *disk, bool last)
{
    disk->last = last;
    disk->frozen = disk->bitmap;
    disk->state = PASS_STARTING;
    source_reads_hold(disk->source, exchange_bitmaps, disk);
}

/* --- the end of a pass --- */

static void on_pass_cleaned(const json_t *replies, const struct error *error, void *context)
{
    struct source_disk *disk = context;
    struct source *source = disk->source;

    (void)replies;
    disk->batch = NULL;
    if (error) {
        source_fail(source, error);
        return;
    }
    disk->state = PASS_IDLE;
    if (!disk->last) {
        source_last_passes(
            source); /* in the pause; else the tick looks whether another is needed, or memory may begin */
        return;
    }
    disk->last_done = true;
    for (size_t i = 0; i < source->disk_count; i++) {
        if (!source->disks[i].last_done) {
            return;
        }
    }
    source_disks_sent(source);
}

/* MOVER is the one that has it: those before are gone, and it with them. */
static void release_connection(struct source_disk *disk, uint32_t pass, uint32_t mover)
{
    struct order order = {.type = ORDER_RELEASE, .pass = {.disk = disk->index, .pass = pass}};

    if (mover != disk->source->movers) {
        return;
    }
    source_order(disk->source, &order, -1);
}

/* The export of the pass is gone, so its connection may be left, and its bitmap is no longer in use. */
static void clean_pass(struct source_disk *disk)
{
    struct source *source = disk->source;
    char *id = must_format("watari-pass-%u", disk->index);
    char *key = must_format("export:%s", id);
    char *bitmap = must_format("watari-%u", disk->frozen);
    char *bitmap_key = must_format("bitmap:%u:%u", disk->index, disk->frozen);

    release_connection(disk, disk->frozen + 1, disk->pass_mover);
    disk->batch = batch_new(source->qmp, source->undo);
    batch_add_forget(disk->batch, key);
    batch_add_closefd(disk->batch, id);
    batch_add(disk->batch, "block-dirty-bitmap-remove",
              must_json(json_pack("{ssss}", "node", disk->node, "name", bitmap)));
    batch_add_forget(disk->batch, bitmap_key);
    batch_run(disk->batch, on_pass_cleaned, disk);
    free(id);
    free(key);
    free(bitmap);
    free(bitmap_key);
}

static void on_export_del(json_t *value, const struct error *error, void *context)
{
    (void)value;
    if (error) {
        source_fail(context, error);
    }
}

static void delete_export(struct source *source, const char *kind, uint32_t index)
{
    char *id = must_format("watari-%s-%u", kind, index);

    qmp_execute(source->qmp, "block-export-del",
                must_json(json_pack("{ssss}", "id", id, "mode", "hard")), -1, on_export_del,
                source);
    free(id);
}

static void end_pass(void *context)
{
    struct source_disk *disk = context;

    delete_export(disk->source, "pass", disk->index);
}

void source_pass_done(struct source *source, const struct report_pass *report)
{
    struct source_disk *disk = &source->disks[report->disk];

    if (report->disk >= source->disk_count || disk->state != PASS_RUNNING) {
        source_fail_text(source, "mover-failed", "the mover reports a pass that does not run");
        return;
    }
    disk->passes++;
    disk->data_bytes += report->data_bytes;
    source->mover_disk_bytes += report->data_bytes;
    disk->flush_ns = report->flush_ns;
    if (report->pass > 0) {
        source_note_pass(source, report->data_bytes, clock_monotonic_ns() - disk->pass_started_ns);
    }
    if (report->data_bytes >= RATE_WORTH_BYTES) {
        source->disk_rate = (uint64_t)((double)report->data_bytes * 1e9 /
                                       (double)(clock_monotonic_ns() - disk->pass_started_ns));
    }
    if (report->pass == 0) {
        disk->state = PASS_IDLE; /* its export stays */
        return;
    }
    disk->state = PASS_ENDING;
    source_reads_hold(source, end_pass, disk);
}

/* --- once more, for a new mover --- */

/* The id of the export that the pass under way reads; free() it. */
static char *pass_export(const struct source_disk *disk)
{
    return must_format("watari-%s-%u", disk->bitmap == 0 ? "keep" : "pass", disk->index);
}

static void on_reopened(const json_t *replies, const struct error *error, void *context)
{
    struct source_disk *disk = context;

    (void)replies;
    disk->batch = NULL;
    if (error) {
        source_fail(disk->source, error);
        return;
    }
    order_pass(disk);
}

/* Its old export is gone, and the descriptor that was parked for it. */
static void reopen(struct source_disk *disk)
{
    struct source *source = disk->source;
    bool bulk = disk->bitmap == 0;
    char *id = pass_export(disk);
    char *frozen = must_format("watari-%u", disk->frozen);
    struct error error;

    disk->batch = batch_new(source->qmp, source->undo);
    disk->nbd_fd = source_nbd_connect(source, disk->batch, id, &error);
    if (disk->nbd_fd < 0) {
        source_fail(source, &error);
    } else {
        add_export(disk->batch, disk, bulk ? "disk" : "pass", id, bulk ? NULL : frozen);
        batch_run(disk->batch, on_reopened, disk);
    }
    free(id);
    free(frozen);
}

static void reopen_if_gone(struct source_disk *disk)
{
    if (disk->export_gone && !disk->batch) {
        char *id = pass_export(disk);
        char *key = must_format("export:%s", id);

        undo_forget(disk->source->undo, key);
        reopen(disk);
        free(id);
        free(key);
    }
}

static void on_export_told(const json_t *replies, const struct error *error, void *context)
{
    struct source_disk *disk = context;

    (void)replies;
    disk->batch = NULL;
    if (error) {
        source_fail(disk->source, error);
        return;
    }
    reopen_if_gone(disk);
    disk->source->exports_of_the_dead--;
    source_reads_turn(disk->source);
}

/*
 * With answers that the dead mover has not read QEMU waits for room in the socket, for ever, as its own parked copy of our end keeps it open.
 * That copy goes once QEMU has been told to end the export, not before: its going would be the client's leaving.
 */
static void end_export_of_the_dead(struct source_disk *disk)
{
    struct source *source = disk->source;
    char *id = pass_export(disk);

    disk->state = PASS_REOPENING;
    disk->export_gone = false;
    source->exports_of_the_dead++;
    disk->batch = batch_new(source->qmp, source->undo);
    batch_add(disk->batch, "block-export-del",
              must_json(json_pack("{ssss}", "id", id, "mode", "hard")));
    batch_add_closefd(disk->batch, id);
    batch_run(disk->batch, on_export_told, disk);
    free(id);
}

void source_passes_again(struct source *source)
{
    for (size_t i = 0; i < source->disk_count && !source->failing; i++) {
        /* One that is only being started is ordered from the new mover, one that is ending has given all. */
        if (source->disks[i].state == PASS_RUNNING) {
            end_export_of_the_dead(&source->disks[i]);
        }
    }
}

/* --- the end of all --- */

static void on_keep_closed(const json_t *replies, const struct error *error, void *context)
{
    struct source *source = context;

    (void)replies;
    source->batch = NULL;
    if (error) {
        source_fail(source, error);
        return;
    }
    source_disks_done(source);
}

static void close_keeps(struct source *source)
{
    source->batch = batch_new(source->qmp, source->undo);
    for (size_t i = 0; i < source->disk_count; i++) {
        char *id = must_format("watari-keep-%u", source->disks[i].index);
        char *key = must_format("export:%s", id);

        release_connection(&source->disks[i], 0, source->disks[i].bulk_mover);
        batch_add_forget(source->batch, key);
        batch_add_closefd(source->batch, id);
        free(id);
        free(key);
    }
    batch_run(source->batch, on_keep_closed, source);
}

void source_exports_end(struct source *source)
{
    source->keeps_left = (uint32_t)source->disk_count;
    if (source->keeps_left == 0) {
        source_disks_done(source);
        return;
    }
    for (size_t i = 0; i < source->disk_count; i++) {
        delete_export(source, "keep", source->disks[i].index);
    }
}

void source_export_deleted(struct source *source, const char *id)
{
    unsigned index;
    struct source_disk *disk;
    bool keep;

    if (source->failing) {
        return;
    }
    keep = sscanf(id, "watari-keep-%u", &index) == 1;
    if ((!keep && sscanf(id, "watari-pass-%u", &index) != 1) || index >= source->disk_count) {
        return;
    }
    disk = &source->disks[index];
    if (disk->state == PASS_REOPENING && keep == (disk->bitmap == 0) && !disk->export_gone) {
        disk->export_gone = true;
        reopen_if_gone(disk);
    } else if (!keep && disk->state == PASS_ENDING) {
        clean_pass(disk);
        source_reads_go(source);
    } else if (keep) {
        if (source->keeps_left == 0) {
            /* A QEMU that shuts down ends its exports, too; its QMP socket closes right after. */
            source_limit(source, "the migration, whose export somebody else ended,",
                         EXPORT_ENDED_MS);
        } else if (--source->keeps_left == 0) {
            close_keeps(source);
        }
    }
}

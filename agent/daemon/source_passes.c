/*
 * When a disk of the source gets its next pass: before memory, beside it and in the pause; and when the disks are small enough for memory to
 * begin. How a pass goes is in source_disk.c.
 */
#include "source_state.h"

#include "clock.h"
#include "qmp.h"

#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <stdio.h>
#include <string.h>

/* A pass is worth its dozen QMP commands when so much is dirty, or anything is for so long. */
#define PASS_WORTH_BYTES (1u << 20)
#define PASS_WORTH_NS 1000000000ull
/* Memory begins when the disks need no longer than this part of the allowed downtime, or will not get smaller. */
#define READY_PART 4
#define PASSES_BEFORE_MEMORY_MAX 8
/* After so long the pace of the disks can be told. */
#define PACE_WORTH_MS 2000

bool source_pass_running(const struct source *source)
{
    for (size_t i = 0; i < source->disk_count; i++) {
        if (source->disks[i].state != PASS_IDLE) {
            return true;
        }
    }
    return false;
}

static bool worth_a_pass(const struct source_disk *disk)
{
    return disk->state == PASS_IDLE &&
           (disk->dirty >= PASS_WORTH_BYTES ||
            (disk->dirty > 0 && clock_monotonic_ns() - disk->pass_started_ns > PASS_WORTH_NS));
}

void source_passes(struct source *source, bool last)
{
    for (size_t i = 0; i < source->disk_count && !source->failing; i++) {
        struct source_disk *disk = &source->disks[i];

        if (last || worth_a_pass(disk)) {
            source_start_pass(disk, last);
        }
    }
    if (last && source->disk_count == 0) {
        source_disks_sent(source);
    }
}

uint64_t source_disk_left(const struct source *source)
{
    uint64_t left = 0;

    for (size_t i = 0; i < source->disk_count; i++) {
        left += source->disks[i].dirty;
    }
    return left;
}

uint64_t source_pass_left(const struct source *source)
{
    uint64_t left = 0;

    for (size_t i = 0; i < source->disk_count; i++) {
        left += source->disks[i].state == PASS_IDLE ? 0 : source->sample.pass_left[i];
    }
    return left;
}

void source_note_dirty(struct source *source, const json_t *nodes)
{
    for (size_t i = 0; i < source->disk_count; i++) {
        struct source_disk *disk = &source->disks[i];
        char name[32];
        const json_t *node, *bitmap;
        size_t n, b;

        snprintf(name, sizeof name, "watari-%u", disk->bitmap);
        json_array_foreach(nodes, n, node)
        {
            const char *node_name = json_string_value(json_object_get(node, "node-name"));

            if (!node_name || strcmp(node_name, disk->node) != 0) {
                continue;
            }
            json_array_foreach(json_object_get(node, "dirty-bitmaps"), b, bitmap)
            {
                const char *bitmap_name = json_string_value(json_object_get(bitmap, "name"));

                if (bitmap_name && strcmp(bitmap_name, name) == 0) {
                    disk->dirty = (uint64_t)json_integer_value(json_object_get(bitmap, "count"));
                }
            }
        }
    }
}

/* --- between bulk and memory --- */

static uint64_t allowed_ms(const struct source *source)
{
    return source->request.mode == MIGRATION_QUICK ? source->request.max_quick_downtime_ms
                                                   : source->request.max_downtime_ms;
}

/* Whether the disks can be through by --deadline, at their pace so far; false after source_fail(). */
static bool disks_in_time(struct source *source)
{
    uint64_t elapsed_ms = clock_boottime_ms() - source->migration.started_ms;
    uint64_t ms = (clock_monotonic_ns() - source->bulk_began_ns) / 1000000;
    uint64_t done = source->sample.disk_acknowledged;
    uint64_t left = done < source->bulk_bytes ? source->bulk_bytes - done : 0;

    /* Where the block status is not known yet a bulk pass counts holes as left: the allocated bytes are nearer. */
    if (strcmp(source->migration.phase, PHASE_BULK) != 0) {
        left = source_disk_left(source) + source_pass_left(source);
    }
    if (!convergence_disks_in_time(&source->convergence, elapsed_ms, left,
                                   ms >= PACE_WORTH_MS ? done * 1000 / ms : 0)) {
        source_fail_text(source, "deadline", "%s", source->convergence.reason);
        return false;
    }
    return true;
}

/* Small enough, or not getting smaller: memory may begin. */
static bool disks_ready(struct source *source)
{
    uint64_t left = source_disk_left(source);
    uint64_t rate = source->disk_rate;
    bool fits =
        left <= PASS_WORTH_BYTES || (rate && left * 1000 / rate <= allowed_ms(source) / READY_PART);

    if (fits || source->pass_rounds >= PASSES_BEFORE_MEMORY_MAX) {
        return true;
    }
    return source->pass_rounds > 1 && left >= source->last_pass_left;
}

static void on_dirty_known(json_t *value, const struct error *error, void *context)
{
    struct source *source = context;

    source->asking = false;
    if (error) {
        source_fail(source, error);
        return;
    }
    if (source->replacing) {
        return; /* it is asked again */
    }
    source_note_dirty(source, value);
    if (source_comparing(source)) {
        source_passes(source, false);
        return;
    }
    if (disks_ready(source)) {
        source_memory_begin(source);
        return;
    }
    source->pass_rounds++;
    source->last_pass_left = source_disk_left(source);
    for (size_t i = 0; i < source->disk_count; i++) {
        if (source->disks[i].dirty > 0 && !source->failing) {
            source_start_pass(&source->disks[i], false);
        }
    }
}

void source_disk_tick(struct source *source)
{
    if (!source->bulk_started || source->memory_begun || source->memory_ending ||
        !disks_in_time(source) || source->asking) {
        return;
    }
    if (source->request.trial) {
        source_trial_disk_tick(source);
        return;
    }
    if (source_pass_running(source)) {
        return;
    }
    if (strcmp(source->migration.phase, PHASE_BULK) == 0) {
        migration_phase(&source->migration, PHASE_PASSES, "passes over what was written meanwhile");
    }
    if (strcmp(source->migration.phase, PHASE_PASSES) == 0 && source_comparing(source)) {
        migration_phase(&source->migration, PHASE_VERIFY,
                        "%zu disk%s read back at both hosts and compared, passes go on beside",
                        source->disk_count, source->disk_count == 1 ? " is" : "s are");
    }
    source->asking = true;
    qmp_execute(source->qmp, "query-named-block-nodes", must_json(json_pack("{sb}", "flat", 1)), -1,
                on_dirty_known, source);
}

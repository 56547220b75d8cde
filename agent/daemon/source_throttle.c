/*
 * The levers of the ladder (policy/convergence.h) at the source's QEMU. What they change is in the undo list before it is changed, and ends
 * with the migration.
 *
 * vCPUs: QEMU throttles them only through auto-converge, which must be on before `migrate`: it is parked at a throttle of 1 %, where it
 * does no harm. At a look for dirty pages more than a second after the last one that counted, and more than THRESHOLD % dirtied of what
 * was sent meanwhile, for the second time, QEMU takes INITIAL, or adds INCREMENT to what is in force, up to MAX. So for x %: initial and
 * max x, increment x - 1 (QEMU's migration/ram.c: migration_trigger_throttle, mig_throttle_guest_down). It stops when the migration ends.
 *
 * Disks: block_set_io_throttle, all disks in one group, so that the limit is for all of them together. A disk that has limits or a group
 * of its own is left alone.
 */
#include "source_state.h"

#include "batch.h"
#include "qmp.h"

#include "agent/common/must.h"

#include <stdlib.h>

#define PARKED 1

static const char group[] = "watari";

bool source_can_throttle_cpus(const struct source *source)
{
    return source->request.max_throttle > 0 && source->request.mode != MIGRATION_QUICK &&
           json_object_get(source->inspection.parameters, "throttle-trigger-threshold");
}

static json_t *cpu_parameters(uint32_t percent)
{
    int value = (int)percent;

    return must_json(json_pack("{si,si,si,si}", "cpu-throttle-initial", value,
                               "cpu-throttle-increment", value > PARKED ? value - PARKED : PARKED,
                               "max-cpu-throttle", value, "throttle-trigger-threshold", 1));
}

json_t *source_parked_throttle(const struct source *source)
{
    return source_can_throttle_cpus(source) ? cpu_parameters(PARKED) : must_json(json_object());
}

static void on_cpus_throttled(json_t *value, const struct error *error, void *context)
{
    (void)value;
    if (error) {
        source_fail(context, error);
    }
}

void source_throttle_cpus(struct source *source)
{
    qmp_execute(source->qmp, "migrate-set-parameters",
                cpu_parameters(source->convergence.cpu_throttle), -1, on_cpus_throttled, source);
}

/* --- disks --- */

static bool may_be_throttled(const struct inspected_disk *disk)
{
    return !disk->read_only && !disk->throttled && disk->qdev[0] != '\0';
}

bool source_can_throttle_disks(const struct source *source)
{
    for (size_t i = 0; i < source->inspection.disk_count; i++) {
        if (may_be_throttled(&source->inspection.disks[i])) {
            return true;
        }
    }
    return false;
}

static json_t *limits(const struct inspected_disk *disk, uint64_t bytes_per_second)
{
    return must_json(json_pack("{ss,si,si,sI,si,si,si}", "id", disk->qdev, "bps", 0, "bps_rd", 0,
                               "bps_wr", (json_int_t)bytes_per_second, "iops", 0, "iops_rd", 0,
                               "iops_wr", 0));
}

static void on_disks_throttled(const json_t *replies, const struct error *error, void *context)
{
    struct source *source = context;

    (void)replies;
    source->throttling = NULL;
    if (error) {
        source_fail(source, error);
        return;
    }
    source_reads_go(source);
}

static void set_limits(void *context)
{
    struct source *source = context;

    batch_run(source->throttling, on_disks_throttled, source);
}

void source_throttle_disks(struct source *source)
{
    if (source->throttling) {
        return; /* QEMU has not answered the last time yet; the controller asks for more when that has not helped */
    }
    source->throttling = batch_new(source->qmp, source->undo);
    for (size_t i = 0; i < source->inspection.disk_count; i++) {
        const struct inspected_disk *disk = &source->inspection.disks[i];
        json_t *arguments;
        char *key;

        if (!may_be_throttled(disk)) {
            continue;
        }
        arguments = limits(disk, (uint64_t)source->convergence.disk_limit);
        json_object_set_new(arguments, "group", must_json(json_string(group)));
        key = must_format("throttle:%zu", i);
        batch_add_change(source->throttling, key,
                         must_json(json_pack("{ss,so}", "qmp", "block_set_io_throttle", "arguments",
                                             limits(disk, 0))),
                         "block_set_io_throttle", arguments);
        free(key);
    }
    source_reads_hold(source, set_limits, source);
}

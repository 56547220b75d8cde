/*
 * --verify at the source. The mover compares the disks with the destination's, from the end of the bulk pass on (agent/mover/orders.h); here
 * its findings are waited for and judged:
 *
 *   before memory: until the mover has gone through everything once, so that little is left for the pause
 *   in the pause:  all last passes flushed -> VERIFY -> VERIFIED -> equal: the exports end and QEMU may finish; else rollback
 *
 * Both contents stand still then, and nothing has been given up: whatever is found, the guest can go on here.
 */
#include "source_state.h"

#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <stdio.h>
#include <stdlib.h>

bool source_comparing(const struct source *source)
{
    return source->request.verify && source->sample.never_compared;
}

uint32_t source_verify_ms(const struct source *source)
{
    const struct report_sample *sample = &source->sample;
    uint64_t left = sample->uncompared_bytes + source_disk_left(source);
    double rate, ms;

    if (!source->request.verify || sample->reread_bytes == 0 || sample->comparing_us == 0) {
        return 0;
    }
    rate = (double)sample->reread_bytes / (double)sample->comparing_us; /* bytes/us */
    ms = (double)left / rate / 1000;
    return ms < (double)UINT32_MAX / 2 ? (uint32_t)ms : UINT32_MAX / 2;
}

void source_disks_sent(struct source *source)
{
    struct order order = {.type = ORDER_VERIFY};

    source_record_mark(source, "disk-passes-done");
    if (!source->request.verify) {
        source_exports_end(source);
        return;
    }
    source->verifying = true;
    migration_phase(&source->migration, PHASE_PAUSED,
                    "%.1f MiB of the disks are left to be compared",
                    (double)source->sample.uncompared_bytes / 1048576.0);
    source_order(source, &order, -1);
}

/* "vd0 at 20480 to 24575, vd1 at ..."; free() it. */
static char *list_of(const struct source *source, const struct report_verified *report)
{
    char *list = must_copy("");

    for (uint32_t i = 0; i < report->count; i++) {
        const struct report_difference *run = &report->runs[i];
        char *longer = must_format("%s%s%s at bytes %llu to %llu", list, i ? ", " : "",
                                   source->disks[run->disk].device, (unsigned long long)run->offset,
                                   (unsigned long long)(run->offset + run->length - 1));

        free(list);
        list = longer;
    }
    return list;
}

static bool is_sound(const struct source *source, const struct report_verified *report)
{
    bool sound = source->verifying && report->count <= ORDERS_MAX_DIFFERENCES &&
                 (report->count == 0) == (report->different_bytes == 0);

    for (uint32_t i = 0; sound && i < report->count; i++) {
        sound = report->runs[i].disk < source->disk_count;
    }
    return sound;
}

void source_verified(struct source *source, const struct report_verified *report)
{
    char *list;

    if (!is_sound(source, report)) {
        source_fail_text(source, "mover-failed",
                         "the mover reports a comparison that was not asked for");
        return;
    }
    source->verifying = false;
    if (report->different_bytes == 0) {
        source->disks_equal = true;
        source_exports_end(source);
        return;
    }
    source->disks_differ = true;
    list = list_of(source, report);
    source_fail_text(
        source, "verify",
        "the disks that arrived at %s differ from those here: %s%s (%llu bytes in all, in "
        "whole blocks). Nothing was given up; test the disks and the memory of both hosts",
        source->migration.peer, list, report->more ? ", and more" : "",
        (unsigned long long)report->different_bytes);
    free(list);
}

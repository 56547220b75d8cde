#include "difference.h"

#include <stdbool.h>
#include <string.h>

static bool is_before(const struct report_difference *a, const struct report_difference *b)
{
    return a->disk < b->disk || (a->disk == b->disk && a->offset < b->offset);
}

static bool touches(const struct report_difference *a, const struct report_difference *b)
{
    return a->disk == b->disk && a->offset + a->length == b->offset;
}

static void insert(struct report_verified *report, uint32_t place,
                   const struct report_difference *run)
{
    uint32_t after = report->count - place;

    if (report->count == ORDERS_MAX_DIFFERENCES) {
        report->more = true;
        if (after == 0) {
            return;
        }
        after--; /* the last one gives way */
    } else {
        report->count++;
    }
    memmove(&report->runs[place + 1], &report->runs[place], after * sizeof *run);
    report->runs[place] = *run;
}

static void remove_run(struct report_verified *report, uint32_t place)
{
    report->count--;
    memmove(&report->runs[place], &report->runs[place + 1],
            (report->count - place) * sizeof report->runs[0]);
}

void difference_add(struct report_verified *report, uint32_t disk, uint64_t offset, uint64_t length)
{
    const struct report_difference run = {disk, offset, length};
    struct report_difference *runs = report->runs;
    uint32_t place = 0;

    report->different_bytes += length;
    while (place < report->count && is_before(&runs[place], &run)) {
        place++;
    }
    if (place > 0 && touches(&runs[place - 1], &run)) {
        runs[place - 1].length += length;
        if (place < report->count && touches(&runs[place - 1], &runs[place])) {
            runs[place - 1].length += runs[place].length;
            remove_run(report, place);
        }
    } else if (place < report->count && touches(&run, &runs[place])) {
        runs[place].offset = offset;
        runs[place].length += length;
    } else {
        insert(report, place, &run);
    }
}

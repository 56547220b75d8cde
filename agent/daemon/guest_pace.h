/*
 * How fast a guest writes to its memory and its disks, measured at its QEMU over a few seconds, without a migration and without leaving
 * anything there:
 *
 *   memory   `calc-dirty-rate` in its page-sampling mode (QEMU 5.2), over periods of 1, 2 and 4 s: QEMU hashes some pages, and counts after
 *            the period which have changed. Works with KVM and TCG alike. The dirty-bitmap mode counts all pages, but only under KVM: TCG's
 *            writes do not pass where 7.2 counts; dirty-ring needs KVM's ring.
 *   disks    what query-blockstats counts as written meanwhile. A block that is written twice counts twice: more than a pass would carry.
 *
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_GUEST_PACE_H
#define WATARI_DAEMON_GUEST_PACE_H

#include "inspect.h"

#include "agent/common/error.h"
#include "agent/policy/plan.h"

#include <event2/event.h>

struct guest_pace;
struct qmp;

struct guest_pace_result {
    struct plan_dirty dirty[PLAN_PERIODS_MAX];
    size_t dirty_count;       /* of whole periods; less than all when QEMU would not */
    uint64_t disk_write_rate; /* bytes/s, all disks that are carried */
    struct error error;       /* id "": none. Why there is less */
};

/* RESULT is borrowed for the call. */
typedef void (*guest_pace_callback)(const struct guest_pace_result *result, void *context);

/* QMP must be ready; INSPECTION is borrowed until the callback. */
struct guest_pace *guest_pace_start(struct event_base *base, struct qmp *qmp,
                                    const struct inspection *inspection,
                                    guest_pace_callback callback, void *context);
/* Gives up; no callback. Before the QMP connection is freed. QEMU ends the period that runs by itself, in at most 4 s. NULL is fine. */
void guest_pace_free(struct guest_pace *pace);

#endif

/*
 * Private to plan*.c: one plan that is being made.
 *
 *   plan.c         its steps, one after the other
 *   plan_report.c  what is told at the end
 */
#ifndef WATARI_DAEMON_PLAN_STATE_H
#define WATARI_DAEMON_PLAN_STATE_H

#include "guest_pace.h"
#include "plan.h"
#include "vm.h"

struct journal;
struct peer;
struct qmp;

struct planning {
    struct daemon *daemon;
    struct plan_request request;
    struct plan_handlers handlers;
    void *context;
    char id[MIGRATION_ID_SIZE]; /* under which the destination is asked */
    struct vm vm;
    struct event *timer;
    const char *awaited; /* what the timer limits */
    struct qmp *qmp;
    struct inspect *inspect;
    struct inspection inspection;
    struct peer *peer;
    bool no_peer; /* there is none that could be asked */
    struct guest_pace *pace;
    struct journal *journal;
    struct migration *trial; /* under way */
    struct migration_watcher watcher;
    json_t *findings; /* {"side","level","id","text"} */
    bool blocked;     /* there is a blocker among them */

    /* measured */
    bool is_inspected, is_paced;
    struct guest_pace_result written;
    uint64_t memory_used;   /* bytes of the guest's memory that its QEMU has touched, at most */
    json_t *shown;          /* the trial's result; NULL: there was none, or it failed */
    uint64_t sync_ns;       /* 0: not known */
    uint64_t round_trip_ns; /* UINT64_MAX: not known */
};

/* The plan as control.h describes its last event. Caller's reference. */
json_t *plan_report(const struct planning *planning);

#endif

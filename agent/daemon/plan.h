/*
 * `watari plan`: what a migration would meet and take, told before there is one. Changes nothing at either side:
 *
 *   findings   the checks of a migration: the source's (inspect.h), and the destination's, who is asked (preflight, protocol/SPEC.md §4.2)
 *   measures   how fast the guest writes (guest_pace.h), how long a journal's sync takes here, the round trip
 *   trial      unless it is left out: a migration that is cancelled after some seconds (source_trial.c) shows what the link carries, how well
 *              memory and disks shrink, and what only the destination's QEMU can object to
 *   plan       what agent/policy/plan.h makes of it
 *
 * With a blocker among the findings nothing is measured. Ends by itself; the client that asked may leave at any time, and that ends it.
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_PLAN_H
#define WATARI_DAEMON_PLAN_H

#include "migration.h"

struct planning;

struct plan_request {
    struct migrate_request migrate; /* the migration that is meant */
    bool trial;
    uint64_t link_rate; /* bytes/s that the link is said to carry; 0: not said */
};

/*
 * PLAN is the last event of control.h's "plan", borrowed, and it is over; or EVENT is one on the way. Not called any more after
 * plan_cancel().
 */
struct plan_handlers {
    void (*step)(const json_t *event, void *context);
    void (*done)(const json_t *plan, void *context);
};

/* NULL with an error when there is no such VM to look at. REQUEST is taken over (emptied), also on failure. Calls back on later turns only. */
struct planning *plan_start(struct daemon *daemon, struct plan_request *request,
                            const struct plan_handlers *handlers, void *context,
                            struct error *error);
/* Ends it, without its last event. NULL is fine. */
void plan_cancel(struct planning *planning);

/* What the last plan for VM to PEER predicted: {"live","throttled","quick"} as control.h has them; null when there was none that did in this
 * daemon's life. Caller's reference. */
json_t *plan_last(const struct daemon *daemon, const char *vm, const char *peer);
/* For the daemon's end. */
void plan_forget_all(struct daemon *daemon);

#endif

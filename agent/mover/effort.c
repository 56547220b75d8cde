#include "effort.h"
#include "orders.h"

#include <string.h>

/* A decision falls after so much time of any kind. */
#define INTERVAL_US 100000u
/* Full intervals in a row before a step down: a second, and at most a minute. */
#define PATIENCE_MIN 10u
#define PATIENCE_MAX 640u

static const int ladder[] = {ORDER_LEVEL_OFF, -50, -20, -5, 1, 3};
#define RUNGS (sizeof ladder / sizeof ladder[0])
#define RUNG_FIRST 4u /* level 1 */

void effort_init(struct effort *effort)
{
    *effort = (struct effort){.rung = RUNG_FIRST, .patience = PATIENCE_MIN};
}

int effort_level(const struct effort *effort)
{
    return ladder[effort->rung];
}

static void step_up(struct effort *effort)
{
    if (effort->went_down && effort->patience < PATIENCE_MAX) {
        effort->patience *= 2;
    }
    effort->went_down = false;
    effort->full_intervals = 0;
    effort->rung++;
}

static void step_down(struct effort *effort)
{
    /* Two in a row: this is no swinging, things have changed. */
    if (effort->went_down) {
        effort->patience = PATIENCE_MIN;
    }
    effort->went_down = true;
    effort->full_intervals = 0;
    effort->rung--;
}

/* Whether there is time for the next rung. Up to level 1 it may cost half as much again; what is above
 * has to leave the CPU to others. */
static bool may_step_up(const struct effort *effort, uint64_t total)
{
    if (effort->rung + 1 == RUNGS) {
        return false;
    }
    if (effort->rung >= RUNG_FIRST && effort->times_us[EFFORT_WORKED] > total / 8) {
        return false;
    }
    return effort->times_us[EFFORT_LINK_WAITS] >= total / 3;
}

static void decide(struct effort *effort, uint64_t total)
{
    uint64_t worked = effort->times_us[EFFORT_WORKED];

    if (may_step_up(effort, total)) {
        step_up(effort);
    } else if (effort->rung > RUNG_FIRST && worked > total / 2) {
        /* It is no longer for nothing. */
        effort->rung = RUNG_FIRST;
    } else if (worked < total - total / 20) {
        effort->full_intervals = 0;
    } else if (++effort->full_intervals >= effort->patience && effort->rung > 0) {
        step_down(effort);
    }
}

void effort_spent(struct effort *effort, enum effort_time what, uint64_t microseconds)
{
    uint64_t total = 0;

    effort->times_us[what] += microseconds;
    for (unsigned i = 0; i < EFFORT_TIMES; i++) {
        total += effort->times_us[i];
    }
    if (total >= INTERVAL_US) {
        decide(effort, total);
        memset(effort->times_us, 0, sizeof effort->times_us);
    }
}

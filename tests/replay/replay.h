/*
 * The shipped controller (agent/policy/convergence.h) over a recorded timeline (agent/common/timeline_file.h): fed what it was fed then, does it
 * decide as it did? After a change of the policy the first difference is what the change does; behind it the samples are those of a migration
 * that went on otherwise, and say little.
 *
 * The policy is called directly, no daemon and no clock are there. Used by timeline_replay (main.c) and by the unit test.
 */
#ifndef WATARI_TESTS_REPLAY_REPLAY_H
#define WATARI_TESTS_REPLAY_REPLAY_H

#include "agent/policy/convergence.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* One sample, as it was judged then and as it is now. */
struct replay_step {
    double at_ms;
    enum convergence_verdict then, now;
    uint32_t predicted_then, predicted_now; /* FORECAST_UNKNOWN where it was or is */
    const struct convergence *convergence;  /* as it is after this sample */
};

struct replay {
    size_t samples, decisions, differences; /* decisions: verdicts now but to go on or to wait */
    double first_difference_ms;
    bool
        malformed; /* a line that should be a sample or limits is none: nothing after it was replayed */
};

/* What judges: convergence_step(), or a policy that is tried beside it. */
typedef enum convergence_verdict (*replay_policy)(struct convergence *convergence,
                                                  const struct convergence_sample *sample);
typedef void (*replay_callback)(const struct replay_step *step, void *context);

/* Over LINES, in their order. EACH may be NULL. */
struct replay replay_run(const json_t *lines, replay_policy policy, replay_callback each,
                         void *context);

#endif

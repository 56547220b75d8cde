#include "replay.h"

#include "agent/policy/convergence_record.h"

#include <string.h>

struct run {
    struct replay result;
    struct convergence convergence;
    bool begun; /* there were limits */
    replay_policy policy;
    replay_callback each;
    void *context;
};

static bool take_limits(struct run *run, const json_t *line)
{
    struct convergence_limits limits;

    if (!convergence_limits_of(line, &limits)) {
        return false;
    }
    convergence_init(&run->convergence, &limits);
    run->begun = true;
    return true;
}

static uint32_t predicted_in(const json_t *line)
{
    const json_t *value = json_object_get(line, "predicted_downtime_ms");

    return json_is_integer(value) ? (uint32_t)json_integer_value(value) : FORECAST_UNKNOWN;
}

static bool take_sample(struct run *run, const json_t *line)
{
    struct replay *result = &run->result;
    struct convergence_sample sample;
    struct replay_step step = {
        .at_ms = json_number_value(json_object_get(line, "at_ms")),
        .predicted_then = predicted_in(line),
        .convergence = &run->convergence,
    };

    if (!run->begun || !convergence_sample_of(line, &sample) ||
        !convergence_verdict_of(json_string_value(json_object_get(line, "verdict")), &step.then)) {
        return false;
    }
    step.now = run->policy(&run->convergence, &sample);
    step.predicted_now = run->convergence.predicted_downtime_ms;
    if (step.now != step.then && result->differences++ == 0) {
        result->first_difference_ms = step.at_ms;
    }
    result->samples++;
    result->decisions += step.now != CONVERGENCE_GO_ON && step.now != CONVERGENCE_WAIT;
    if (run->each) {
        run->each(&step, run->context);
    }
    return true;
}

struct replay replay_run(const json_t *lines, replay_policy policy, replay_callback each,
                         void *context)
{
    struct run run = {.policy = policy, .each = each, .context = context};
    const json_t *line;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        const char *event = json_string_value(json_object_get(line, "event"));
        bool good = !event                         ? true
                    : strcmp(event, "limits") == 0 ? take_limits(&run, line)
                    : strcmp(event, "sample") == 0 ? take_sample(&run, line)
                                                   : true;

        if (!good) {
            run.result.malformed = true;
            break;
        }
    }
    return run.result;
}

/*
 * timeline_replay FILE...: replays timelines with the controller that it is linked with, to see what a change of the policy does. Prints each
 * decision, and each sample that is judged otherwise than then; of each timeline the prediction at the pause, then and now, beside what was
 * measured. Exit code 0: all as then; 1: something is judged otherwise; 2: a file cannot be read, or is no timeline of a source.
 */
#include "replay.h"

#include "agent/common/timeline_file.h"
#include "agent/policy/convergence_record.h"

#include <stdio.h>
#include <string.h>

#define SAME 0
#define OTHERWISE 1
#define UNREADABLE 2

struct view {
    enum convergence_verdict last;
    uint32_t predicted_then, predicted_now; /* as of the last sample before or in the pause */
};

static void print_step(const struct replay_step *step, void *context)
{
    struct view *view = context;
    bool is_news =
        step->now != step->then || (step->now != CONVERGENCE_GO_ON && step->now != view->last);

    view->last = step->now;
    view->predicted_then = step->predicted_then;
    view->predicted_now = step->predicted_now;
    if (!is_news) {
        return;
    }
    printf("%10.3f s  %s", step->at_ms / 1000, convergence_verdict_name(step->now));
    if (step->now != step->then) {
        printf(", where it was %s", convergence_verdict_name(step->then));
    }
    printf("%s%s\n", step->now == CONVERGENCE_GO_ON ? "" : ": ",
           step->now == CONVERGENCE_GO_ON ? "" : step->convergence->reason);
}

static void print_number(const char *what, uint32_t ms)
{
    if (ms == FORECAST_UNKNOWN) {
        printf("%s unknown", what);
    } else {
        printf("%s %u ms", what, ms);
    }
}

static void print_outcome(const json_t *lines, const struct view *view)
{
    const json_t *last = json_array_get(lines, json_array_size(lines) - 1);
    const json_t *downtime = json_object_get(last, "downtime_ms");

    print_number("  predicted then", view->predicted_then);
    print_number(", now", view->predicted_now);
    if (json_is_integer(downtime)) {
        print_number(", measured", (uint32_t)json_integer_value(downtime));
    }
    putchar('\n');
}

static int replay_file(const char *path)
{
    struct view view = {.last = CONVERGENCE_GO_ON,
                        .predicted_then = FORECAST_UNKNOWN,
                        .predicted_now = FORECAST_UNKNOWN};
    struct replay result;
    struct error error;
    json_t *lines;
    size_t bad;

    lines = timeline_file_read(path, &bad, &error);
    if (!lines) {
        fprintf(stderr, "timeline_replay: %s\n", error.text);
        return UNREADABLE;
    }
    printf("%s\n", path);
    result = replay_run(lines, convergence_step, print_step, &view);
    if (result.malformed || result.samples == 0) {
        fprintf(stderr, "timeline_replay: %s: %s\n", path,
                result.malformed ? "a line is not as it should be" : "there are no samples in it");
        json_decref(lines);
        return UNREADABLE;
    }
    print_outcome(lines, &view);
    printf("  %zu samples, %zu decisions, %zu judged otherwise", result.samples, result.decisions,
           result.differences);
    if (result.differences > 0) {
        printf(", the first at %.3f s", result.first_difference_ms / 1000);
    }
    putchar('\n');
    json_decref(lines);
    return result.differences > 0 ? OTHERWISE : SAME;
}

int main(int argc, char **argv)
{
    int worst = SAME;

    if (argc < 2) {
        fprintf(stderr, "usage: timeline_replay FILE...\n");
        return UNREADABLE;
    }
    for (int i = 1; i < argc; i++) {
        int code = replay_file(argv[i]);

        worst = code > worst ? code : worst;
    }
    return worst;
}

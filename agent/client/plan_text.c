#include "plan_text.h"

#include "terminal.h"
#include "agent/common/units.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char *word(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "-";
}

static bool is_null(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return !value || json_is_null(value);
}

static double number(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static uint64_t bytes(const json_t *object, const char *name)
{
    double value = number(object, name);

    return value > 0 ? (uint64_t)value : 0;
}

/* --- findings --- */

static void print_findings(FILE *out, const json_t *plan)
{
    static const char *const levels[] = {"blocker", "warning", "note"};
    const json_t *findings = json_object_get(plan, "findings");
    const json_t *finding;
    size_t index;

    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        json_array_foreach(findings, index, finding)
        {
            if (strcmp(word(finding, "level"), levels[i]) == 0) {
                terminal_line(out, "  %-13s %s: %s", levels[i],
                              strcmp(word(finding, "side"), "source") == 0 ? "here"
                                                                           : word(plan, "peer"),
                              word(finding, "text"));
            }
        }
    }
    if (json_array_size(findings) == 0) {
        terminal_line(out, "  findings      none: nothing stands in the way at either host");
    }
}

/* --- measures --- */

static void print_memory(FILE *out, const json_t *memory)
{
    char all[UNITS_TEXT_SIZE], used[UNITS_TEXT_SIZE], time[UNITS_TEXT_SIZE], size[UNITS_TEXT_SIZE];
    char dirty[512] = "";
    const json_t *period;
    size_t index, length = 0;

    json_array_foreach(json_object_get(memory, "dirty"), index, period)
    {
        int more = snprintf(dirty + length, sizeof dirty - length, "%s%s after %s",
                            index ? ", " : "; dirty: ", units_size(size, bytes(period, "bytes")),
                            units_time(time, number(period, "ms")));

        length += more > 0 && (size_t)more < sizeof dirty - length ? (size_t)more : 0;
    }
    terminal_line(out, "  memory        %s, %s in use%s%s", units_size(all, bytes(memory, "bytes")),
                  units_size(used, bytes(memory, "used")), dirty,
                  length ? " (QEMU's page sampling)" : "; how fast it becomes dirty is not known");
}

static void print_disks(FILE *out, const json_t *disk)
{
    char all[UNITS_TEXT_SIZE], allocated[UNITS_TEXT_SIZE], rate[UNITS_TEXT_SIZE];

    terminal_line(out, "  disks         %s, %s allocated; the guest writes %s",
                  units_size(all, bytes(disk, "bytes")),
                  units_size(allocated, bytes(disk, "allocated")),
                  units_rate(rate, bytes(disk, "write_rate")));
}

static void print_trial(FILE *out, const json_t *trial)
{
    char wire[UNITS_TEXT_SIZE], time[UNITS_TEXT_SIZE];

    if (trial && !json_is_null(trial)) {
        terminal_line(out,
                      "  trial         took %s and %s on the wire; it was cancelled and removed",
                      units_time(time, number(trial, "total_ms")),
                      units_size(wire, bytes(trial, "wire_bytes")));
    }
}

/* "; memory shrinks to 43 %, disks to 61 %" */
static void ratio_text(char *text, size_t size, const json_t *link)
{
    bool memory = !is_null(link, "memory_ratio"), disk = !is_null(link, "disk_ratio");

    *text = '\0';
    if (memory && disk) {
        snprintf(text, size, "; memory shrinks to %.0f %%, disks to %.0f %%",
                 100 * number(link, "memory_ratio"), 100 * number(link, "disk_ratio"));
    } else if (memory || disk) {
        snprintf(text, size, "; %s to %.0f %%", memory ? "memory shrinks" : "disks shrink",
                 100 * number(link, memory ? "memory_ratio" : "disk_ratio"));
    }
}

static void print_link(FILE *out, const json_t *measured)
{
    const json_t *link = json_object_get(measured, "link");
    char rate[UNITS_TEXT_SIZE], time[UNITS_TEXT_SIZE] = "not known", ratios[96];

    if (!is_null(link, "round_trip_us")) {
        units_time(time, number(link, "round_trip_us") / 1000);
    }
    if (is_null(link, "rate")) {
        terminal_line(out, "  link          what it carries is not known; round trip %s", time);
    } else {
        ratio_text(ratios, sizeof ratios, link);
        terminal_line(out, "  link          %s (%s), round trip %s%s",
                      units_rate(rate, bytes(link, "rate")), word(link, "how"), time, ratios);
    }
    if (!is_null(measured, "sync_us")) {
        terminal_line(out, "  journal       a sync takes %s here",
                      units_time(time, number(measured, "sync_us") / 1000));
    }
}

/* --- predictions --- */

static void print_ending(FILE *out, const char *name, const json_t *prediction)
{
    char total[UNITS_TEXT_SIZE], pause[UNITS_TEXT_SIZE], wire[UNITS_TEXT_SIZE];
    char most[UNITS_TEXT_SIZE + 16] = "";
    double rounds = number(prediction, "rounds");

    if (!is_null(prediction, "longest_ms")) {
        snprintf(most, sizeof most, " (%s at most)",
                 units_time(pause, number(prediction, "longest_ms")));
    }
    terminal_line(out, "  %-13s %s in all, %.0f round%s of memory, pause %s%s, %s on the wire",
                  name, units_time(total, number(prediction, "total_ms")), rounds,
                  rounds == 1 ? "" : "s", units_time(pause, number(prediction, "downtime_ms")),
                  most, units_size(wire, bytes(prediction, "wire_bytes")));
}

static void print_prediction(FILE *out, const char *name, const json_t *prediction)
{
    char pause[UNITS_TEXT_SIZE];

    if (!prediction || json_is_null(prediction)) {
        terminal_line(out, "  %-13s cannot be predicted", name);
    } else if (json_is_true(json_object_get(prediction, "ends"))) {
        print_ending(out, name, prediction);
    } else if (is_null(prediction, "downtime_ms")) {
        terminal_line(out, "  %-13s does not come to its end: disk writes take all of the link",
                      name);
    } else {
        terminal_line(out, "  %-13s does not come to its end; the shortest pause would be %s", name,
                      units_time(pause, number(prediction, "downtime_ms")));
    }
}

static void print_advice(FILE *out, const json_t *plan)
{
    const json_t *confidence = json_object_get(plan, "confidence");
    const json_t *recommendation = json_object_get(plan, "recommendation");

    terminal_line(out, "  confidence    %s: %s", word(confidence, "word"),
                  word(confidence, "reason"));
    terminal_line(out, "  recommended   %s", word(recommendation, "reason"));
    if (!is_null(recommendation, "command")) {
        terminal_line(out, "                %s", word(recommendation, "command"));
    }
}

static void print_predictions(FILE *out, const json_t *plan)
{
    const json_t *predicted = json_object_get(plan, "predicted");
    const json_t *live = json_object_get(predicted, "live");

    print_prediction(out, "live", live);
    if (live && !json_is_null(live) && !json_is_true(json_object_get(live, "ends"))) {
        print_prediction(out, "slowed down", json_object_get(predicted, "throttled"));
    }
    print_prediction(out, "quick", json_object_get(predicted, "quick"));
    print_advice(out, plan);
}

void plan_text_print(FILE *out, const json_t *plan)
{
    const json_t *measured = json_object_get(plan, "measured");
    bool can = json_is_true(json_object_get(plan, "migratable"));

    terminal_line(out, "%s to %s%s", word(plan, "vm"), word(plan, "peer"),
                  can ? "" : ": cannot be migrated as things are; nothing was measured");
    print_findings(out, plan);
    if (!can) {
        return;
    }
    print_memory(out, json_object_get(measured, "memory"));
    print_disks(out, json_object_get(measured, "disk"));
    print_trial(out, json_object_get(plan, "trial"));
    print_link(out, measured);
    print_predictions(out, plan);
}

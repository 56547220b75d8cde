/*
 * The controller over timelines of real migrations (tests/replay/timelines): it decides as it did when they were recorded. Whoever changes the
 * policy on purpose sees here what the change does to them, looks closer with timeline_replay, and records them anew.
 *
 *   live    a guest of 128 MiB that writes 1 MiB/s, over 100 Mbit/s: live
 *   ladder  one that writes as fast as it can, over 200 Mbit/s: throttled by the 20 % that were allowed, then quick
 *
 * Of their samples the members that were 0 are left out.
 */
#include "tests/replay/replay.h"

#include "agent/common/must.h"
#include "agent/common/timeline_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DECISIONS_MAX 8

static json_t *recorded(const char *name)
{
    const char *root = getenv("WATARI_SOURCE_ROOT");
    char *path = must_format("%s/tests/replay/timelines/%s", root ? root : ".", name);
    struct error error;
    size_t bad;
    json_t *lines = timeline_file_read(path, &bad, &error);

    if (!lines) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(bad, 0);
    free(path);
    return lines;
}

/* What was decided, in its order. */
struct decisions {
    enum convergence_verdict list[DECISIONS_MAX];
    size_t count;
};

static void note_decision(const struct replay_step *step, void *context)
{
    struct decisions *decisions = context;

    if (step->now != CONVERGENCE_GO_ON && step->now != CONVERGENCE_WAIT) {
        assert_true(decisions->count < DECISIONS_MAX);
        decisions->list[decisions->count++] = step->now;
    }
}

static struct replay replay_as_shipped(const char *name, struct decisions *decisions)
{
    json_t *lines = recorded(name);
    struct replay result = replay_run(lines, convergence_step, note_decision, decisions);

    assert_false(result.malformed);
    assert_true(result.samples > 50);
    assert_int_equal(result.decisions, decisions->count);
    json_decref(lines);
    return result;
}

static void a_guest_that_writes_little_is_judged_as_it_was(void **state)
{
    struct decisions decisions = {0};
    struct replay result = replay_as_shipped("live", &decisions);

    (void)state;
    assert_int_equal(result.differences, 0);
    assert_int_equal(decisions.count, 1);
    assert_int_equal(decisions.list[0], CONVERGENCE_SWITCH_OVER);
}

static void one_that_writes_too_fast_is_judged_as_it_was(void **state)
{
    struct decisions decisions = {0};
    struct replay result = replay_as_shipped("ladder", &decisions);

    (void)state;
    assert_int_equal(result.differences, 0);
    assert_int_equal(decisions.count, 2);
    assert_int_equal(decisions.list[0], CONVERGENCE_THROTTLE_CPUS);
    assert_int_equal(decisions.list[1], CONVERGENCE_FALL_BACK);
}

/* --- what shows a change --- */

/* Takes every pause for half a second longer. */
static enum convergence_verdict timid(struct convergence *convergence,
                                      const struct convergence_sample *sample)
{
    struct convergence_sample changed = *sample;

    changed.fixed_ms += 500;
    return convergence_step(convergence, &changed);
}

/* Passes the throttles over. */
static enum convergence_verdict gentle(struct convergence *convergence,
                                       const struct convergence_sample *sample)
{
    convergence->limits.can_throttle_cpus = convergence->limits.can_throttle_disks = false;
    return convergence_step(convergence, sample);
}

static void expect_otherwise(const char *name, replay_policy policy, double at_most_ms)
{
    json_t *lines = recorded(name);
    struct replay result = replay_run(lines, policy, NULL, NULL);

    assert_false(result.malformed);
    assert_true(result.differences > 0);
    assert_true(result.first_difference_ms <= at_most_ms);
    json_decref(lines);
}

static void another_policy_shows_where_it_decides_otherwise(void **state)
{
    (void)state;
    /* Where each was decided on, of what is changed. */
    expect_otherwise("live", timid, 5452);
    expect_otherwise("ladder", gentle, 16223);
}

static void a_verdict_that_was_another_is_found(void **state)
{
    json_t *lines = recorded("live");
    size_t samples = 0, i;
    json_t *line;
    struct replay result;

    (void)state;
    json_array_foreach(lines, i, line)
    {
        if (json_object_get(line, "verdict") && json_object_get(line, "round") && ++samples == 40) {
            json_object_set_new(line, "verdict", json_string("give-up"));
        }
    }
    result = replay_run(lines, convergence_step, NULL, NULL);
    assert_int_equal(result.differences, 1);
    json_decref(lines);
}

static void what_is_no_sample_ends_it(void **state)
{
    static const char *const texts[] = {
        "[{\"event\":\"limits\",\"mode\":\"live\"},{\"event\":\"sample\",\"round\":\"x\",\"verdict\":\"wait\"}]",
        "[{\"event\":\"limits\",\"mode\":\"live\"},{\"event\":\"sample\",\"verdict\":\"perhaps\"}]",
        "[{\"event\":\"limits\",\"mode\":\"live\"},{\"event\":\"sample\"}]",
        "[{\"event\":\"limits\",\"mode\":\"slow\"}]",
        "[{\"event\":\"sample\",\"verdict\":\"wait\"}]",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *lines = json_loads(texts[i], 0, NULL);

        assert_non_null(lines);
        assert_true(replay_run(lines, convergence_step, NULL, NULL).malformed);
        json_decref(lines);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_that_writes_little_is_judged_as_it_was),
        cmocka_unit_test(one_that_writes_too_fast_is_judged_as_it_was),
        cmocka_unit_test(another_policy_shows_where_it_decides_otherwise),
        cmocka_unit_test(a_verdict_that_was_another_is_found),
        cmocka_unit_test(what_is_no_sample_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * When to switch over, and what to do until then: fed with rounds as a migration would bring them. Whole migrations, of guests that never
 * were, are in test_ladder.c.
 */
#include "agent/policy/convergence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MB UINT64_C(1000000)

static struct convergence begin(enum convergence_mode mode)
{
    struct convergence convergence;

    convergence_init(&convergence, &(struct convergence_limits){.mode = mode,
                                                                .max_downtime_ms = 300,
                                                                .max_quick_downtime_ms = 5000});
    return convergence;
}

static struct convergence begin_throttling(enum convergence_mode mode, uint32_t max_throttle)
{
    struct convergence convergence = begin(mode);

    convergence.limits.max_throttle = max_throttle;
    convergence.limits.can_throttle_cpus = max_throttle > 0;
    convergence.limits.can_throttle_disks = max_throttle > 0;
    return convergence;
}

/* The first sample of ROUND with LEFT bytes of memory to send at 100 MB/s: 10 ms a MB. Rounds take a second, and as QEMU has just looked no
 * more is dirty. */
static struct convergence_sample sample(uint64_t round, uint64_t left)
{
    return (struct convergence_sample){.now_ms = 1000 * round,
                                       .elapsed_ms = 1000 * round,
                                       .round = round,
                                       .memory_left = left,
                                       .memory_rate = 100 * MB,
                                       .disk_rate = 100 * MB};
}

static enum convergence_verdict step(struct convergence *convergence,
                                     struct convergence_sample given)
{
    return convergence_step(convergence, &given);
}

/* The first verdict but GO_ON in rounds from FROM on that all have LEFT to send; the round is in *ROUND. */
static enum convergence_verdict first_verdict(struct convergence *convergence, uint64_t left,
                                              uint64_t from, uint64_t *round)
{
    for (*round = from; *round < from + 100; ++*round) {
        struct convergence_sample given = sample(*round, left);
        enum convergence_verdict verdict;

        given.cpu_throttle = convergence->cpu_throttle;
        verdict = step(convergence, given);
        if (verdict != CONVERGENCE_GO_ON) {
            return verdict;
        }
    }
    return CONVERGENCE_GO_ON;
}

static void live_switches_over_when_what_is_left_fits(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);
    struct convergence_sample later;

    (void)state;
    assert_int_equal(live.predicted_downtime_ms, FORECAST_UNKNOWN);
    assert_int_equal(step(&live, sample(1, 500 * MB)), CONVERGENCE_GO_ON);
    assert_int_equal(step(&live, sample(2, 100 * MB)), CONVERGENCE_GO_ON);
    assert_int_equal(step(&live, sample(3, 31 * MB)), CONVERGENCE_GO_ON);
    assert_int_equal(step(&live, sample(4, 16 * MB)), CONVERGENCE_SWITCH_OVER);
    live = begin(CONVERGENCE_LIVE);
    step(&live, sample(1, 500 * MB));
    step(&live, sample(2, 100 * MB));
    step(&live, sample(3, 16 * MB));
    /* The round before left 16 MB dirty in a second. Half a second later this one may have as much: 13 MB and 8 to 16. */
    later = sample(3, 15 * MB);
    later.now_ms += 500;
    assert_int_equal(step(&live, later), CONVERGENCE_GO_ON);
    assert_in_range(live.predicted_downtime_ms, 260, 270);
    later.memory_left = 13 * MB;
    assert_int_equal(step(&live, later), CONVERGENCE_SWITCH_OVER);
    assert_in_range(live.predicted_downtime_ms, 240, 250);
    assert_non_null(strstr(live.reason, "ms predicted, 291 ms at most, limit 300 ms"));
    assert_non_null(strstr(live.reason, "round 3"));
}

static void a_pause_that_nobody_asked_for_fits_by_its_data(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);
    struct convergence_sample given = sample(2, 20 * MB);

    (void)state;
    given.fixed_ms = given.pass_ms = 500;
    given.disk_left = 10 * MB;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    assert_true(convergence_fits(&live, 310));
    assert_false(convergence_fits(&live, 299));
    given.memory_rate = 0;
    step(&live, given);
    assert_false(convergence_fits(&live, 300));
}

static void the_first_round_never_switches_over(void **state)
{
    (void)state;
    for (int mode = CONVERGENCE_AUTO; mode <= CONVERGENCE_QUICK; mode++) {
        struct convergence convergence = begin((enum convergence_mode)mode);

        assert_int_equal(step(&convergence, sample(0, 0)), CONVERGENCE_GO_ON);
        assert_int_equal(step(&convergence, sample(1, 0)), CONVERGENCE_GO_ON);
        assert_int_equal(step(&convergence, sample(2, 0)), CONVERGENCE_SWITCH_OVER);
    }
}

static void a_running_pass_is_waited_for_while_it_fits(void **state)
{
    (void)state;
    for (int mode = CONVERGENCE_AUTO; mode <= CONVERGENCE_QUICK; mode++) {
        struct convergence convergence = begin((enum convergence_mode)mode);
        struct convergence_sample given = sample(2, MB);

        given.pass_running = true;
        for (int tick = 0; tick < 100; tick++) {
            assert_int_equal(step(&convergence, given), CONVERGENCE_WAIT);
        }
        given.pass_running = false;
        assert_int_equal(step(&convergence, given), CONVERGENCE_SWITCH_OVER);
    }
}

static void quick_switches_over_after_one_live_round(void **state)
{
    struct convergence quick = begin(CONVERGENCE_QUICK);
    struct convergence_sample given = sample(2, 100 * MB);

    (void)state;
    assert_int_equal(step(&quick, sample(1, 400 * MB)), CONVERGENCE_GO_ON);
    assert_int_equal(step(&quick, given), CONVERGENCE_GO_ON);
    /* By now it is known how well that shrinks: what the first second left dirty again, and what was not sent. */
    given.now_ms += CONVERGENCE_SHOWN_MS;
    assert_int_equal(step(&quick, given), CONVERGENCE_SWITCH_OVER);
    assert_in_range(quick.predicted_downtime_ms, 2500, 2501);
    assert_non_null(strstr(quick.reason, "limit 5000 ms"));
}

static void quick_gives_up_when_rounds_do_not_bring_it_within_its_limit(void **state)
{
    struct convergence quick = begin(CONVERGENCE_QUICK);
    uint64_t round;

    (void)state;
    assert_int_equal(first_verdict(&quick, 900 * MB, 1, &round), CONVERGENCE_GIVE_UP);
    assert_int_equal(round, 3 + CONVERGENCE_PATIENCE_ROUNDS);
    assert_non_null(strstr(quick.reason, "9001 ms"));
    assert_non_null(strstr(quick.reason, "--max-quick-downtime allows 5000 ms"));
}

static void progress_now_and_then_is_enough(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);
    uint64_t left = 4000 * MB;

    (void)state;
    for (uint64_t round = 1; left > 40 * MB; round++) {
        uint64_t step_of = round % CONVERGENCE_PATIENCE_ROUNDS;

        left -= step_of == 0 ? left / 10 : 0;
        assert_int_equal(step(&live, sample(round, left + step_of * MB)), CONVERGENCE_GO_ON);
    }
}

static void short_rounds_do_not_use_up_the_patience(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);

    (void)state;
    for (uint64_t round = 1; round < 200; round++) {
        struct convergence_sample given = sample(round, 40 * MB);

        given.now_ms = 5000 + 10 * round;
        assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    }
}

static void live_gives_up_with_what_was_missed(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);
    uint64_t round;

    (void)state;
    assert_int_equal(first_verdict(&live, 200 * MB, 1, &round), CONVERGENCE_GIVE_UP);
    assert_non_null(strstr(live.reason, "100.0 MB/s of memory leave"));
    assert_non_null(strstr(live.reason, "memory becomes dirty at 200.0 MB/s"));
    assert_non_null(strstr(live.reason, "a pause would take 2001 ms"));
    assert_non_null(strstr(live.reason, "--max-downtime allows 300 ms"));
    assert_false(live.missed_deadline);
}

static void auto_falls_back_when_nothing_may_be_throttled(void **state)
{
    struct convergence automatic = begin(CONVERGENCE_AUTO);
    uint64_t round;

    (void)state;
    assert_int_equal(first_verdict(&automatic, 200 * MB, 1, &round), CONVERGENCE_FALL_BACK);
    assert_non_null(strstr(automatic.reason, "falling back to quick (limit 5000 ms)"));
    assert_int_equal(automatic.predicted_downtime_ms, 2001);
}

static void a_quick_that_is_too_long_is_not_fallen_back_to(void **state)
{
    struct convergence automatic = begin(CONVERGENCE_AUTO);
    uint64_t round;

    (void)state;
    assert_int_equal(first_verdict(&automatic, 600 * MB, 1, &round), CONVERGENCE_GIVE_UP);
    assert_int_equal(round, 3 + CONVERGENCE_PATIENCE_ROUNDS + CONVERGENCE_QUICK_ROUNDS);
    assert_non_null(strstr(automatic.reason, "6001 ms"));
    assert_non_null(strstr(automatic.reason, "--max-quick-downtime allows 5000 ms"));
}

static void throttles_step_by_step_up_to_what_is_allowed(void **state)
{
    struct convergence live = begin_throttling(CONVERGENCE_LIVE, 50);
    static const uint32_t steps[] = {20, 40, 50};
    uint64_t round = 0;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(first_verdict(&live, 200 * MB, round + 1, &round),
                         CONVERGENCE_THROTTLE_CPUS);
        assert_int_equal(live.cpu_throttle, steps[i]);
    }
    assert_non_null(strstr(live.reason, "throttled to run 50 % less"));
    assert_int_equal(first_verdict(&live, 200 * MB, round + 1, &round), CONVERGENCE_GIVE_UP);
    assert_non_null(strstr(live.reason, "vCPUs 50 % throttled"));
}

static void a_throttle_gets_time_to_come_into_force(void **state)
{
    struct convergence live = begin_throttling(CONVERGENCE_LIVE, 20);
    uint64_t round, asked;

    (void)state;
    assert_int_equal(first_verdict(&live, 200 * MB, 1, &asked), CONVERGENCE_THROTTLE_CPUS);
    for (round = asked + 1; step(&live, sample(round, 200 * MB)) == CONVERGENCE_GO_ON; round++) {
        assert_true(round < 100);
    }
    /* QEMU never took it up: after a while it goes on without. */
    assert_int_equal(round, asked + CONVERGENCE_FORCE_MS / 1000 + CONVERGENCE_PATIENCE_ROUNDS);
}

static void a_throttle_that_cannot_help_is_passed_over(void **state)
{
    struct convergence automatic = begin_throttling(CONVERGENCE_AUTO, 99);
    struct convergence_sample given;
    enum convergence_verdict verdict = CONVERGENCE_GO_ON;

    (void)state;
    for (uint64_t round = 1; verdict == CONVERGENCE_GO_ON && round < 100; round++) {
        given = sample(round, MB);
        given.fixed_ms = 400;
        verdict = step(&automatic, given);
    }
    assert_int_equal(verdict, CONVERGENCE_FALL_BACK);
}

static void disk_writes_are_throttled_first_where_they_matter(void **state)
{
    struct convergence live = begin_throttling(CONVERGENCE_LIVE, 90);
    enum convergence_verdict verdict = CONVERGENCE_GO_ON;
    static const uint32_t steps[] = {50, 75, 90};
    uint64_t tick = 0;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        verdict = CONVERGENCE_GO_ON;
        while (verdict == CONVERGENCE_GO_ON && tick < 1000) {
            struct convergence_sample given = sample(1 + tick / 2, 40 * MB);

            /* 100 MB/s are written: in each round's second half, as much as the first has left. */
            given.now_ms = 500 * tick;
            given.disk_left = tick % 2 ? 50 * MB : 0;
            given.pass_running = tick++ % 2 == 0;
            verdict = step(&live, given);
        }
        assert_int_equal(verdict, CONVERGENCE_THROTTLE_DISKS);
        assert_int_equal(live.disk_throttle, steps[i]);
        assert_in_range((uint64_t)live.disk_limit,
                        (uint64_t)(live.disk_write_rate * (99 - steps[i]) / 100 / 2), 60 * MB);
    }
    assert_non_null(strstr(live.reason, "disk writes throttled to"));
}

static void disks_that_outrun_the_link_are_throttled_in_the_first_round(void **state)
{
    struct convergence live = begin_throttling(CONVERGENCE_LIVE, 90);
    struct convergence quick = begin_throttling(CONVERGENCE_QUICK, 90);
    enum convergence_verdict verdict = CONVERGENCE_GO_ON;
    uint64_t tick;

    (void)state;
    for (tick = 0; verdict == CONVERGENCE_GO_ON && tick < 100; tick++) {
        struct convergence_sample given = sample(1, 400 * MB);

        given.now_ms = 1000 + 500 * tick;
        given.disk_left = tick % 2 ? 150 * MB : 0;
        verdict = step(&live, given);
        assert_int_equal(step(&quick, given), CONVERGENCE_GO_ON);
    }
    assert_int_equal(verdict, CONVERGENCE_THROTTLE_DISKS);
    assert_in_range(500 * tick, CONVERGENCE_STORM_MS, 2 * CONVERGENCE_STORM_MS);
    assert_non_null(strstr(live.reason, "the first round does not end: disk writes throttled"));
}

static void disks_that_hardly_write_are_left_alone(void **state)
{
    struct convergence live = begin_throttling(CONVERGENCE_LIVE, 90);
    uint64_t round;

    (void)state;
    assert_int_equal(first_verdict(&live, 200 * MB, 1, &round), CONVERGENCE_THROTTLE_CPUS);
    assert_int_equal(live.disk_throttle, 0);
}

static void the_deadline_falls_back_while_there_is_time_for_it(void **state)
{
    struct convergence automatic = begin_throttling(CONVERGENCE_AUTO, 99);
    struct convergence_sample given = sample(1, 900 * MB);

    (void)state;
    automatic.limits.deadline_ms = 20000;
    assert_int_equal(step(&automatic, given), CONVERGENCE_GO_ON);
    given = sample(2, 200 * MB); /* a pause of 2 s; 3.5 s before the deadline is the time */
    given.elapsed_ms = 16000;
    assert_int_equal(step(&automatic, given), CONVERGENCE_GO_ON);
    given.elapsed_ms = 17000;
    assert_int_equal(step(&automatic, given), CONVERGENCE_FALL_BACK);
    assert_non_null(strstr(automatic.reason, "--deadline of 20.0 s leaves 3.0 s"));
    assert_false(automatic.missed_deadline);
}

static void a_deadline_that_no_pause_can_keep_ends_it(void **state)
{
    (void)state;
    for (int mode = CONVERGENCE_AUTO; mode <= CONVERGENCE_QUICK; mode++) {
        struct convergence convergence = begin((enum convergence_mode)mode);
        struct convergence_sample given = sample(1, 900 * MB);

        convergence.limits.deadline_ms = 20000;
        assert_int_equal(step(&convergence, given), CONVERGENCE_GO_ON);
        given = sample(2, 600 * MB);
        given.elapsed_ms = 20001;
        assert_int_equal(step(&convergence, given), CONVERGENCE_GIVE_UP);
        assert_true(convergence.missed_deadline);
        assert_non_null(strstr(convergence.reason, "--deadline of 20.0 s leaves 0.0 s"));
    }
}

static void a_first_round_that_takes_too_long_is_known_early(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);
    struct convergence_sample given = sample(1, 9000 * MB);

    (void)state;
    live.limits.deadline_ms = 60000;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    given.now_ms += 2000;
    given.elapsed_ms += 2000;
    given.memory_left = 8800 * MB;
    assert_int_equal(step(&live, given), CONVERGENCE_GIVE_UP);
    assert_true(live.missed_deadline);
    assert_non_null(strstr(live.reason, "the first round of memory would take 88.0 s more"));
    /* Mostly zero pages go by faster than the link carries others. */
    live = begin(CONVERGENCE_LIVE);
    live.limits.deadline_ms = 60000;
    given = sample(1, 9000 * MB);
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    given.now_ms += 2000;
    given.memory_left = 8000 * MB;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
}

static void disks_that_take_too_long_are_known_early(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);

    (void)state;
    assert_true(convergence_disks_in_time(&live, 1000000, 1000 * MB, MB));
    live.limits.deadline_ms = 60000;
    assert_true(convergence_disks_in_time(&live, 10000, 100 * MB, 2 * MB));
    assert_true(convergence_disks_in_time(&live, 59999, 1000 * MB, 0));
    assert_false(live.missed_deadline);
    assert_false(convergence_disks_in_time(&live, 10001, 100 * MB, 2 * MB));
    assert_true(live.missed_deadline);
    assert_non_null(strstr(live.reason, "copying the disks would take 50.0 s more"));
    assert_false(convergence_disks_in_time(&live, 60000, 0, 0));
}

static void giving_up_without_a_prediction_does_not_print_one(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE);
    enum convergence_verdict verdict = CONVERGENCE_GO_ON;

    (void)state;
    for (uint64_t round = 1; round < 100 && verdict == CONVERGENCE_GO_ON; round++) {
        struct convergence_sample given = sample(round, 200 * MB);

        given.memory_rate = 0;
        verdict = step(&live, given);
    }
    assert_int_equal(verdict, CONVERGENCE_GIVE_UP);
    assert_null(strstr(live.reason, "4294967295"));
}

static void all_figures_at_their_largest(void **state)
{
    struct convergence live = begin(CONVERGENCE_LIVE), quick = begin(CONVERGENCE_QUICK);
    struct convergence_sample given = {.now_ms = UINT64_MAX,
                                       .elapsed_ms = UINT64_MAX,
                                       .round = UINT64_MAX,
                                       .memory_left = UINT64_MAX,
                                       .memory_dirty_rate = UINT64_MAX,
                                       .in_flight = UINT64_MAX,
                                       .memory_rate = 1,
                                       .disk_left = UINT64_MAX,
                                       .disk_rate = 1,
                                       .pass_ms = UINT32_MAX,
                                       .fixed_ms = UINT32_MAX};

    (void)state;
    live.limits.deadline_ms = UINT32_MAX;
    for (int i = 0; i < 3; i++) {
        assert_int_not_equal(step(&live, given), CONVERGENCE_SWITCH_OVER);
        assert_int_equal(live.predicted_downtime_ms, FORECAST_UNKNOWN);
        assert_int_not_equal(step(&quick, given), CONVERGENCE_SWITCH_OVER);
        assert_true(strlen(live.reason) < sizeof live.reason - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_switches_over_when_what_is_left_fits),
        cmocka_unit_test(a_pause_that_nobody_asked_for_fits_by_its_data),
        cmocka_unit_test(the_first_round_never_switches_over),
        cmocka_unit_test(a_running_pass_is_waited_for_while_it_fits),
        cmocka_unit_test(quick_switches_over_after_one_live_round),
        cmocka_unit_test(quick_gives_up_when_rounds_do_not_bring_it_within_its_limit),
        cmocka_unit_test(progress_now_and_then_is_enough),
        cmocka_unit_test(short_rounds_do_not_use_up_the_patience),
        cmocka_unit_test(live_gives_up_with_what_was_missed),
        cmocka_unit_test(auto_falls_back_when_nothing_may_be_throttled),
        cmocka_unit_test(a_quick_that_is_too_long_is_not_fallen_back_to),
        cmocka_unit_test(throttles_step_by_step_up_to_what_is_allowed),
        cmocka_unit_test(a_throttle_gets_time_to_come_into_force),
        cmocka_unit_test(a_throttle_that_cannot_help_is_passed_over),
        cmocka_unit_test(disk_writes_are_throttled_first_where_they_matter),
        cmocka_unit_test(disks_that_outrun_the_link_are_throttled_in_the_first_round),
        cmocka_unit_test(disks_that_hardly_write_are_left_alone),
        cmocka_unit_test(the_deadline_falls_back_while_there_is_time_for_it),
        cmocka_unit_test(a_deadline_that_no_pause_can_keep_ends_it),
        cmocka_unit_test(a_first_round_that_takes_too_long_is_known_early),
        cmocka_unit_test(disks_that_take_too_long_are_known_early),
        cmocka_unit_test(giving_up_without_a_prediction_does_not_print_one),
        cmocka_unit_test(all_figures_at_their_largest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

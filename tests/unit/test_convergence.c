/*
 * When to switch over: fed with rounds as a migration would bring them, and with figures no
 * migration brings.
 */
#include "agent/policy/convergence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MB UINT64_C(1000000)

static struct convergence begin(bool quick)
{
    struct convergence convergence;

    convergence_init(&convergence, &(struct convergence_limits){.quick = quick,
                                                                .max_downtime_ms = 300,
                                                                .max_quick_downtime_ms = 5000});
    return convergence;
}

/* The first sample of ROUND with LEFT bytes of memory to send at 100 MB/s: 10 ms a MB, and no time
 * has passed in which more became dirty. */
static struct convergence_sample sample(uint64_t round, uint64_t left)
{
    return (struct convergence_sample){.now_ms = 1000 * round,
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

static void live_switches_over_when_what_is_left_fits(void **state)
{
    struct convergence live = begin(false);

    (void)state;
    assert_false(convergence_fits(&live));
    assert_int_equal(live.predicted_downtime_ms, UINT32_MAX);
    assert_int_equal(step(&live, sample(1, 500 * MB)), CONVERGENCE_GO_ON);
    assert_int_equal(step(&live, sample(2, 100 * MB)), CONVERGENCE_GO_ON);
    assert_false(convergence_fits(&live));
    assert_int_equal(step(&live, sample(3, 31 * MB)), CONVERGENCE_GO_ON);
    assert_int_equal(step(&live, sample(3, 29 * MB)), CONVERGENCE_SWITCH_OVER);
    assert_true(convergence_fits(&live));
    assert_in_range(live.predicted_downtime_ms, 290, 291);
    assert_non_null(strstr(live.reason, "limit 300 ms"));
    assert_non_null(strstr(live.reason, "round 3"));
}

static void the_first_round_never_switches_over(void **state)
{
    struct convergence live = begin(false), quick = begin(true);

    (void)state;
    for (uint64_t round = 0; round < 2; round++) {
        assert_int_equal(step(&live, sample(round, 0)), CONVERGENCE_GO_ON);
        assert_int_equal(step(&quick, sample(round, 0)), CONVERGENCE_GO_ON);
    }
    assert_int_equal(step(&live, sample(2, 0)), CONVERGENCE_SWITCH_OVER);
    assert_int_equal(step(&quick, sample(2, 0)), CONVERGENCE_SWITCH_OVER);
}

static void disks_and_fixed_costs_count_in_the_pause(void **state)
{
    struct convergence live = begin(false);
    struct convergence_sample given = sample(2, 20 * MB);

    (void)state;
    given.disk_left = 20 * MB;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    assert_in_range(live.predicted_downtime_ms, 400, 402);
    given.disk_left = 5 * MB;
    given.fixed_ms = 100;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    given.fixed_ms = 40;
    assert_int_equal(step(&live, given), CONVERGENCE_SWITCH_OVER);
}

static void what_became_dirty_since_the_round_began_counts(void **state)
{
    struct convergence live = begin(false);
    struct convergence_sample given = sample(2, 10 * MB);

    (void)state;
    given.memory_dirty_rate = 40 * MB;
    given.pass_running = true;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    assert_true(convergence_fits(&live));
    given.pass_running = false;
    given.now_ms += 600;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    assert_in_range(live.predicted_downtime_ms, 340, 341);
    /* A new round: QEMU has looked. */
    given.round++;
    assert_int_equal(step(&live, given), CONVERGENCE_SWITCH_OVER);
}

static void a_running_pass_defers_the_switchover(void **state)
{
    (void)state;
    for (int quick = 0; quick < 2; quick++) {
        struct convergence convergence = begin(quick);
        struct convergence_sample given = sample(2, MB);

        given.pass_running = true;
        for (int tick = 0; tick < 100; tick++) {
            assert_int_equal(step(&convergence, given), CONVERGENCE_GO_ON);
        }
        given.pass_running = false;
        assert_int_equal(step(&convergence, given), CONVERGENCE_SWITCH_OVER);
    }
}

static void quick_switches_over_after_one_live_round(void **state)
{
    struct convergence quick = begin(true);

    (void)state;
    assert_int_equal(step(&quick, sample(1, 400 * MB)), CONVERGENCE_GO_ON);
    assert_int_equal(step(&quick, sample(2, 400 * MB)), CONVERGENCE_SWITCH_OVER);
    assert_in_range(quick.predicted_downtime_ms, 4000, 4001);
    assert_non_null(strstr(quick.reason, "limit 5000 ms"));
}

/* The round's first sample at which it gives up, its remainder being LEFT in every round from the
 * second on. */
static uint64_t round_of_giving_up(struct convergence *convergence, uint64_t left)
{
    assert_int_equal(step(convergence, sample(1, 2 * left)), CONVERGENCE_GO_ON);
    for (uint64_t round = 2; round < 200; round++) {
        enum convergence_verdict verdict = step(convergence, sample(round, left));

        assert_int_not_equal(verdict, CONVERGENCE_SWITCH_OVER);
        if (verdict == CONVERGENCE_GIVE_UP) {
            return round;
        }
        /* However often it is asked within a round. */
        assert_int_equal(step(convergence, sample(round, left)), CONVERGENCE_GO_ON);
    }
    return 0;
}

static void gives_up_after_so_many_rounds_without_progress(void **state)
{
    struct convergence live = begin(false), quick = begin(true);

    (void)state;
    /* The smallest remainder is that of round 2. */
    assert_int_equal(round_of_giving_up(&live, 200 * MB), 2 + CONVERGENCE_PATIENCE_ROUNDS);
    assert_non_null(strstr(live.reason, "100.0 MB/s leave"));
    assert_non_null(strstr(live.reason, "30 rounds"));
    assert_non_null(strstr(live.reason, "200.0 MB are left"));
    assert_non_null(strstr(live.reason, "limit is 300 ms"));
    assert_int_equal(round_of_giving_up(&quick, 900 * MB), 2 + CONVERGENCE_PATIENCE_ROUNDS);
    assert_non_null(strstr(quick.reason, "5000 ms"));
    assert_non_null(strstr(quick.reason, "30 rounds"));
}

static void progress_now_and_then_is_enough(void **state)
{
    struct convergence live = begin(false);
    uint64_t left = 1000 * MB;

    (void)state;
    for (uint64_t round = 1; round < 20 * CONVERGENCE_PATIENCE_ROUNDS; round++) {
        if (round % (CONVERGENCE_PATIENCE_ROUNDS - 1) == 0) {
            left -= MB;
        }
        /* In between it is worse than it was. */
        assert_int_equal(
            step(&live, sample(round, left + (round % (CONVERGENCE_PATIENCE_ROUNDS - 1)) * MB)),
            CONVERGENCE_GO_ON);
    }
}

static void an_unknown_rate_is_no_prediction(void **state)
{
    struct convergence live = begin(false);
    struct convergence_sample given = sample(2, 1);

    (void)state;
    given.memory_rate = 0;
    given.disk_rate = 0;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    assert_int_equal(live.predicted_downtime_ms, UINT32_MAX);
    assert_false(convergence_fits(&live));
    /* The disks' rate is guessed from the link's. */
    given = sample(3, 0);
    given.disk_left = 50 * MB;
    given.disk_rate = 0;
    assert_int_equal(step(&live, given), CONVERGENCE_GO_ON);
    assert_in_range(live.predicted_downtime_ms, 500, 501);
}

static void giving_up_without_a_prediction_does_not_print_one(void **state)
{
    struct convergence live = begin(false);
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

/* A prediction that wrapped around would say that the impossible fits. */
static void extreme_values_never_make_it_fit(void **state)
{
    static const uint64_t values[] = {
        1,         2, 999, 1000, 1u << 31, UINT64_MAX / 1000, UINT64_MAX / 1000 + 1, UINT64_MAX - 1,
        UINT64_MAX};
    const size_t count = sizeof values / sizeof *values;

    (void)state;
    for (size_t i = 0; i < count * count * count * count; i++) {
        uint64_t left = values[i % count], rate = values[i / count % count];
        uint64_t dirty = values[i / count / count % count];
        uint64_t since = values[i / count / count / count];
        struct convergence live = begin(false);
        struct convergence_sample given = {.now_ms = 0,
                                           .round = 2,
                                           .memory_left = left,
                                           .memory_dirty_rate = dirty,
                                           .memory_rate = rate};
        double wanted;

        step(&live, given);
        given.now_ms = since;
        step(&live, given);
        wanted = ((double)left + (double)dirty * (double)since / 1e3) / (double)rate * 1e3;
        if (wanted < 4e9 ? live.predicted_downtime_ms + 1.0 < wanted * 0.999
                         : live.predicted_downtime_ms < 3900000000u) {
            fail_msg("%llu left, rate %llu, dirtied at %llu for %llu ms: %u ms predicted, not %g",
                     (unsigned long long)left, (unsigned long long)rate, (unsigned long long)dirty,
                     (unsigned long long)since, live.predicted_downtime_ms, wanted);
        }
    }
}

static void all_figures_at_their_largest(void **state)
{
    struct convergence live = begin(false), quick = begin(true);
    struct convergence_sample given = {.now_ms = UINT64_MAX,
                                       .round = UINT64_MAX,
                                       .memory_left = UINT64_MAX,
                                       .memory_dirty_rate = UINT64_MAX,
                                       .memory_rate = 1,
                                       .disk_left = UINT64_MAX,
                                       .disk_rate = 1,
                                       .fixed_ms = UINT32_MAX};

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_not_equal(step(&live, given), CONVERGENCE_SWITCH_OVER);
        assert_int_equal(live.predicted_downtime_ms, UINT32_MAX);
        assert_int_not_equal(step(&quick, given), CONVERGENCE_SWITCH_OVER);
        assert_true(strlen(live.reason) < sizeof live.reason - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_switches_over_when_what_is_left_fits),
        cmocka_unit_test(the_first_round_never_switches_over),
        cmocka_unit_test(disks_and_fixed_costs_count_in_the_pause),
        cmocka_unit_test(what_became_dirty_since_the_round_began_counts),
        cmocka_unit_test(a_running_pass_defers_the_switchover),
        cmocka_unit_test(quick_switches_over_after_one_live_round),
        cmocka_unit_test(gives_up_after_so_many_rounds_without_progress),
        cmocka_unit_test(progress_now_and_then_is_enough),
        cmocka_unit_test(an_unknown_rate_is_no_prediction),
        cmocka_unit_test(giving_up_without_a_prediction_does_not_print_one),
        cmocka_unit_test(extreme_values_never_make_it_fit),
        cmocka_unit_test(all_figures_at_their_largest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

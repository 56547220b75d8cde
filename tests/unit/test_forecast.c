/*
 * How long a pause is said to take: rounds and rates as a migration would bring them, and figures that none brings.
 */
#include "agent/policy/forecast.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MB UINT64_C(1000000)

/* The first sample of ROUND at MS, LEFT bytes of memory to send at 100 MB/s: 10 ms a MB. */
static struct convergence_sample sample(uint64_t round, uint64_t ms, uint64_t left)
{
    return (struct convergence_sample){.now_ms = ms,
                                       .elapsed_ms = ms,
                                       .round = round,
                                       .memory_left = left,
                                       .memory_rate = 100 * MB,
                                       .disk_rate = 100 * MB};
}

static struct forecast begin(void)
{
    struct forecast forecast;

    forecast_init(&forecast);
    return forecast;
}

static uint32_t pause_after(struct forecast *forecast, struct convergence_sample given)
{
    forecast_note(forecast, &given);
    return forecast_pause(forecast);
}

static void all_that_is_left_counts(void **state)
{
    struct forecast forecast = begin();
    struct convergence_sample given = sample(2, 1000, 20 * MB);

    (void)state;
    assert_in_range(pause_after(&forecast, given), 200, 201);
    given.in_flight = 5 * MB;
    assert_in_range(pause_after(&forecast, given), 250, 251);
    given.disk_left = 10 * MB;
    assert_in_range(pause_after(&forecast, given), 350, 352);
    given.pass_left = 5 * MB;
    given.disk_left = 5 * MB;
    assert_in_range(pause_after(&forecast, given), 350, 352);
    given.fixed_ms = 40;
    assert_in_range(pause_after(&forecast, given), 390, 392);
}

/* The rate of memory is a mean over seconds in which it may have shrunk quite otherwise. */
static void what_is_on_its_way_takes_as_long_as_such_took(void **state)
{
    struct forecast forecast = begin();
    struct convergence_sample given = sample(2, 1000, 20 * MB);

    (void)state;
    given.in_flight = 5 * MB;
    given.in_flight_ms = 30;
    assert_in_range(pause_after(&forecast, given), 230, 231);
    /* The bound on the pause does not rest on it. */
    given.memory_rate_least = 50 * MB;
    forecast_note(&forecast, &given);
    assert_in_range(forecast_longest_pause(&forecast), 500, 501);
}

static void if_less_is_on_its_way_it_takes_less(void **state)
{
    struct forecast forecast = begin();
    struct convergence_sample given = sample(2, 1000, 20 * MB);

    (void)state;
    given.in_flight = MB;
    given.in_flight_ms = 30;
    assert_in_range(pause_after(&forecast, given), 210, 211);
}

static void what_may_not_shrink_makes_it_longer(void **state)
{
    struct forecast forecast = begin();
    struct convergence_sample given = sample(2, 1000, 20 * MB);

    (void)state;
    given.disk_left = 10 * MB;
    given.memory_rate_least = 50 * MB;
    assert_in_range(pause_after(&forecast, given), 300, 302);
    assert_in_range(forecast_longest_pause(&forecast), 500, 502);
}

static void the_waits_of_a_pass_hide_behind_the_memory(void **state)
{
    struct forecast forecast = begin();
    struct convergence_sample given = sample(2, 1000, 20 * MB);

    (void)state;
    given.pass_ms = 150;
    assert_in_range(pause_after(&forecast, given), 200, 201);
    given.pass_ms = 300;
    assert_in_range(pause_after(&forecast, given), 300, 300);
}

static void what_became_dirty_since_QEMU_looked_counts(void **state)
{
    struct forecast forecast = begin();
    struct convergence_sample given = sample(2, 1000, 10 * MB);

    (void)state;
    given.memory_dirty_rate = 40 * MB;
    assert_in_range(pause_after(&forecast, given), 100, 101);
    given.now_ms += 600;
    assert_in_range(pause_after(&forecast, given), 340, 341);
    given.round++;
    assert_in_range(pause_after(&forecast, given), 100, 101);
}

static void a_round_that_was_seen_whole_tells_a_rate_of_its_own(void **state)
{
    struct forecast forecast = begin();

    (void)state;
    pause_after(&forecast, sample(1, 0, 200 * MB));
    pause_after(&forecast, sample(2, 2000, 60 * MB)); /* 60 MB in 2 s */
    assert_in_range((uint64_t)forecast_dirty_rate(&forecast), 29 * MB, 31 * MB);
    /* Rounds that nobody looked at in between: half a second each. */
    pause_after(&forecast, sample(4, 3000, 30 * MB));
    assert_in_range((uint64_t)forecast_dirty_rate(&forecast), 59 * MB, 61 * MB);
}

static void a_round_in_whose_midst_one_began_to_look_tells_nothing(void **state)
{
    struct forecast forecast = begin();

    (void)state;
    pause_after(&forecast, sample(3, 0, MB));
    pause_after(&forecast, sample(4, 1, 500 * MB));
    assert_true(forecast_dirty_rate(&forecast) == 0);
}

static void pages_written_again_and_again_are_dirty_once(void **state)
{
    struct forecast forecast = begin();

    (void)state;
    pause_after(&forecast, sample(1, 0, 1000 * MB));
    pause_after(&forecast, sample(2, 10000, 128 * MB));
    pause_after(&forecast,
                sample(3, 11000, 100 * MB)); /* all of its pages in little more than 1 s */
    assert_in_range((uint64_t)forecast_dirty(&forecast, 5000), 127 * MB, 128 * MB);
    /* No round was longer than that: nothing is known. */
    assert_in_range((uint64_t)forecast_dirty(&forecast, 20000), 1999 * MB, 2001 * MB);
}

static void a_part_of_a_round_leaves_between_its_share_and_all(void **state)
{
    struct forecast forecast = begin();

    (void)state;
    pause_after(&forecast, sample(1, 0, 1000 * MB));
    pause_after(&forecast, sample(2, 8000, 80 * MB));
    assert_in_range((uint64_t)forecast_dirty(&forecast, 2000), 39 * MB, 41 * MB);
    assert_in_range((uint64_t)forecast_dirty_most(&forecast, 2000), 80 * MB, 80 * MB);
    /* Nor does it take no time. */
    assert_in_range((uint64_t)forecast_dirty_most(&forecast, 10), 20 * MB, 20 * MB);
    /* After 2 s, with 10 MB left: 400 ms and 800 ms for that, 100 ms. */
    assert_in_range(pause_after(&forecast, sample(2, 10000, 10 * MB)), 499, 502);
    assert_in_range(forecast_longest_pause(&forecast), 900, 902);
    assert_in_range((uint64_t)forecast_dirty_most(&forecast, 8001), 80 * MB, 81 * MB);
}

static void the_total_is_that_of_a_shrinking_series(void **state)
{
    struct forecast forecast = begin();

    (void)state;
    pause_after(&forecast, sample(1, 0, 400 * MB));
    /* Half of what leaves becomes dirty: 200, 100, 50 MB, and 25 MB are 250 ms. */
    pause_after(&forecast, sample(2, 4000, 200 * MB));
    assert_in_range(forecast_total(&forecast, 300), 4000 + 3500 + 250, 4000 + 3500 + 260);
    assert_in_range(forecast_total(&forecast, 5000), 4000 + 2000 + 1000, 4000 + 2000 + 1002);
}

static void a_series_that_does_not_shrink_has_no_total(void **state)
{
    struct forecast forecast = begin();

    (void)state;
    pause_after(&forecast, sample(1, 0, 400 * MB));
    pause_after(&forecast, sample(2, 4000, 400 * MB));
    assert_int_equal(forecast_total(&forecast, 300), FORECAST_UNKNOWN);
}

static void without_a_rate_there_is_no_forecast(void **state)
{
    struct forecast forecast = begin();
    struct convergence_sample given = sample(2, 0, 1);

    (void)state;
    assert_int_equal(pause_after(&forecast, (struct convergence_sample){.memory_left = 1}),
                     FORECAST_UNKNOWN);
    given.memory_rate = given.disk_rate = 0;
    assert_int_equal(pause_after(&forecast, given), FORECAST_UNKNOWN);
    /* The disks' rate is guessed from the memory's. */
    given = sample(2, 0, 0);
    given.disk_left = 50 * MB;
    given.disk_rate = 0;
    assert_in_range(pause_after(&forecast, given), 500, 502);
}

/* A forecast that wrapped around would say that the impossible fits. */
static void extreme_values_never_make_it_short(void **state)
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
        struct forecast forecast = begin();
        struct convergence_sample given = {
            .round = 2, .memory_left = left, .memory_dirty_rate = dirty, .memory_rate = rate};
        double wanted = ((double)left + (double)dirty * (double)since / 1e3) / (double)rate * 1e3;
        uint32_t pause;

        forecast_note(&forecast, &given);
        given.now_ms = since;
        pause = pause_after(&forecast, given);
        if (wanted < 4e9 ? pause + 1.0 < wanted * 0.999 : pause < 3900000000u) {
            fail_msg("%llu left, rate %llu, dirtied at %llu for %llu ms: %u ms predicted, not %g",
                     (unsigned long long)left, (unsigned long long)rate, (unsigned long long)dirty,
                     (unsigned long long)since, pause, wanted);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_is_left_counts),
        cmocka_unit_test(what_is_on_its_way_takes_as_long_as_such_took),
        cmocka_unit_test(if_less_is_on_its_way_it_takes_less),
        cmocka_unit_test(what_may_not_shrink_makes_it_longer),
        cmocka_unit_test(the_waits_of_a_pass_hide_behind_the_memory),
        cmocka_unit_test(what_became_dirty_since_QEMU_looked_counts),
        cmocka_unit_test(a_round_that_was_seen_whole_tells_a_rate_of_its_own),
        cmocka_unit_test(a_round_in_whose_midst_one_began_to_look_tells_nothing),
        cmocka_unit_test(pages_written_again_and_again_are_dirty_once),
        cmocka_unit_test(a_part_of_a_round_leaves_between_its_share_and_all),
        cmocka_unit_test(the_total_is_that_of_a_shrinking_series),
        cmocka_unit_test(a_series_that_does_not_shrink_has_no_total),
        cmocka_unit_test(without_a_rate_there_is_no_forecast),
        cmocka_unit_test(extreme_values_never_make_it_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

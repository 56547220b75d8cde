/*
 * What `watari plan` predicts: guests whose numbers can be followed by hand, and properties that hold for any.
 */
#include "agent/policy/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MB UINT64_C(1000000)

/* 1000 MB that are all used, of which HOT are written over and over within a second; 100 MB/s leave. */
static struct plan_measures guest(uint64_t hot)
{
    return (struct plan_measures){.memory_bytes = 1000 * MB,
                                  .first_round = 1000 * MB,
                                  .dirty = {{1000, hot}, {2000, hot}, {4000, hot}},
                                  .dirty_count = 3,
                                  .link_rate = 100 * MB,
                                  .link_busy_ms = 3000,
                                  .memory_ratio = 1,
                                  .disk_ratio = 1};
}

static const struct plan_limits limits = {
    .mode = PLAN_AUTO, .max_downtime_ms = 300, .max_quick_downtime_ms = 30000, .max_throttle = 0};

static struct plan make(const struct plan_measures *measures, struct plan_limits within)
{
    struct plan plan;

    plan_make(measures, &within, &plan);
    assert_true(strlen(plan.confidence_reason) > 0);
    assert_true(strlen(plan.advice_reason) > 0);
    return plan;
}

static void dirty_bytes_go_through_what_was_measured(void **state)
{
    struct plan_measures measures = guest(0);

    (void)state;
    measures.dirty[0].bytes = 10 * MB;
    measures.dirty[1].bytes = 20 * MB;
    measures.dirty[2].bytes = 30 * MB;
    assert_in_range((uint64_t)plan_dirty_bytes(&measures, 1000), 10 * MB, 10 * MB);
    assert_in_range((uint64_t)plan_dirty_bytes(&measures, 3000), 25 * MB, 25 * MB);
    /* Always new pages at first: half the time, half of them. Later 5 MB/s. */
    assert_in_range((uint64_t)plan_dirty_bytes(&measures, 500), 4999999, 5000001);
    assert_in_range((uint64_t)plan_dirty_bytes(&measures, 8000), 50 * MB, 50 * MB);
    assert_true(plan_dirty_bytes(&measures, 0) == 0);
}

static void the_same_pages_are_dirty_at_once(void **state)
{
    struct plan_measures measures = guest(32 * MB);

    (void)state;
    assert_in_range((uint64_t)plan_dirty_bytes(&measures, 100), 32 * MB, 32 * MB);
    assert_in_range((uint64_t)plan_dirty_bytes(&measures, 100000), 32 * MB, 32 * MB);
    /* Nor does that take no time. */
    assert_in_range((uint64_t)plan_dirty_bytes(&measures, 1), 2 * MB, 2 * MB);
}

static void an_idle_guest_takes_one_round(void **state)
{
    struct plan_measures measures = guest(0);
    struct plan plan = make(&measures, limits);

    (void)state;
    assert_true(plan.live.ends);
    assert_int_equal(plan.live.rounds, 1);
    assert_in_range(plan.live.total_ms, 10000, 10100);
    assert_in_range(plan.live.downtime_ms, 0, 20);
    assert_in_range(plan.live.wire_bytes, 1000 * MB, 1002 * MB);
    assert_int_equal(plan.advice, PLAN_ADVISE_LIVE);
    assert_int_equal(plan.confidence, PLAN_GOOD);
}

static void a_working_set_that_fits_the_pause_goes_live(void **state)
{
    struct plan_measures measures = guest(25 * MB);
    struct plan plan = make(&measures, limits);

    (void)state;
    assert_int_equal(plan.advice, PLAN_ADVISE_LIVE);
    assert_in_range(plan.live.downtime_ms, 250, 262);
    assert_int_equal(plan.confidence, PLAN_FAIR); /* it is near the limit */
}

static void a_larger_one_goes_quick(void **state)
{
    struct plan_measures measures = guest(100 * MB);
    struct plan plan = make(&measures, limits);

    (void)state;
    assert_false(plan.live.ends);
    assert_int_equal(plan.advice, PLAN_ADVISE_QUICK);
    assert_in_range(plan.quick.downtime_ms, 1000, 1012);
    assert_in_range(plan.quick.total_ms, 12000, 12100);
}

static void dirty_pages_that_may_not_shrink_make_the_pause_longer(void **state)
{
    struct plan_measures measures = guest(64 * MB);
    struct plan plan;

    (void)state;
    measures.memory_ratio = 0.25;
    plan = make(&measures, limits);
    assert_true(plan.live.ends);
    assert_in_range(plan.live.downtime_ms, 160, 162);
    assert_int_equal(plan.quick.longest_ms, plan.quick.downtime_ms);
    assert_int_equal(plan.confidence, PLAN_GOOD);
    /* They do not: 0.64 s. Likely is the middle, half of them. */
    measures.worst_ratio = 1;
    plan = make(&measures, limits);
    assert_false(plan.live.ends);
    assert_in_range(plan.quick.downtime_ms, 320, 322);
    assert_in_range(plan.quick.longest_ms, 640, 642);
    assert_int_equal(plan.advice, PLAN_ADVISE_TRY);
    /* Whether it ends hangs on that. */
    measures.worst_ratio = 0.64;
    plan = make(&measures, limits);
    assert_true(plan.live.ends);
    assert_int_equal(plan.confidence, PLAN_FAIR);
    assert_non_null(strstr(plan.confidence_reason, "hangs on"));
}

static void rounds_shrink_until_they_fit(void **state)
{
    struct plan_measures measures = guest(0);
    struct plan plan;

    (void)state;
    /* Half of what leaves becomes dirty: rounds of 10, 5, 2.5, 1.25 and 0.625 s, after which 31 MB are left. */
    measures.dirty[0].bytes = 50 * MB;
    measures.dirty[1].bytes = 100 * MB;
    measures.dirty[2].bytes = 200 * MB;
    measures.dirty_count = 3;
    plan = make(&measures, limits);
    assert_true(plan.live.ends);
    assert_int_equal(plan.live.rounds, 6);
    assert_in_range(plan.live.total_ms, 19600, 20000);
    assert_in_range(plan.live.downtime_ms, 150, 180);
}

static void a_throttle_saves_what_converges_too_slowly(void **state)
{
    struct plan_measures measures = guest(0);
    struct plan_limits within = limits;
    struct plan plan;

    (void)state;
    /* 120 MB/s of new pages against 100. */
    measures.dirty[0].bytes = 120 * MB;
    measures.dirty[1].bytes = 240 * MB;
    measures.dirty[2].bytes = 480 * MB;
    assert_int_equal(make(&measures, within).advice, PLAN_ADVISE_QUICK);
    within.max_throttle = 50;
    plan = make(&measures, within);
    assert_int_equal(plan.advice, PLAN_ADVISE_THROTTLED);
    assert_false(plan.live.ends);
    assert_true(plan.throttled.ends);
}

static void a_pause_that_is_too_long_is_named(void **state)
{
    struct plan_measures measures = guest(400 * MB);
    struct plan_limits within = limits;
    struct plan plan;

    (void)state;
    within.max_quick_downtime_ms = 2000;
    plan = make(&measures, within);
    assert_int_equal(plan.advice, PLAN_ADVISE_LONGER_PAUSE);
    assert_in_range(plan.needed_ms, plan.quick.downtime_ms + 1, 2 * plan.quick.downtime_ms);
    within.mode = PLAN_LIVE;
    plan = make(&measures, within);
    assert_int_equal(plan.advice, PLAN_ADVISE_LONGER_PAUSE);
    assert_non_null(strstr(plan.advice_reason, "--max-downtime allows 300 ms"));
}

static void a_deadline_that_nothing_keeps_is_named(void **state)
{
    struct plan_measures measures = guest(100 * MB);
    struct plan_limits within = limits;
    struct plan plan;

    (void)state;
    within.deadline_ms = 5000;
    plan = make(&measures, within);
    assert_int_equal(plan.advice, PLAN_ADVISE_MORE_TIME);
    assert_true(plan.needed_ms > plan.quick.total_ms);
}

static void disks_come_before_memory(void **state)
{
    struct plan_measures measures = guest(0);
    struct plan plan;

    (void)state;
    measures.disk_bytes = 5000 * MB;
    plan = make(&measures, limits);
    assert_in_range(plan.live.total_ms, 60000, 60200);
    /* A tenth of the link is written meanwhile: 50, 5, 0.5 s of passes, and rounds with nine tenths. */
    measures.disk_write_rate = 10 * MB;
    plan = make(&measures, limits);
    assert_true(plan.live.ends);
    assert_in_range(plan.live.total_ms, 66000, 67500);
}

static void disk_writes_that_take_the_link_are_no_live(void **state)
{
    struct plan_measures measures = guest(0);
    struct plan_limits within = limits;
    struct plan plan;

    (void)state;
    measures.disk_bytes = 1000 * MB;
    measures.disk_write_rate = 120 * MB;
    plan = make(&measures, within);
    assert_false(plan.live.ends);
    within.mode = PLAN_LIVE;
    plan = make(&measures, within);
    assert_int_equal(plan.advice, PLAN_ADVISE_LONGER_PAUSE);
    assert_int_equal(plan.needed_ms, 0);
}

static void what_is_not_known_is_not_predicted(void **state)
{
    struct plan_measures measures = guest(0);
    struct plan plan;

    (void)state;
    measures.link_rate = 0;
    plan = make(&measures, limits);
    assert_false(plan.live.is_known || plan.quick.is_known || plan.throttled.is_known);
    assert_int_equal(plan.confidence, PLAN_NO_CONFIDENCE);
    assert_int_equal(plan.advice, PLAN_ADVISE_NOTHING);
    measures = guest(0);
    measures.dirty_count = 0;
    plan = make(&measures, limits);
    assert_false(plan.live.is_known);
    measures = guest(0);
    measures.link_given = true;
    assert_int_equal(make(&measures, limits).confidence, PLAN_LOW);
    measures = guest(0);
    measures.link_busy_ms = 200;
    assert_int_equal(make(&measures, limits).confidence, PLAN_FAIR);
}

/* --- properties, over guests made at random --- */

static uint64_t up_to(uint64_t most)
{
    return (uint64_t)random() % (most + 1);
}

static struct plan_measures any_guest(void)
{
    struct plan_measures measures = {.memory_bytes = 64 * MB + up_to(100000 * MB)};

    measures.first_round = up_to(measures.memory_bytes);
    measures.dirty_count = 1 + (size_t)up_to(PLAN_PERIODS_MAX - 1);
    for (size_t i = 0; i < measures.dirty_count; i++) {
        measures.dirty[i].ms = 1000u << i;
        measures.dirty[i].bytes = up_to(3) == 0 ? 0 : up_to(measures.memory_bytes / 4);
    }
    measures.disk_bytes = up_to(200000 * MB);
    measures.disk_write_rate = up_to(2) == 0 ? 0 : up_to(200 * MB);
    measures.link_rate = 1 + up_to(2000 * MB);
    measures.disk_link_rate = up_to(1) * up_to(2000 * MB);
    measures.memory_ratio = (double)up_to(120) / 100;
    measures.worst_ratio = (double)up_to(120) / 100;
    measures.disk_ratio = (double)up_to(120) / 100;
    measures.prepare_ms = (uint32_t)up_to(3000);
    measures.pass_ms = (uint32_t)up_to(500);
    measures.fixed_ms = (uint32_t)up_to(500);
    return measures;
}

static void dirty_bytes_grow_and_end_at_all_of_memory(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) {
        struct plan_measures measures = any_guest();
        double before = 0;

        for (double ms = 0; ms < 1e7; ms = ms * 1.3 + 1) {
            double bytes = plan_dirty_bytes(&measures, ms);

            assert_true(bytes >= before - 1);
            assert_true(bytes <= (double)measures.memory_bytes);
            before = bytes;
        }
    }
}

static void what_ends_ends_within_its_limits(void **state)
{
    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct plan_measures measures = any_guest();
        struct plan_limits within = {.mode = (enum plan_mode)up_to(2),
                                     .max_downtime_ms = 1 + (uint32_t)up_to(2000),
                                     .max_quick_downtime_ms = 1 + (uint32_t)up_to(60000),
                                     .deadline_ms = (uint32_t)up_to(1) * (uint32_t)up_to(1000000),
                                     .max_throttle = (uint32_t)up_to(99)};
        struct plan plan = make(&measures, within);

        assert_true(plan.live.is_known && plan.quick.is_known && plan.quick.ends);
        assert_true(plan.quick.longest_ms >= plan.quick.downtime_ms);
        if (plan.live.ends) {
            assert_in_range(plan.live.downtime_ms, measures.fixed_ms, within.max_downtime_ms + 1);
            assert_true(plan.live.total_ms >= plan.live.downtime_ms);
            assert_true(plan.live.rounds >= 1);
            assert_true(plan.throttled.ends); /* less is written */
        }
        if (plan.advice == PLAN_ADVISE_LIVE) {
            assert_true(plan.live.ends);
        }
        if (plan.advice == PLAN_ADVISE_TRY) {
            assert_int_equal(within.mode, PLAN_AUTO);
        }
        if (plan.advice == PLAN_ADVISE_QUICK || plan.advice == PLAN_ADVISE_TRY) {
            assert_true(plan.quick.longest_ms <= within.max_quick_downtime_ms);
        }
        if ((plan.advice == PLAN_ADVISE_LIVE || plan.advice == PLAN_ADVISE_QUICK) &&
            within.deadline_ms) {
            assert_true((plan.advice == PLAN_ADVISE_LIVE ? plan.live : plan.quick).total_ms <=
                        within.deadline_ms);
        }
    }
}

static void a_faster_link_is_never_worse(void **state)
{
    (void)state;
    for (int i = 0; i < 5000; i++) {
        struct plan_measures measures = any_guest();
        struct plan slow, fast;

        measures.disk_write_rate = 0; /* how many passes those take depends on more */
        slow = make(&measures, limits);
        measures.link_rate *= 2;
        measures.disk_link_rate *= 2;
        fast = make(&measures, limits);
        assert_true(!slow.live.ends || fast.live.ends);
        assert_true(fast.quick.total_ms <= slow.quick.total_ms);
        assert_true(fast.quick.downtime_ms <= slow.quick.downtime_ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dirty_bytes_go_through_what_was_measured),
        cmocka_unit_test(the_same_pages_are_dirty_at_once),
        cmocka_unit_test(an_idle_guest_takes_one_round),
        cmocka_unit_test(a_working_set_that_fits_the_pause_goes_live),
        cmocka_unit_test(a_larger_one_goes_quick),
        cmocka_unit_test(dirty_pages_that_may_not_shrink_make_the_pause_longer),
        cmocka_unit_test(rounds_shrink_until_they_fit),
        cmocka_unit_test(a_throttle_saves_what_converges_too_slowly),
        cmocka_unit_test(a_pause_that_is_too_long_is_named),
        cmocka_unit_test(a_deadline_that_nothing_keeps_is_named),
        cmocka_unit_test(disks_come_before_memory),
        cmocka_unit_test(disk_writes_that_take_the_link_are_no_live),
        cmocka_unit_test(what_is_not_known_is_not_predicted),
        cmocka_unit_test(dirty_bytes_grow_and_end_at_all_of_memory),
        cmocka_unit_test(what_ends_ends_within_its_limits),
        cmocka_unit_test(a_faster_link_is_never_worse),
    };

    srandom(7);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

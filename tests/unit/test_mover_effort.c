/* How hard a lane compresses: a lane, a link and data with invented speeds, and where it ends. */
#include "agent/mover/effort.h"
#include "agent/mover/orders.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { UNIT = 256 << 10, MB = 1000000, NO_LIMIT = 0 };

struct speed {
    int level;
    uint64_t rate;  /* bytes a second that go in */
    double remains; /* of each byte */
};

/* As measured: effort.h. */
static const struct speed text[] = {
    {ORDER_LEVEL_OFF, 1500 * MB, 1.0},
    {-50, 627 * MB, 0.586},
    {-20, 490 * MB, 0.443},
    {-5, 430 * MB, 0.352},
    {1, 416 * MB, 0.311},
    {3, 383 * MB, 0.283},
};
static const struct speed files[] = {
    {ORDER_LEVEL_OFF, 1500 * MB, 1.0},
    {-50, 1100 * MB, 0.880},
    {-20, 900 * MB, 0.804},
    {-5, 700 * MB, 0.724},
    {1, 500 * MB, 0.660},
    {3, 250 * MB, 0.645},
};
#define LEVELS (sizeof text / sizeof text[0])

/* One lane whose outbox is never empty; what it has packed goes over the link while it packs on,
 * with little room in between. */
struct lane_model {
    struct effort effort;
    const struct speed *data;
    uint64_t link;          /* bytes a second; NO_LIMIT */
    double now_us, link_us; /* the link is busy until */
    uint64_t bytes;         /* that went in */
    unsigned steps;         /* of the level */
};

static struct lane_model new_lane(const struct speed *data, uint64_t link)
{
    struct lane_model lane = {.data = data, .link = link};

    effort_init(&lane.effort);
    return lane;
}

static size_t rung_of(const struct lane_model *lane)
{
    size_t i = 0;

    while (lane->data[i].level != effort_level(&lane->effort)) {
        i++;
        assert_true(i < LEVELS);
    }
    return i;
}

static void send_unit(struct lane_model *lane)
{
    size_t rung = rung_of(lane);
    const struct speed *speed = &lane->data[rung];
    double work_us = UNIT * 1e6 / (double)speed->rate, wait_us = 0;
    const double room_us = 1000;

    lane->now_us += work_us;
    if (lane->link != NO_LIMIT) {
        double takes_us = UNIT * speed->remains * 1e6 / (double)lane->link;

        lane->link_us = (lane->link_us > lane->now_us ? lane->link_us : lane->now_us) + takes_us;
        wait_us = lane->link_us - lane->now_us - room_us - takes_us;
    }
    effort_spent(&lane->effort, EFFORT_WORKED, (uint64_t)work_us);
    if (wait_us >= 1) {
        effort_spent(&lane->effort, EFFORT_LINK_WAITS, (uint64_t)wait_us);
        lane->now_us += wait_us;
    }
    lane->bytes += UNIT;
    lane->steps += rung_of(lane) != rung;
}

static void run(struct lane_model *lane, double seconds)
{
    double end_us = lane->now_us + seconds * 1e6;

    lane->steps = 0;
    lane->bytes = 0;
    while (lane->now_us < end_us) {
        send_unit(lane);
    }
}

static void a_slow_link_is_worth_the_best(void **state)
{
    struct lane_model lane = new_lane(text, 100 * MB / 8);

    (void)state;
    assert_int_equal(effort_level(&lane.effort), 1);
    run(&lane, 1);
    assert_int_equal(effort_level(&lane.effort), 3);
    run(&lane, 60);
    assert_int_equal(effort_level(&lane.effort), 3);
    assert_int_equal(lane.steps, 0);
}

static void beyond_level_1_the_cpu_belongs_to_others(void **state)
{
    /* The link is waited for, but the lane works for a quarter of the time already. */
    struct lane_model lane = new_lane(files, 83 * MB);

    (void)state;
    run(&lane, 60);
    assert_int_equal(effort_level(&lane.effort), 1);
    assert_int_equal(lane.steps, 0);
    /* And it comes back at once when the link is a fast one. */
    lane = new_lane(text, 1 * MB);
    run(&lane, 2);
    assert_int_equal(effort_level(&lane.effort), 3);
    lane.link = NO_LIMIT;
    run(&lane, 0.5);
    assert_int_equal(effort_level(&lane.effort), 1);
}

static void a_short_rush_changes_nothing(void **state)
{
    struct lane_model lane = new_lane(text, NO_LIMIT);

    (void)state;
    run(&lane, 0.9);
    assert_int_equal(effort_level(&lane.effort), 1);
    effort_spent(&lane.effort, EFFORT_NO_WORK, 200000);
    run(&lane, 0.9);
    assert_int_equal(effort_level(&lane.effort), 1);
}

static void a_link_that_takes_all_gets_all(void **state)
{
    struct lane_model lane = new_lane(files, NO_LIMIT);

    (void)state;
    run(&lane, 2);
    assert_int_equal(effort_level(&lane.effort), -5);
    run(&lane, 10);
    assert_int_equal(effort_level(&lane.effort), ORDER_LEVEL_OFF);
    assert_int_equal(lane.steps, 3);
    run(&lane, 100);
    assert_int_equal(lane.steps, 0);
}

/* Whatever the link: the lane is never much slower than with the best level for it (between two
 * levels it takes the one of fewer bytes), and hardly changes. */
static void no_link_makes_it_swing(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        const struct speed *data = kind == 0 ? text : files;

        for (uint64_t link = 2 * MB; link < 3000 * (uint64_t)MB; link += link / 8) {
            struct lane_model lane = new_lane(data, link);
            double best = 0;

            for (size_t i = 0; i < LEVELS; i++) {
                double rate = (double)link / data[i].remains;

                rate = rate < (double)data[i].rate ? rate : (double)data[i].rate;
                best = rate > best ? rate : best;
            }
            run(&lane, 60); /* settles */
            run(&lane, 120);
            assert_true((double)lane.bytes / 120 > 0.66 * best);
            assert_true(lane.steps <= 12);
        }
    }
}

static void a_change_of_the_link_is_followed(void **state)
{
    struct lane_model lane = new_lane(files, NO_LIMIT);

    (void)state;
    run(&lane, 20);
    assert_int_equal(effort_level(&lane.effort), ORDER_LEVEL_OFF);
    lane.link = 12 * MB;
    run(&lane, 3);
    assert_int_equal(effort_level(&lane.effort), 3);
    lane.link = NO_LIMIT;
    run(&lane, 20);
    assert_int_equal(effort_level(&lane.effort), ORDER_LEVEL_OFF);
}

static void without_work_nothing_is_decided(void **state)
{
    struct effort effort;

    (void)state;
    effort_init(&effort);
    for (int i = 0; i < 1000; i++) {
        effort_spent(&effort, EFFORT_WORKED, 10000);
        effort_spent(&effort, EFFORT_NO_WORK, 90000);
        assert_int_equal(effort_level(&effort), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_link_is_worth_the_best),
        cmocka_unit_test(beyond_level_1_the_cpu_belongs_to_others),
        cmocka_unit_test(a_short_rush_changes_nothing),
        cmocka_unit_test(a_link_that_takes_all_gets_all),
        cmocka_unit_test(no_link_makes_it_swing),
        cmocka_unit_test(a_change_of_the_link_is_followed),
        cmocka_unit_test(without_work_nothing_is_decided),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

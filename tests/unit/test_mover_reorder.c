/* The order of the stream: the reorder ring, the window, and the stream's hashes. */
#include "agent/mover/reorder.h"
#include "agent/mover/stream_hash.h"
#include "agent/mover/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct work *numbered(enum frame_type type, uint64_t sequence)
{
    struct work *work = work_new(type, 0);

    assert_non_null(work);
    if (type == FRAME_SEGMENT) {
        work->segment.sequence = sequence;
    } else {
        work->mark.sequence = sequence;
    }
    return work;
}

static void expect_next(struct reorder *reorder, uint64_t sequence)
{
    struct work *work = reorder_take(reorder);

    assert_non_null(work);
    assert_int_equal(reorder_sequence(work), sequence);
    work_unref(work);
}

static void any_order_comes_out_in_order(void **state)
{
    struct reorder reorder = {0};

    (void)state;
    /* 37 and 64 have no common factor: every number of a window once, far from its order. */
    for (uint64_t round = 0; round < 5; round++) {
        for (uint64_t i = 0; i < FRAME_SEGMENT_WINDOW; i++) {
            uint64_t sequence = round * FRAME_SEGMENT_WINDOW + i * 37 % FRAME_SEGMENT_WINDOW;
            enum frame_type type = sequence % 5 == 4 ? FRAME_CHECKPOINT : FRAME_SEGMENT;

            assert_int_equal(reorder_put(&reorder, numbered(type, sequence)), REORDER_OK);
        }
        for (uint64_t i = 0; i < FRAME_SEGMENT_WINDOW; i++) {
            expect_next(&reorder, round * FRAME_SEGMENT_WINDOW + i);
        }
        assert_null(reorder_take(&reorder));
    }
}

static void a_gap_holds_back_what_follows(void **state)
{
    struct reorder reorder = {0};

    (void)state;
    assert_int_equal(reorder_put(&reorder, numbered(FRAME_SEGMENT, 1)), REORDER_OK);
    assert_int_equal(reorder_put(&reorder, numbered(FRAME_END, 2)), REORDER_OK);
    assert_null(reorder_take(&reorder));
    assert_int_equal(reorder_put(&reorder, numbered(FRAME_SEGMENT, 0)), REORDER_OK);
    for (uint64_t i = 0; i < 3; i++) {
        expect_next(&reorder, i);
    }
}

static void what_is_no_honest_peers_is_refused(void **state)
{
    struct reorder reorder = {0};
    struct work *twice = numbered(FRAME_SEGMENT, 0);
    struct work *beyond = numbered(FRAME_SEGMENT, FRAME_SEGMENT_WINDOW);
    struct work *far = numbered(FRAME_SEGMENT, UINT64_MAX);

    (void)state;
    assert_int_equal(reorder_put(&reorder, numbered(FRAME_SEGMENT, 0)), REORDER_OK);
    assert_int_equal(reorder_put(&reorder, twice), REORDER_OLD);
    assert_int_equal(reorder_put(&reorder, beyond), REORDER_BEYOND);
    assert_int_equal(reorder_put(&reorder, far), REORDER_BEYOND);
    expect_next(&reorder, 0);
    assert_int_equal(reorder_put(&reorder, twice), REORDER_OLD);
    assert_int_equal(reorder_put(&reorder, beyond), REORDER_OK);
    for (uint64_t i = 1; i < FRAME_SEGMENT_WINDOW; i++) {
        assert_int_equal(reorder_put(&reorder, numbered(FRAME_SEGMENT, i)), REORDER_OK);
        expect_next(&reorder, i);
    }
    expect_next(&reorder, FRAME_SEGMENT_WINDOW);
    work_unref(twice);
    work_unref(far);
}

static struct work *segment_of(uint64_t number, uint32_t length)
{
    struct work *work = numbered(FRAME_SEGMENT, number);

    work->length = length;
    return work;
}

static void no_more_bytes_wait_than_may(void **state)
{
    struct reorder reorder = {0};
    const uint64_t most = FRAME_SEGMENT_WINDOW_BYTES / FRAME_DATA_MAX;
    struct work *beyond = segment_of(most + 1, 1);

    (void)state;
    for (uint64_t i = 1; i <= most; i++) {
        assert_int_equal(reorder_put(&reorder, segment_of(i, FRAME_DATA_MAX)), REORDER_OK);
    }
    assert_int_equal(reorder_put(&reorder, beyond), REORDER_BEYOND);
    assert_int_equal(reorder_put(&reorder, segment_of(0, 0)), REORDER_OK);
    expect_next(&reorder, 0);
    assert_int_equal(reorder_put(&reorder, beyond), REORDER_BEYOND);
    expect_next(&reorder, 1);
    assert_int_equal(reorder_put(&reorder, beyond), REORDER_OK);
    for (uint64_t i = 2; i <= most + 1; i++) {
        expect_next(&reorder, i);
    }
    assert_int_equal(reorder.bytes, 0);
}

/* Of the smallest segments in the widest window. */
#define FLIGHTS 4096
#define UNIT_MIN (16u << 10)
#define FLIGHT_MIN (32u << 10)
#define FLIGHT_MAX (32u << 20)

/* A path of RATE bytes a second and DELAY microseconds, one segment after the other, for 20 s, with
 * a reader that always has something. */
struct path {
    struct window window;
    uint64_t now, sent_bytes, received_bytes;
    uint64_t busy_until; /* of the path's slowest place */
    uint64_t sleeps; /* the far side does nothing for so long, then for 20 ms it does; 0: never */
    struct flight {
        uint64_t sent, arrives, end;
    } flights[FLIGHTS];
    size_t first, next;
};

static void receive_until(struct path *path, uint64_t time)
{
    while (path->first < path->next && path->flights[path->first % FLIGHTS].arrives <= time) {
        const struct flight *flight = &path->flights[path->first++ % FLIGHTS];

        path->received_bytes = flight->end;
        window_received(&path->window, flight->arrives, flight->sent, flight->end);
    }
}

static uint64_t awake_at(const struct path *path, uint64_t time)
{
    uint64_t turn = path->sleeps + 20000, in_turn = time % turn;

    return in_turn < path->sleeps ? time - in_turn + path->sleeps : time;
}

static void send_one(struct path *path, uint64_t rate, uint64_t delay)
{
    uint64_t start = path->busy_until > path->now ? path->busy_until : path->now;
    uint32_t unit = window_unit(&path->window, UNIT_MIN, WORK_UNIT_MAX);

    assert_in_range(unit, UNIT_MIN, WORK_UNIT_MAX);
    assert_int_equal(unit % 4096, 0);
    path->busy_until = start + (uint64_t)unit * 1000000u / rate;
    path->sent_bytes += unit;
    path->flights[path->next++ % FLIGHTS] =
        (struct flight){path->now, awake_at(path, path->busy_until + delay), path->sent_bytes};
}

/* Returns how many bytes went through each second at the end. */
static uint64_t use_path(struct path *path, uint64_t rate, uint64_t delay)
{
    uint64_t middle = path->now + 10000000u, end = path->now + 20000000u;
    uint64_t bytes_at_middle = 0;

    while (path->now < end) {
        if (path->sent_bytes - path->received_bytes < window_limit(&path->window)) {
            send_one(path, rate, delay);
        } else {
            window_was_full(&path->window);
            path->now = path->flights[path->first % FLIGHTS].arrives;
        }
        receive_until(path, path->now);
        if (bytes_at_middle == 0 && path->now >= middle) {
            bytes_at_middle = path->received_bytes;
        }
    }
    return (path->received_bytes - bytes_at_middle) / 10u;
}

static struct path new_path(uint64_t slack_us)
{
    struct path path = {.now = 1000000};

    window_init(&path.window, &(struct window_bounds){slack_us, 1 << 20, FLIGHT_MIN, FLIGHT_MAX});
    return path;
}

/* So much is on its way besides what the path's delay takes, and no more; and the path is full all
 * the same. */
static void expect_path(struct path *path, uint64_t rate, uint64_t delay, uint64_t percent,
                        uint64_t milliseconds)
{
    assert_true(use_path(path, rate, delay) > rate / 100 * percent);
    assert_true(window_limit(&path->window) <= rate / 1000 * (milliseconds + delay / 1000 + 1));
}

static void the_window_follows_the_path(void **state)
{
    struct path path = new_path(30000);

    (void)state;
    assert_int_equal(window_limit(&path.window), 1 << 20);
    /* 100 Mbit/s, 10 Mbit/s, 1 Gbit/s near and far. The smallest delay seen has a segment in it. */
    expect_path(&path, 12500000, 1000, 98, 45);
    expect_path(&path, 1250000, 1000, 98, 62);
    assert_int_equal(window_unit(&path.window, UNIT_MIN, WORK_UNIT_MAX), UNIT_MIN);
    expect_path(&path, 125000000, 2000, 97, 40);
    expect_path(&path, 125000000, 30000, 95, 40);
    path = new_path(30000);
    expect_path(&path, 125000000, 150000, 90, 40);
    assert_int_equal(window_unit(&path.window, UNIT_MIN, WORK_UNIT_MAX), WORK_UNIT_MAX);
    /* So far away that the window is too small whatever we do. */
    assert_true(use_path(&path, 1000000000, 100000) > 250000000);
    assert_int_equal(window_limit(&path.window), FLIGHT_MAX);
    /* And back: how little delay there is, is found out step by step. */
    use_path(&path, 12500000, 1000);
    expect_path(&path, 12500000, 1000, 98, 45);
}

/* The far side's CPU is away for longer than the slack, again and again: two thirds of the link
 * are what the slack allows, and the window does not follow each pause down to nothing. */
static void a_busy_host_does_not_close_the_window(void **state)
{
    struct path path = new_path(30000);

    (void)state;
    path.sleeps = 45000;
    assert_true(use_path(&path, 12500000, 1000) > 12500000 / 100 * 64);
}

static void the_slack_is_the_operators(void **state)
{
    struct path little = new_path(10000), much = new_path(200000);

    (void)state;
    expect_path(&little, 12500000, 1000, 95, 20);
    expect_path(&much, 12500000, 1000, 98, 230);
    assert_true(window_limit(&much.window) > 12500000 / 5);
}

/* A limit was set to a hundredth, and taken away: the window does not wait until what it knew is old. */
static void a_new_limit_is_measured_at_once(void **state)
{
    struct path path = new_path(30000);
    uint64_t end;

    (void)state;
    use_path(&path, 125000000, 2000);
    assert_true(window_limit(&path.window) > 2000000);
    window_rate_changes(&path.window);
    end = path.now + 1000000;
    while (path.now < end) {
        if (path.sent_bytes - path.received_bytes < window_limit(&path.window)) {
            send_one(&path, 12500000, 2000);
        } else {
            window_was_full(&path.window);
            path.now = path.flights[path.first % FLIGHTS].arrives;
        }
        receive_until(&path, path.now);
    }
    assert_true(window_limit(&path.window) < 1000000);
    window_rate_changes(&path.window);
    expect_path(&path, 125000000, 2000, 97, 40);
}

static void a_reader_without_bytes_does_not_shrink_the_window(void **state)
{
    struct path path = new_path(30000);
    uint64_t before;

    (void)state;
    use_path(&path, 1000000000, 2000);
    before = window_limit(&path.window);
    for (int i = 0; i < 100; i++) {
        path.now += 30000;
        path.sent_bytes += 1000;
        window_received(&path.window, path.now, path.now - 2000, path.sent_bytes);
    }
    assert_true(window_limit(&path.window) >= before / 2);
}

static void hashes_do_not_depend_on_the_cuts(void **state)
{
    struct stream_hash whole = {0}, cut = {0};
    uint8_t bytes[1000];
    struct frame_hash a, b, run_a, run_b;

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 7);
    }
    assert_true(stream_hash_open(&whole));
    assert_true(stream_hash_open(&cut));
    stream_hash_feed(&whole, bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i += 10) {
        stream_hash_feed(&cut, bytes + i, 10);
    }
    a = stream_hash_whole(&whole);
    b = stream_hash_whole(&cut);
    assert_true(stream_hash_equal(&a, &b));
    run_a = stream_hash_end_run(&whole);
    assert_true(stream_hash_equal(&a, &run_a));
    /* The next run begins afresh; the whole goes on. */
    stream_hash_feed(&whole, bytes, 10);
    stream_hash_end_run(&cut);
    stream_hash_feed(&cut, bytes, 10);
    run_a = stream_hash_end_run(&whole);
    run_b = stream_hash_end_run(&cut);
    assert_true(stream_hash_equal(&run_a, &run_b));
    b = stream_hash_whole(&cut);
    assert_false(stream_hash_equal(&a, &b));
    stream_hash_close(&whole);
    stream_hash_close(&cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_comes_out_in_order),
        cmocka_unit_test(a_gap_holds_back_what_follows),
        cmocka_unit_test(what_is_no_honest_peers_is_refused),
        cmocka_unit_test(no_more_bytes_wait_than_may),
        cmocka_unit_test(the_window_follows_the_path),
        cmocka_unit_test(a_busy_host_does_not_close_the_window),
        cmocka_unit_test(the_slack_is_the_operators),
        cmocka_unit_test(a_new_limit_is_measured_at_once),
        cmocka_unit_test(a_reader_without_bytes_does_not_shrink_the_window),
        cmocka_unit_test(hashes_do_not_depend_on_the_cuts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

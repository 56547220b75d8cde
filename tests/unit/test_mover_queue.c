/* The queues of a mover: work lists, the outbox with its classes and idle lanes, and the table of
 * requests. */
#include "agent/mover/outbox.h"
#include "agent/mover/request.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static struct work *numbered(enum frame_type type, uint64_t number)
{
    struct work *work = work_new(type, 0);

    assert_non_null(work);
    if (type == FRAME_SEGMENT) {
        work->segment.sequence = number;
    } else {
        work->extent.request = number;
    }
    return work;
}

static bool is_awake(struct outbox *outbox, size_t lane)
{
    struct pollfd entry = {.fd = outbox_waker(outbox, lane)->fd, .events = POLLIN};

    return poll(&entry, 1, 0) == 1;
}

static void expect_type(struct outbox *outbox, enum frame_type type)
{
    struct work *work = outbox_take(outbox, 0, true);

    assert_non_null(work);
    assert_int_equal(work->type, type);
    work_unref(work);
}

static void work_owns_its_bytes(void **state)
{
    struct work *work = work_new(FRAME_SEGMENT, 1000);

    (void)state;
    assert_non_null(work);
    assert_int_equal(work->length, 1000);
    work->data[999] = 1;
    work_drop_data(work);
    assert_null(work->data);
    assert_int_equal(work->length, 0);
    work_unref(work);
    work_unref(NULL);
}

static void list_keeps_the_order(void **state)
{
    struct work_list list = {0}, more = {0};

    (void)state;
    assert_null(work_list_take(&list));
    work_list_move(&list, &more);
    assert_int_equal(list.count, 0);
    for (uint64_t i = 0; i < 3; i++) {
        work_list_put(&list, numbered(FRAME_SEGMENT, i));
    }
    for (uint64_t i = 3; i < 5; i++) {
        work_list_put(&more, numbered(FRAME_SEGMENT, i));
    }
    work_list_move(&list, &more);
    assert_int_equal(list.count, 5);
    assert_int_equal(more.count, 0);
    assert_null(work_list_take(&more));
    for (uint64_t i = 0; i < 5; i++) {
        struct work *work = work_list_take(&list);

        assert_int_equal(work->segment.sequence, i);
        work_unref(work);
    }
    assert_null(work_list_take(&list));
}

static void small_frames_go_first_and_the_others_take_turns(void **state)
{
    struct outbox *outbox = outbox_new(1);

    (void)state;
    assert_non_null(outbox);
    for (int i = 0; i < 3; i++) {
        outbox_put(outbox, numbered(FRAME_EXTENT, 1));
    }
    for (int i = 0; i < 2; i++) {
        outbox_put(outbox, numbered(FRAME_SEGMENT, 1));
    }
    outbox_put(outbox, numbered(FRAME_FLUSH, 1));
    outbox_put(outbox, numbered(FRAME_END, 1));
    expect_type(outbox, FRAME_FLUSH);
    expect_type(outbox, FRAME_END);
    expect_type(outbox, FRAME_SEGMENT);
    expect_type(outbox, FRAME_EXTENT);
    expect_type(outbox, FRAME_SEGMENT);
    expect_type(outbox, FRAME_EXTENT);
    expect_type(outbox, FRAME_EXTENT);
    assert_null(outbox_take(outbox, 0, true));
    outbox_put(outbox, numbered(FRAME_EXTENT, 1));
    outbox_free(outbox);
}

enum { SEGMENT_SIZE = 32 << 10, EXTENT_SIZE = 256 << 10 };

/* Puts in as much of both as nobody can take. */
static void fill(struct outbox *outbox)
{
    for (int i = 0; i < 800; i++) {
        struct work *segment = work_new(FRAME_SEGMENT, SEGMENT_SIZE);
        struct work *extent = i % 8 == 0 ? work_new(FRAME_EXTENT, EXTENT_SIZE) : NULL;

        assert_non_null(segment);
        outbox_put(outbox, segment);
        if (i % 8 == 0) {
            assert_non_null(extent);
            outbox_put(outbox, extent);
        }
    }
}

/* Bytes of segments among the next BYTES. */
static uint64_t take(struct outbox *outbox, uint64_t bytes)
{
    uint64_t memory = 0, all = 0;

    while (all < bytes) {
        struct work *work = outbox_take(outbox, 0, true);

        assert_non_null(work);
        all += work->length;
        memory += work->type == FRAME_SEGMENT ? work->length : 0;
        work_unref(work);
    }
    return memory;
}

static void bytes_are_shared_not_frames(void **state)
{
    struct outbox *outbox = outbox_new(1);

    (void)state;
    assert_non_null(outbox);
    fill(outbox);
    assert_in_range(take(outbox, 16 << 20), 15 << 19, 17 << 19);
    outbox_free(outbox);
}

static void who_has_more_left_gets_more(void **state)
{
    static const struct {
        uint64_t memory, disk;
        uint64_t sixteenths; /* of memory */
    } cases[] = {
        {3000u << 20, 1000u << 20, 12},
        {1000u << 20, 3000u << 20, 4},
        {1u << 30, 1u << 30, 8},
        {UINT64_MAX / 2, 1u << 30, 15},
        {64u << 20, 1ull << 45, 1},
        {0, 1u << 30, 8},
        {1u << 30, 0, 8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outbox *outbox = outbox_new(1);
        uint64_t wanted = cases[i].sixteenths << 20;

        assert_non_null(outbox);
        outbox_set_left(outbox, FRAME_SEGMENT, cases[i].memory);
        outbox_set_left(outbox, FRAME_EXTENT, cases[i].disk);
        fill(outbox);
        assert_in_range(take(outbox, 16 << 20), wanted - EXTENT_SIZE - SEGMENT_SIZE,
                        wanted + EXTENT_SIZE + SEGMENT_SIZE);
        outbox_free(outbox);
    }
}

/* Memory has 24 MiB left, the disks 8: nobody says more, and both are through together. */
static void both_come_to_their_end_together(void **state)
{
    struct outbox *outbox = outbox_new(1);
    uint64_t memory;

    (void)state;
    assert_non_null(outbox);
    outbox_set_left(outbox, FRAME_SEGMENT, 24 << 20);
    outbox_set_left(outbox, FRAME_EXTENT, 8 << 20);
    fill(outbox);
    memory = take(outbox, 16 << 20);
    assert_in_range(memory, 23 << 19, 25 << 19);
    memory += take(outbox, 15 << 20);
    assert_in_range(memory, 45 << 19, 48 << 19);
    outbox_free(outbox);
}

static void nothing_is_saved_up(void **state)
{
    struct outbox *outbox = outbox_new(1);

    (void)state;
    assert_non_null(outbox);
    for (int i = 0; i < 100; i++) {
        outbox_put(outbox, work_new(FRAME_EXTENT, EXTENT_SIZE));
        expect_type(outbox, FRAME_EXTENT);
    }
    fill(outbox);
    assert_in_range(take(outbox, 4 << 20), 3 << 19, 5 << 19);
    outbox_free(outbox);
}

static void a_put_wakes_one_idle_lane_and_never_a_busy_one(void **state)
{
    struct outbox *outbox = outbox_new(3);

    (void)state;
    assert_non_null(outbox);
    outbox_put(outbox, numbered(FRAME_SEGMENT, 0));
    for (size_t i = 0; i < 3; i++) {
        assert_false(is_awake(outbox, i));
    }
    work_unref(outbox_take(outbox, 0, true));
    /* Lane 0 finds nothing more but still has bytes to write; lane 2 has nothing to do. */
    assert_null(outbox_take(outbox, 0, false));
    assert_null(outbox_take(outbox, 2, true));
    outbox_put(outbox, numbered(FRAME_SEGMENT, 1));
    assert_false(is_awake(outbox, 0));
    assert_false(is_awake(outbox, 1));
    assert_true(is_awake(outbox, 2));
    waker_clear(outbox_waker(outbox, 2));
    outbox_put(outbox, numbered(FRAME_SEGMENT, 2));
    assert_false(is_awake(outbox, 2));
    outbox_wake(outbox, 1);
    assert_true(is_awake(outbox, 1));
    outbox_free(outbox);
}

enum { PUTS = 20000 };

static void *put_many(void *outbox)
{
    for (uint64_t i = 0; i < PUTS; i++) {
        struct work *work = work_new(i % 3 == 0 ? FRAME_EXTENT : FRAME_SEGMENT, 0);

        if (work == NULL) {
            abort();
        }
        outbox_put(outbox, work);
    }
    return NULL;
}

/* One lane that sleeps whenever nothing waits must see everything that two threads put. */
static void nothing_is_lost_between_threads(void **state)
{
    struct outbox *outbox = outbox_new(1);
    pthread_t putters[2];
    size_t taken = 0;

    (void)state;
    assert_non_null(outbox);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&putters[i], NULL, put_many, outbox), 0);
    }
    while (taken < 2 * PUTS) {
        struct pollfd entry = {.fd = outbox_waker(outbox, 0)->fd, .events = POLLIN};
        struct work *work = outbox_take(outbox, 0, true);

        if (work != NULL) {
            work_unref(work);
            taken++;
        } else {
            assert_int_equal(poll(&entry, 1, 10000), 1);
            waker_clear(outbox_waker(outbox, 0));
        }
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(putters[i], NULL);
    }
    outbox_free(outbox);
}

static void requests_are_found_only_while_sent(void **state)
{
    struct request_table *table = malloc(sizeof *table);
    struct request *request, *again;
    uint64_t id;

    (void)state;
    assert_non_null(table);
    request_table_init(table);
    assert_null(request_find(table, 0));
    assert_null(request_find(table, UINT64_MAX));
    request = request_take(table);
    id = request->id;
    assert_null(request_find(table, id));
    request->sent = true;
    assert_ptr_equal(request_find(table, id), request);
    assert_null(request_find(table, id + REQUESTS_MAX));
    request_release(table, request);
    assert_null(request_find(table, id));
    again = request_take(table);
    assert_ptr_equal(again, request);
    again->sent = true;
    assert_null(request_find(table, id));
    free(table);
}

static void requests_end_at_their_limit(void **state)
{
    struct request_table *table = malloc(sizeof *table);

    (void)state;
    assert_non_null(table);
    request_table_init(table);
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        assert_non_null(request_take(table));
    }
    assert_null(request_take(table));
    assert_int_equal(table->used, REQUESTS_MAX);
    request_release(table, &table->slots[77]);
    assert_ptr_equal(request_take(table), &table->slots[77]);
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_owns_its_bytes),
        cmocka_unit_test(list_keeps_the_order),
        cmocka_unit_test(small_frames_go_first_and_the_others_take_turns),
        cmocka_unit_test(bytes_are_shared_not_frames),
        cmocka_unit_test(who_has_more_left_gets_more),
        cmocka_unit_test(both_come_to_their_end_together),
        cmocka_unit_test(nothing_is_saved_up),
        cmocka_unit_test(a_put_wakes_one_idle_lane_and_never_a_busy_one),
        cmocka_unit_test(nothing_is_lost_between_threads),
        cmocka_unit_test(requests_are_found_only_while_sent),
        cmocka_unit_test(requests_end_at_their_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

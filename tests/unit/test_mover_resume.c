/* What a mover needs to survive its lanes: work that is kept while it is on its way, the outbox
 * without lanes, what is sent again and in what order, and when RESUMED is due. */
#include "agent/mover/kept.h"
#include "agent/mover/outbox.h"
#include "agent/mover/reorder.h"
#include "agent/mover/request.h"
#include "agent/mover/resume.h"
#include "agent/mover/window.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct work *new_work(enum frame_type type)
{
    struct work *work = work_new(type, 0);

    assert_non_null(work);
    return work;
}

static bool is_awake(struct outbox *outbox, size_t lane)
{
    struct pollfd entry = {.fd = outbox_waker(outbox, lane)->fd, .events = POLLIN};

    return poll(&entry, 1, 0) == 1;
}

static void *read_and_let_go(void *argument)
{
    struct work *work = argument;
    uint8_t *sum = malloc(1);

    if (sum == NULL) {
        abort();
    }
    *sum = 0;
    for (uint32_t i = 0; i < work->length; i++) {
        *sum = (uint8_t)(*sum + work->data[i]);
    }
    work_unref(work);
    return sum;
}

/* As a lane and the thread that keeps it: whoever is last frees it (ASan, TSan and LSan look on). */
static void shared_bytes_live_as_long_as_the_last_reference(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        struct work *work = work_new(FRAME_EXTENT, 1000);
        pthread_t reader;
        void *sum;

        assert_non_null(work);
        memset(work->data, 3, 1000);
        assert_ptr_equal(work_ref(work), work);
        assert_int_equal(pthread_create(&reader, NULL, read_and_let_go, work), 0);
        if (i % 2 == 0) {
            work_unref(work);
        }
        assert_int_equal(pthread_join(reader, &sum), 0);
        assert_int_equal(*(uint8_t *)sum, 3000 % 256);
        free(sum);
        if (i % 2 == 1) {
            assert_int_equal(work->data[999], 3);
            work_unref(work);
        }
    }
}

static void one_type_leaves_the_outbox_and_the_others_keep_their_order(void **state)
{
    const enum frame_type types[] = {FRAME_DONE,    FRAME_RECEIVED, FRAME_DONE,  FRAME_FLUSH,
                                     FRAME_SEGMENT, FRAME_RECEIVED, FRAME_EXTENT};
    const enum frame_type left[] = {FRAME_DONE, FRAME_DONE, FRAME_FLUSH, FRAME_EXTENT};
    struct outbox *outbox = outbox_new(1);
    struct work *kept = new_work(FRAME_SEGMENT);

    (void)state;
    assert_non_null(outbox);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct work *work = types[i] == FRAME_SEGMENT ? work_ref(kept) : new_work(types[i]);

        work->done.request = i;
        outbox_put(outbox, work);
    }
    outbox_drop(outbox, FRAME_RECEIVED);
    outbox_drop(outbox, FRAME_SEGMENT);
    /* Now it may go in again. */
    outbox_put(outbox, work_ref(kept));
    outbox_drop(outbox, FRAME_SEGMENT);
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        struct work *work = outbox_take(outbox, 0, true);

        assert_non_null(work);
        assert_int_equal(work->type, left[i]);
        assert_true(i == 0 || i == 3 || work->done.request > 0);
        work_unref(work);
    }
    assert_null(outbox_take(outbox, 0, true));
    work_unref(kept);
    outbox_free(outbox);
}

static void a_dead_lane_is_not_woken_and_leaves_its_wake_to_another(void **state)
{
    struct outbox *outbox = outbox_new(2);

    (void)state;
    assert_non_null(outbox);
    /* Both idle; lane 0 dies. */
    assert_null(outbox_take(outbox, 0, true));
    assert_null(outbox_take(outbox, 1, true));
    outbox_leave(outbox, 0);
    assert_false(is_awake(outbox, 1));
    outbox_put(outbox, new_work(FRAME_DONE));
    assert_false(is_awake(outbox, 0));
    assert_true(is_awake(outbox, 1));
    waker_clear(outbox_waker(outbox, 1));
    work_unref(outbox_take(outbox, 1, true));
    /* Lane 0's successor dies too, and this time after the wake was meant for it. */
    assert_null(outbox_take(outbox, 0, true));
    assert_null(outbox_take(outbox, 1, true));
    outbox_put(outbox, new_work(FRAME_DONE));
    assert_true(is_awake(outbox, 0));
    assert_false(is_awake(outbox, 1));
    outbox_leave(outbox, 0);
    assert_true(is_awake(outbox, 1));
    outbox_free(outbox);
}

static struct work *expect_again(struct kept *kept, uint64_t sequence, enum frame_type type)
{
    struct work *work = kept_again(kept, sequence, 900);

    assert_int_equal(work->type, type);
    assert_int_equal(reorder_sequence(work), sequence);
    return work;
}

/* Segments of 100 bytes, with a CHECKPOINT after each fourth. */
static void send_frames(struct kept *kept, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t number = kept->next;
        bool is_mark = number % 5 == 4;
        struct work *work = new_work(is_mark ? FRAME_CHECKPOINT : FRAME_SEGMENT);

        kept_put(kept, work, (number - number / 5 + (is_mark ? 0 : 1)) * 100, 10 + number);
        assert_int_equal(reorder_sequence(work), number);
        work_unref(work);
    }
}

static void what_is_not_received_is_sent_again_in_order(void **state)
{
    struct kept kept = {0};
    struct frame_received received = {7, 600};
    uint64_t sent = 0;

    (void)state;
    assert_true(kept_is_empty(&kept));
    send_frames(&kept, 12);
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_NEWS);
    assert_int_equal(sent, 16);
    assert_int_equal(kept.received, 7);
    assert_int_equal(kept.received_bytes, 600);
    for (uint64_t i = kept.received; i < kept.next; i++) {
        work_unref(expect_again(&kept, i, i == 9 ? FRAME_CHECKPOINT : FRAME_SEGMENT));
    }
    assert_int_equal(kept.next, 12);
    /* They count from when they were sent last. */
    received = (struct frame_received){12, 1000};
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_NEWS);
    assert_int_equal(sent, 900);
    assert_true(kept_is_empty(&kept));
}

static void a_lie_about_the_stream_changes_nothing(void **state)
{
    const struct frame_received lies[] = {{4, 300}, {4, 500}, {6, 500}, {UINT64_MAX, 0}};
    struct kept kept = {0};
    struct frame_received received = {3, 300};
    uint64_t sent;

    (void)state;
    send_frames(&kept, 5);
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_NEWS);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        assert_int_equal(kept_received(&kept, &lies[i], &sent), KEPT_LIE);
    }
    /* Overtaken, or said once more over new lanes. */
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_OLD);
    received = (struct frame_received){0, 0};
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_OLD);
    work_unref(expect_again(&kept, 3, FRAME_SEGMENT));
    received = (struct frame_received){5, 400};
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_NEWS);
}

static void as_much_is_kept_as_the_window_allows(void **state)
{
    struct kept kept = {0};
    struct frame_received received = {1, 100};
    uint64_t sent;

    (void)state;
    send_frames(&kept, FRAME_SEGMENT_WINDOW - 2);
    assert_true(kept_has_room(&kept, 2));
    assert_false(kept_has_room(&kept, 3));
    send_frames(&kept, 2);
    assert_false(kept_has_room(&kept, 1));
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_NEWS);
    assert_true(kept_has_room(&kept, 1));
    send_frames(&kept, 1);
    received.sequence = kept.next;
    received.bytes = (kept.next - kept.next / 5) * 100;
    assert_int_equal(kept_received(&kept, &received, &sent), KEPT_NEWS);
}

/* Two copies of all that a window holds, the second after the first half was taken out. */
static void repetitions_come_out_once(void **state)
{
    struct reorder reorder = {0};
    struct kept kept = {0};
    struct frame_received all;
    uint64_t sent;

    (void)state;
    send_frames(&kept, FRAME_SEGMENT_WINDOW);
    for (uint64_t i = 0; i < FRAME_SEGMENT_WINDOW; i++) {
        assert_int_equal(reorder_put(&reorder, kept_again(&kept, i, 0)), REORDER_OK);
    }
    for (uint64_t i = 0; i < FRAME_SEGMENT_WINDOW / 2; i++) {
        work_unref(reorder_take(&reorder));
    }
    for (uint64_t i = 0; i < FRAME_SEGMENT_WINDOW; i++) {
        struct work *copy = kept_again(&kept, i, 0);

        assert_int_equal(reorder_put(&reorder, copy), REORDER_OLD);
        work_unref(copy);
    }
    for (uint64_t i = FRAME_SEGMENT_WINDOW / 2; i < FRAME_SEGMENT_WINDOW; i++) {
        struct work *work = reorder_take(&reorder);

        assert_non_null(work);
        assert_int_equal(reorder_sequence(work), i);
        work_unref(work);
    }
    assert_null(reorder_take(&reorder));
    all = (struct frame_received){kept.next, (kept.next - kept.next / 5) * 100};
    assert_int_equal(kept_received(&kept, &all, &sent), KEPT_NEWS);
}

static void requests_without_an_answer_are_found_and_keep_their_bytes(void **state)
{
    struct request_table *table = malloc(sizeof *table);
    struct request *requests[5], *found;
    size_t position = 0;

    (void)state;
    assert_non_null(table);
    request_table_init(table);
    assert_null(request_next_sent(table, &position));
    for (size_t i = 0; i < 5; i++) {
        requests[i] = request_take(table);
        requests[i]->work = work_new(FRAME_EXTENT, 10);
        assert_non_null(requests[i]->work);
        memset(requests[i]->work->data, (int)i, 10);
        requests[i]->sent = i != 2; /* that one is still being read */
    }
    request_release(table, requests[3]);
    position = 0;
    for (size_t i = 0; i < 5; i++) {
        if (i == 2 || i == 3) {
            continue;
        }
        found = request_next_sent(table, &position);
        assert_ptr_equal(found, requests[i]);
        assert_int_equal(found->work->data[9], i);
    }
    assert_null(request_next_sent(table, &position));
    for (size_t i = 0; i < 5; i++) {
        if (i != 3) {
            request_release(table, requests[i]);
        }
    }
    free(table);
}

static void resumed_is_due_when_both_threads_are_done(void **state)
{
    struct resume resume;

    (void)state;
    resume_init(&resume);
    assert_false(resume_is_pending(&resume));
    resume_order(&resume);
    assert_int_equal(resume_done(&resume, RESUME_MEMORY, 1), 0);
    assert_true(resume_is_pending(&resume));
    assert_int_equal(resume_done(&resume, RESUME_DISK, 1), 1);
    assert_false(resume_is_pending(&resume));
    /* Three in a row: the disks cannot go on, the memory is done with each at once. */
    for (int i = 0; i < 3; i++) {
        resume_order(&resume);
        assert_int_equal(resume_done(&resume, RESUME_MEMORY, 1), 0);
    }
    assert_int_equal(resume_done(&resume, RESUME_DISK, 2), 2);
    assert_true(resume_is_pending(&resume));
    assert_int_equal(resume_done(&resume, RESUME_DISK, 1), 1);
    assert_false(resume_is_pending(&resume));
}

/* 40 MB/s, one answer each 10 ms, 2 ms after it was sent. Returns the lowest rate on the way. */
static uint64_t run_window(struct window *window, uint64_t *now, int answers, uint64_t *bytes)
{
    uint64_t lowest = UINT64_MAX;

    for (int i = 0; i < answers; i++) {
        *now += 10000;
        *bytes += 400000;
        window_was_full(window);
        window_received(window, *now, *now - 2000, *bytes);
        lowest = window->rate < lowest ? window->rate : lowest;
    }
    return lowest;
}

static void time_without_lanes_does_not_count_for_the_window(void **state)
{
    struct window window;
    uint64_t now = 1000000, bytes = 0, before;

    (void)state;
    window_init(&window, &(struct window_bounds){50000, 1 << 20, 1 << 16, 8 << 20});
    run_window(&window, &now, 150, &bytes);
    before = window_limit(&window);
    assert_in_range(before, 2000000, 2200000);
    window_restart(&window);
    assert_int_equal(window_limit(&window), before);
    now += 3000000;
    assert_in_range(run_window(&window, &now, 50, &bytes), 39000000, 41000000);
    assert_in_range(window_limit(&window), before - 50000, before + 50000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_bytes_live_as_long_as_the_last_reference),
        cmocka_unit_test(one_type_leaves_the_outbox_and_the_others_keep_their_order),
        cmocka_unit_test(a_dead_lane_is_not_woken_and_leaves_its_wake_to_another),
        cmocka_unit_test(what_is_not_received_is_sent_again_in_order),
        cmocka_unit_test(a_lie_about_the_stream_changes_nothing),
        cmocka_unit_test(as_much_is_kept_as_the_window_allows),
        cmocka_unit_test(repetitions_come_out_once),
        cmocka_unit_test(requests_without_an_answer_are_found_and_keep_their_bytes),
        cmocka_unit_test(resumed_is_due_when_both_threads_are_done),
        cmocka_unit_test(time_without_lanes_does_not_count_for_the_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

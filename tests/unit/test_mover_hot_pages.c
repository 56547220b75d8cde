/* Behaviours of agent/mover/hot_pages.c: who gets a slot, who keeps it, who loses it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/mover/hot_pages.h"

#define PAGES 1000u

static struct hot_pages open_pages(uint32_t slots)
{
    struct hot_pages hot;
    assert_true(hot_pages_open(&hot, PAGES, slots));
    return hot;
}

/* Pages FIRST to LAST come, as in a round; returns for how many there was something in a slot. Those that have none want one. */
static unsigned come(struct hot_pages *hot, uint64_t first, uint64_t last)
{
    unsigned found = 0;
    for (uint64_t page = first; page <= last; page++) {
        hot_pages_note(hot, page);
        if (hot_pages_find(hot, page) != HOT_PAGES_NONE) {
            found++;
        } else {
            (void)hot_pages_admit(hot, page);
        }
    }
    return found;
}

static void a_page_keeps_its_slot(void **state)
{
    (void)state;
    struct hot_pages hot = open_pages(10);
    assert_int_equal(hot_pages_find(&hot, 7), HOT_PAGES_NONE);
    uint32_t slot = hot_pages_admit(&hot, 7);
    assert_int_not_equal(slot, HOT_PAGES_NONE);
    assert_int_not_equal(hot_pages_admit(&hot, 8), slot);
    assert_int_equal(hot_pages_find(&hot, 7), slot);
    hot_pages_close(&hot);
}

static void a_part_of_the_pages_is_of_use_with_slots_for_a_part(void **state)
{
    (void)state;
    struct hot_pages hot = open_pages(100);
    assert_int_equal(come(&hot, 0, 799), 0);
    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(come(&hot, 0, 799), 100);
    }
    hot_pages_close(&hot);
}

static void pages_that_no_longer_come_make_room(void **state)
{
    (void)state;
    struct hot_pages hot = open_pages(100);
    come(&hot, 0, 99);
    assert_int_equal(come(&hot, 0, 99), 100);
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(come(&hot, 500, 599), 0);
    }
    come(&hot, 500, 599);
    assert_int_equal(come(&hot, 500, 599), 100);
    assert_int_equal(hot_pages_find(&hot, 50), HOT_PAGES_NONE);
    hot_pages_close(&hot);
}

static void no_two_pages_share_a_slot(void **state)
{
    (void)state;
    struct hot_pages hot = open_pages(7);
    uint32_t random = 1;
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 1664525u + 1013904223u;
        uint64_t page = (random >> 8) % PAGES;
        hot_pages_note(&hot, page);
        if (hot_pages_find(&hot, page) == HOT_PAGES_NONE) {
            (void)hot_pages_admit(&hot, page);
        } else if (random >> 30 == 0) {
            hot_pages_bar(&hot, page);
        }
        if (i % 100 == 0) {
            bool is_taken[7] = {false};
            for (uint64_t other = 0; other < PAGES; other++) {
                uint32_t slot = hot_pages_find(&hot, other);
                assert_true(slot == HOT_PAGES_NONE || (slot < 7 && !is_taken[slot]));
                if (slot != HOT_PAGES_NONE) {
                    is_taken[slot] = true;
                }
            }
        }
    }
    hot_pages_close(&hot);
}

static void a_page_that_was_rewritten_whole_is_tried_again_later(void **state)
{
    (void)state;
    struct hot_pages hot = open_pages(1);
    assert_int_equal(hot_pages_admit(&hot, 3), 0);
    hot_pages_bar(&hot, 3);
    assert_int_equal(hot_pages_find(&hot, 3), HOT_PAGES_NONE);
    assert_int_equal(hot_pages_admit(&hot, 4), 0); /* its slot is free at once */
    hot_pages_bar(&hot, 4);
    unsigned times = 0;
    while (hot_pages_admit(&hot, 3) == HOT_PAGES_NONE) {
        assert_int_equal(hot_pages_find(&hot, 3), HOT_PAGES_NONE);
        assert_true(++times < 100);
    }
    assert_int_equal(times, 8);
    assert_int_equal(hot_pages_find(&hot, 3), 0);
    hot_pages_close(&hot);
}

static void slots_are_counted_with_their_bookkeeping(void **state)
{
    (void)state;
    assert_int_equal(hot_pages_slots(0, 1000, 4096), 0);
    assert_int_equal(hot_pages_slots(4000 + 4111, 1000, 4096), 0);
    assert_int_equal(hot_pages_slots(4000 + 10 * 4112, 1000, 4096), 10);
    assert_true(hot_pages_slots(UINT64_MAX, 1000, 4096) < HOT_PAGES_NONE - 8);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_keeps_its_slot),
        cmocka_unit_test(a_part_of_the_pages_is_of_use_with_slots_for_a_part),
        cmocka_unit_test(pages_that_no_longer_come_make_room),
        cmocka_unit_test(no_two_pages_share_a_slot),
        cmocka_unit_test(a_page_that_was_rewritten_whole_is_tried_again_later),
        cmocka_unit_test(slots_are_counted_with_their_bookkeeping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

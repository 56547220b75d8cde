/* Behaviours of protocol/page_cache.c: what a source says of a segment's pages is done, and what no
 * honest one says is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/page_cache.h"
#include "protocol/page_operation.h"

#define PAGE PAGE_CACHE_PAGE_SIZE
#define SLOTS 2u
#define SEGMENT_SIZE (3 * PAGE + 100)

/* A destination, a segment of it, and the operations that come with that. */
struct place {
    struct page_cache cache;
    uint8_t segment[SEGMENT_SIZE];
    uint8_t list[4 * PAGE_OPERATION_SIZE];
    uint32_t count;
};

static struct place *place_new(void)
{
    struct place *place = calloc(1, sizeof *place);
    assert_non_null(place);
    assert_true(page_cache_open(&place->cache, SLOTS));
    return place;
}

static void place_free(struct place *place)
{
    page_cache_close(&place->cache);
    free(place);
}

static void add(struct place *place, enum page_operation_kind kind, uint32_t offset, uint32_t slot)
{
    const struct page_operation operation = {kind, offset, slot};
    page_operation_encode(&operation, place->list + place->count++ * PAGE_OPERATION_SIZE);
}

static const char *obey(struct place *place)
{
    const char *why =
        page_cache_obey(&place->cache, place->segment, SEGMENT_SIZE, place->list, place->count);
    place->count = 0;
    return why;
}

static void expect_fill(const struct place *place, size_t from, size_t to, uint8_t fill)
{
    for (size_t i = from; i < to; i++) {
        assert_int_equal(place->segment[i], fill);
    }
}

static void operations_read_as_they_were_written(void **state)
{
    (void)state;
    const struct page_operation operation = {PAGE_DIFFERENCE, 0x01020304, 0x05060708};
    uint8_t bytes[PAGE_OPERATION_SIZE];
    page_operation_encode(&operation, bytes);
    static const uint8_t wanted[] = {2, 1, 2, 3, 4, 5, 6, 7, 8};
    assert_memory_equal(bytes, wanted, sizeof wanted);
    struct page_operation read;
    assert_true(page_operation_decode(bytes, &read));
    assert_int_equal(read.kind, PAGE_DIFFERENCE);
    assert_int_equal(read.offset, 0x01020304);
    assert_int_equal(read.slot, 0x05060708);
}

static void differences_are_added_to_what_was_stored(void **state)
{
    (void)state;
    struct place *place = place_new();
    memset(place->segment, 0x21, PAGE);
    add(place, PAGE_STORE, 0, 1);
    assert_null(obey(place));
    expect_fill(place, 0, PAGE, 0x21);
    memset(place->segment, 0x03, SEGMENT_SIZE);
    add(place, PAGE_DIFFERENCE, 50, 1);
    add(place, PAGE_DIFFERENCE, 2 * PAGE + 100, 1); /* from the page of the one before */
    assert_null(obey(place));
    expect_fill(place, 0, 50, 0x03);
    expect_fill(place, 50, 50 + PAGE, 0x22);
    expect_fill(place, 50 + PAGE, 2 * PAGE + 100, 0x03);
    expect_fill(place, 2 * PAGE + 100, SEGMENT_SIZE, 0x21);
    place_free(place);
}

static void slots_begin_as_zeroes(void **state)
{
    (void)state;
    struct place *place = place_new();
    memset(place->segment, 7, SEGMENT_SIZE);
    add(place, PAGE_DIFFERENCE, 0, 0);
    add(place, PAGE_DIFFERENCE, PAGE, 1);
    assert_null(obey(place));
    expect_fill(place, 0, SEGMENT_SIZE, 7);
    place_free(place);
}

static void a_source_takes_away_what_a_destination_adds(void **state)
{
    (void)state;
    struct place *place = place_new();
    struct page_cache source;
    uint8_t page[PAGE];
    assert_true(page_cache_open(&source, SLOTS));
    for (unsigned round = 0; round < 10; round++) {
        for (size_t i = 0; i < PAGE; i++) {
            page[i] = (uint8_t)(i * (i % 100 < round ? 7 : 3));
        }
        memcpy(place->segment, page, PAGE);
        page_cache_subtract(&source, 1, place->segment);
        add(place, PAGE_DIFFERENCE, 0, 1);
        assert_null(obey(place));
        assert_memory_equal(place->segment, page, PAGE);
        assert_int_equal(page_cache_equal_words(&source, 1, page), PAGE / 8);
    }
    page_cache_close(&source);
    place_free(place);
}

static void equal_words_are_counted(void **state)
{
    (void)state;
    struct page_cache cache;
    uint8_t page[PAGE] = {0};
    assert_true(page_cache_open(&cache, SLOTS));
    page_cache_store(&cache, 0, page);
    page[0] = page[7] = 1; /* one word */
    page[64] = 1;
    page[PAGE - 1] = 1;
    assert_int_equal(page_cache_equal_words(&cache, 0, page), PAGE / 8 - 3);
    page_cache_close(&cache);
}

static void expect_refused(unsigned kind, uint32_t offset, uint32_t slot, const char *part)
{
    struct place *place = place_new();
    add(place, PAGE_STORE, 0, 0);
    add(place, (enum page_operation_kind)kind, offset, slot);
    const char *why = obey(place);
    assert_non_null(why);
    assert_non_null(strstr(why, part));
    place_free(place);
}

static void operations_that_fit_nothing_are_refused(void **state)
{
    (void)state;
    expect_refused(PAGE_STORE, 0, SLOTS, "slot that is not there");
    expect_refused(PAGE_DIFFERENCE, 0, UINT32_MAX, "slot that is not there");
    expect_refused(0, 0, 0, "unknown kind");
    expect_refused(3, 0, 0, "unknown kind");
    expect_refused(PAGE_STORE, SEGMENT_SIZE - PAGE + 1, 0, "bytes that are not there");
    expect_refused(PAGE_DIFFERENCE, UINT32_MAX, 0, "bytes that are not there");
}

static void a_segment_shorter_than_a_page_has_none(void **state)
{
    (void)state;
    struct place *place = place_new();
    add(place, PAGE_STORE, 0, 0);
    assert_non_null(page_cache_obey(&place->cache, place->segment, PAGE - 1, place->list, 1));
    assert_null(page_cache_obey(&place->cache, place->segment, PAGE, place->list, 1));
    place_free(place);
}

static void a_cache_has_as_many_slots_as_fit(void **state)
{
    (void)state;
    struct page_cache cache;
    assert_int_equal(page_cache_slots(0), 0);
    assert_int_equal(page_cache_slots(PAGE - 1), 0);
    assert_int_equal(page_cache_slots(4 * PAGE - 1), 3);
    assert_true(page_cache_slots(UINT64_MAX) < UINT32_MAX);
    assert_true(page_cache_open(&cache, 0));
    page_cache_close(&cache);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_read_as_they_were_written),
        cmocka_unit_test(differences_are_added_to_what_was_stored),
        cmocka_unit_test(slots_begin_as_zeroes),
        cmocka_unit_test(a_source_takes_away_what_a_destination_adds),
        cmocka_unit_test(equal_words_are_counted),
        cmocka_unit_test(operations_that_fit_nothing_are_refused),
        cmocka_unit_test(a_segment_shorter_than_a_page_has_none),
        cmocka_unit_test(a_cache_has_as_many_slots_as_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

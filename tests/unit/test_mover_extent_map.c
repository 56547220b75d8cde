/* The map of a pass, made from block status, and the look for zeroes. */
#include "agent/mover/extent_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define STATUS(...)                                                                           \
    {                                                                                         \
        (uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / (2 * sizeof(uint32_t)) \
    }

enum { DATA = 0, HOLE_ZERO = 3, HOLE = 1, ZERO = 2, CLEAN = 0, DIRTY = 1 };

static void expect(struct extent_map *map, uint64_t offset, uint64_t length, bool zero)
{
    struct extent extent;

    assert_true(extent_map_take(map, 256, 1u << 30, &extent));
    assert_int_equal(extent.offset, offset);
    assert_int_equal(extent.length, length);
    assert_int_equal(extent.zero, zero);
}

static void expect_end(struct extent_map *map)
{
    struct extent extent;

    assert_false(extent_map_take(map, 256, 1u << 30, &extent));
    assert_int_equal(extent_map_count(map), 0);
    assert_int_equal(map->data_bytes, 0);
    assert_int_equal(map->zero_bytes, 0);
}

static void bulk_takes_everything(void **state)
{
    struct extent_map map = {0};
    struct block_status allocation = STATUS(1000, DATA, 3000, HOLE_ZERO, 100, HOLE, 900, ZERO);
    uint64_t covered;

    (void)state;
    assert_true(extent_map_add(&map, 100, 5000, &allocation, NULL, &covered));
    assert_int_equal(covered, 5000);
    assert_int_equal(map.data_bytes, 1100);
    assert_int_equal(map.zero_bytes, 3900);
    /* Data ends at multiples of 256. A hole that is not said to read as zero is read. */
    expect(&map, 100, 156, false);
    expect(&map, 256, 256, false);
    expect(&map, 512, 256, false);
    expect(&map, 768, 256, false);
    expect(&map, 1024, 76, false);
    expect(&map, 1100, 3000, true);
    expect(&map, 4100, 100, false);
    expect(&map, 4200, 900, true);
    expect_end(&map);
    extent_map_free(&map);
}

static void dirty_is_cut_with_allocation(void **state)
{
    struct extent_map map = {0};
    struct block_status allocation = STATUS(64, DATA, 128, HOLE_ZERO, 64, DATA);
    struct block_status dirty = STATUS(32, CLEAN, 64, DIRTY, 64, CLEAN, 64, DIRTY, 32, CLEAN);
    uint64_t covered;

    (void)state;
    assert_true(extent_map_add(&map, 0, 256, &allocation, &dirty, &covered));
    assert_int_equal(covered, 256);
    expect(&map, 32, 32, false);
    expect(&map, 64, 32, true);
    expect(&map, 160, 32, true);
    expect(&map, 192, 32, false);
    expect_end(&map);
    extent_map_free(&map);
}

static void the_shorter_answer_counts(void **state)
{
    struct extent_map map = {0};
    struct block_status allocation = STATUS(4096, DATA);
    struct block_status dirty = STATUS(100, DIRTY);
    struct block_status nothing = {NULL, 0};
    struct block_status empty = STATUS(0, DIRTY, 100, DIRTY);
    uint64_t covered;

    (void)state;
    assert_true(extent_map_add(&map, 0, 256, &allocation, &dirty, &covered));
    assert_int_equal(covered, 100);
    assert_true(extent_map_add(&map, 100, 156, &allocation, &nothing, &covered));
    assert_int_equal(covered, 0);
    assert_true(extent_map_add(&map, 100, 156, &allocation, &empty, &covered));
    assert_int_equal(covered, 0);
    /* More than was asked for is not believed: it may lie beyond the disk. */
    assert_true(extent_map_add(&map, 100, 50, &allocation, NULL, &covered));
    assert_int_equal(covered, 50);
    expect(&map, 0, 150, false);
    expect_end(&map);
    extent_map_free(&map);
}

static void neighbours_become_one(void **state)
{
    struct extent_map map = {0};
    struct block_status zero = STATUS(1u << 30, HOLE_ZERO);
    struct extent extent;
    uint64_t covered;

    (void)state;
    for (uint64_t i = 0; i < 20; i++) {
        assert_true(extent_map_add(&map, i << 30, 1u << 30, &zero, NULL, &covered));
    }
    assert_int_equal(extent_map_count(&map), 1);
    for (uint64_t i = 0; i < 20; i++) {
        assert_true(extent_map_take(&map, 256, 1u << 30, &extent));
        assert_int_equal(extent.offset, i << 30);
        assert_int_equal(extent.length, 1u << 30);
    }
    expect_end(&map);
    extent_map_free(&map);
}

/* Grows, wraps and shrinks while it is being used. */
static void long_maps_keep_their_order(void **state)
{
    struct extent_map map = {0};
    uint32_t entries[2000];
    struct block_status status = {entries, 1000};
    uint64_t added = 0, taken = 0, covered;

    (void)state;
    for (size_t i = 0; i < 1000; i++) {
        entries[2 * i] = 16;
        entries[2 * i + 1] = i % 2 == 0 ? DATA : HOLE_ZERO;
    }
    for (int round = 0; round < 20; round++) {
        struct extent extent;

        assert_true(extent_map_add(&map, added, 16000, &status, NULL, &covered));
        added += covered;
        for (int i = 0; i < 700 && extent_map_take(&map, 256, 256, &extent); i++) {
            assert_int_equal(extent.offset, taken);
            taken += extent.length;
        }
    }
    assert_int_equal(map.data_bytes + map.zero_bytes, added - taken);
    extent_map_free(&map);
}

static void zeroes_are_found_wherever_they_end(void **state)
{
    uint8_t *bytes = calloc(1, 5000);

    (void)state;
    assert_non_null(bytes);
    for (size_t size = 1; size <= 5000; size = size < 70 ? size + 1 : size * 2 - 3) {
        assert_true(bytes_are_zero(bytes, size));
        for (size_t place = 0; place < size; place += 1 + place / 3) {
            bytes[place] = 0x80;
            assert_false(bytes_are_zero(bytes, size));
            bytes[place] = 0;
        }
        bytes[size - 1] = 1;
        assert_false(bytes_are_zero(bytes, size));
        bytes[size - 1] = 0;
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bulk_takes_everything),
        cmocka_unit_test(dirty_is_cut_with_allocation),
        cmocka_unit_test(the_shorter_answer_counts),
        cmocka_unit_test(neighbours_become_one),
        cmocka_unit_test(long_maps_keep_their_order),
        cmocka_unit_test(zeroes_are_found_wherever_they_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

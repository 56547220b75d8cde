/* What --verify is made of: the parts to be compared, the digest of a run, the list of differences. */
#include "agent/mover/difference.h"
#include "agent/mover/digest.h"
#include "agent/mover/stale_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define CHUNK STALE_CHUNK
#define PIECE FRAME_DIGEST_PIECE

/* --- stale parts --- */

static void expect_run(struct stale_map *map, uint64_t from, uint32_t length_max, uint64_t offset,
                       uint32_t length)
{
    uint64_t found;
    uint32_t found_length;

    assert_true(stale_map_take(map, from, length_max, &found, &found_length));
    assert_int_equal(found, offset);
    assert_int_equal(found_length, length);
}

static void expect_nothing(struct stale_map *map, uint64_t from)
{
    uint64_t offset;
    uint32_t length;

    assert_false(stale_map_take(map, from, CHUNK, &offset, &length));
}

static void all_of_a_disk_is_stale_at_first(void **state)
{
    const uint64_t size = 200 * CHUNK + 512;
    struct stale_map map;

    (void)state;
    assert_true(stale_map_init(&map, size));
    assert_int_equal(stale_map_bytes(&map), 201 * CHUNK);
    expect_run(&map, 0, 128 * CHUNK, 0, 128 * CHUNK);
    assert_int_equal(stale_map_bytes(&map), 73 * CHUNK);
    expect_run(&map, 128 * CHUNK, 128 * CHUNK, 128 * CHUNK, 72 * CHUNK + 512);
    assert_int_equal(stale_map_bytes(&map), 0);
    expect_nothing(&map, 0);
    stale_map_free(&map);
}

static void a_disk_of_nothing_has_nothing_stale(void **state)
{
    struct stale_map map;

    (void)state;
    assert_true(stale_map_init(&map, 0));
    assert_int_equal(stale_map_bytes(&map), 0);
    expect_nothing(&map, 0);
    stale_map_free(&map);
}

static void what_is_sent_is_stale_again_in_whole_chunks(void **state)
{
    const uint64_t size = 1000 * CHUNK;
    struct stale_map map;

    (void)state;
    assert_true(stale_map_init(&map, size));
    expect_run(&map, 0, 1000 * CHUNK, 0, 1000 * CHUNK);
    stale_map_mark(&map, 5 * CHUNK, 1);
    stale_map_mark(&map, 5 * CHUNK, CHUNK);
    stale_map_mark(&map, 700 * CHUNK - 1, 2);
    stale_map_mark(&map, size - 1, 1);
    assert_int_equal(stale_map_bytes(&map), 4 * CHUNK);
    assert_true(stale_map_holds(&map, 6 * CHUNK - 1, 1));
    assert_false(stale_map_holds(&map, 6 * CHUNK, 693 * CHUNK));
    assert_true(stale_map_holds(&map, 6 * CHUNK, 693 * CHUNK + 1));
    assert_false(stale_map_holds(&map, 701 * CHUNK, 298 * CHUNK));
    assert_true(stale_map_holds(&map, size - CHUNK, CHUNK));
    expect_run(&map, 0, 16 * CHUNK, 5 * CHUNK, CHUNK);
    expect_run(&map, 6 * CHUNK, CHUNK, 699 * CHUNK, CHUNK);
    expect_run(&map, 700 * CHUNK, CHUNK, 700 * CHUNK, CHUNK);
    expect_run(&map, 701 * CHUNK, CHUNK, 999 * CHUNK, CHUNK);
    expect_nothing(&map, 0);
    stale_map_free(&map);
}

static void what_is_marked_behind_waits_for_the_next_round(void **state)
{
    struct stale_map map;

    (void)state;
    assert_true(stale_map_init(&map, 8 * CHUNK));
    expect_run(&map, 0, 4 * CHUNK, 0, 4 * CHUNK);
    stale_map_mark(&map, CHUNK, CHUNK);
    expect_run(&map, 4 * CHUNK, 4 * CHUNK, 4 * CHUNK, 4 * CHUNK);
    expect_nothing(&map, 8 * CHUNK);
    expect_run(&map, 0, 4 * CHUNK, CHUNK, CHUNK);
    stale_map_free(&map);
}

/* --- digests --- */

static bool same(const struct frame_hash *a, const struct frame_hash *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static struct frame_hash digest_of(uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    struct frame_hash hash = {0};

    digest_add(&hash, offset, bytes, length);
    return hash;
}

static void pieces_of_zeroes_count_as_nothing(void **state)
{
    static uint8_t bytes[4 * PIECE];
    const struct frame_hash nothing = {0};
    struct frame_hash whole, parts = {0};

    (void)state;
    memset(bytes, 0, sizeof bytes);
    whole = digest_of(0, bytes, sizeof bytes);
    assert_true(same(&whole, &nothing));
    bytes[PIECE + 7] = 1;
    bytes[4 * PIECE - 1] = 2;
    whole = digest_of(0, bytes, sizeof bytes);
    assert_false(same(&whole, &nothing));
    /* As a reader finds it that leaves the holes out. */
    digest_add(&parts, PIECE, bytes + PIECE, PIECE);
    digest_add(&parts, 3 * PIECE, bytes + 3 * PIECE, PIECE);
    assert_true(same(&whole, &parts));
}

static void each_bit_and_its_place_count(void **state)
{
    static uint8_t bytes[2 * PIECE];
    struct frame_hash before, after;

    (void)state;
    memset(bytes, 0x5a, sizeof bytes);
    before = digest_of(PIECE, bytes, sizeof bytes);
    bytes[2 * PIECE - 1] ^= 1;
    after = digest_of(PIECE, bytes, sizeof bytes);
    assert_false(same(&before, &after));
    bytes[2 * PIECE - 1] ^= 1;
    after = digest_of(2 * PIECE, bytes, sizeof bytes);
    assert_false(same(&before, &after));
    after = digest_of(PIECE, bytes, PIECE);
    assert_false(same(&before, &after));
    /* A run that begins and ends within pieces is cut where any other is. */
    before = digest_of(PIECE + 512, bytes, PIECE);
    after = digest_of(PIECE + 512, bytes, PIECE - 512);
    digest_add(&after, 2 * PIECE, bytes, 512);
    assert_true(same(&before, &after));
}

/* --- what has to be read --- */

enum { DISK_BLOCKS = 4096, BLOCK = 4096 };

/* Block status of DATA from OFFSET on, in COUNT entries at most. */
static size_t answer(const bool *data, uint64_t offset, size_t count, uint32_t *entries)
{
    size_t filled = 0, block = (size_t)(offset / BLOCK);

    while (filled < count && block < DISK_BLOCKS) {
        size_t first = block;

        while (block < DISK_BLOCKS && data[block] == data[first]) {
            block++;
        }
        entries[2 * filled] = (uint32_t)((block - first) * BLOCK - offset % BLOCK);
        entries[2 * filled + 1] = data[first] ? 0 : BLOCK_STATUS_ZERO;
        offset = (uint64_t)block * BLOCK;
        filled++;
    }
    return filled;
}

/* Goes over the run as a mover does: each piece with data is to be read whole, in order, once. */
static void walk_run(const bool *data, uint64_t start, uint64_t end, unsigned entries_max)
{
    uint32_t entries[2 * 64], length;
    struct block_status status = {entries, 0};
    struct digest_walk walk = {&status, 0, start};
    uint64_t at = start, read_end = start, offset, asked = UINT64_MAX;
    enum digest_next next;

    while ((next = digest_walk_next(&walk, at, end, &offset, &length)) != DIGEST_OVER) {
        assert_in_range(offset, at, end - 1);
        for (uint64_t byte = at; byte < offset; byte += 512) {
            assert_false(data[byte / BLOCK]);
        }
        if (next == DIGEST_ASK) {
            assert_true(offset > asked || asked == UINT64_MAX);
            asked = offset;
            status.count = answer(data, offset, 1 + (size_t)(rand() % (int)entries_max), entries);
            walk = (struct digest_walk){&status, 0, offset};
            at = offset;
            continue;
        }
        assert_in_range(length, 1, DIGEST_READ_MAX);
        assert_true(offset == start || offset % PIECE == 0);
        assert_true(offset + length == end || (offset + length) % PIECE == 0);
        assert_true(offset >= read_end);
        read_end = at = offset + length;
    }
    for (uint64_t byte = at; byte < end; byte += 512) {
        assert_false(data[byte / BLOCK]);
    }
}

static void holes_are_left_out_and_nothing_else(void **state)
{
    static bool data[DISK_BLOCKS];
    const uint64_t size = (uint64_t)DISK_BLOCKS * BLOCK;

    (void)state;
    srand(5);
    for (int round = 0; round < 2000; round++) {
        uint64_t start = (uint64_t)(rand() % (DISK_BLOCKS * 8)) * 512;
        uint64_t length = 512 * (1 + (uint64_t)rand() % ((size - start) / 512));
        int change = 1 + rand() % 100;

        for (size_t i = 0; i < DISK_BLOCKS; i++) {
            data[i] = i > 0 && rand() % change != 0 ? data[i - 1] : rand() % 2 == 0;
        }
        walk_run(data, start, start + length, round % 2 == 0 ? 1 : 64);
    }
}

static void an_answer_that_says_nothing_asks_for_the_same_place(void **state)
{
    const struct block_status status = {NULL, 0};
    struct digest_walk walk = {&status, 0, PIECE};
    uint64_t offset;
    uint32_t length;

    (void)state;
    assert_int_equal(digest_walk_next(&walk, PIECE, 2 * PIECE, &offset, &length), DIGEST_ASK);
    assert_int_equal(offset, PIECE);
}

/* --- differences --- */

static void expect_difference(const struct report_verified *report, uint32_t place, uint32_t disk,
                              uint64_t offset, uint64_t length)
{
    assert_true(place < report->count);
    assert_int_equal(report->runs[place].disk, disk);
    assert_int_equal(report->runs[place].offset, offset);
    assert_int_equal(report->runs[place].length, length);
}

static void differences_are_told_in_order_and_joined(void **state)
{
    struct report_verified report = {0};

    (void)state;
    difference_add(&report, 1, 8192, 4096);
    difference_add(&report, 0, 8192, 4096);
    difference_add(&report, 0, 0, 4096);
    assert_int_equal(report.count, 3);
    difference_add(&report, 0, 4096, 4096); /* closes the gap */
    difference_add(&report, 1, 4096, 4096); /* in front */
    difference_add(&report, 1, 12288, 512); /* behind */
    assert_int_equal(report.count, 2);
    expect_difference(&report, 0, 0, 0, 12288);
    expect_difference(&report, 1, 1, 4096, 8704);
    assert_int_equal(report.different_bytes, 12288 + 8704);
    assert_false(report.more);
}

static void the_first_few_differences_are_kept(void **state)
{
    struct report_verified report = {0};

    (void)state;
    for (uint32_t i = 0; i < ORDERS_MAX_DIFFERENCES; i++) {
        difference_add(&report, 0, (2 * i + 2) * PIECE, 512);
    }
    assert_false(report.more);
    difference_add(&report, 3, 0, 512);
    assert_true(report.more);
    expect_difference(&report, ORDERS_MAX_DIFFERENCES - 1, 0, 2 * ORDERS_MAX_DIFFERENCES * PIECE,
                      512);
    difference_add(&report, 0, 0, 512);
    assert_int_equal(report.count, ORDERS_MAX_DIFFERENCES);
    expect_difference(&report, 0, 0, 0, 512);
    expect_difference(&report, 1, 0, 2 * PIECE, 512);
    assert_int_equal(report.different_bytes, (ORDERS_MAX_DIFFERENCES + 2) * 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_a_disk_is_stale_at_first),
        cmocka_unit_test(a_disk_of_nothing_has_nothing_stale),
        cmocka_unit_test(what_is_sent_is_stale_again_in_whole_chunks),
        cmocka_unit_test(what_is_marked_behind_waits_for_the_next_round),
        cmocka_unit_test(pieces_of_zeroes_count_as_nothing),
        cmocka_unit_test(each_bit_and_its_place_count),
        cmocka_unit_test(holes_are_left_out_and_nothing_else),
        cmocka_unit_test(an_answer_that_says_nothing_asks_for_the_same_place),
        cmocka_unit_test(differences_are_told_in_order_and_joined),
        cmocka_unit_test(the_first_few_differences_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

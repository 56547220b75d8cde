/*
 * The test guest's pattern: whatever a migration could do to a page is noticed and named. A guest
 * that takes a wrong page for a right one would make every other test worthless.
 */
#include "tests/guest/crc32.h"
#include "tests/guest/pattern.h"
#include "tests/guest/sequences.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MEMORY 0
#define DISK 1

struct page {
    _Alignas(8) uint8_t bytes[PATTERN_PAGE_SIZE];
};

static const enum pattern_kind kinds[] = {PATTERN_TEXT, PATTERN_NOISE, PATTERN_WORDS};

static struct pattern_place at(uint32_t owner, uint64_t index)
{
    return (struct pattern_place){.owner = owner, .index = index};
}

static enum pattern_verdict verdict(const struct page *page, struct pattern_place place,
                                    uint32_t sequence)
{
    return pattern_check(page, place, sequence).verdict;
}

/* Versions 2 to LAST, one written over the other as the guest does it. */
static void write_up_to(struct page *page, struct pattern_place place, uint32_t last,
                        enum pattern_kind kind)
{
    memset(page, 0, sizeof *page);
    for (uint32_t sequence = SEQUENCE_FIRST; sequence <= last; sequence++)
        pattern_write(page, place, sequence, kind);
}

static void test_each_version_is_intact(void **state)
{
    struct page page = {0};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        for (uint32_t sequence = SEQUENCE_FIRST; sequence < 40; sequence++) {
            pattern_write(&page, at(MEMORY, 17), sequence, kinds[k]);
            assert_int_equal(verdict(&page, at(MEMORY, 17), sequence), PATTERN_INTACT);
        }
    }
}

static void test_each_flipped_bit_is_noticed(void **state)
{
    struct page page;

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        write_up_to(&page, at(DISK, 5), 4, kinds[k]);
        for (size_t bit = 0; bit < sizeof page.bytes * 8; bit++) {
            page.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_not_equal(verdict(&page, at(DISK, 5), 4), PATTERN_INTACT);
            page.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(verdict(&page, at(DISK, 5), 4), PATTERN_INTACT);
    }
}

static void test_swapped_machine_words_are_noticed(void **state)
{
    struct page page;
    uint64_t first;
    uint64_t second;

    (void)state;
    write_up_to(&page, at(MEMORY, 1), 2, PATTERN_NOISE);
    for (size_t i = 64; i < sizeof page.bytes; i += 64) {
        memcpy(&first, page.bytes + 40, 8);
        memcpy(&second, page.bytes + i, 8);
        memcpy(page.bytes + 40, &second, 8);
        memcpy(page.bytes + i, &first, 8);
        assert_int_equal(verdict(&page, at(MEMORY, 1), 2), PATTERN_DAMAGED);
        memcpy(page.bytes + 40, &first, 8);
        memcpy(page.bytes + i, &second, 8);
    }
}

static void test_a_stale_page_is_named_with_its_sequence(void **state)
{
    struct page page;
    struct pattern_finding finding;
    char text[100];

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        write_up_to(&page, at(MEMORY, 9), 6, kinds[k]);
        finding = pattern_check(&page, at(MEMORY, 9), 7);
        assert_int_equal(finding.verdict, PATTERN_STALE);
        pattern_describe(&finding, text, sizeof text);
        assert_string_equal(text, "found seq 6");
    }
}

static void test_swapped_pages_are_named_with_their_place(void **state)
{
    struct page page;
    struct pattern_finding finding;
    char text[100];

    (void)state;
    write_up_to(&page, at(MEMORY, 8), 3, PATTERN_TEXT);
    finding = pattern_check(&page, at(MEMORY, 9), 3);
    assert_int_equal(finding.verdict, PATTERN_MISPLACED);
    pattern_describe(&finding, text, sizeof text);
    assert_string_equal(text, "found seq 3 of memory page 8");

    write_up_to(&page, at(DISK + 1, 9), 3, PATTERN_TEXT);
    finding = pattern_check(&page, at(DISK, 9), 3);
    assert_int_equal(finding.verdict, PATTERN_MISPLACED);
    pattern_describe(&finding, text, sizeof text);
    assert_string_equal(text, "found seq 3 of block 9 of disk 2");
}

static void test_no_pattern_is_told_from_zeroes(void **state)
{
    struct page page = {0};

    (void)state;
    assert_true(pattern_is_zero(&page));
    assert_int_equal(verdict(&page, at(MEMORY, 0), 2), PATTERN_ZERO);
    page.bytes[sizeof page.bytes - 1] = 1;
    assert_false(pattern_is_zero(&page));
    assert_int_equal(verdict(&page, at(MEMORY, 0), 2), PATTERN_FOREIGN);
}

/* Changing a few words of a damaged page must not make its checksum fit again. */
static void test_damage_is_not_blessed_by_the_next_write(void **state)
{
    struct page page;

    (void)state;
    for (size_t byte = 40; byte < sizeof page.bytes; byte += 101) {
        write_up_to(&page, at(MEMORY, 3), 5, PATTERN_WORDS);
        page.bytes[byte] ^= 0x10;
        pattern_write(&page, at(MEMORY, 3), 6, PATTERN_WORDS);
        assert_int_equal(verdict(&page, at(MEMORY, 3), 6), PATTERN_DAMAGED);
    }
}

static void test_words_change_little_and_text_much(void **state)
{
    for (size_t k = 0; k < 3; k++) {
        struct page before;
        struct page after;
        size_t same = 0;

        (void)state;
        write_up_to(&before, at(MEMORY, 4), 5, kinds[k]);
        after = before;
        pattern_write(&after, at(MEMORY, 4), 6, kinds[k]);
        for (size_t i = 0; i < sizeof after.bytes; i++)
            same += before.bytes[i] == after.bytes[i];
        if (kinds[k] == PATTERN_WORDS)
            assert_true(same > sizeof after.bytes * 9 / 10);
        else
            assert_true(same < sizeof after.bytes / 4);
    }
}

static void test_a_stale_table_is_noticed(void **state)
{
    struct sequences table;
    uint32_t kept;

    (void)state;
    assert_true(sequences_init(&table, 1000));
    assert_true(sequences_intact(&table));
    for (size_t i = 0; i < 1000; i += 3)
        sequences_set(&table, i, sequences_next(&table, i));
    sequences_set(&table, 30, SEQUENCE_ZERO);
    assert_true(sequences_intact(&table));
    assert_int_equal(table.known, 334);
    assert_int_equal(sequences_next(&table, 1), SEQUENCE_FIRST);
    assert_int_equal(sequences_next(&table, 30), SEQUENCE_FIRST);
    assert_int_equal(sequences_next(&table, 33), SEQUENCE_FIRST + 1);

    kept = table.values[60];
    sequences_set(&table, 60, sequences_next(&table, 60));
    table.values[60] = kept;
    assert_false(sequences_intact(&table));
    sequences_free(&table);
}

static void test_kinds_go_by_their_names(void **state)
{
    enum pattern_kind kind;

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        assert_true(pattern_kind_parse(pattern_kind_name(kinds[k]), &kind));
        assert_int_equal(kind, kinds[k]);
    }
    assert_false(pattern_kind_parse("tex", &kind));
    assert_false(pattern_kind_parse("", &kind));
}

/* The values are zlib's: the host's manifest is made with that. */
static void test_crc32_is_that_of_zlib(void **state)
{
    static const char text[] = "crossing from one host to another";
    struct crc32_tables tables;
    uint32_t whole;

    (void)state;
    crc32_tables_init(&tables);
    assert_int_equal(crc32_extend(&tables, 0, "123456789", 9), 0xcbf43926);
    assert_int_equal(crc32_extend(&tables, 0, "", 0), 0);
    whole = crc32_extend(&tables, 0, text, sizeof text);
    for (size_t cut = 0; cut < sizeof text; cut++) {
        uint32_t crc = crc32_extend(&tables, 0, text, cut);

        assert_int_equal(crc32_extend(&tables, crc, text + cut, sizeof text - cut), whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_version_is_intact),
        cmocka_unit_test(test_each_flipped_bit_is_noticed),
        cmocka_unit_test(test_swapped_machine_words_are_noticed),
        cmocka_unit_test(test_a_stale_page_is_named_with_its_sequence),
        cmocka_unit_test(test_swapped_pages_are_named_with_their_place),
        cmocka_unit_test(test_no_pattern_is_told_from_zeroes),
        cmocka_unit_test(test_damage_is_not_blessed_by_the_next_write),
        cmocka_unit_test(test_words_change_little_and_text_much),
        cmocka_unit_test(test_a_stale_table_is_noticed),
        cmocka_unit_test(test_kinds_go_by_their_names),
        cmocka_unit_test(test_crc32_is_that_of_zlib),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

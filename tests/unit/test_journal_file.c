/*
 * A journal is believed as far as it is whole: what a crash cuts off is left out, anything else
 * that is wrong is damage.
 */
#include "agent/common/journal_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define RECORDS 4
#define HUGE_BYTES (INT64_C(8) << 30)

static char path[] = "/tmp/test_journal_file.XXXXXX";

/* A journal as it ought to be: TEXT, and where each record ends in it. */
struct journal_text {
    char text[1024];
    size_t length;
    size_t ends[RECORDS];
};

static int make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_bytes(const char *bytes, size_t length)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static json_t *record_of(size_t number)
{
    static const char *const names[RECORDS] = {"begin", "undo", "undo", "committed"};
    json_t *record = json_pack("{ss,si,s[ss]}", "record", names[number], "number", (int)number,
                               "words", "J\n\"quoted\"", "日本");

    assert_non_null(record);
    return record;
}

static struct journal_text make_text(void)
{
    struct journal_text made = {0};

    for (size_t i = 0; i < RECORDS; i++) {
        json_t *record = record_of(i);
        char *line = journal_file_line(i, record);
        size_t length = strlen(line);

        assert_true(made.length + length < sizeof made.text);
        /* One line, whatever is in it. */
        assert_ptr_equal(strchr(line, '\n'), line + length - 1);
        memcpy(made.text + made.length, line, length);
        made.length += length;
        made.ends[i] = made.length;
        free(line);
        json_decref(record);
    }
    return made;
}

static void expect_records(size_t count, size_t good_length, bool torn)
{
    struct journal_content content;
    struct error error = {0};

    if (!journal_file_read(path, &content, &error)) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(json_array_size(content.records), count);
    for (size_t i = 0; i < count; i++) {
        json_t *wanted = record_of(i);

        assert_true(json_equal(json_array_get(content.records, i), wanted));
        json_decref(wanted);
    }
    assert_int_equal(content.good_length, good_length);
    assert_int_equal(content.torn, torn);
    journal_content_clear(&content);
}

static void expect_refusal(const char *id, const char *about)
{
    struct journal_content content;
    struct error error = {0};

    if (journal_file_read(path, &content, &error)) {
        fail_msg("%s: believed, with %zu records, %s", about, json_array_size(content.records),
                 content.torn ? "torn" : "whole");
    }
    assert_string_equal(error.id, id);
    assert_non_null(strstr(error.text, path));
    /* Nothing is left to be freed, and freeing it does no harm. */
    assert_null(content.records);
    journal_content_clear(&content);
}

static void what_was_written_is_read(void **state)
{
    struct journal_text made = make_text();

    (void)state;
    write_bytes(made.text, made.length);
    expect_records(RECORDS, made.length, false);
}

static void the_last_record_of_a_name_is_found(void **state)
{
    struct journal_text made = make_text();
    struct journal_content content;
    struct error error;

    (void)state;
    write_bytes(made.text, made.length);
    assert_true(journal_file_read(path, &content, &error));
    assert_ptr_equal(journal_content_last(&content, "undo"), json_array_get(content.records, 2));
    assert_ptr_equal(journal_content_last(&content, "begin"), json_array_get(content.records, 0));
    assert_null(journal_content_last(&content, "done"));
    journal_content_clear(&content);
}

static void an_empty_file_has_no_records(void **state)
{
    (void)state;
    write_bytes("", 0);
    expect_records(0, 0, false);
}

static void a_tail_torn_anywhere_is_left_out(void **state)
{
    struct journal_text made = make_text();

    (void)state;
    for (size_t count = 0; count < RECORDS; count++) {
        size_t begin = count ? made.ends[count - 1] : 0;

        for (size_t length = begin + 1; length < made.ends[count]; length++) {
            write_bytes(made.text, length);
            expect_records(count, begin, true);
        }
        write_bytes(made.text, made.ends[count]);
        expect_records(count + 1, made.ends[count], false);
    }
}

/* What a host's crash leaves of a record that was not synced: the file's new length is there, the
 * bytes are not. */
static void a_tail_of_zeroes_is_left_out(void **state)
{
    struct journal_text made = make_text();

    (void)state;
    memset(made.text + made.ends[2], 0, made.length - made.ends[2]);
    write_bytes(made.text, made.length);
    expect_records(3, made.ends[2], true);
    made = make_text();
    memset(made.text + made.ends[2] + 7, 0, made.length - made.ends[2] - 8);
    write_bytes(made.text, made.length);
    expect_records(3, made.ends[2], true);
}

static void flip(char *byte, size_t bit)
{
    *byte = (char)(*byte ^ (1 << bit));
}

static void a_flipped_bit_before_the_last_record_is_damage(void **state)
{
    struct journal_text made = make_text();
    char about[64];

    (void)state;
    for (size_t at = 0; at < made.ends[RECORDS - 2]; at++) {
        flip(&made.text[at], at % 8);
        write_bytes(made.text, made.length);
        snprintf(about, sizeof about, "bit %zu of byte %zu of %zu", at % 8, at,
                 made.ends[RECORDS - 2]);
        expect_refusal("journal-damaged", about);
        flip(&made.text[at], at % 8);
    }
}

/* Also with what a crash left behind it. */
static void a_flipped_bit_is_damage_before_a_torn_tail(void **state)
{
    struct journal_text made = make_text();
    char about[64];

    (void)state;
    for (size_t at = 0; at < made.ends[RECORDS - 2]; at++) {
        flip(&made.text[at], at % 8);
        write_bytes(made.text, made.length - 5);
        snprintf(about, sizeof about, "bit %zu of byte %zu of %zu", at % 8, at,
                 made.ends[RECORDS - 2]);
        expect_refusal("journal-damaged", about);
        flip(&made.text[at], at % 8);
    }
}

static void a_last_record_with_a_flipped_bit_is_not_believed(void **state)
{
    struct journal_text made = make_text();

    (void)state;
    for (size_t at = made.ends[RECORDS - 2]; at < made.length; at++) {
        struct journal_content content;
        struct error error;

        flip(&made.text[at], at % 8);
        write_bytes(made.text, made.length);
        if (journal_file_read(path, &content, &error)) {
            assert_true(content.torn);
            assert_int_equal(json_array_size(content.records), RECORDS - 1);
            assert_int_equal(content.good_length, made.ends[RECORDS - 2]);
        }
        journal_content_clear(&content);
        flip(&made.text[at], at % 8);
    }
}

/* Writes the records of NUMBERS in that order. */
static void write_order(const struct journal_text *made, const size_t *numbers, size_t count)
{
    char text[sizeof made->text];
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        size_t begin = numbers[i] ? made->ends[numbers[i] - 1] : 0;
        size_t size = made->ends[numbers[i]] - begin;

        memcpy(text + length, made->text + begin, size);
        length += size;
    }
    write_bytes(text, length);
}

static void a_record_out_of_its_place_is_damage(void **state)
{
    struct journal_text made = make_text();
    static const struct {
        size_t numbers[RECORDS + 1], count;
        const char *about;
    } orders[] = {
        {{1, 0, 2, 3}, 4, "the first two swapped"},
        {{0, 1, 3, 2}, 4, "the last two swapped"},
        {{1, 2, 3}, 3, "the first is missing"},
        {{0, 2, 3}, 3, "one in the middle is missing"},
        {{0, 1, 3}, 3, "the one before the last is missing"},
        {{0, 1, 1, 2, 3}, 5, "one is doubled"},
        {{0, 1, 2, 3, 3}, 5, "the last is doubled"},
        {{3}, 1, "only the last is there"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        write_order(&made, orders[i].numbers, orders[i].count);
        expect_refusal("journal-damaged", orders[i].about);
    }
}

static void the_damage_is_named(void **state)
{
    struct journal_text made = make_text();
    struct journal_content content;
    struct error error;

    (void)state;
    made.text[made.ends[1] + 20] = '#';
    write_bytes(made.text, made.length);
    assert_false(journal_file_read(path, &content, &error));
    assert_non_null(strstr(error.text, "record 2"));
    assert_non_null(strstr(error.text, "nothing was changed"));
}

/* For people only. */
static void what_is_before_the_damage_can_be_shown(void **state)
{
    struct journal_text made = make_text();
    struct journal_content content;

    (void)state;
    made.text[made.ends[1] + 20] = '#';
    write_bytes(made.text, made.length);
    journal_file_read_some(path, &content);
    assert_int_equal(json_array_size(content.records), 2);
    assert_int_equal(content.good_length, made.ends[1]);
    assert_non_null(journal_content_last(&content, "begin"));
    journal_content_clear(&content);
    journal_file_read_some("/tmp/there/is/no/such/journal", &content);
    assert_int_equal(json_array_size(content.records), 0);
    assert_null(journal_content_last(&content, "begin"));
    journal_content_clear(&content);
}

static void a_record_without_a_name_is_damage(void **state)
{
    struct journal_text made = make_text();
    json_t *nameless[] = {json_object(), json_pack("{si}", "record", 1), json_array()};

    (void)state;
    for (size_t i = 0; i < sizeof nameless / sizeof *nameless; i++) {
        char *line = journal_file_line(0, nameless[i]);
        char text[sizeof made.text + 64];
        int length = snprintf(text, sizeof text, "%s%.*s", line, (int)made.length, made.text);

        write_bytes(text, (size_t)length);
        expect_refusal("journal-damaged", "without a name");
        free(line);
        json_decref(nameless[i]);
    }
}

static void a_file_that_is_not_there_or_no_file_is_unreadable(void **state)
{
    struct journal_content content;
    struct error error = {0};

    (void)state;
    assert_false(journal_file_read("/tmp/there/is/no/such/journal", &content, &error));
    assert_string_equal(error.id, "journal-unreadable");
    assert_non_null(strstr(error.text, "No such file"));
    assert_null(content.records);
    assert_false(journal_file_read("/tmp", &content, &error));
    assert_string_equal(error.id, "journal-unreadable");
}

static void a_huge_file_is_refused_without_reading_it_all(void **state)
{
    struct journal_text made = make_text();

    (void)state;
    write_bytes(made.text, made.length);
    assert_int_equal(truncate(path, HUGE_BYTES), 0);
    expect_refusal("journal-unreadable", "huge");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(the_last_record_of_a_name_is_found),
        cmocka_unit_test(an_empty_file_has_no_records),
        cmocka_unit_test(a_tail_torn_anywhere_is_left_out),
        cmocka_unit_test(a_tail_of_zeroes_is_left_out),
        cmocka_unit_test(a_flipped_bit_before_the_last_record_is_damage),
        cmocka_unit_test(a_flipped_bit_is_damage_before_a_torn_tail),
        cmocka_unit_test(a_last_record_with_a_flipped_bit_is_not_believed),
        cmocka_unit_test(a_record_out_of_its_place_is_damage),
        cmocka_unit_test(the_damage_is_named),
        cmocka_unit_test(what_is_before_the_damage_can_be_shown),
        cmocka_unit_test(a_record_without_a_name_is_damage),
        cmocka_unit_test(a_file_that_is_not_there_or_no_file_is_unreadable),
        cmocka_unit_test(a_huge_file_is_refused_without_reading_it_all),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}

/*
 * Behaviours of protocol/stream_cutter.c, on streams made here byte by byte as QEMU 7.2 writes
 * them, and on a recorded one:
 *
 *   WATARI_STREAM=/tmp/stream ./test_stream_cutter
 *
 * reads what "migrate exec:cat>/tmp/stream" of a QEMU left there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/stream_cutter.h"
#include "qemu_stream.h"

static void feed(struct stream_cutter *cutter, const uint8_t *bytes, size_t size, size_t chunk)
{
    for (size_t at = 0; at < size; at += chunk) {
        stream_cutter_feed(cutter, bytes + at, size - at < chunk ? size - at : chunk);
    }
}

static struct stream_cutter *cut(const struct stream *stream, size_t chunk)
{
    struct stream_cutter *cutter = stream_cutter_new(PAGE);
    assert_non_null(cutter);
    feed(cutter, stream->bytes, stream->size, chunk);
    return cutter;
}

static void whole_stream_expect(const struct stream *stream, size_t chunk)
{
    struct stream_cutter *cutter = cut(stream, chunk);
    const struct stream_counts *counts = stream_cutter_counts(cutter);
    assert_string_equal(stream_cutter_reason(cutter), "");
    assert_int_equal(stream_cutter_phase(cutter), STREAM_DEVICE);
    assert_int_equal(counts->bytes, stream->size);
    assert_int_equal(counts->pages, 7);
    assert_int_equal(counts->zero_pages, 4);
    assert_int_equal(counts->page_bytes, 3 * PAGE);
    assert_int_equal(counts->other_pages, 0);
    assert_int_equal(counts->ram_bytes, RAM_SIZE + BIOS_SIZE);
    stream_cutter_free(cutter);
}

/* STREAM (freed) must lead to PHASE, with WORD in the reason, however it is split. */
static void expect_phase(struct stream *stream, enum stream_phase phase, const char *word)
{
    static const size_t chunks[] = {1, 3, STREAM_MAX};
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        struct stream_cutter *cutter = cut(stream, chunks[i]);
        if (strstr(stream_cutter_reason(cutter), word) == NULL) {
            fail_msg("\"%s\" is not in: %s", word, stream_cutter_reason(cutter));
        }
        assert_int_equal(stream_cutter_phase(cutter), phase);
        assert_int_equal(stream_cutter_counts(cutter)->bytes, stream->size);
        stream_cutter_free(cutter);
    }
    free(stream);
}

static void expect_lost(struct stream *stream, const char *word)
{
    put_fill(stream, 0, 100); /* more comes in any case, and is counted */
    expect_phase(stream, STREAM_OPAQUE, word);
}

static void a_stream_is_counted_however_it_is_split(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_whole_stream(stream);
    for (size_t chunk = 1; chunk < 300; chunk++) {
        whole_stream_expect(stream, chunk);
    }
    for (size_t chunk = PAGE - 10; chunk < PAGE + 30; chunk++) {
        whole_stream_expect(stream, chunk);
    }
    whole_stream_expect(stream, stream->size);
    free(stream);
}

static void phases_follow_the_stream(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    struct stream_cutter *cutter = cut(stream, 1);
    assert_int_equal(stream_cutter_phase(cutter), STREAM_HEADER);
    stream->size = 0;
    put_start(stream, "ram", 4);
    feed(cutter, stream->bytes, stream->size, 1);
    assert_int_equal(stream_cutter_phase(cutter), STREAM_RAM);
    stream->size = 0;
    put_sizes(stream);
    put_footer(stream);
    put_part(stream, SECTION_END);
    put_footer(stream);
    feed(cutter, stream->bytes, stream->size, 1);
    assert_int_equal(stream_cutter_phase(cutter), STREAM_RAM);
    stream_cutter_feed(cutter, (const uint8_t *)"\x04", 1);
    assert_int_equal(stream_cutter_phase(cutter), STREAM_DEVICE);
    stream_cutter_free(cutter);
    free(stream);
}

static void a_machine_without_devices_ends_after_ram(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_setup(stream);
    put_part(stream, SECTION_END);
    put_footer(stream);
    put_number(stream, 0, 1);
    expect_phase(stream, STREAM_DEVICE, "");
}

static void known_subsections_of_the_configuration_are_passed_over(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_subsection(stream, "configuration/target-page-bits");
    put_number(stream, 12, 4);
    put_subsection(stream, "configuration/uuid");
    put_fill(stream, 0x11, 16);
    put_start(stream, "ram", 4);
    expect_phase(stream, STREAM_RAM, "");
}

static void pages_of_another_size_are_not_guessed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_subsection(stream, "configuration/target-page-bits");
    put_number(stream, 16, 4);
    expect_lost(stream, "2^16");
}

static void capabilities_that_change_the_layout_are_not_guessed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_subsection(stream, "configuration/capabilities");
    put_number(stream, 1, 4);
    put_string(stream, "x-ignore-shared");
    expect_lost(stream, "configuration/capabilities");
}

static void pages_that_qemu_encoded_are_counted_apart(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_setup(stream);
    put_part(stream, SECTION_PART);
    put_page(stream, 0, XBZRLE, "pc.ram");
    put_number(stream, 1, 1);
    put_number(stream, 300, 2);
    put_fill(stream, 0x10, 300);
    put_page(stream, 1, DEFLATE, NULL);
    put_number(stream, 77, 4);
    put_fill(stream, 0x20, 77);
    put_footer(stream);
    struct stream_cutter *cutter = cut(stream, 5);
    assert_int_equal(stream_cutter_phase(cutter), STREAM_RAM);
    assert_int_equal(stream_cutter_counts(cutter)->pages, 2);
    assert_int_equal(stream_cutter_counts(cutter)->other_pages, 2);
    assert_int_equal(stream_cutter_counts(cutter)->page_bytes, 0);
    stream_cutter_free(cutter);
    free(stream);
}

static void flush_records_and_harmless_commands_are_passed_over(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_number(stream, 8, 1); /* the return path is opened */
    put_number(stream, 1, 2);
    put_number(stream, 0, 2);
    put_number(stream, 8, 1); /* ping */
    put_number(stream, 2, 2);
    put_number(stream, 4, 2);
    put_number(stream, 1, 4);
    put_start(stream, "ram", 4);
    put_sizes(stream);
    put_number(stream, FLUSH, 8);
    put_footer(stream);
    put_number(stream, 8, 1); /* switchover starts */
    put_number(stream, 11, 2);
    put_number(stream, 0, 2);
    put_part(stream, SECTION_END);
    put_number(stream, FLUSH, 8);
    put_footer(stream);
    put_number(stream, SECTION_FULL, 1);
    expect_phase(stream, STREAM_DEVICE, "");
}

static void commands_that_change_what_follows_are_not_guessed(void **state)
{
    (void)state;
    for (unsigned command = 3; command <= 10; command++) {
        struct stream *stream = stream_new();
        put_setup(stream);
        put_number(stream, 8, 1);
        put_number(stream, command, 2);
        put_number(stream, 0, 2);
        expect_lost(stream, "command");
    }
}

static void what_is_not_a_stream_is_not_guessed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_fill(stream, 'x', 8);
    expect_lost(stream, "magic");

    stream = stream_new();
    put_number(stream, 0x5145564d, 4);
    put_number(stream, 2, 4);
    expect_lost(stream, "version 2");

    stream = stream_new();
    put_number(stream, 0x5145564d, 4);
    put_number(stream, 3, 4);
    put_start(stream, "ram", 4);
    expect_lost(stream, "configuration");
}

static void sections_before_ram_are_not_guessed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_start(stream, "dirty\x1b-bitmap", 1);
    expect_lost(stream, "\"dirty?-bitmap\"");

    stream = stream_new(); /* QEMU 8.0 and later: early device state */
    put_configuration(stream);
    put_number(stream, SECTION_FULL, 1);
    expect_lost(stream, "type 0x04 before RAM");

    stream = stream_new();
    put_configuration(stream);
    put_start(stream, "ram", 5);
    expect_lost(stream, "version 5");
}

static void sections_beside_ram_are_not_guessed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_setup(stream);
    put_start(stream, "htab", 1);
    expect_lost(stream, "type 0x01 beside RAM");

    stream = stream_new();
    put_setup(stream);
    put_number(stream, SECTION_PART, 1);
    put_number(stream, 9, 4);
    expect_lost(stream, "section 9");

    stream = stream_new();
    put_setup(stream);
    put_part(stream, SECTION_END);
    put_footer(stream);
    put_part(stream, SECTION_PART);
    expect_lost(stream, "type 0x02 beside RAM");
}

static void a_list_of_blocks_with_further_fields_is_not_guessed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_start(stream, "ram", 4);
    put_number(stream, (RAM_SIZE + BIOS_SIZE) | SIZES, 8);
    put_string(stream, "pc.ram");
    put_number(stream, RAM_SIZE, 8);
    put_number(stream, 2 << 20, 8); /* postcopy with huge pages: the page size */
    expect_lost(stream, "empty name");
}

/* A list of blocks with one block of LENGTH, of a total of RAM_SIZE. */
static struct stream *block_list(uint64_t length)
{
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_start(stream, "ram", 4);
    put_number(stream, RAM_SIZE | SIZES, 8);
    put_string(stream, "pc.ram");
    put_number(stream, length, 8);
    return stream;
}

static void implausible_blocks_are_not_guessed(void **state)
{
    (void)state;
    expect_lost(block_list(0), "RAM block \"pc.ram\" of 0 bytes");
    expect_lost(block_list(RAM_SIZE + PAGE), "RAM block");
    expect_lost(block_list(PAGE + 1), "RAM block");
    struct stream *stream = block_list(PAGE);
    put_string(stream, "pc.ram");
    put_number(stream, PAGE, 8);
    expect_lost(stream, "RAM block");
}

static void too_many_blocks_are_not_kept(void **state)
{
    (void)state;
    struct stream_cutter *cutter = stream_cutter_new(PAGE);
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_start(stream, "ram", 4);
    put_number(stream, UINT64_C(5000) * PAGE | SIZES, 8);
    feed(cutter, stream->bytes, stream->size, 1);
    for (unsigned i = 0; i < 5000; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%u", i);
        stream->size = 0;
        put_string(stream, name);
        put_number(stream, PAGE, 8);
        feed(cutter, stream->bytes, stream->size, 7);
    }
    assert_int_equal(stream_cutter_phase(cutter), STREAM_OPAQUE);
    assert_non_null(strstr(stream_cutter_reason(cutter), "\"m4096\""));
    stream_cutter_free(cutter);
    free(stream);
}

/* A part of RAM that begins with one page record of KIND, for page PAGE_NUMBER of BLOCK. */
static struct stream *page_of(uint64_t page_number, unsigned kind, const char *block)
{
    struct stream *stream = stream_new();
    put_setup(stream);
    put_part(stream, SECTION_PART);
    put_page(stream, page_number, kind, block);
    return stream;
}

static void implausible_page_records_are_not_guessed(void **state)
{
    (void)state;
    expect_lost(page_of(3, WHOLE, "pc.ram"), "behind its block's end");
    expect_lost(page_of(2, ZERO, "pc.bios"), "behind its block's end");
    expect_lost(page_of(0, WHOLE, "pc.rom"), "unknown RAM block \"pc.rom\"");
    expect_lost(page_of(0, WHOLE, NULL), "none before");
    expect_lost(page_of(0, WHOLE, ""), "empty name");
    expect_lost(page_of(0, HOOK, "pc.ram"), "a RAM record");
    expect_lost(page_of(0, 0, "pc.ram"), "a RAM record");
    expect_lost(page_of(0, WHOLE | ZERO, "pc.ram"), "a RAM record");
    expect_lost(page_of(1, BODY_END, ""), "a RAM record");
    expect_lost(page_of(1, SIZES, ""), "a RAM record");

    struct stream *stream = page_of(0, ZERO, "pc.ram");
    put_number(stream, 1, 1);
    expect_lost(stream, "filled with 0x01");
    stream = page_of(0, XBZRLE, "pc.ram");
    put_number(stream, 2, 1);
    put_number(stream, 10, 2);
    expect_lost(stream, "encoding 2");
    stream = page_of(0, XBZRLE, "pc.ram");
    put_number(stream, 1, 1);
    put_number(stream, PAGE + 1, 2);
    expect_lost(stream, "4097 bytes");
    stream = page_of(0, DEFLATE, "pc.ram");
    put_number(stream, 2 * PAGE, 4);
    expect_lost(stream, "8192 bytes");
}

static void pages_before_the_list_of_blocks_are_not_guessed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_configuration(stream);
    put_start(stream, "ram", 4);
    put_zero_page(stream, 0, "pc.ram");
    expect_lost(stream, "a RAM record");
}

static void a_missing_footer_is_noticed(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_setup(stream);
    put_part(stream, SECTION_PART);
    put_number(stream, BODY_END, 8);
    put_part(stream, SECTION_PART);
    expect_lost(stream, "footer");
}

static void a_reason_names_the_place_and_stays(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_fill(stream, 'x', 8);
    struct stream_cutter *cutter = cut(stream, 1);
    char reason[200];
    snprintf(reason, sizeof reason, "%s", stream_cutter_reason(cutter));
    assert_non_null(strstr(reason, "byte 8 "));
    stream->size = 0;
    put_whole_stream(stream);
    feed(cutter, stream->bytes, stream->size, 9);
    assert_string_equal(stream_cutter_reason(cutter), reason);
    assert_int_equal(stream_cutter_phase(cutter), STREAM_OPAQUE);
    assert_int_equal(stream_cutter_counts(cutter)->pages, 0);
    stream_cutter_free(cutter);
    free(stream);
}

static void no_damaged_byte_makes_splits_differ(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    put_whole_stream(stream);
    for (size_t at = 0; at < stream->size; at += at % 500 < 200 ? 1 : 37) {
        uint8_t good = stream->bytes[at];
        stream->bytes[at] ^= (uint8_t)(1u << at % 8);
        struct stream_cutter *whole = cut(stream, stream->size), *split = cut(stream, 11);
        assert_int_equal(stream_cutter_phase(whole), stream_cutter_phase(split));
        assert_string_equal(stream_cutter_reason(whole), stream_cutter_reason(split));
        assert_memory_equal(stream_cutter_counts(whole), stream_cutter_counts(split),
                            sizeof(struct stream_counts));
        stream_cutter_free(whole);
        stream_cutter_free(split);
        stream->bytes[at] = good;
    }
    free(stream);
}

static void a_recorded_stream_is_understood_to_its_device_state(void **state)
{
    (void)state;
    const char *path = getenv("WATARI_STREAM");
    if (path == NULL) {
        print_message("skipped: WATARI_STREAM names no recorded stream\n");
        skip();
    }
    FILE *file = fopen(path, "rbe");
    assert_non_null(file);
    struct stream_cutter *cutter = stream_cutter_new(PAGE);
    static uint8_t bytes[100003];
    uint64_t size = 0;
    size_t got;
    while ((got = fread(bytes, 1, sizeof bytes, file)) > 0) {
        stream_cutter_feed(cutter, bytes, got);
        size += got;
    }
    fclose(file);
    const struct stream_counts *counts = stream_cutter_counts(cutter);
    print_message("%llu bytes: %llu pages, %llu of them zero, %llu encoded; RAM %llu bytes\n",
                  (unsigned long long)counts->bytes, (unsigned long long)counts->pages,
                  (unsigned long long)counts->zero_pages, (unsigned long long)counts->other_pages,
                  (unsigned long long)counts->ram_bytes);
    assert_string_equal(stream_cutter_reason(cutter), "");
    assert_int_equal(stream_cutter_phase(cutter), STREAM_DEVICE);
    assert_true(counts->bytes == size);
    assert_true(counts->pages * PAGE >= counts->ram_bytes);
    assert_true(counts->page_bytes ==
                (counts->pages - counts->zero_pages - counts->other_pages) * PAGE);
    stream_cutter_free(cutter);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_is_counted_however_it_is_split),
        cmocka_unit_test(phases_follow_the_stream),
        cmocka_unit_test(a_machine_without_devices_ends_after_ram),
        cmocka_unit_test(known_subsections_of_the_configuration_are_passed_over),
        cmocka_unit_test(pages_of_another_size_are_not_guessed),
        cmocka_unit_test(capabilities_that_change_the_layout_are_not_guessed),
        cmocka_unit_test(pages_that_qemu_encoded_are_counted_apart),
        cmocka_unit_test(flush_records_and_harmless_commands_are_passed_over),
        cmocka_unit_test(commands_that_change_what_follows_are_not_guessed),
        cmocka_unit_test(what_is_not_a_stream_is_not_guessed),
        cmocka_unit_test(sections_before_ram_are_not_guessed),
        cmocka_unit_test(sections_beside_ram_are_not_guessed),
        cmocka_unit_test(a_list_of_blocks_with_further_fields_is_not_guessed),
        cmocka_unit_test(implausible_blocks_are_not_guessed),
        cmocka_unit_test(too_many_blocks_are_not_kept),
        cmocka_unit_test(implausible_page_records_are_not_guessed),
        cmocka_unit_test(pages_before_the_list_of_blocks_are_not_guessed),
        cmocka_unit_test(a_missing_footer_is_noticed),
        cmocka_unit_test(a_reason_names_the_place_and_stays),
        cmocka_unit_test(no_damaged_byte_makes_splits_differ),
        cmocka_unit_test(a_recorded_stream_is_understood_to_its_device_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

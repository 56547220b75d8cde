/* Behaviours of agent/mover/page_encoder.c and sent_pages.c: what of a stream is sent, and that a QEMU loads the same from
 * it as from the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/mover/page_encoder.h"
#include "qemu_stream.h"
#include "qemu_loader.h"

/* As small as may be, so that units are split over segments. */
#define SEGMENT_SIZE (STREAM_UNIT_MAX(PAGE) + 100u)
#define OUTPUT_MAX (8u << 20)

/* A source: an encoder, the segment it fills, and all segments sent so far. */
struct sender {
    struct page_encoder *encoder;
    uint8_t segment[SEGMENT_SIZE];
    struct encoded_run run;
    uint8_t *sent;
    size_t sent_size;
};

static struct sender *sender_new(void)
{
    struct sender *sender = calloc(1, sizeof *sender);
    assert_non_null(sender);
    sender->encoder = page_encoder_new(PAGE);
    assert_non_null(sender->encoder);
    sender->run.bytes = sender->segment;
    sender->sent = malloc(OUTPUT_MAX);
    assert_non_null(sender->sent);
    return sender;
}

static void sender_free(struct sender *sender)
{
    page_encoder_free(sender->encoder);
    free(sender->sent);
    free(sender);
}

static void send_done(struct sender *sender)
{
    struct encoded_run *run = &sender->run;
    assert_true(sender->sent_size + run->done <= OUTPUT_MAX);
    memcpy(sender->sent + sender->sent_size, run->bytes, run->done);
    sender->sent_size += run->done;
    memmove(run->bytes, run->bytes + run->done, run->pending);
    run->done = 0;
}

/* Reads SIZE bytes in pieces of at most CHUNK, sending a segment whenever it is full. */
static void feed(struct sender *sender, const uint8_t *bytes, size_t size, size_t chunk)
{
    struct encoded_run *run = &sender->run;
    while (size > 0) {
        size_t room = SEGMENT_SIZE - run->done - run->pending;
        size_t part = chunk < room ? chunk : room;
        part = part < size ? part : size;
        memcpy(run->bytes + run->done + run->pending, bytes, part);
        page_encoder_take(sender->encoder, run, part);
        bytes += part;
        size -= part;
        if (run->done + run->pending == SEGMENT_SIZE) {
            assert_true(run->done > 0);
            send_done(sender);
        }
    }
}

static void feed_stream(struct sender *sender, struct stream *stream, size_t chunk)
{
    feed(sender, stream->bytes, stream->size, chunk);
    stream->size = 0;
}

/* What was sent after the first BEFORE bytes is what STREAM (emptied) says, and nothing waits. */
static void expect_sent(struct sender *sender, size_t before, struct stream *stream)
{
    send_done(sender);
    assert_int_equal(sender->run.pending, 0);
    assert_int_equal(sender->sent_size - before, stream->size);
    assert_memory_equal(sender->sent + before, stream->bytes, stream->size);
    stream->size = 0;
}

/* A sender past the setup and a first part in which pc.ram's pages were sent: filled with 1, zero,
 * filled with 3. */
static struct sender *sender_after_first_round(struct stream *stream, size_t chunk)
{
    struct sender *sender = sender_new();
    put_setup(stream);
    put_part(stream, SECTION_PART);
    put_whole_page(stream, 0, "pc.ram", 1);
    put_zero_page(stream, 1, NULL);
    put_whole_page(stream, 2, NULL, 3);
    put_footer(stream);
    feed(sender, stream->bytes, stream->size, chunk);
    expect_sent(sender, 0, stream);
    assert_int_equal(page_encoder_same_pages(sender->encoder), 0);
    return sender;
}

static const size_t chunks[] = {1, 7, 8, 9, 100, 4095, 4096, 4104, 4105, STREAM_MAX};
#define CHUNK_COUNT (sizeof chunks / sizeof chunks[0])

static void pages_that_did_not_change_are_left_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHUNK_COUNT; i++) {
        struct stream *stream = stream_new();
        struct sender *sender = sender_after_first_round(stream, chunks[i]);
        size_t before = sender->sent_size;
        put_part(stream, SECTION_PART);
        put_whole_page(stream, 0, NULL, 1);
        put_zero_page(stream, 1, NULL);
        put_whole_page(stream, 2, NULL, 9);
        put_whole_page(stream, 2, NULL, 9);
        put_footer(stream);
        feed_stream(sender, stream, chunks[i]);
        put_part(stream, SECTION_PART);
        put_whole_page(stream, 2, NULL, 9);
        put_footer(stream);
        expect_sent(sender, before, stream);
        assert_int_equal(page_encoder_same_pages(sender->encoder), 3);
        assert_int_equal(stream_cutter_counts(page_encoder_cutter(sender->encoder))->pages, 7);
        sender_free(sender);
        free(stream);
    }
}

static void a_record_that_names_its_block_stays(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    struct sender *sender = sender_after_first_round(stream, STREAM_MAX);
    size_t before = sender->sent_size;
    put_part(stream, SECTION_PART);
    put_zero_page(stream, 0, "pc.bios");
    put_whole_page(stream, 0, "pc.ram", 1);
    put_zero_page(stream, 1, "pc.ram");
    feed(sender, stream->bytes, stream->size, 11);
    expect_sent(sender, before, stream);
    assert_int_equal(page_encoder_same_pages(sender->encoder), 0);
    put_whole_page(stream, 0, NULL, 1);
    put_zero_page(stream, 1, NULL);
    feed_stream(sender, stream, 11);
    assert_int_equal(sender->run.done + sender->run.pending, 0);
    assert_int_equal(page_encoder_same_pages(sender->encoder), 2);
    sender_free(sender);
    free(stream);
}

static void pages_go_again_when_they_were_something_else_meanwhile(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    struct sender *sender = sender_after_first_round(stream, STREAM_MAX);
    size_t before = sender->sent_size;
    put_part(stream, SECTION_PART);
    put_zero_page(stream, 0, NULL);
    put_whole_page(stream, 0, NULL, 1);
    put_whole_page(stream, 1, NULL, 0); /* zero, but not said to be */
    put_zero_page(stream, 1, NULL);
    put_page(stream, 2, XBZRLE, NULL);
    put_number(stream, 1, 1);
    put_number(stream, 2, 2);
    put_fill(stream, 7, 2);
    put_whole_page(stream, 2, NULL, 3);
    put_page(stream, 2, DEFLATE, NULL);
    put_number(stream, 20, 4);
    put_fill(stream, 7, 20);
    put_whole_page(stream, 2, NULL, 3);
    put_footer(stream);
    feed(sender, stream->bytes, stream->size, 5);
    expect_sent(sender, before, stream);
    sender_free(sender);
    free(stream);
}

static void nothing_is_left_out_once_the_place_is_lost(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHUNK_COUNT; i++) {
        struct stream *stream = stream_new();
        struct sender *sender = sender_after_first_round(stream, chunks[i]);
        size_t before = sender->sent_size;
        put_part(stream, SECTION_PART);
        feed(sender, stream->bytes, stream->size, chunks[i]);
        struct stream *left_out = stream_new();
        put_whole_page(left_out, 0, NULL, 1);
        feed_stream(sender, left_out, chunks[i]);
        free(left_out);
        size_t part = stream->size;
        put_page(stream, 1, HOOK, NULL);
        put_whole_page(stream, 0, NULL, 1);
        put_zero_page(stream, 1, NULL);
        feed(sender, stream->bytes + part, stream->size - part, chunks[i]);
        expect_sent(sender, before, stream);
        assert_int_equal(stream_cutter_phase(page_encoder_cutter(sender->encoder)), STREAM_OPAQUE);
        assert_int_equal(page_encoder_same_pages(sender->encoder), 1);
        sender_free(sender);
        free(stream);
    }
}

static void device_state_goes_as_it_is(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    struct sender *sender = sender_after_first_round(stream, STREAM_MAX);
    size_t before = sender->sent_size;
    put_part(stream, SECTION_END);
    put_footer(stream);
    put_number(stream, SECTION_FULL, 1);
    put_whole_page(stream, 0, NULL, 1);
    put_whole_page(stream, 0, NULL, 1);
    feed(sender, stream->bytes, stream->size, 1000);
    expect_sent(sender, before, stream);
    sender_free(sender);
    free(stream);
}

static void a_table_that_does_not_fit_leaves_nothing_out(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    struct sender *sender = sender_new();
    uint64_t huge = UINT64_C(1) << 59; /* no address space has room for the hashes */
    put_configuration(stream);
    put_start(stream, "ram", 4);
    put_number(stream, huge | SIZES, 8);
    put_string(stream, "pc.ram");
    put_number(stream, huge, 8);
    put_whole_page(stream, 0, "pc.ram", 1);
    put_whole_page(stream, 0, NULL, 1);
    put_zero_page(stream, 1, NULL);
    put_zero_page(stream, 1, NULL);
    feed(sender, stream->bytes, stream->size, STREAM_MAX);
    expect_sent(sender, 0, stream);
    assert_int_not_equal(page_encoder_failure(sender->encoder), 0);
    sender_free(sender);
    free(stream);
}

static uint32_t random_state;

/* The same numbers in every run. */
static unsigned random_below(unsigned limit)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % limit;
}

/* A page record of any kind, for any page, with one of few contents. *BLOCK is the block named
 * last; NULL: none. */
static void put_random_page(struct stream *stream, const char **block)
{
    const char *name = random_below(8) == 0 ? "pc.bios" : "pc.ram";
    uint64_t page = random_below(name[3] == 'b' ? 2 : 3);
    const char *named =
        *block != NULL && strcmp(name, *block) == 0 && random_below(20) != 0 ? NULL : name;
    *block = name;
    switch (random_below(8)) {
    case 0:
        put_page(stream, page, XBZRLE, named);
        put_number(stream, 1, 1);
        put_number(stream, 3, 2);
        put_fill(stream, (uint8_t)random_below(3), 3);
        return;
    case 1:
    case 2:
        put_zero_page(stream, page, named);
        return;
    default:
        put_whole_page(stream, page, named, (uint8_t)random_below(3));
    }
}

/* Feeds 200 parts of up to ten pages, the last with a device section behind it, and loads what went
 * in into WANTED. Returns where the parts begin in what was sent. */
static size_t feed_random_parts(struct sender *sender, struct guest *wanted)
{
    struct stream *stream = stream_new();
    const char *block = NULL;
    put_setup(stream);
    size_t begin = stream->size;
    feed_stream(sender, stream, 1 + random_below(50));
    for (unsigned part = 0; part < 200; part++) {
        put_part(stream, part < 199 ? SECTION_PART : SECTION_END);
        for (unsigned i = random_below(11); i > 0; i--) {
            put_random_page(stream, &block);
        }
        put_footer(stream);
        if (part == 199) {
            put_number(stream, SECTION_FULL, 1);
            put_fill(stream, 0x7e, 100);
        }
        load_sections(wanted, stream->bytes, stream->size);
        feed_stream(sender, stream, 1 + random_below(6000));
        if (random_below(4) == 0) {
            send_done(sender);
        }
    }
    free(stream);
    return begin;
}

static void what_is_sent_loads_to_the_same_memory(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        random_state = seed;
        struct sender *sender = sender_new();
        struct guest wanted = {.records = 0}, got = {.records = 0};
        size_t begin = feed_random_parts(sender, &wanted);
        send_done(sender);
        assert_int_equal(sender->run.pending, 0);
        load_sections(&got, sender->sent + begin, sender->sent_size - begin);
        assert_true(wanted.has_ended && got.has_ended);
        assert_memory_equal(got.ram, wanted.ram, sizeof got.ram);
        assert_memory_equal(got.bios, wanted.bios, sizeof got.bios);
        uint64_t same = page_encoder_same_pages(sender->encoder);
        assert_true(same > 0);
        assert_int_equal(got.records + same, wanted.records);
        sender_free(sender);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_that_did_not_change_are_left_out),
        cmocka_unit_test(a_record_that_names_its_block_stays),
        cmocka_unit_test(pages_go_again_when_they_were_something_else_meanwhile),
        cmocka_unit_test(nothing_is_left_out_once_the_place_is_lost),
        cmocka_unit_test(device_state_goes_as_it_is),
        cmocka_unit_test(a_table_that_does_not_fit_leaves_nothing_out),
        cmocka_unit_test(what_is_sent_loads_to_the_same_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

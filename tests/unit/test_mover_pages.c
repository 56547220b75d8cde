/* Behaviours of agent/mover/page_encoder.c (with sent_pages.c and hot_pages.c) and of
 * protocol/page_cache.c: what of a stream is sent, and that a QEMU at the other side loads the
 * same from it as from the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/mover/page_encoder.h"
#include "protocol/page_cache.h"
#include "protocol/page_operation.h"
#include "qemu_stream.h"
#include "qemu_loader.h"

/* As small as may be, so that units are split over segments. */
#define SEGMENT_SIZE (STREAM_UNIT_MAX(PAGE) + 100u)
#define OUTPUT_MAX (8u << 20)

/* A source with the segment it fills, and a destination with all it has decoded so far. */
struct sender {
    struct page_encoder *encoder;
    struct page_cache cache; /* the destination's */
    uint8_t segment[SEGMENT_SIZE];
    struct encoded_run run;
    uint8_t *sent; /* as the destination's QEMU gets it */
    size_t sent_size;
};

#define BUDGET (1u << 20)
#define OPERATIONS_SIZE (PAGE_OPERATIONS_MAX * PAGE_OPERATION_SIZE)

static struct sender *sender_with(uint64_t budget, uint64_t cache_size)
{
    struct sender *sender = calloc(1, sizeof *sender);
    const struct page_encoder_settings settings = {
        .page_size = PAGE, .budget = budget, .cache_size = cache_size};
    assert_non_null(sender);
    sender->encoder = page_encoder_new(&settings);
    assert_non_null(sender->encoder);
    assert_true(page_cache_open(&sender->cache, page_cache_slots(cache_size)));
    sender->run.bytes = sender->segment;
    sender->sent = malloc(OUTPUT_MAX);
    assert_non_null(sender->sent);
    return sender;
}

static struct sender *sender_new(void)
{
    return sender_with(BUDGET, 0);
}

static uint64_t same_pages(const struct sender *sender)
{
    return page_encoder_counts(sender->encoder).same_pages;
}

static uint64_t delta_pages(const struct sender *sender)
{
    return page_encoder_counts(sender->encoder).delta_pages;
}

static void sender_free(struct sender *sender)
{
    page_encoder_free(sender->encoder);
    page_cache_close(&sender->cache);
    free(sender->sent);
    free(sender);
}

static void send_done(struct sender *sender)
{
    struct encoded_run *run = &sender->run;
    assert_true(sender->sent_size + run->done <= OUTPUT_MAX);
    uint8_t *sent = sender->sent + sender->sent_size;
    memcpy(sent, run->bytes, run->done);
    uint8_t operations[OPERATIONS_SIZE];
    uint16_t count =
        page_encoder_finish(sender->encoder, run, operations, (uint16_t)PAGE_OPERATIONS_MAX);
    const char *why = page_cache_obey(&sender->cache, run->bytes, run->done, operations, count);
    if (why != NULL) {
        fail_msg("%s", why);
    }
    assert_memory_equal(run->bytes, sent, run->done);
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
    assert_int_equal(same_pages(sender), 0);
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
        assert_int_equal(same_pages(sender), 3);
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
    assert_int_equal(same_pages(sender), 0);
    put_whole_page(stream, 0, NULL, 1);
    put_zero_page(stream, 1, NULL);
    feed_stream(sender, stream, 11);
    assert_int_equal(sender->run.done + sender->run.pending, 0);
    assert_int_equal(same_pages(sender), 2);
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
        assert_int_equal(same_pages(sender), 1);
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
    struct sender *sender = sender_with(UINT64_MAX, 0);
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
    assert_string_not_equal(page_encoder_reason(sender->encoder), "");
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
        /* Few words, or many, are not as in another page of that content. */
        for (unsigned i = random_below(2) == 0 ? random_below(3) : random_below(400); i > 0; i--) {
            stream->bytes[stream->size - 1 - random_below(PAGE)] = (uint8_t)random_below(256);
        }
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

/* Whatever there is room for, the destination's memory ends as the source's. */
static void what_is_sent_loads_to_the_same_memory(void **state)
{
    (void)state;
    uint64_t same = 0, delta = 0;
    for (uint32_t seed = 1; seed <= 30; seed++) {
        random_state = seed;
        struct sender *sender = sender_with(seed % 10 == 0 ? 0 : BUDGET, seed % 5 * PAGE);
        struct guest wanted = {.records = 0}, got = {.records = 0};
        size_t begin = feed_random_parts(sender, &wanted);
        send_done(sender);
        assert_int_equal(sender->run.pending, 0);
        load_sections(&got, sender->sent + begin, sender->sent_size - begin);
        assert_true(wanted.has_ended && got.has_ended);
        assert_memory_equal(got.ram, wanted.ram, sizeof got.ram);
        assert_memory_equal(got.bios, wanted.bios, sizeof got.bios);
        assert_int_equal(got.records + same_pages(sender), wanted.records);
        assert_true((same_pages(sender) > 0) == (seed % 10 != 0));
        assert_true((delta_pages(sender) > 0) == (seed % 5 != 0));
        same += same_pages(sender);
        delta += delta_pages(sender);
        sender_free(sender);
    }
    print_message("left out: %llu, as a difference: %llu\n", (unsigned long long)same,
                  (unsigned long long)delta);
}

/* A segment with page 1 of pc.ram as a whole page of FILL, but for one word: WORD. What the wire
 * carries is in the sender's segment afterwards. */
static uint16_t send_page(struct sender *sender, uint8_t fill, uint64_t word, uint8_t *operations)
{
    struct stream *stream = stream_new();
    put_whole_page(stream, 1, NULL, fill);
    memcpy(stream->bytes + stream->size - 8, &word, 8);
    feed_stream(sender, stream, STREAM_MAX);
    free(stream);
    return page_encoder_finish(sender->encoder, &sender->run, operations,
                               (uint16_t)PAGE_OPERATIONS_MAX);
}

static void expect_operation(const uint8_t *operations, unsigned kind, unsigned offset,
                             unsigned slot)
{
    struct page_operation operation;
    assert_true(page_operation_decode(operations, &operation));
    assert_int_equal(operation.kind, kind);
    assert_int_equal(operation.offset, offset);
    assert_int_equal(operation.slot, slot);
}

static void a_page_that_changes_a_little_goes_as_the_difference(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    struct sender *sender = sender_with(BUDGET, 2 * PAGE);
    uint8_t operations[OPERATIONS_SIZE];
    put_setup(stream);
    put_part(stream, SECTION_PART);
    put_whole_page(stream, 1, "pc.ram", 5);
    feed_stream(sender, stream, STREAM_MAX);
    send_done(sender);
    assert_int_equal(send_page(sender, 5, 0x1111, operations), 1);
    expect_operation(operations, PAGE_STORE, 8, 0);
    sender->run.done = 0;
    assert_int_equal(send_page(sender, 5, 0x1112, operations), 1);
    expect_operation(operations, PAGE_DIFFERENCE, 8, 0);
    uint8_t wanted[PAGE] = {0};
    wanted[PAGE - 8] = 3; /* 0x1111 ^ 0x1112 */
    assert_int_equal(sender->run.done, 8 + PAGE);
    assert_memory_equal(sender->segment + 8, wanted, PAGE);
    sender->run.done = 0;
    assert_int_equal(send_page(sender, 6, 0x1112, operations), 0); /* all but one word new */
    sender->run.done = 0;
    assert_int_equal(send_page(sender, 6, 0x1113, operations), 0); /* barred for a while */
    assert_int_equal(delta_pages(sender), 1);
    sender_free(sender);
    free(stream);
}

static void operations_name_the_place_of_the_page(void **state)
{
    (void)state;
    struct stream *stream = stream_new();
    struct sender *sender = sender_with(BUDGET, 4 * PAGE);
    uint8_t segment[8 * PAGE], operations[OPERATIONS_SIZE];
    put_setup(stream);
    put_part(stream, SECTION_PART);
    put_whole_page(stream, 0, "pc.ram", 1);
    put_whole_page(stream, 2, NULL, 3);
    feed_stream(sender, stream, STREAM_MAX);
    send_done(sender);
    sender->run = (struct encoded_run){.bytes = segment};
    put_whole_page(stream, 0, NULL, 1); /* left out: 0 bytes */
    put_zero_page(stream, 1, NULL);     /* 9 */
    put_whole_page(stream, 1, NULL, 2);
    put_whole_page(stream, 0, "pc.bios", 9); /* new: stays as it is */
    put_whole_page(stream, 2, "pc.ram", 4);
    memcpy(segment, stream->bytes, stream->size);
    page_encoder_take(sender->encoder, &sender->run, stream->size);
    assert_int_equal(page_encoder_finish(sender->encoder, &sender->run, operations,
                                         (uint16_t)PAGE_OPERATIONS_MAX),
                     2);
    expect_operation(operations, PAGE_STORE, 9 + 8, 0);
    expect_operation(operations + PAGE_OPERATION_SIZE, PAGE_STORE, 9 + 8 + PAGE + 16 + PAGE + 8 + 7,
                     1);
    sender_free(sender);
    free(stream);
}

static void no_more_memory_is_taken_than_allowed(void **state)
{
    (void)state;
    /* Five pages: 80 bytes of hashes, 20 of slots' numbers, then 4096 + 16 for each slot. */
    static const struct {
        uint64_t budget;
        bool same, delta;
    } cases[] = {{0, false, false},
                 {79, false, false},
                 {80, true, false},
                 {80 + 20 + 4096 + 15, true, false},
                 {80 + 20 + 4096 + 16, true, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct stream *stream = stream_new();
        struct sender *sender = sender_with(cases[i].budget, 100 * PAGE);
        put_setup(stream);
        put_part(stream, SECTION_PART);
        put_whole_page(stream, 0, "pc.ram", 1);
        put_whole_page(stream, 0, NULL, 1);
        feed_stream(sender, stream, STREAM_MAX);
        send_done(sender);
        assert_int_equal(same_pages(sender), cases[i].same);
        uint8_t operations[OPERATIONS_SIZE];
        send_page(sender, 1, 5, operations);
        sender->run.done = 0;
        assert_int_equal(send_page(sender, 1, 6, operations), cases[i].delta);
        assert_int_equal(page_encoder_reason(sender->encoder)[0] != '\0', cases[i].budget == 79);
        sender_free(sender);
        free(stream);
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
        cmocka_unit_test(a_page_that_changes_a_little_goes_as_the_difference),
        cmocka_unit_test(operations_name_the_place_of_the_page),
        cmocka_unit_test(no_more_memory_is_taken_than_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Behaviours of protocol/frame.c: every field in its place, every length and range checked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/frame.h"

#define HIGH (UINT64_C(1) << 63)

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

static void put64(uint8_t *to, uint64_t value)
{
    put32(to, (uint32_t)(value >> 32));
    put32(to + 4, (uint32_t)value);
}

static enum frame_verdict header_read(uint32_t length, uint8_t type, enum frame_connection where)
{
    uint8_t bytes[FRAME_HEADER_SIZE];
    frame_header_encode(length, (enum frame_type)type, bytes);
    struct frame_header header;
    enum frame_verdict verdict = frame_header_decode(bytes, where, &header);
    if (verdict == FRAME_OK) {
        assert_int_equal(header.length, length);
        assert_int_equal(header.type, type);
    }
    return verdict;
}

static void a_header_is_length_type_and_three_zeroes(void **state)
{
    (void)state;
    static const uint8_t wanted[FRAME_HEADER_SIZE] = {0x00, 0x01, 0x02, 0x03, 32, 0, 0, 0};
    uint8_t bytes[FRAME_HEADER_SIZE];
    frame_header_encode(0x010203, FRAME_EXTENT, bytes);
    assert_memory_equal(bytes, wanted, sizeof wanted);
}

static void each_type_has_its_connection_and_its_lengths(void **state)
{
    (void)state;
    static const struct {
        enum frame_type type;
        enum frame_connection where;
        uint32_t min, max;
    } rules[] = {
        {FRAME_MESSAGE, FRAME_ON_CONTROL, 2, 1048576}, {FRAME_SEGMENT, FRAME_ON_LANE, 25, 1048640},
        {FRAME_CHECKPOINT, FRAME_ON_LANE, 32, 32},     {FRAME_END, FRAME_ON_LANE, 32, 32},
        {FRAME_RECEIVED, FRAME_ON_LANE, 16, 16},       {FRAME_EXTENT, FRAME_ON_LANE, 32, 1048640},
        {FRAME_FLUSH, FRAME_ON_LANE, 16, 16},          {FRAME_DONE, FRAME_ON_LANE, 16, 16},
        {FRAME_VERIFY, FRAME_ON_LANE, 24, 24},         {FRAME_DIGEST, FRAME_ON_LANE, 32, 32},
        {FRAME_FAIL, FRAME_ON_LANE, 1, 512},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        uint8_t type = (uint8_t)rules[i].type;
        enum frame_connection where = rules[i].where;
        assert_int_equal(header_read(rules[i].min, type, where), FRAME_OK);
        assert_int_equal(header_read(rules[i].max, type, where), FRAME_OK);
        assert_int_equal(header_read(rules[i].min - 1, type, where), FRAME_TOO_SHORT);
        assert_int_equal(header_read(rules[i].max + 1, type, where), FRAME_TOO_LONG);
        assert_int_equal(header_read(UINT32_MAX, type, where), FRAME_TOO_LONG);
        enum frame_connection other = where == FRAME_ON_LANE ? FRAME_ON_CONTROL : FRAME_ON_LANE;
        assert_int_equal(header_read(rules[i].min, type, other), FRAME_TYPE_UNKNOWN);
    }
}

static void an_unknown_type_and_set_reserved_bits_are_refused(void **state)
{
    (void)state;
    assert_int_equal(header_read(16, 0, FRAME_ON_LANE), FRAME_TYPE_UNKNOWN);
    assert_int_equal(header_read(16, 255, FRAME_ON_LANE), FRAME_TYPE_UNKNOWN);
    for (size_t i = 5; i < FRAME_HEADER_SIZE; i++) {
        uint8_t bytes[FRAME_HEADER_SIZE];
        struct frame_header header;
        frame_header_encode(16, FRAME_DONE, bytes);
        bytes[i] = 1;
        assert_int_equal(frame_header_decode(bytes, FRAME_ON_LANE, &header), FRAME_BAD_FIELD);
    }
}

static void a_segment_comes_back_as_it_was(void **state)
{
    (void)state;
    struct frame_segment segment = {.sequence = 0x0102030405060708,
                                    .offset = 0x1112131415161718,
                                    .raw_length = 10,
                                    .codec = FRAME_RAW,
                                    .operations = 1};
    uint8_t body[FRAME_SEGMENT_FIXED + 10] = {0};
    frame_segment_encode(&segment, body);
    memcpy(body + FRAME_SEGMENT_FIXED, "abcdefghij", 10);
    static const uint8_t wanted[] = {1,    2,    3,    4,    5,    6,    7,    8,   0x11,
                                     0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0,   0,
                                     0,    10,   0,    0,    0,    1,    'a',  'b', 'c'};
    assert_memory_equal(body, wanted, sizeof wanted);
    struct frame_segment read;
    assert_int_equal(frame_segment_decode(body, sizeof body, &read), FRAME_OK);
    assert_true(read.sequence == segment.sequence && read.offset == segment.offset);
    assert_int_equal(read.raw_length, 10);
    assert_int_equal(read.codec, FRAME_RAW);
    assert_int_equal(read.operations, 1);
    assert_ptr_equal(read.payload, body + FRAME_SEGMENT_FIXED);
    assert_int_equal(read.payload_length, 10);
}

static enum frame_verdict segment_read(struct frame_segment segment, uint32_t payload, size_t bad)
{
    static uint8_t body[FRAME_LANE_BODY_MAX];
    struct frame_segment read;
    frame_segment_encode(&segment, body);
    if (bad != 0) {
        body[bad] = 0x80;
    }
    return frame_segment_decode(body, FRAME_SEGMENT_FIXED + payload, &read);
}

static void a_segment_outside_its_ranges_is_refused(void **state)
{
    (void)state;
    struct frame_segment good = {.raw_length = 100, .codec = FRAME_RAW};
    assert_int_equal(segment_read(good, 100, 0), FRAME_OK);
    assert_int_equal(segment_read(good, 99, 0), FRAME_TOO_SHORT);
    assert_int_equal(segment_read(good, 101, 0), FRAME_TOO_LONG);
    assert_int_equal(segment_read(good, 100, 20), FRAME_BAD_FIELD);
    assert_int_equal(segment_read(good, 100, 21), FRAME_BAD_FIELD);
    assert_int_equal(segment_read(good, 100, 22), FRAME_BAD_FIELD);
    struct frame_segment segment = good;
    segment.codec = FRAME_ZSTD;
    assert_int_equal(segment_read(segment, 1, 0), FRAME_OK);
    assert_int_equal(segment_read(segment, 0, 0), FRAME_TOO_SHORT);
    segment = good;
    segment.raw_length = 0;
    assert_int_equal(segment_read(segment, 0, 0), FRAME_BAD_FIELD);
    segment.raw_length = FRAME_DATA_MAX + 1;
    assert_int_equal(segment_read(segment, 100, 0), FRAME_BAD_FIELD);
    segment.raw_length = FRAME_DATA_MAX;
    assert_int_equal(segment_read(segment, FRAME_DATA_MAX, 0), FRAME_OK);
    segment = good;
    segment.operations = 11; /* 99 bytes of them */
    assert_int_equal(segment_read(segment, 100, 0), FRAME_OK);
    segment.operations = 12;
    assert_int_equal(segment_read(segment, 100, 0), FRAME_BAD_FIELD);
    segment.raw_length = 256 * 9; /* nothing but operations */
    segment.operations = 256;
    assert_int_equal(segment_read(segment, 256 * 9, 0), FRAME_BAD_FIELD);
    segment.raw_length++;
    assert_int_equal(segment_read(segment, 256 * 9 + 1, 0), FRAME_OK);
    segment.raw_length = FRAME_DATA_MAX;
    segment.operations = 257;
    assert_int_equal(segment_read(segment, FRAME_DATA_MAX, 0), FRAME_BAD_FIELD);
    segment = good;
    segment.sequence = HIGH;
    assert_int_equal(segment_read(segment, 100, 0), FRAME_BAD_FIELD);
    segment = good;
    segment.offset = HIGH - 1 - 99; /* its end would be 2^63 */
    assert_int_equal(segment_read(segment, 100, 0), FRAME_BAD_FIELD);
    segment.offset--;
    assert_int_equal(segment_read(segment, 100, 0), FRAME_OK);
    segment.offset = UINT64_MAX;
    assert_int_equal(segment_read(segment, 100, 0), FRAME_BAD_FIELD);
}

static void a_segment_shorter_or_longer_than_any_is_refused(void **state)
{
    (void)state;
    uint8_t body[FRAME_SEGMENT_FIXED] = {0};
    struct frame_segment read;
    for (uint32_t length = 0; length < FRAME_SEGMENT_FIXED; length++) {
        assert_int_equal(frame_segment_decode(body, length, &read), FRAME_TOO_SHORT);
    }
    assert_int_equal(frame_segment_decode(body, FRAME_LANE_BODY_MAX + 1, &read), FRAME_TOO_LONG);
}

static void marks_and_receipts_come_back_as_they_were(void **state)
{
    (void)state;
    struct frame_mark mark = {.sequence = 7, .offset = 64 << 20}, mark_read;
    memcpy(mark.hash.bytes, "0123456789abcdef", 16);
    uint8_t body[FRAME_MARK_FIXED + 1] = {0};
    frame_mark_encode(&mark, body);
    assert_memory_equal(body + 16, "0123456789abcdef", 16);
    assert_int_equal(frame_mark_decode(body, FRAME_MARK_FIXED, &mark_read), FRAME_OK);
    assert_int_equal(mark_read.sequence, 7);
    assert_int_equal(mark_read.offset, 64 << 20);
    assert_memory_equal(mark_read.hash.bytes, mark.hash.bytes, 16);
    assert_int_equal(frame_mark_decode(body, FRAME_MARK_FIXED - 1, &mark_read), FRAME_TOO_SHORT);
    assert_int_equal(frame_mark_decode(body, FRAME_MARK_FIXED + 1, &mark_read), FRAME_TOO_LONG);
    put64(body, HIGH);
    assert_int_equal(frame_mark_decode(body, FRAME_MARK_FIXED, &mark_read), FRAME_BAD_FIELD);
    put64(body, 0);
    put64(body + 8, HIGH);
    assert_int_equal(frame_mark_decode(body, FRAME_MARK_FIXED, &mark_read), FRAME_BAD_FIELD);

    struct frame_received received = {.sequence = 8, .bytes = 9}, received_read;
    frame_received_encode(&received, body);
    assert_int_equal(frame_received_decode(body, FRAME_RECEIVED_FIXED, &received_read), FRAME_OK);
    assert_int_equal(received_read.sequence, 8);
    assert_int_equal(received_read.bytes, 9);
    assert_int_equal(frame_received_decode(body, 15, &received_read), FRAME_TOO_SHORT);
    assert_int_equal(frame_received_decode(body, 17, &received_read), FRAME_TOO_LONG);
    put64(body + 8, HIGH);
    assert_int_equal(frame_received_decode(body, 16, &received_read), FRAME_BAD_FIELD);
}

static void an_extent_comes_back_as_it_was(void **state)
{
    (void)state;
    struct frame_extent extent = {.request = 0x0102030405060708,
                                  .offset = 0x1000,
                                  .hash = 0x2122232425262728,
                                  .length = 512,
                                  .disk = 0x0304,
                                  .kind = FRAME_EXTENT_DATA,
                                  .codec = FRAME_ZSTD};
    uint8_t body[FRAME_EXTENT_FIXED + 5] = {0};
    frame_extent_encode(&extent, body);
    static const uint8_t wanted[FRAME_EXTENT_FIXED] = {
        1,    2,    3,    4,    5,    6,    7,    8,    0, 0, 0, 0, 0, 0, 0x10, 0,
        0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0, 0, 2, 0, 3, 4, 0,    1};
    assert_memory_equal(body, wanted, sizeof wanted);
    struct frame_extent read;
    assert_int_equal(frame_extent_decode(body, sizeof body, &read), FRAME_OK);
    assert_true(read.request == extent.request && read.hash == extent.hash);
    assert_int_equal(read.offset, 0x1000);
    assert_int_equal(read.length, 512);
    assert_int_equal(read.disk, 0x0304);
    assert_int_equal(read.kind, FRAME_EXTENT_DATA);
    assert_int_equal(read.codec, FRAME_ZSTD);
    assert_int_equal(read.payload_length, 5);
    assert_ptr_equal(read.payload, body + FRAME_EXTENT_FIXED);
}

static enum frame_verdict extent_read(struct frame_extent extent, uint32_t payload)
{
    static uint8_t body[FRAME_LANE_BODY_MAX];
    struct frame_extent read;
    frame_extent_encode(&extent, body);
    return frame_extent_decode(body, FRAME_EXTENT_FIXED + payload, &read);
}

static void a_zero_extent_has_no_payload_codec_or_hash(void **state)
{
    (void)state;
    struct frame_extent zero = {.kind = FRAME_EXTENT_ZERO, .length = FRAME_ZERO_MAX};
    assert_int_equal(extent_read(zero, 0), FRAME_OK);
    assert_int_equal(extent_read(zero, 1), FRAME_TOO_LONG);
    struct frame_extent extent = zero;
    extent.hash = 1;
    assert_int_equal(extent_read(extent, 0), FRAME_BAD_FIELD);
    extent = zero;
    extent.codec = FRAME_ZSTD;
    assert_int_equal(extent_read(extent, 0), FRAME_BAD_FIELD);
    extent = zero;
    extent.length = FRAME_ZERO_MAX + 1;
    assert_int_equal(extent_read(extent, 0), FRAME_BAD_FIELD);
    extent.length = 0;
    assert_int_equal(extent_read(extent, 0), FRAME_BAD_FIELD);
    extent = zero;
    extent.offset = HIGH - FRAME_ZERO_MAX;
    assert_int_equal(extent_read(extent, 0), FRAME_BAD_FIELD);
}

static void a_data_extent_outside_its_ranges_is_refused(void **state)
{
    (void)state;
    struct frame_extent data = {.kind = FRAME_EXTENT_DATA, .length = FRAME_DATA_MAX};
    assert_int_equal(extent_read(data, FRAME_DATA_MAX), FRAME_OK);
    assert_int_equal(extent_read(data, FRAME_DATA_MAX - 1), FRAME_TOO_SHORT);
    assert_int_equal(extent_read(data, FRAME_DATA_MAX + 1), FRAME_TOO_LONG);
    struct frame_extent extent = data;
    extent.length++;
    assert_int_equal(extent_read(extent, FRAME_DATA_MAX + 1), FRAME_BAD_FIELD);
    extent.length = 0;
    assert_int_equal(extent_read(extent, 0), FRAME_BAD_FIELD);
    extent = data;
    extent.kind = (enum frame_extent_kind)2;
    assert_int_equal(extent_read(extent, FRAME_DATA_MAX), FRAME_BAD_FIELD);
    extent = data;
    extent.codec = (enum frame_codec)2;
    assert_int_equal(extent_read(extent, FRAME_DATA_MAX), FRAME_BAD_FIELD);
    extent = data;
    extent.codec = FRAME_ZSTD;
    assert_int_equal(extent_read(extent, 0), FRAME_TOO_SHORT);
    extent = data;
    extent.offset = UINT64_MAX;
    assert_int_equal(extent_read(extent, FRAME_DATA_MAX), FRAME_BAD_FIELD);
}

static void flushes_and_answers_come_back_as_they_were(void **state)
{
    (void)state;
    uint8_t body[FRAME_FLUSH_FIXED];
    struct frame_flush flush = {.request = 77, .disk = 3}, flush_read;
    frame_flush_encode(&flush, body);
    assert_int_equal(frame_flush_decode(body, sizeof body, &flush_read), FRAME_OK);
    assert_int_equal(flush_read.request, 77);
    assert_int_equal(flush_read.disk, 3);
    assert_int_equal(frame_flush_decode(body, 15, &flush_read), FRAME_TOO_SHORT);
    body[15] = 1;
    assert_int_equal(frame_flush_decode(body, sizeof body, &flush_read), FRAME_BAD_FIELD);

    struct frame_done done = {.request = 78, .status = 28}, done_read;
    frame_done_encode(&done, body);
    assert_int_equal(frame_done_decode(body, sizeof body, &done_read), FRAME_OK);
    assert_int_equal(done_read.request, 78);
    assert_int_equal(done_read.status, 28);
    put32(body + 8, 4096); /* no errno is that large */
    assert_int_equal(frame_done_decode(body, sizeof body, &done_read), FRAME_BAD_FIELD);
    put32(body + 8, 0);
    body[12] = 1;
    assert_int_equal(frame_done_decode(body, sizeof body, &done_read), FRAME_BAD_FIELD);
}

static void a_question_to_verify_comes_back_as_it_was(void **state)
{
    (void)state;
    uint8_t body[FRAME_VERIFY_FIXED];
    const struct frame_verify most = {
        .request = UINT64_MAX, .offset = 1ull << 62, .length = FRAME_VERIFY_MAX, .disk = 63};
    struct frame_verify verify = most, read;
    frame_verify_encode(&verify, body);
    assert_int_equal(frame_verify_decode(body, sizeof body, &read), FRAME_OK);
    assert_int_equal(read.request, UINT64_MAX);
    assert_int_equal(read.offset, 1ull << 62);
    assert_int_equal(read.length, FRAME_VERIFY_MAX);
    assert_int_equal(read.disk, 63);
    assert_int_equal(frame_verify_decode(body, 23, &read), FRAME_TOO_SHORT);
    assert_int_equal(frame_verify_decode(body, 25, &read), FRAME_TOO_LONG);
    body[23] = 1;
    assert_int_equal(frame_verify_decode(body, sizeof body, &read), FRAME_BAD_FIELD);
    verify.length = 0;
    frame_verify_encode(&verify, body);
    assert_int_equal(frame_verify_decode(body, sizeof body, &read), FRAME_BAD_FIELD);
    verify.length = FRAME_VERIFY_MAX + 1;
    frame_verify_encode(&verify, body);
    assert_int_equal(frame_verify_decode(body, sizeof body, &read), FRAME_BAD_FIELD);
    verify = most;
    verify.offset = INT64_MAX - FRAME_VERIFY_MAX + 1;
    frame_verify_encode(&verify, body);
    assert_int_equal(frame_verify_decode(body, sizeof body, &read), FRAME_BAD_FIELD);
}

static void a_digest_comes_back_as_it_was(void **state)
{
    (void)state;
    uint8_t body[FRAME_DIGEST_FIXED];
    struct frame_digest digest = {.request = 79, .hash = {"sixteen bytes..."}}, read;
    frame_digest_encode(&digest, body);
    assert_int_equal(frame_digest_decode(body, sizeof body, &read), FRAME_OK);
    assert_int_equal(read.request, 79);
    assert_int_equal(read.status, 0);
    assert_memory_equal(read.hash.bytes, digest.hash.bytes, sizeof read.hash.bytes);
    assert_int_equal(frame_digest_decode(body, 31, &read), FRAME_TOO_SHORT);
    assert_int_equal(frame_digest_decode(body, 33, &read), FRAME_TOO_LONG);
    put32(body + 8, 5); /* failed, and a hash all the same */
    assert_int_equal(frame_digest_decode(body, sizeof body, &read), FRAME_BAD_FIELD);
    memset(body + 16, 0, 16);
    assert_int_equal(frame_digest_decode(body, sizeof body, &read), FRAME_OK);
    assert_int_equal(read.status, 5);
    put32(body + 8, 4096);
    assert_int_equal(frame_digest_decode(body, sizeof body, &read), FRAME_BAD_FIELD);
    put32(body + 8, 0);
    body[12] = 1;
    assert_int_equal(frame_digest_decode(body, sizeof body, &read), FRAME_BAD_FIELD);
}

static void types_and_verdicts_have_words_for_a_log(void **state)
{
    (void)state;
    assert_string_equal(frame_type_name(FRAME_SEGMENT), "segment");
    assert_string_equal(frame_type_name((enum frame_type)200), "unknown");
    assert_string_equal(frame_verdict_text(FRAME_TOO_LONG), "too long");
    assert_string_equal(frame_verdict_text((enum frame_verdict)99), "invalid");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_length_type_and_three_zeroes),
        cmocka_unit_test(each_type_has_its_connection_and_its_lengths),
        cmocka_unit_test(an_unknown_type_and_set_reserved_bits_are_refused),
        cmocka_unit_test(a_segment_comes_back_as_it_was),
        cmocka_unit_test(a_segment_outside_its_ranges_is_refused),
        cmocka_unit_test(a_segment_shorter_or_longer_than_any_is_refused),
        cmocka_unit_test(marks_and_receipts_come_back_as_they_were),
        cmocka_unit_test(an_extent_comes_back_as_it_was),
        cmocka_unit_test(a_zero_extent_has_no_payload_codec_or_hash),
        cmocka_unit_test(a_data_extent_outside_its_ranges_is_refused),
        cmocka_unit_test(flushes_and_answers_come_back_as_they_were),
        cmocka_unit_test(a_question_to_verify_comes_back_as_it_was),
        cmocka_unit_test(a_digest_comes_back_as_it_was),
        cmocka_unit_test(types_and_verdicts_have_words_for_a_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

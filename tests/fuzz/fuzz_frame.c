/*
 * A header and a body, as a lane or a control connection would read them: what is accepted must
 * encode to the same bytes again, and what it says of its payload must lie in the body.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void payload_check(const uint8_t *payload, uint32_t payload_length, const uint8_t *body,
                          uint32_t length, uint32_t fixed)
{
    assert(payload_length == length - fixed);
    assert(payload_length == 0 ? payload == NULL : payload == body + fixed);
}

static void segment_check(const uint8_t *body, uint32_t length)
{
    struct frame_segment segment;
    if (frame_segment_decode(body, length, &segment) != FRAME_OK) {
        return;
    }
    uint8_t again[FRAME_SEGMENT_FIXED];
    frame_segment_encode(&segment, again);
    assert(memcmp(again, body, sizeof again) == 0);
    payload_check(segment.payload, segment.payload_length, body, length, FRAME_SEGMENT_FIXED);
    assert(segment.raw_length <= FRAME_DATA_MAX);
}

static void extent_check(const uint8_t *body, uint32_t length)
{
    struct frame_extent extent;
    if (frame_extent_decode(body, length, &extent) != FRAME_OK) {
        return;
    }
    uint8_t again[FRAME_EXTENT_FIXED];
    frame_extent_encode(&extent, again);
    assert(memcmp(again, body, sizeof again) == 0);
    payload_check(extent.payload, extent.payload_length, body, length, FRAME_EXTENT_FIXED);
}

static void mark_check(const uint8_t *body, uint32_t length)
{
    struct frame_mark mark;
    uint8_t again[FRAME_MARK_FIXED];
    if (frame_mark_decode(body, length, &mark) == FRAME_OK) {
        frame_mark_encode(&mark, again);
        assert(memcmp(again, body, sizeof again) == 0);
    }
}

static void received_check(const uint8_t *body, uint32_t length)
{
    struct frame_received received;
    uint8_t again[FRAME_RECEIVED_FIXED];
    if (frame_received_decode(body, length, &received) == FRAME_OK) {
        frame_received_encode(&received, again);
        assert(memcmp(again, body, sizeof again) == 0);
    }
}

static void flush_check(const uint8_t *body, uint32_t length)
{
    struct frame_flush flush;
    uint8_t again[FRAME_FLUSH_FIXED];
    if (frame_flush_decode(body, length, &flush) == FRAME_OK) {
        frame_flush_encode(&flush, again);
        assert(memcmp(again, body, sizeof again) == 0);
    }
}

static void done_check(const uint8_t *body, uint32_t length)
{
    struct frame_done done;
    uint8_t again[FRAME_DONE_FIXED];
    if (frame_done_decode(body, length, &done) == FRAME_OK) {
        frame_done_encode(&done, again);
        assert(memcmp(again, body, sizeof again) == 0);
    }
}

static void verify_check(const uint8_t *body, uint32_t length)
{
    struct frame_verify verify;
    uint8_t again[FRAME_VERIFY_FIXED];
    if (frame_verify_decode(body, length, &verify) == FRAME_OK) {
        frame_verify_encode(&verify, again);
        assert(memcmp(again, body, sizeof again) == 0);
        assert(verify.length >= 1 && verify.length <= FRAME_VERIFY_MAX);
    }
}

static void digest_check(const uint8_t *body, uint32_t length)
{
    struct frame_digest digest;
    uint8_t again[FRAME_DIGEST_FIXED];
    if (frame_digest_decode(body, length, &digest) == FRAME_OK) {
        frame_digest_encode(&digest, again);
        assert(memcmp(again, body, sizeof again) == 0);
    }
}

static void body_check(enum frame_type type, const uint8_t *body, uint32_t length)
{
    switch (type) {
    case FRAME_SEGMENT:
        segment_check(body, length);
        return;
    case FRAME_CHECKPOINT:
    case FRAME_END:
        mark_check(body, length);
        return;
    case FRAME_RECEIVED:
        received_check(body, length);
        return;
    case FRAME_EXTENT:
        extent_check(body, length);
        return;
    case FRAME_FLUSH:
        flush_check(body, length);
        return;
    case FRAME_DONE:
        done_check(body, length);
        return;
    case FRAME_VERIFY:
        verify_check(body, length);
        return;
    case FRAME_DIGEST:
        digest_check(body, length);
        return;
    case FRAME_MESSAGE:
    case FRAME_FAIL:
        return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < FRAME_HEADER_SIZE) {
        return 0;
    }
    struct frame_header header;
    uint8_t again[FRAME_HEADER_SIZE];
    if (frame_header_decode(data, FRAME_ON_CONTROL, &header) == FRAME_OK) {
        frame_header_encode(header.length, header.type, again);
        assert(memcmp(again, data, sizeof again) == 0);
    }
    enum frame_type type = (enum frame_type)data[4];
    if (frame_header_decode(data, FRAME_ON_LANE, &header) == FRAME_OK) {
        assert(header.type == type && header.length <= FRAME_LANE_BODY_MAX);
    }
    /* The body that is there, whatever length the header states: decoders must not rely on it. A
     * copy, so that a read beyond its end is seen. */
    uint32_t length = (uint32_t)(size - FRAME_HEADER_SIZE);
    uint8_t *body = malloc(length > 0 ? length : 1);
    if (body == NULL) {
        return 0;
    }
    memcpy(body, data + FRAME_HEADER_SIZE, length);
    body_check(type, body, length);
    free(body);
    return 0;
}

/*
 * The receiving half of a lane: TLS records become frames, frames become work for the disk and
 * memory threads. Everything that comes here is the peer's word and is checked before it is
 * believed: the header before memory is taken for the body, the body's fields before its payload,
 * the payload's own length before memory is taken for what it unpacks to, and a disk extent's hash
 * before anybody may write it.
 */
#include "lane.h"
#include "codec.h"
#include "disk_destination.h"
#include "disk_source.h"
#include "memory_destination.h"
#include "memory_source.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Stops believing the peer. Always LANE_MOVED: the lane lives on to send the FAIL frame. */
static enum lane_step refuse(struct lane *lane, enum frame_type type, const char *why)
{
    lane->deaf = true;
    mover_fail(lane->mover, "protocol", "lane %u: the peer sent a bad frame of type %u (%s): %s",
               lane->index, (unsigned)type, frame_type_name(type), why);
    return LANE_MOVED;
}

static enum lane_step out_of_memory(struct lane *lane)
{
    lane->deaf = true;
    mover_fail_memory(lane->mover);
    return LANE_MOVED;
}

/*
 * Gives WORK the raw bytes of a payload that lies in the frame's body: taken over as it is when
 * raw, unpacked else. The body is then used up. False when the payload is not what it says.
 */
static bool take_payload(struct lane *lane, struct work *work, enum frame_codec codec,
                         const uint8_t *payload, uint32_t payload_length, uint32_t raw_length)
{
    if (codec == FRAME_RAW) {
        work->data = lane->body + (payload - lane->body);
        work->length = raw_length;
        work->block = lane->body;
        lane->body = NULL;
        return true;
    }
    return codec_unpack(lane->decompressor, payload, payload_length, work->data, raw_length);
}

/* Memory for a payload of RAW_LENGTH bytes, unless the body itself will do. */
static struct work *work_for(enum frame_type type, enum frame_codec codec, uint32_t raw_length)
{
    return work_new(type, codec == FRAME_RAW ? 0 : raw_length);
}

static bool payload_is_honest(enum frame_codec codec, const uint8_t *payload,
                              uint32_t payload_length, uint32_t raw_length)
{
    if (codec == FRAME_RAW) {
        return payload_length == raw_length;
    }
    return codec_is_honest(payload, payload_length, raw_length);
}

static enum lane_step deliver_ordered(struct lane *lane, struct work *work)
{
    enum frame_type type = work->type;
    const char *why = NULL;

    if (memory_destination_put(lane->mover->memory_destination, work, &why)) {
        return LANE_MOVED;
    }
    work_unref(work);
    return refuse(lane, type, why);
}

static enum lane_step receive_segment(struct lane *lane)
{
    struct frame_segment segment;
    enum frame_verdict verdict = frame_segment_decode(lane->body, lane->header.length, &segment);
    struct work *work;

    if (verdict != FRAME_OK) {
        return refuse(lane, FRAME_SEGMENT, frame_verdict_text(verdict));
    }
    if (!payload_is_honest(segment.codec, segment.payload, segment.payload_length,
                           segment.raw_length)) {
        return refuse(lane, FRAME_SEGMENT, "not as long as it says");
    }
    work = work_for(FRAME_SEGMENT, segment.codec, segment.raw_length);
    if (work == NULL) {
        return out_of_memory(lane);
    }
    work->segment = segment;
    if (!take_payload(lane, work, segment.codec, segment.payload, segment.payload_length,
                      segment.raw_length)) {
        work_unref(work);
        return refuse(lane, FRAME_SEGMENT, "damaged");
    }
    work->segment.payload = NULL;
    count_add(&lane->mover->counters.stream_wire_bytes,
              FRAME_HEADER_SIZE + (uint64_t)lane->header.length);
    return deliver_ordered(lane, work);
}

static enum lane_step receive_mark(struct lane *lane)
{
    struct work *work = work_new(lane->header.type, 0);
    enum frame_verdict verdict;

    if (work == NULL) {
        return out_of_memory(lane);
    }
    verdict = frame_mark_decode(lane->body, lane->header.length, &work->mark);
    if (verdict != FRAME_OK) {
        work_unref(work);
        return refuse(lane, lane->header.type, frame_verdict_text(verdict));
    }
    return deliver_ordered(lane, work);
}

/* The disk thread may have no room: then the lane keeps the work, and reads no more until it
 * has. */
static enum lane_step deliver_to_disk(struct lane *lane, struct work *work)
{
    if (disk_destination_put(lane->mover->disk_destination, lane->index, work)) {
        lane->undelivered = NULL;
        return LANE_MOVED;
    }
    lane->undelivered = work;
    return LANE_WAITS;
}

static enum lane_step receive_extent(struct lane *lane)
{
    struct frame_extent extent;
    enum frame_verdict verdict = frame_extent_decode(lane->body, lane->header.length, &extent);
    struct work *work;

    if (verdict != FRAME_OK) {
        return refuse(lane, FRAME_EXTENT, frame_verdict_text(verdict));
    }
    if (extent.kind == FRAME_EXTENT_DATA &&
        !payload_is_honest(extent.codec, extent.payload, extent.payload_length, extent.length)) {
        return refuse(lane, FRAME_EXTENT, "not as long as it says");
    }
    work = work_for(FRAME_EXTENT, extent.codec, extent.length);
    if (work == NULL) {
        return out_of_memory(lane);
    }
    work->extent = extent;
    if (extent.kind == FRAME_EXTENT_DATA) {
        if (!take_payload(lane, work, extent.codec, extent.payload, extent.payload_length,
                          extent.length)) {
            work_unref(work);
            return refuse(lane, FRAME_EXTENT, "damaged");
        }
        if (XXH3_64bits(work->data, work->length) != extent.hash) {
            work_unref(work);
            lane->deaf = true;
            mover_fail(lane->mover, "hash",
                       "disk %u: the bytes at offset %llu are not those that left the source",
                       extent.disk, (unsigned long long)extent.offset);
            return LANE_MOVED;
        }
    }
    work->extent.payload = NULL;
    count_add(&lane->mover->counters.disk_wire_bytes,
              FRAME_HEADER_SIZE + (uint64_t)lane->header.length);
    return deliver_to_disk(lane, work);
}

static enum lane_step receive_flush(struct lane *lane)
{
    struct work *work = work_new(FRAME_FLUSH, 0);
    enum frame_verdict verdict;

    if (work == NULL) {
        return out_of_memory(lane);
    }
    verdict = frame_flush_decode(lane->body, lane->header.length, &work->flush);
    if (verdict != FRAME_OK) {
        work_unref(work);
        return refuse(lane, FRAME_FLUSH, frame_verdict_text(verdict));
    }
    return deliver_to_disk(lane, work);
}

static enum lane_step receive_received(struct lane *lane)
{
    struct frame_received received;
    enum frame_verdict verdict = frame_received_decode(lane->body, lane->header.length, &received);

    if (verdict != FRAME_OK) {
        return refuse(lane, FRAME_RECEIVED, frame_verdict_text(verdict));
    }
    if (!memory_source_received(lane->mover->memory_source, &received)) {
        return refuse(lane, FRAME_RECEIVED, "about segments that were never sent");
    }
    return LANE_MOVED;
}

static enum lane_step receive_done(struct lane *lane)
{
    struct work *work = work_new(FRAME_DONE, 0);
    enum frame_verdict verdict;

    if (work == NULL) {
        return out_of_memory(lane);
    }
    verdict = frame_done_decode(lane->body, lane->header.length, &work->done);
    if (verdict != FRAME_OK) {
        work_unref(work);
        return refuse(lane, FRAME_DONE, frame_verdict_text(verdict));
    }
    disk_source_put(lane->mover->disk_source, work);
    return LANE_MOVED;
}

static enum lane_step receive_verify(struct lane *lane)
{
    struct work *work = work_new(FRAME_VERIFY, 0);
    enum frame_verdict verdict;

    if (work == NULL) {
        return out_of_memory(lane);
    }
    verdict = frame_verify_decode(lane->body, lane->header.length, &work->verify);
    if (verdict != FRAME_OK) {
        work_unref(work);
        return refuse(lane, FRAME_VERIFY, frame_verdict_text(verdict));
    }
    return deliver_to_disk(lane, work);
}

static enum lane_step receive_digest(struct lane *lane)
{
    struct work *work = work_new(FRAME_DIGEST, 0);
    enum frame_verdict verdict;

    if (work == NULL) {
        return out_of_memory(lane);
    }
    verdict = frame_digest_decode(lane->body, lane->header.length, &work->digest);
    if (verdict != FRAME_OK) {
        work_unref(work);
        return refuse(lane, FRAME_DIGEST, frame_verdict_text(verdict));
    }
    disk_source_put(lane->mover->disk_source, work);
    return LANE_MOVED;
}

static enum lane_step receive_fail(struct lane *lane)
{
    char text[FRAME_FAIL_TEXT_MAX + 1];
    size_t length = lane->header.length;

    if (length > FRAME_FAIL_TEXT_MAX) {
        length = FRAME_FAIL_TEXT_MAX;
    }
    for (size_t i = 0; i < length; i++) {
        text[i] = lane->body[i] < 0x20 || lane->body[i] >= 0x7f ? '?' : (char)lane->body[i];
    }
    text[length] = '\0';
    lane->deaf = true;
    mover_fail_by_peer(lane->mover, text);
    return LANE_MOVED;
}

static enum lane_step receive_frame(struct lane *lane)
{
    bool is_source = lane->mover->settings.role == ORDER_SOURCE;

    switch (lane->header.type) {
    case FRAME_FAIL:
        return receive_fail(lane);
    case FRAME_RECEIVED:
        if (is_source) {
            return receive_received(lane);
        }
        break;
    case FRAME_DONE:
        if (is_source) {
            return receive_done(lane);
        }
        break;
    case FRAME_SEGMENT:
        if (!is_source) {
            return receive_segment(lane);
        }
        break;
    case FRAME_CHECKPOINT:
    case FRAME_END:
        if (!is_source) {
            return receive_mark(lane);
        }
        break;
    case FRAME_EXTENT:
        if (!is_source) {
            return receive_extent(lane);
        }
        break;
    case FRAME_FLUSH:
        if (!is_source) {
            return receive_flush(lane);
        }
        break;
    case FRAME_VERIFY:
        if (!is_source) {
            return receive_verify(lane);
        }
        break;
    case FRAME_DIGEST:
        if (is_source) {
            return receive_digest(lane);
        }
        break;
    case FRAME_MESSAGE:
        break;
    }
    return refuse(lane, lane->header.type, "not for this side of a lane");
}

/* Decrypts up to SIZE bytes. */
static enum lane_step read_some(struct lane *lane, uint8_t *buffer, size_t size, size_t *filled)
{
    size_t done = 0;

    lane->read_wants = 0;
    switch (tls_channel_read(lane->channel, buffer, size, &done)) {
    case TLS_OK:
        *filled += done;
        return LANE_MOVED;
    case TLS_WANT_READ:
        lane->read_wants = POLLIN;
        return LANE_WAITS;
    case TLS_WANT_WRITE:
        lane->read_wants = POLLOUT;
        return LANE_WAITS;
    case TLS_CLOSED:
    case TLS_FAILED:
        break;
    }
    return LANE_LOST;
}

static enum lane_step read_header(struct lane *lane)
{
    enum frame_verdict verdict;
    enum lane_step step = read_some(lane, lane->header_bytes + lane->header_filled,
                                    FRAME_HEADER_SIZE - lane->header_filled, &lane->header_filled);

    if (step != LANE_MOVED || lane->header_filled < FRAME_HEADER_SIZE) {
        return step;
    }
    verdict = frame_header_decode(lane->header_bytes, FRAME_ON_LANE, &lane->header);
    if (verdict != FRAME_OK) {
        return refuse(lane, (enum frame_type)lane->header_bytes[4], frame_verdict_text(verdict));
    }
    lane->body = malloc(lane->header.length > 0 ? lane->header.length : 1);
    if (lane->body == NULL) {
        return out_of_memory(lane);
    }
    lane->body_filled = 0;
    return LANE_MOVED;
}

static enum lane_step read_body(struct lane *lane)
{
    enum lane_step step = LANE_MOVED;

    if (lane->body_filled < lane->header.length) {
        step = read_some(lane, lane->body + lane->body_filled,
                         lane->header.length - lane->body_filled, &lane->body_filled);
    }
    if (step != LANE_MOVED || lane->body_filled < lane->header.length) {
        return step;
    }
    step = receive_frame(lane);
    free(lane->body);
    lane->body = NULL;
    lane->header_filled = 0;
    return step;
}

enum lane_step lane_receive(struct lane *lane)
{
    /* Once round the loop so many reads at most, so that a peer that sends without pause cannot
     * keep us from sending. */
    enum { READS_MAX = 64 };
    enum lane_step step = LANE_MOVED;
    bool moved = false;

    for (int i = 0; i < READS_MAX && step == LANE_MOVED; i++) {
        lane->read_wants = 0;
        if (lane->deaf) {
            return moved ? LANE_MOVED : LANE_WAITS;
        }
        if (lane->undelivered != NULL) {
            step = deliver_to_disk(lane, lane->undelivered);
        } else if (lane->body == NULL) {
            step = read_header(lane);
        } else {
            step = read_body(lane);
        }
        moved = moved || step == LANE_MOVED;
    }
    if (step == LANE_WAITS && moved) {
        return LANE_MOVED;
    }
    return step;
}

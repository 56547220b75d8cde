/*
 * The sending half of a lane: work becomes frames in one buffer, the buffer becomes TLS records.
 */
#include "lane.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int level_of(const struct lane *lane)
{
    int level = lane->mover->settings.level;

    return level == ORDER_LEVEL_AUTO ? effort_level(&lane->effort) : level;
}

/* Where the next frame's body goes. */
static uint8_t *body_at(struct lane *lane)
{
    return lane->out + lane->out_size + FRAME_HEADER_SIZE;
}

/* The body is in its place: puts the header before it. Returns the whole frame's size. */
static size_t close_frame(struct lane *lane, enum frame_type type, uint32_t body_length)
{
    size_t size = FRAME_HEADER_SIZE + (size_t)body_length;

    assert(lane->out_size + size <= LANE_BUFFER_SIZE);
    frame_header_encode(body_length, type, lane->out + lane->out_size);
    lane->out_size += size;
    return size;
}

static void put_segment(struct lane *lane, const struct work *work)
{
    struct frame_segment segment = work->segment;
    uint8_t *body = body_at(lane);

    segment.raw_length = work->length;
    segment.payload_length = codec_pack(&lane->packer, CODEC_MEMORY, level_of(lane), work->data,
                                        work->length, body + FRAME_SEGMENT_FIXED, &segment.codec);
    frame_segment_encode(&segment, body);
    count_add(&lane->mover->counters.stream_wire_bytes,
              close_frame(lane, FRAME_SEGMENT, FRAME_SEGMENT_FIXED + segment.payload_length));
}

static void put_extent(struct lane *lane, const struct work *work)
{
    struct frame_extent extent = work->extent;
    uint8_t *body = body_at(lane);

    if (extent.kind == FRAME_EXTENT_DATA) {
        extent.hash = XXH3_64bits(work->data, work->length);
        extent.payload_length = codec_pack(&lane->packer, CODEC_DISK, level_of(lane), work->data,
                                           work->length, body + FRAME_EXTENT_FIXED, &extent.codec);
    }
    frame_extent_encode(&extent, body);
    count_add(&lane->mover->counters.disk_wire_bytes,
              close_frame(lane, FRAME_EXTENT, FRAME_EXTENT_FIXED + extent.payload_length));
}

static void put_fail(struct lane *lane, const struct work *work)
{
    memcpy(body_at(lane), work->data, work->length);
    close_frame(lane, FRAME_FAIL, work->length);
    lane->out_has_fail = true;
}

static void put_frame(struct lane *lane, const struct work *work)
{
    switch (work->type) {
    case FRAME_SEGMENT:
        put_segment(lane, work);
        return;
    case FRAME_EXTENT:
        put_extent(lane, work);
        return;
    case FRAME_CHECKPOINT:
    case FRAME_END:
        frame_mark_encode(&work->mark, body_at(lane));
        close_frame(lane, work->type, FRAME_MARK_FIXED);
        return;
    case FRAME_RECEIVED:
        frame_received_encode(&work->received, body_at(lane));
        close_frame(lane, FRAME_RECEIVED, FRAME_RECEIVED_FIXED);
        return;
    case FRAME_FLUSH:
        frame_flush_encode(&work->flush, body_at(lane));
        close_frame(lane, FRAME_FLUSH, FRAME_FLUSH_FIXED);
        return;
    case FRAME_DONE:
        frame_done_encode(&work->done, body_at(lane));
        close_frame(lane, FRAME_DONE, FRAME_DONE_FIXED);
        return;
    case FRAME_VERIFY:
        frame_verify_encode(&work->verify, body_at(lane));
        close_frame(lane, FRAME_VERIFY, FRAME_VERIFY_FIXED);
        return;
    case FRAME_DIGEST:
        frame_digest_encode(&work->digest, body_at(lane));
        close_frame(lane, FRAME_DIGEST, FRAME_DIGEST_FIXED);
        return;
    case FRAME_FAIL:
        put_fail(lane, work);
        return;
    case FRAME_MESSAGE:
        break;
    }
    /* Nobody makes work of any other type. */
    abort();
}

/* What is sent once more is counted so. */
static void put_work(struct lane *lane, struct work *work)
{
    size_t before = lane->out_size;

    put_frame(lane, work);
    if (work->was_sent) {
        count_add(&lane->mover->counters.resent_bytes, lane->out_size - before);
    }
    work->was_sent = true;
}

static void gather(struct lane *lane)
{
    lane->out_size = 0;
    lane->out_sent = 0;
    while (lane->out_size < LANE_GATHER && !lane_is_stopped(lane)) {
        struct work *work = outbox_take(lane->mover->outbox, lane->index, lane->out_size == 0);

        if (work == NULL) {
            return;
        }
        put_work(lane, work);
        work_unref(work);
    }
}

/* False when the limit of the bandwidth lets nothing go yet. */
static bool may_write(struct lane *lane)
{
    uint64_t now, wait;

    if (lane->granted > 0) {
        return true;
    }
    now = mover_now_us();
    wait = pace_take(&lane->mover->pace, now, lane->out_size - lane->out_sent, &lane->granted);
    lane->pace_until = wait > 0 ? now + wait : 0;
    return wait == 0;
}

static void note_renewals(struct lane *lane)
{
    uint64_t renewals = tls_channel_renewals(lane->channel);

    count_add(&lane->mover->counters.key_renewals, renewals - lane->renewals);
    lane->renewals = renewals;
}

/* One TLS record, or as much of it as the socket takes. */
static enum lane_step write_some(struct lane *lane)
{
    size_t done = 0;

    if (!may_write(lane)) {
        return LANE_WAITS;
    }
    switch (tls_channel_write(lane->channel, lane->out + lane->out_sent, lane->granted, &done)) {
    case TLS_OK:
        lane->out_sent += done;
        lane->granted = 0;
        note_renewals(lane);
        return LANE_MOVED;
    case TLS_WANT_READ:
        lane->write_wants = POLLIN;
        return LANE_WAITS;
    case TLS_WANT_WRITE:
        lane->write_wants = POLLOUT;
        return LANE_WAITS;
    case TLS_CLOSED:
    case TLS_FAILED:
        break;
    }
    return LANE_LOST;
}

enum lane_step lane_send(struct lane *lane)
{
    enum lane_step step = LANE_MOVED;

    lane->write_wants = 0;
    lane->pace_until = 0;
    if (lane->out_sent == lane->out_size) {
        gather(lane);
    }
    if (lane->out_sent == lane->out_size) {
        return LANE_WAITS;
    }
    while (step == LANE_MOVED && lane->out_sent < lane->out_size) {
        step = write_some(lane);
    }
    if (lane->out_sent == lane->out_size && lane->out_has_fail) {
        atomic_store(&lane->mover->fail_sent, true);
    }
    return step;
}

/*
 * A lane: one TLS connection to the mover at the other side, with one thread that sends what the
 * outbox has, receives what comes, compresses, decompresses and checks hashes of extents. It never
 * waits for another thread: what a full queue does not take it keeps, and reads no more until there
 * is room; meanwhile it goes on sending. (Were it to wait, all lanes of a destination could stand
 * still with the DONE frames unsent that the source needs to see.)
 *
 * Each lane belongs to its thread; the main thread starts it, asks for its byte counts, and ends it
 * when a RESUME says that all lanes so far are over. A lane that is lost stays there, dead, until
 * then.
 */
#ifndef WATARI_MOVER_LANE_H
#define WATARI_MOVER_LANE_H

#include "codec.h"
#include "effort.h"
#include "mover.h"
#include "protocol/frame.h"
#include "tls/channel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

/* A lane fills its buffer up to here with whatever waits: a full-sized TLS record, so that many
 * small frames travel in one, and a large one goes along with them. What is in the buffer goes
 * before everything that comes later, however urgent: so no more than that. */
#define LANE_GATHER (16u << 10)
#define LANE_BUFFER_SIZE \
    (LANE_GATHER + FRAME_HEADER_SIZE + FRAME_EXTENT_FIXED + WORK_UNIT_MAX + FRAME_FAIL_TEXT_MAX)

struct lane {
    struct mover *mover;
    uint32_t index;
    int fd; /* stays open until lane_end: the main thread asks it for counts */
    struct tls_channel *channel;
    pthread_t thread;
    atomic_bool stop;              /* by the main thread; the outbox's waker tells of it */
    short read_wants, write_wants; /* what TLS waits for: POLLIN or POLLOUT */

    /* Sending. */
    uint8_t *out;
    size_t out_size, out_sent;
    size_t
        granted; /* bytes of it that the pace lets go in one record; TLS may ask for them again */
    uint64_t renewals;   /* of the sending key, as far as they are counted */
    uint64_t pace_until; /* mover_now_us(): not before may more go; 0: now */
    bool out_has_fail;
    struct packer packer;
    struct effort effort;
    uint64_t clock_us; /* the time up to here is in EFFORT's books */

    /* Receiving. */
    uint8_t header_bytes[FRAME_HEADER_SIZE];
    size_t header_filled;
    struct frame_header header;
    uint8_t *body; /* NULL while the header is not complete */
    size_t body_filled;
    struct work *undelivered; /* an extent that the disk thread had no room for */
    bool deaf;                /* this mover has failed: send only */
    ZSTD_DCtx *decompressor;
};

enum lane_step {
    LANE_MOVED, /* something was done: there may be more */
    LANE_WAITS, /* nothing can be done now */
    LANE_LOST,  /* the connection is over */
};

/* Takes FD, a connected TCP socket, over. Reports LANE_UP after the handshake, LANE_LOST when it
 * fails then or later. False after mover_fail. */
bool lane_start(struct mover *mover, const struct order_lane *order, int fd);

/* TCP payload both ways, as the kernel counts it (without retransmissions). Main thread. */
void lane_wire_bytes(const struct lane *lane, uint64_t *sent, uint64_t *received);

/* Tells the thread to end, whether its connection lives or not. Main thread. */
void lane_stop(struct lane *lane);
/* After lane_stop: awaits the thread's end, which is a matter of one frame, and frees the lane with
 * all that it had not sent or not handed on. Its last counts are returned. Main thread. */
void lane_end(struct lane *lane, uint64_t *sent, uint64_t *received);
/* By the lane's thread: has it been told to end? */
static inline bool lane_is_stopped(const struct lane *lane)
{
    return atomic_load_explicit(&lane->stop, memory_order_relaxed);
}

/* lane_send.c: gathers frames and writes as much as the socket takes. */
enum lane_step lane_send(struct lane *lane);
/* lane_receive.c: reads some frames and hands them on. */
enum lane_step lane_receive(struct lane *lane);

#endif

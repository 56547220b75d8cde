/*
 * What all threads of one mover share: the settings of BEGIN, the outbox, the counters, and the two
 * ways to say something to the daemon. Set up by the main thread before it starts others;
 * afterwards the settings do not change and everything else is safe from any thread.
 *
 *   main thread     orders in, reports out, samples: main.c, order.c, report.c
 *   disk thread     NBD connections of all disks: disk_source.c, disk_pass.c, disk_verify.c;
 *                   disk_destination.c
 *   memory thread   the QEMU stream: memory_source.c; memory_destination.c
 *   lane threads    a TLS connection each, compression, hashes of extents: lane*.c
 *
 * Lanes come and go (RESUME), the other threads stay. At the end nothing is torn down in order: a
 * mover has no state worth keeping, and ends by _exit().
 */
#ifndef WATARI_MOVER_MOVER_H
#define WATARI_MOVER_MOVER_H

#include "orders.h"
#include "outbox.h"
#include "pace.h"
#include "report.h"
#include "resume.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Counted since BEGIN; struct report_sample says what each means. Written by the thread that knows,
 * read by the main thread. */
struct counters {
    _Atomic uint64_t disk_bytes, disk_acknowledged, disk_zero_bytes, disk_wire_bytes;
    _Atomic uint64_t stream_bytes, stream_acknowledged, stream_wire_bytes;
    _Atomic uint64_t stream_delay_us; /* the longest since the last sample */
    _Atomic uint64_t resent_bytes, key_renewals;
    _Atomic uint64_t pages, zero_pages, page_bytes, same_pages, delta_pages;
    _Atomic uint64_t pass_left[ORDERS_MAX_DISKS], pass_reached[ORDERS_MAX_DISKS];
    _Atomic uint64_t compared_bytes, reread_bytes, comparing_us, uncompared_bytes;
    atomic_bool never_compared;
    _Atomic uint32_t stream_phase;
};

struct lane;
struct disk_source;
struct disk_destination;
struct memory_source;
struct memory_destination;

struct mover {
    struct order_begin settings; /* .role is 0 before BEGIN */
    struct reporter reporter;
    struct outbox *outbox;
    struct counters counters;
    struct resume resume;
    struct pace pace; /* of a source's lanes */
    atomic_uint lanes_up;
    /* A source has more to read and waits for what is on its way: see mover_is_full. */
    atomic_bool stream_full, disk_full;
    /* GO with LAST came (source): what is on its way adds to the pause no more than what is not, and
     * to hold it back would. */
    atomic_bool guest_is_paused;
    atomic_bool fail_sent; /* the FAIL frame has left through some lane */
    bool wants_sample; /* the daemon decides now; main thread only */
    int statm_fd; /* /proc/self/statm, opened while paths may still be opened; -1: not there */

    /* Set at BEGIN, by role; the others stay NULL. */
    struct disk_source *disk_source;
    struct disk_destination *disk_destination;
    struct memory_source *memory_source;
    struct memory_destination *memory_destination;
    /* Main thread only. */
    struct lane *lanes[ORDERS_MAX_LANES]; /* of this epoch, the lost ones too */
    uint64_t ended_sent, ended_received;  /* lane_wire_bytes of all lanes before them */
};

/* Counters are figures: nothing is ordered by them. */
static inline void count_add(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static inline void count_set(_Atomic uint64_t *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

static inline uint64_t count_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* A reader stands at its bound: not it is what the lanes wait for, but the link or the far side.
 * A hint for effort.h. */
static inline bool mover_is_full(const struct mover *mover)
{
    return atomic_load_explicit(&mover->stream_full, memory_order_relaxed) ||
           atomic_load_explicit(&mover->disk_full, memory_order_relaxed);
}

/*
 * The mover cannot go on. The first call counts: the main thread tells the peer by a FAIL frame and
 * the daemon by FAILED{id, text}, then ends the process. Any thread; it returns at once, always
 * false, so that "return mover_fail(...)" reads well, and the caller's thread has nothing more to
 * do (but lanes, which go on sending so that the FAIL frame gets out).
 */
bool mover_fail(struct mover *mover, const char *id, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
/* The same when it was the peer that gave up: it is not told again. */
bool mover_fail_by_peer(struct mover *mover, const char *text);
/* mover_fail for want of memory. */
bool mover_fail_memory(struct mover *mover);

/* PART has done its part of COUNT RESUMEs: reports RESUMED when that completes any. */
void mover_resumed(struct mover *mover, enum resume_part part, unsigned count);

/* Starts a thread. Only those of lanes are ever joined. False, after mover_fail, when the system
 * refuses. */
bool mover_start_thread(struct mover *mover, pthread_t *thread, const char *name,
                        void *(*run)(void *), void *argument);

/* Microseconds of a clock that never jumps. */
uint64_t mover_now_us(void);

#endif

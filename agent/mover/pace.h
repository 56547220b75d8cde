/*
 * How fast all lanes of a mover together may send: a bucket that fills at the rate of the limit, and
 * from which each lane takes before it writes a TLS record. Who finds it empty waits until what was
 * taken beyond it has come in. It holds a hundredth of a second's worth, so that a thread that woke up
 * late can catch up, and no more.
 *
 * What counts is what TCP is given: payload with its TLS record, without the headers of TCP and IP
 * and without what TCP sends twice.
 *
 * Any thread. Times are microseconds of any steady clock, the same for all callers.
 */
#ifndef WATARI_MOVER_PACE_H
#define WATARI_MOVER_PACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest piece, a full TLS record; what a record adds to it: header, content type, tag. */
#define PACE_PIECE_MAX (16u << 10)
#define PACE_RECORD_EXTRA 22u

struct pace {
    pthread_mutex_t mutex;
    atomic_bool is_limited; /* of the rate in force; what lies below is under the mutex */
    uint64_t rate,
        paused_rate; /* bytes a second, while the guest runs and while it is paused; 0: none */
    bool is_paused;
    int64_t level; /* millionths of a byte; below 0: taken beyond what there was */
    uint64_t filled_us;
};

/* Without a limit. */
void pace_init(struct pace *pace);
/* Bytes a second while the guest runs, and while it is paused; 0: no limit. */
void pace_set(struct pace *pace, uint64_t rate, uint64_t paused_rate);
/* The guest is paused from now on. */
void pace_pause(struct pace *pace);
/*
 * How many of SIZE bytes may be sent in one record now: *PIECE, at least 1, and 0 is returned. Or the
 * microseconds after which to ask again, with nothing granted. Without a limit all may.
 */
uint64_t pace_take(struct pace *pace, uint64_t now_us, size_t size, size_t *piece);

#endif

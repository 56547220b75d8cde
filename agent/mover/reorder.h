/*
 * Puts segments and marks, which arrive over any lane in any order, back in the order of their
 * sequence numbers. It holds at most FRAME_SEGMENT_WINDOW of them, with FRAME_SEGMENT_WINDOW_BYTES,
 * and so bounds itself: what lies beyond is not an honest peer's.
 *
 * Pure; one thread at a time (the caller locks).
 */
#ifndef WATARI_MOVER_REORDER_H
#define WATARI_MOVER_REORDER_H

#include "work.h"

enum reorder_verdict {
    REORDER_OK,
    REORDER_OLD,    /* has been taken already, or waits: the source has sent it again */
    REORDER_BEYOND, /* further ahead than the window allows */
};

/* All zero is an empty one that expects sequence number 0. */
struct reorder {
    uint64_t next;  /* the sequence number that comes out next */
    uint64_t bytes; /* of all that waits */
    struct work *slots[FRAME_SEGMENT_WINDOW];
};

/* WORK is a segment or mark, which it takes over when the verdict is REORDER_OK. */
enum reorder_verdict reorder_put(struct reorder *reorder, struct work *work);
/* The next in order, now the caller's, or NULL when it is not here yet. */
struct work *reorder_take(struct reorder *reorder);
/* The sequence number of a segment, CHECKPOINT or END. */
uint64_t reorder_sequence(const struct work *work);

#endif

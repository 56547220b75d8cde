/*
 * What a source keeps of the stream it has sent: the segments and marks that the destination has
 * not RECEIVED, in the order of their sequence numbers, so that a RESUME can send them again. It
 * holds at most FRAME_SEGMENT_WINDOW of them; how many bytes that may be, window.h says.
 *
 * Pure; one thread at a time (the caller locks).
 */
#ifndef WATARI_MOVER_KEPT_H
#define WATARI_MOVER_KEPT_H

#include "work.h"

#include <stdbool.h>
#include <stdint.h>

/* All zero is an empty one, whose first number is 0. */
struct kept {
    uint64_t received;       /* the destination has all sequence numbers below */
    uint64_t received_bytes; /* and so much of the stream */
    uint64_t next;           /* the number that the next frame gets */
    struct kept_frame {
        struct work *work;
        uint64_t end;               /* the stream offset at which it ends */
        uint64_t sent_us;           /* when it was handed to the lanes last */
    } frames[FRAME_SEGMENT_WINDOW]; /* number N is at N % window */
};

/* Whether COUNT more may be sent. */
bool kept_has_room(const struct kept *kept, unsigned count);
/* Nothing waits to be RECEIVED. */
bool kept_is_empty(const struct kept *kept);

/* Gives WORK, at whose end the stream is at END, the next number, and takes a reference of its own.
 * There must be room. */
void kept_put(struct kept *kept, struct work *work, uint64_t end, uint64_t now_us);

enum kept_verdict {
    KEPT_NEWS, /* *sent_us is when the last frame that it speaks of was handed to the lanes */
    KEPT_OLD,  /* overtaken by a later one: it says nothing new */
    KEPT_LIE,  /* it speaks of what was never sent, or of other bytes */
};

/* Lets go of what the destination says it has. */
enum kept_verdict kept_received(struct kept *kept, const struct frame_received *received,
                                uint64_t *sent_us);

/* A reference to the frame of number SEQUENCE, from RECEIVED to NEXT - 1, that is sent once more. */
struct work *kept_again(struct kept *kept, uint64_t sequence, uint64_t now_us);

#endif

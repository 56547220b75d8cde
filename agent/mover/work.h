/*
 * A piece of work: one frame to be sent on any lane, or one that a lane has received and taken
 * apart, with the raw bytes it carries. It changes hands through the queues (outbox.h, reorder.h,
 * the disk thread's inbox).
 *
 * It is counted by references, because a source keeps what it has sent until the other side
 * acknowledges it, and sends the very same bytes again over new lanes when it does not (RESUME in
 * orders.h). The rules that make a lock needless: before it is shared its one owner may do
 * anything; afterwards nobody changes what it says; NEXT and WAS_SENT belong to the one reference
 * that goes through the outbox, and there is one of those at most.
 *
 * Pure; any thread.
 */
#ifndef WATARI_MOVER_WORK_H
#define WATARI_MOVER_WORK_H

#include "protocol/frame.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest unit a source makes of disk or memory, in bytes; on a slow link it makes smaller ones.
 * Larger ones compress hardly better (files of /usr at level 1: 512 KiB save 0.4 %, 1 MiB 0.6 %;
 * 64 KiB cost 3 %) and would keep small frames waiting; a destination accepts up to
 * FRAME_DATA_MAX. */
#define WORK_UNIT_MAX (256u << 10)

struct work {
    atomic_uint references;
    struct work *next;
    bool was_sent;        /* a lane has made a frame of it: met again, it is sent once more */
    enum frame_type type; /* tells which member counts */
    union {
        struct frame_segment segment;
        struct frame_mark mark;
        struct frame_received received;
        struct frame_extent extent;
        struct frame_flush flush;
        struct frame_done done;
        struct frame_verify verify;
        struct frame_digest digest;
    };
    /* The raw bytes of a segment or data extent, or the sentence of a FAIL; NULL when there are
     * none. DATA points into BLOCK, which is what free() gets. */
    uint8_t *data;
    uint32_t length;
    uint8_t *block;
};

/* A new piece of TYPE, all zero, with room for SIZE raw bytes (0: none), and one reference to it.
 * NULL when there is no memory. */
struct work *work_new(enum frame_type type, uint32_t size);
/* One reference more. Returns WORK. */
struct work *work_ref(struct work *work);
/* One less; the last frees it, bytes and all. NULL is allowed. */
void work_unref(struct work *work);
/* Gives up the raw bytes, keeps the rest. Only of work that nobody else has a reference to. */
void work_drop_data(struct work *work);

/* First in, first out. Not locked. All zero is an empty list. */
struct work_list {
    struct work *first, *last;
    size_t count;
};

void work_list_put(struct work_list *list, struct work *work);
/* NULL when it is empty. */
struct work *work_list_take(struct work_list *list);
/* Moves all of FROM to the end of LIST. */
void work_list_move(struct work_list *list, struct work_list *from);

#endif

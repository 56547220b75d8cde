/*
 * A piece of work: one frame to be sent on any lane, or one that a lane has received and taken
 * apart. It owns the raw bytes it carries. It belongs to one thread at a time and changes hands
 * through the queues (outbox.h, reorder.h, the disk thread's inbox), so it needs no lock of its
 * own.
 *
 * Pure; any thread.
 */
#ifndef WATARI_MOVER_WORK_H
#define WATARI_MOVER_WORK_H

#include "protocol/frame.h"

#include <stddef.h>
#include <stdint.h>

/* The largest unit a source makes of disk or memory, in bytes. Larger ones compress hardly better,
 * and on a slow link (100 Mbit/s: 21 ms for one) they would keep small frames waiting; a
 * destination accepts up to FRAME_DATA_MAX. */
#define WORK_UNIT_MAX (256u << 10)

struct work {
    struct work *next;
    enum frame_type type; /* tells which member counts */
    union {
        struct frame_segment segment;
        struct frame_mark mark;
        struct frame_received received;
        struct frame_extent extent;
        struct frame_flush flush;
        struct frame_done done;
    };
    /* The raw bytes of a segment or data extent, or the sentence of a FAIL; NULL when there are
     * none. DATA points into BLOCK, which is what free() gets. */
    uint8_t *data;
    uint32_t length;
    uint8_t *block;
};

/* A new piece of TYPE, all zero, with room for SIZE raw bytes (0: none). NULL when there is no
 * memory. */
struct work *work_new(enum frame_type type, uint32_t size);
/* NULL is allowed. */
void work_free(struct work *work);
/* Gives up the raw bytes, keeps the rest. */
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

/*
 * The outbox: what waits to be sent, by any thread, for whichever lane is free first. Three
 * classes: small frames go before everything, since somebody at the other side waits for each of
 * them (DONE, RECEIVED, FLUSH, marks, FAIL); memory and disk share what there is, byte for byte, in
 * proportion to what each has left, so that both come to their end together. Neither gets less than
 * a sixteenth, and what one leaves unused is the other's.
 *
 * It does not bound itself. Those who put work in have budgets of their own (the segment window,
 * the outstanding requests of a source's disks, the requests a destination lets in), and so the
 * outbox never makes anybody wait. It outlives its lanes: with none of them alive what is put in
 * waits for those of the next epoch.
 *
 * Every call from any thread, but for outbox_take, outbox_leave and outbox_waker, which are for the
 * lane's own thread.
 */
#ifndef WATARI_MOVER_OUTBOX_H
#define WATARI_MOVER_OUTBOX_H

#include "waker.h"
#include "work.h"

#include <stddef.h>

struct outbox;

/* For lanes 0 .. LANES-1. NULL when memory or descriptors are short. */
struct outbox *outbox_new(size_t lanes);
/* Frees what still waits, too. */
void outbox_free(struct outbox *outbox);

/* Takes the work over (one reference to it) and wakes one lane that has nothing to do. */
void outbox_put(struct outbox *outbox, struct work *work);
/* The next piece, now the caller's. NULL when nothing waits: with WILL_WAIT, LANE then counts as
 * idle until its next take, and a put may wake it. A lane that still has bytes to write must not
 * say so: it would be given work that an idle one could send. */
struct work *outbox_take(struct outbox *outbox, size_t lane, bool will_wait);
/* So many bytes of segments, or of extents, as TYPE says, are left to be sent, those not put in yet
 * included; what is taken counts down from there. As long as one of them is not known, or nothing,
 * both get the same. */
void outbox_set_left(struct outbox *outbox, enum frame_type type, uint64_t bytes);
/* LANE is over and takes no more: it no longer counts as idle, and a wake that may have been meant
 * for it goes to another. */
void outbox_leave(struct outbox *outbox, size_t lane);
/* Gives up all that waits and is of TYPE. */
void outbox_drop(struct outbox *outbox, enum frame_type type);
/* Wakes LANE for another reason than work (room in a queue it waits for, an order to stop). */
void outbox_wake(struct outbox *outbox, size_t lane);
/* What LANE polls and clears. */
const struct waker *outbox_waker(const struct outbox *outbox, size_t lane);

#endif

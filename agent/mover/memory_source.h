/*
 * The source's memory thread: reads QEMU's migration stream, makes less of pages that were sent
 * before (page_encoder.h), cuts what remains into segments, hashes it, counts its pages, and stops reading when the daemon wants it held. It is never further ahead of
 * what the destination's QEMU has than window.h allows, and keeps all of that until it is RECEIVED:
 * without lanes it goes on until the window is full, and waits.
 */
#ifndef WATARI_MOVER_MEMORY_SOURCE_H
#define WATARI_MOVER_MEMORY_SOURCE_H

#include "mover.h"
#include "protocol/frame.h"

#include <stdbool.h>

/* NULL after mover_fail. Main thread. */
struct memory_source *memory_source_start(struct mover *mover);
/* MEMORY, HOLD, GO or RESUME; takes FD over. Main thread; false after mover_fail. */
bool memory_source_order(struct memory_source *source, const struct order *order, int fd);
/* A RECEIVED frame, from any lane. False when it speaks of what was never sent. */
bool memory_source_received(struct memory_source *source, const struct frame_received *received);

#endif

/*
 * The destination's memory thread: puts segments in order, makes pages of differences
 * (protocol/page_cache.h), hashes the stream, compares the hashes with the source's, hands the bytes
 * to QEMU and says RECEIVED.
 */
#ifndef WATARI_MOVER_MEMORY_DESTINATION_H
#define WATARI_MOVER_MEMORY_DESTINATION_H

#include "mover.h"

#include <stdbool.h>

/* NULL after mover_fail. Main thread. */
struct memory_destination *memory_destination_start(struct mover *mover);
/* MEMORY: takes FD, QEMU's stream socket, over. Segments may have come before: they wait. Main
 * thread; false after mover_fail. */
bool memory_destination_attach(struct memory_destination *destination, int fd);
/* RESUME: all lanes are over. What has come stays; RECEIVED is said again. Main thread. */
void memory_destination_resume(struct memory_destination *destination);
/* A segment, CHECKPOINT or END, taken over when it returns true; one that came before is dropped
 * then. False, with the reason, when no honest peer sends that: it is out of the window. Any lane;
 * never waits. */
bool memory_destination_put(struct memory_destination *destination, struct work *work,
                            const char **why);

#endif

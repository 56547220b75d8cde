/*
 * The destination's disk thread: writes what the lanes bring into QEMU's exports, one connection a
 * disk, and answers every request with a DONE; reads back from there what a VERIFY asks about, and
 * answers with a DIGEST. It takes in only so much: beyond that the lanes keep what they have and stop
 * reading.
 */
#ifndef WATARI_MOVER_DISK_DESTINATION_H
#define WATARI_MOVER_DISK_DESTINATION_H

#include "mover.h"

#include <stdbool.h>
#include <stdint.h>

/* NULL after mover_fail. Main thread. */
struct disk_destination *disk_destination_start(struct mover *mover);
/* DISK, QUIESCE or RESUME; takes FD over. Main thread. */
bool disk_destination_order(struct disk_destination *destination, const struct order *order,
                            int fd);
/* An extent (its hash checked), FLUSH or VERIFY, taken over when it returns true. False when there
 * is no room: LANE is woken through the outbox when there may be. Any lane. */
bool disk_destination_put(struct disk_destination *destination, uint32_t lane, struct work *work);

#endif

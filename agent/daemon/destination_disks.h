/*
 * Where the disks of an offer go, and making them: targets inside pools, free space, names; then one image after the other. The checks are
 * synchronous and change nothing. Loop thread only.
 */
#ifndef WATARI_DAEMON_DESTINATION_DISKS_H
#define WATARI_DAEMON_DESTINATION_DISKS_H

#include "destination_state.h"

/* Fills destination->disks from the offer. False with "pool-missing", "pool-read-only", "pool-full", "disk-exists", "disk-target",
 * "format-unsupported". */
bool destination_disks_plan(struct destination *destination, struct error *error);
/* Makes disk destination->disk_at and the ones after it; then DONE, or destination_fail(). */
void destination_disks_make(struct destination *destination,
                            void (*done)(struct destination *destination));

#endif

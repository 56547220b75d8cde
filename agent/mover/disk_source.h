/*
 * The source's disk thread: reads what each PASS orders from QEMU, sends it, and awaits the
 * destination's DONE for every extent, with the requests of all disks in one loop. disk_pass.h is
 * what happens within one pass.
 */
#ifndef WATARI_MOVER_DISK_SOURCE_H
#define WATARI_MOVER_DISK_SOURCE_H

#include "mover.h"

#include <stdbool.h>

/* NULL after mover_fail. Main thread. */
struct disk_source *disk_source_start(struct mover *mover);
/* DISK, PASS, RELEASE, VERIFY, READS_HOLD, READS_GO, LIMIT or RESUME; takes FD over. Main thread. */
bool disk_source_order(struct disk_source *source, const struct order *order, int fd);
/* A DONE or DIGEST frame, taken over. Any lane. */
void disk_source_put(struct disk_source *source, struct work *done);

#endif

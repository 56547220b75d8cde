/*
 * The load on the guest's disks: random 4 KiB blocks over the last part of each, written with
 * O_DIRECT and flushed now and then, each carrying a pattern that can be verified. disk_run is
 * the body of a thread of its own; the console's thread calls everything else. The lock is held
 * for one slice of writing, or for a whole verification.
 *
 * The region ends with the disk, so that a file system made smaller than the disk stays clear of
 * it.
 */
#ifndef WATARI_GUEST_DISK_H
#define WATARI_GUEST_DISK_H

#include "fault.h"
#include "pattern.h"
#include "sequences.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_MAX 8

struct disk {
    char name[32]; /* as in /dev */
    int fd;
    uint32_t owner;
    uint64_t start;            /* bytes; where the region begins */
    struct sequences expected; /* by block of the region */
    bool flush_due;
};

struct disk_load {
    pthread_mutex_t lock;
    struct disk disks[DISK_MAX];
    size_t count;
    size_t next; /* disk to be written next */
    uint64_t random;
    uint8_t *buffer; /* DISK_CHUNK bytes, aligned for O_DIRECT */
    enum pattern_kind kind;
    uint32_t kib_per_second;
    bool going;
    uint64_t written; /* blocks, since the start */
    struct fault fault;
};

struct disk_discarded {
    size_t zero; /* blocks of the range that read as zero afterwards */
    size_t kept; /* blocks that the disk chose to keep, and kept well */
};

/* PATHS: devices joined by commas, none when empty. The last MIB of each, or all of a smaller
 * one, are written over. False with the fault filled in when a device cannot be used. */
bool disk_init(struct disk_load *load, const char *paths, size_t mib, enum pattern_kind kind,
               uint32_t kib_per_second);

/* Thread body; never returns. */
void *disk_run(void *load);

void disk_set_rate(struct disk_load *load, enum pattern_kind kind, uint32_t kib_per_second);
void disk_set_going(struct disk_load *load, bool going);
uint64_t disk_written(struct disk_load *load);

/* Discards a random eighth of each region. What a discarded block holds is the disk's own
 * choice, so it is read back: from then on it must stay what it was found to be. False when a
 * disk knows no discard. */
bool disk_discard(struct disk_load *load, struct disk_discarded *discarded);

/* Reads every block that was written or discarded from the device, past all caches. Fills in the
 * first fault, if there was one now or since the start, and the number of blocks. */
void disk_verify(struct disk_load *load, struct fault *fault, size_t *blocks);

#endif

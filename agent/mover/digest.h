/*
 * The digest of a run of a disk (SPEC.md §6), by which two sides tell whether they hold the same
 * bytes there, and what of a run has to be read for it: a piece that is all zero counts as nothing,
 * so that holes need no reading and equal zeroes that are written out.
 *
 * Pure; one thread at a time.
 */
#ifndef WATARI_MOVER_DIGEST_H
#define WATARI_MOVER_DIGEST_H

#include "extent_map.h"
#include "protocol/frame.h"

#include <stdbool.h>
#include <stdint.h>

/* The longest read, in bytes. */
#define DIGEST_READ_MAX FRAME_DIGEST_PIECE

/* Adds LENGTH bytes at OFFSET of the disk, whole pieces of the run, in the order of their offsets.
 * *hash is zero before the first. */
void digest_add(struct frame_hash *hash, uint64_t offset, const uint8_t *bytes, uint32_t length);

/* The way along the block status (base:allocation) of what lies from START on. */
struct digest_walk {
    const struct block_status *status;
    size_t entry;   /* of STATUS, the first that is not passed */
    uint64_t start; /* where it begins */
};

enum digest_next {
    DIGEST_READ, /* LENGTH bytes at OFFSET are to be read and added */
    DIGEST_ASK,  /* status is known up to OFFSET, and up to there all is done */
    DIGEST_OVER, /* nothing is left that is not zero */
};

/* What comes next of a run that ends at END and is done up to AT. */
enum digest_next digest_walk_next(struct digest_walk *walk, uint64_t at, uint64_t end,
                                  uint64_t *offset, uint32_t *length);

#endif

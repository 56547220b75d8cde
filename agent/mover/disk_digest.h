/*
 * Reads a run of a disk through an NBD connection and makes its digest (digest.h), one command at a
 * time; whoever wants more at once has several.
 *
 * The disk thread only.
 */
#ifndef WATARI_MOVER_DISK_DIGEST_H
#define WATARI_MOVER_DISK_DIGEST_H

#include "digest.h"
#include "disk_link.h"

#include <stdbool.h>
#include <stdint.h>

struct disk_digest {
    struct disk_question question; /* first, so that a completed task is its digest; reads use its
                                      task as well */
    struct disk_link *link;
    uint64_t at, end; /* done up to AT */
    uint64_t asked;   /* where the question began */
    struct digest_walk walk;
    bool reading;         /* not asking */
    uint64_t read_offset; /* what is being read */
    uint32_t read_length;
    uint8_t *buffer;     /* DIGEST_READ_MAX bytes */
    uint64_t read_bytes; /* in all; the rest are holes */
    struct frame_hash hash;
    int error; /* an errno, when failed */
};

enum digest_step {
    DIGEST_WAITS, /* its task is out */
    DIGEST_DONE,  /* HASH is there */
    DIGEST_FAILED,
};

/* Begins with LENGTH bytes from OFFSET on, over a ready LINK that asks for base:allocation. The
 * first time *DIGEST is all zero; later on it may be any that is done. */
enum digest_step disk_digest_begin(struct disk_digest *digest, struct disk_link *link,
                                   uint64_t offset, uint32_t length);
/* Its task has come out of disk_link_take_completed(): goes on. */
enum digest_step disk_digest_turn(struct disk_digest *digest);
/* Frees what it holds. Of one that waits, only after its link was freed. */
void disk_digest_clear(struct disk_digest *digest);

#endif

/*
 * The requests of a source's disks that are on their way: each extent or flush from the moment its
 * read begins until the destination's DONE, and each VERIFY until its DIGEST. Their
 * number bounds what a source keeps in memory and what waits at the destination.
 *
 * Pure; the disk thread.
 */
#ifndef WATARI_MOVER_REQUEST_H
#define WATARI_MOVER_REQUEST_H

#include "disk_link.h"
#include "work.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Enough for a link of 50 ms to carry 80 MB/s in extents of 4 KiB; the bytes have a bound of their
 * own. */
#define REQUESTS_MAX 1024u

struct pass;

struct request {
    struct disk_task task; /* the NBD read of an extent; first, so that a completed task is its
                              request */
    struct pass *pass;     /* NULL: of a VERIFY, which is no part of a pass */
    uint64_t id;           /* on the wire; 0 while the slot is free */
    uint64_t offset;
    uint32_t length;   /* of the data; 0 for a zero extent or a flush */
    bool sent;         /* DONE may come */
    uint64_t sent_us;  /* when it was handed to the lanes last */
    struct work *work; /* what is being read; then what was sent, kept to be sent again */
    size_t next_free;
};

struct request_table {
    struct request slots[REQUESTS_MAX];
    size_t first_free; /* REQUESTS_MAX: none */
    size_t used;
    uint64_t generation;
};

void request_table_init(struct request_table *table);
/* A fresh one, all zero but for its id. NULL when all are in use. */
struct request *request_take(struct request_table *table);
/* The one that was sent under this id, or NULL: ids come from the peer, who may say anything. */
struct request *request_find(struct request_table *table, uint64_t id);
/* The first that was sent, from slot *position on, which then is the place to look on from; NULL
 * when there is no more. */
struct request *request_next_sent(struct request_table *table, size_t *position);
/* The lowest offset of an extent of PASS, or NONE when it has none on its way. */
uint64_t request_lowest(const struct request_table *table, const struct pass *pass, uint64_t none);
/* Frees what the request keeps, too. */
void request_release(struct request_table *table, struct request *request);

#endif

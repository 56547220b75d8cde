/*
 * One pass over one disk, at the source: negotiate, ask for the block status ahead of the reads,
 * read and send, await every DONE, flush, report. The NBD connection stays open, idle, until the
 * daemon says RELEASE.
 *
 * The disk thread only.
 */
#ifndef WATARI_MOVER_DISK_PASS_H
#define WATARI_MOVER_DISK_PASS_H

#include "disk_link.h"
#include "extent_map.h"
#include "mover.h"
#include "request.h"
#include "stale_map.h"

#include <stdbool.h>
#include <stdint.h>

enum pass_state {
    PASS_NEGOTIATING,
    PASS_COPYING,
    PASS_FLUSHING,
    PASS_IDLE, /* done and reported; its connection is of no more interest */
};

struct pass {
    struct pass *next;
    struct mover *mover;
    struct request_table *requests;
    struct order_pass order;
    struct order_disk disk;
    struct disk_link *link;
    struct stale_map *stale; /* where it marks what it sends; NULL: nowhere */
    enum pass_state state;

    struct disk_question question; /* for block status */
    bool asking;                   /* it is out */
    uint64_t asked;                /* bytes it asked about */
    uint64_t mapped;               /* the disk's status is known up to here */
    struct extent_map map;

    unsigned reads;        /* in QEMU's hands */
    unsigned requests_out; /* without a DONE yet, reads included */
    uint64_t bytes_out;    /* of data, likewise */
    uint64_t flush_started_us;
    uint64_t reached_us; /* when it was last published how far the pass has come */
    struct report_pass figures;
};

/* What one pass may have on its way: its share of what all may. */
struct pass_budget {
    unsigned requests;
    uint64_t bytes;
    uint32_t unit; /* of data that one request may have */
};

/* Takes FD over. STALE, which may be NULL, must outlive it. NULL after mover_fail. */
struct pass *pass_new(struct mover *mover, struct request_table *requests, struct stale_map *stale,
                      const struct order_disk *disk, const struct order_pass *order, int fd);
/* Closes the connection. Only a pass that is idle may be freed: the others' requests point to
 * it. */
void pass_free(struct pass *pass);

/* After poll() said REVENTS of its connection. False after mover_fail. */
bool pass_turn(struct pass *pass, short revents);
/* Begins what the budget allows. False after mover_fail. */
bool pass_go_on(struct pass *pass, const struct pass_budget *budget);
/* More is to be read, and waits only for what has been sent and not answered. */
bool pass_is_full(const struct pass *pass, const struct pass_budget *budget);
/* REQUEST has no answer, and the lanes it may have gone through are over. */
void pass_send_again(struct pass *pass, struct request *request);
/* The destination has answered REQUEST, which is released. False after mover_fail. */
bool pass_request_done(struct pass *pass, struct request *request, uint32_t status);

/* An NBD command of its own is in QEMU's hands. */
static inline bool pass_is_reading(const struct pass *pass)
{
    return pass->reads > 0 || pass->asking;
}

static inline bool pass_is_running(const struct pass *pass)
{
    return pass->state != PASS_IDLE;
}

#endif

/*
 * --verify at the source: compares the disks with the destination's, by digests that both sides
 * make of what they read back (digest.h), as orders.h tells. The source reads over the connection
 * of each disk's bulk pass, which stays open; the destination is asked by VERIFY frames.
 *
 * While the guest runs, a difference means nothing yet: the guest may have written there, and what
 * it wrote is in the dirty bitmap and will be sent. So such a part stays stale (stale_map.h), and
 * what counts is the comparison of all that is stale once the guest stands still and the last
 * passes are flushed. A part that was found equal and not sent since is equal still: what the guest
 * writes gets into a bitmap when the write is over, so whatever of it a comparison may have seen or
 * missed is sent by a later pass, which makes the part stale again.
 *
 * The disk thread only.
 */
#ifndef WATARI_MOVER_DISK_VERIFY_H
#define WATARI_MOVER_DISK_VERIFY_H

#include "disk_link.h"
#include "mover.h"
#include "request.h"
#include "stale_map.h"

#include <stdbool.h>
#include <stdint.h>

/* Comparisons that are on their way at a time: beside passes a few, so that these do not starve,
 * and so that QEMU's answers fit into the socket and are out of its hands should this mover die (it
 * would hang when it has to drain the disk); more in the pause, when nothing else reads and a link's
 * round trip is what costs. Each holds DIGEST_READ_MAX bytes and one of the requests. */
#define COMPARISONS_LIVE 2u
#define COMPARISONS_MAX 64u

struct disk_verify;

/* NULL after mover_fail. */
struct disk_verify *disk_verify_new(struct mover *mover, struct request_table *requests);
/* All of it is to be compared. False after mover_fail. */
bool disk_verify_add(struct disk_verify *verify, const struct order_disk *disk);
/* Where the passes of DISK mark what they send. */
struct stale_map *disk_verify_stale(struct disk_verify *verify, uint32_t disk);

/* A pass of DISK is done, and flushed over there; LINK is the connection of its bulk pass. */
void disk_verify_pass_over(struct disk_verify *verify, uint32_t disk, struct disk_link *link);
/* ORDER_VERIFY. False after mover_fail. */
bool disk_verify_freeze(struct disk_verify *verify);
/* Whether the connection of DISK's bulk pass is needed, now or later. */
bool disk_verify_needs(const struct disk_verify *verify, uint32_t disk);

/* Whether something is being read over that connection: then it is to be polled. */
bool disk_verify_reads(const struct disk_verify *verify, uint32_t disk);
/* After poll() said REVENTS of it. False after mover_fail. */
bool disk_verify_turn(struct disk_verify *verify, uint32_t disk, short revents);
/* The destination has answered REQUEST, which is released. False after mover_fail. */
bool disk_verify_answer(struct disk_verify *verify, struct request *request,
                        const struct frame_digest *answer);
/* Begins what may be begun, and reports VERIFIED when that is due. False after mover_fail. */
bool disk_verify_go_on(struct disk_verify *verify);

#endif

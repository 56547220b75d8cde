/*
 * What the source has sent of each of the guest's pages: a hash of its content, for all of RAM. So a
 * page that QEMU sends again although it is as it was need not go over the wire again.
 *
 * The hash is XXH3-128 under a secret made at random for this table, so that no content can be
 * prepared to collide. It costs 16 bytes for a page of 4096: 1/256 of RAM, touched as pages are sent.
 *
 * One thread at a time.
 */
#ifndef WATARI_MOVER_SENT_PAGES_H
#define WATARI_MOVER_SENT_PAGES_H

#include "protocol/ram_blocks.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

struct sent_page; /* what is known of one */

/* All zero is an empty one, of which nothing may be asked. A page is known by its index among all
 * pages of all blocks. */
struct sent_pages {
    struct sent_page *table; /* owned, as is the next */
    size_t *first;           /* index of each block's first page */
    uint8_t secret[XXH3_SECRET_SIZE_MIN];
};

/* How many pages of PAGE_SIZE bytes BLOCKS have, and how many bytes a table for so many takes. */
size_t sent_pages_count(const struct ram_blocks *blocks, uint32_t page_size);
uint64_t sent_pages_size(size_t count);

/* For the pages of BLOCKS; nothing has been sent. 0, or a negative errno: there is no memory, or
 * there are no random bytes, and it is empty. */
int sent_pages_open(struct sent_pages *pages, const struct ram_blocks *blocks, uint32_t page_size);
void sent_pages_close(struct sent_pages *pages);

/* Of page PAGE of block BLOCK, which must exist. */
size_t sent_pages_index(const struct sent_pages *pages, size_t block, uint64_t page);

enum sent_verdict {
    SENT_FIRST,   /* nothing that is known was sent of it before */
    SENT_SAME,    /* it is what was sent last */
    SENT_CHANGED, /* something else was sent last */
};

/* The page is BYTES now, and is sent so: what that is to what was sent before. */
enum sent_verdict sent_pages_put(struct sent_pages *pages, size_t index, const uint8_t *bytes,
                                 uint32_t page_size);
/* The same for a page sent as zero. */
enum sent_verdict sent_pages_put_zero(struct sent_pages *pages, size_t index);
/* What is sent of it now is not known. */
void sent_pages_forget(struct sent_pages *pages, size_t index);

#endif

/*
 * The page encoder: what the source makes of QEMU's stream before it is sent, so that pages sent
 * again cost little.
 *
 * Records of pages that the destination has already as they are it leaves out (sent_pages.h). What
 * remains is a valid stream, which the destination's QEMU loads to the same end, and nobody there
 * has to know. Two rules keep it valid: a record that names its block always stays, since the
 * records after it may rely on that name (QEMU names a block only when it goes on to another, so
 * this costs a few pages a round); and where the cutter loses its place, everything goes on byte
 * for byte from there.
 *
 * Of pages that come again changed it keeps some in a page cache (protocol/page_cache.h), which the
 * destination has too, and sends the difference when that is mostly zero: then zstd makes next to
 * nothing of it. Which pages are worth that, hot_pages.h says; the destination is told in the
 * segment's operations.
 *
 * One thread at a time.
 */
#ifndef WATARI_MOVER_PAGE_ENCODER_H
#define WATARI_MOVER_PAGE_ENCODER_H

#include "protocol/stream_cutter.h"

#include <stddef.h>
#include <stdint.h>

/* Where the stream goes: a segment being filled. Behind the DONE bytes, which are to be sent, stand
 * the PENDING first bytes of a unit (at most STREAM_UNIT_MAX) that has not come whole, of which it
 * is not known whether it will be sent; there is room for what is read next behind these. */
struct encoded_run {
    uint8_t *bytes; /* borrowed */
    size_t done, pending;
};

struct page_encoder_settings {
    uint32_t page_size; /* the guest's target page size in bytes */
    /* What may be taken for the hashes of pages, the choice and the cache together, in bytes. When
     * it is too little for the hashes nothing is left out, and no difference sent. 0: the same, but
     * that this is meant. */
    uint64_t budget;
    uint64_t cache_size; /* of the destination's page cache, bytes */
};

struct page_encoder;

/* NULL when there is no memory. */
struct page_encoder *page_encoder_new(const struct page_encoder_settings *settings);
void page_encoder_free(struct page_encoder *encoder);

/* SIZE bytes of the stream have been read to where RUN's bytes end: takes them into it. */
void page_encoder_take(struct page_encoder *encoder, struct encoded_run *run, size_t size);
/* RUN's done bytes are about to be sent as one segment: puts differences in place of pages, and the
 * operations, at most MOST, to LIST. Returns how many. Of the done bytes none may be sent without
 * this. */
uint16_t page_encoder_finish(struct page_encoder *encoder, struct encoded_run *run, uint8_t *list,
                             uint16_t most);

/* The stream as QEMU writes it, with what is left out: borrowed. */
const struct stream_cutter *page_encoder_cutter(const struct page_encoder *encoder);

struct page_encoder_counts {
    uint64_t same_pages;  /* left out, zero ones among them */
    uint64_t delta_pages; /* sent as a difference */
};
struct page_encoder_counts page_encoder_counts(const struct page_encoder *encoder);
/* Why it does less than it was told to, for the log; "" while it does not. */
const char *page_encoder_reason(const struct page_encoder *encoder);

#endif

/*
 * The page encoder: what the source makes of QEMU's stream before it is sent. It leaves out the
 * records of pages that the destination has already as they are (sent_pages.h). What remains is a
 * valid stream, which the destination's QEMU loads to the same end, and nobody there has to know.
 *
 * Two rules keep it valid. A record that names its block always stays, since the records after it
 * may rely on that name; QEMU names a block only when it goes on to another, so this costs a few
 * pages a round. And where the cutter loses its place, everything goes on byte for byte from there.
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

struct page_encoder;

/* NULL when there is no memory. PAGE_SIZE: the guest's target page size in bytes. */
struct page_encoder *page_encoder_new(uint32_t page_size);
void page_encoder_free(struct page_encoder *encoder);

/* SIZE bytes of the stream have been read to where RUN's bytes end: takes them into it. */
void page_encoder_take(struct page_encoder *encoder, struct encoded_run *run, size_t size);

/* The stream as QEMU writes it, with what is left out: borrowed. */
const struct stream_cutter *page_encoder_cutter(const struct page_encoder *encoder);
/* How many pages were left out, zero ones among them. */
uint64_t page_encoder_same_pages(const struct page_encoder *encoder);
/* 0, or the negative errno for which no page can be left out. */
int page_encoder_failure(const struct page_encoder *encoder);

#endif

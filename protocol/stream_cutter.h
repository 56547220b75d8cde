/*
 * The stream cutter reads QEMU's migration stream as it passes (docs/devel/migration and
 * migration/savevm.c, ram.c of QEMU) and tells page records from everything else. It changes
 * nothing and buffers nothing but a record's header: what becomes of the bytes is its caller's
 * business. What it does not recognise it calls opaque, once and for good, with the reason: it never
 * guesses.
 *
 * Before the RAM start section is proven, unknown sections make it opaque too (QEMU from 8.0 may
 * put early sections first). A FULL section (0x04, device state) ends the RAM part in the normal
 * way: the rest of the stream is "device".
 *
 * Pure; one thread at a time.
 */
#ifndef WATARI_PROTOCOL_STREAM_CUTTER_H
#define WATARI_PROTOCOL_STREAM_CUTTER_H

#include "ram_blocks.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stream_phase {
    STREAM_HEADER, /* magic, version, configuration */
    STREAM_RAM,    /* setup and page records */
    STREAM_DEVICE, /* device state: opaque by nature */
    STREAM_OPAQUE, /* lost its place: opaque from here on, see stream_cutter_reason() */
};

struct stream_counts {
    uint64_t bytes; /* fed so far */
    uint64_t pages; /* page records, all kinds */
    uint64_t zero_pages;
    uint64_t page_bytes;  /* bytes of whole pages carried as data */
    uint64_t other_pages; /* XBZRLE or compressed by QEMU */
    uint64_t ram_bytes;   /* sum of the RAM blocks' used lengths, from the setup section */
};

enum stream_unit_kind {
    STREAM_OTHER, /* anything but a page, or bytes that are opaque */
    STREAM_WHOLE_PAGE,
    STREAM_ZERO_PAGE,    /* the record says that the page is zero */
    STREAM_ENCODED_PAGE, /* by QEMU: XBZRLE or deflate */
};

/* What stands between two places at which the stream could be cut: a record, a field, or, where it
 * is opaque, any number of bytes. */
struct stream_unit {
    bool is_whole; /* its last byte was taken; before, nothing else here counts */
    enum stream_unit_kind kind;
    /* Of a page: */
    bool names_block; /* else it is of the same block as the page before it */
    size_t block;     /* index in stream_cutter_blocks() */
    uint64_t page;    /* number within the block */
};
/* No unit that ends before the stream is opaque is longer, for pages of PAGE_SIZE: a record's head,
 * and a page that deflate has made longer. */
#define STREAM_UNIT_MAX(page_size) ((page_size) + (page_size) / 1000u + 512u)

struct stream_cutter;

/* NULL when there is no memory. PAGE_SIZE: the guest's target page size in bytes, 4096 on x86. */
struct stream_cutter *stream_cutter_new(uint32_t page_size);
void stream_cutter_free(struct stream_cutter *cutter);

/* Takes the next bytes of the stream, of SIZE (at least 1) at most so many that no more than one
 * unit ends, and returns how many. A whole page's bytes are the last of its unit. */
size_t stream_cutter_take(struct stream_cutter *cutter, const uint8_t *bytes, size_t size,
                          struct stream_unit *unit);
/* Takes all SIZE bytes, for those who only want the counts. */
void stream_cutter_feed(struct stream_cutter *cutter, const uint8_t *bytes, size_t size);

enum stream_phase stream_cutter_phase(const struct stream_cutter *cutter);
const struct stream_counts *stream_cutter_counts(const struct stream_cutter *cutter);
/* The RAM blocks named so far; all of them before the first page comes. */
const struct ram_blocks *stream_cutter_blocks(const struct stream_cutter *cutter);
/* Why it went opaque, with the stream offset; "" while it has not. */
const char *stream_cutter_reason(const struct stream_cutter *cutter);

#endif

/*
 * What a segment says of pages in it (SPEC.md §5.2): which the destination keeps in its page cache,
 * and which come as the difference from what it has there. The list stands behind the stream's
 * bytes in the segment's data, in the order in which it is to be done.
 *
 * Each operation is 9 bytes: u8 kind · u32 offset · u32 slot.
 *
 * Pure; any thread.
 */
#ifndef WATARI_PROTOCOL_PAGE_OPERATION_H
#define WATARI_PROTOCOL_PAGE_OPERATION_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_OPERATION_SIZE 9u
/* No segment has more whole pages: 1 MiB of records of 4104 bytes. */
#define PAGE_OPERATIONS_MAX 256u

enum page_operation_kind {
    PAGE_STORE = 1,      /* the page is put into the slot */
    PAGE_DIFFERENCE = 2, /* its bytes are the page XOR the slot; then it is put into the slot */
};

struct page_operation {
    enum page_operation_kind kind;
    uint32_t offset; /* of the page's first byte in the segment's stream bytes */
    uint32_t slot;
};

void page_operation_encode(const struct page_operation *operation,
                           uint8_t out[PAGE_OPERATION_SIZE]);
/* False when there is no such kind. */
bool page_operation_decode(const uint8_t in[PAGE_OPERATION_SIZE], struct page_operation *out);

#endif

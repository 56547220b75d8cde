/*
 * A page cache: slots that hold a guest page each, the same at the source and at the destination,
 * because both do the same operations (page_operation.h) in the same order. All slots begin as
 * zeroes. What goes into which slot the source decides, and says.
 *
 * Pure; one thread at a time.
 */
#ifndef WATARI_PROTOCOL_PAGE_CACHE_H
#define WATARI_PROTOCOL_PAGE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_CACHE_PAGE_SIZE 4096u

/* All zero is one without slots. */
struct page_cache {
    uint8_t *bytes; /* owned; memory is taken when a slot is first written */
    uint32_t slot_count;
};

/* How many slots BYTES bytes hold. */
uint32_t page_cache_slots(uint64_t bytes);

/* False when there is no memory; it is without slots then. */
bool page_cache_open(struct page_cache *cache, uint32_t slot_count);
void page_cache_close(struct page_cache *cache);

/* For the source. SLOT must exist, PAGE be of PAGE_CACHE_PAGE_SIZE bytes. */
void page_cache_store(struct page_cache *cache, uint32_t slot, const uint8_t *page);
/* How many of the 8-byte words of PAGE are as in SLOT. */
unsigned page_cache_equal_words(const struct page_cache *cache, uint32_t slot, const uint8_t *page);
/* PAGE becomes its difference from SLOT, SLOT becomes the page. */
void page_cache_subtract(struct page_cache *cache, uint32_t slot, uint8_t *page);

/* For the destination: does the COUNT operations at LIST to the SIZE bytes of a segment's stream,
 * which become what left the source's QEMU. NULL, or why no honest source sends that; then some of
 * them may have been done. */
const char *page_cache_obey(struct page_cache *cache, uint8_t *bytes, size_t size,
                            const uint8_t *list, uint32_t count);

#endif

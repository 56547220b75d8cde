#include "page_cache.h"

#include "page_operation.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Pages are worked on in pieces that the compiler turns into a few vector instructions. */
#define PIECE_WORDS 8u
#define PIECE_SIZE (PIECE_WORDS * sizeof(uint64_t))

uint32_t page_cache_slots(uint64_t bytes)
{
    uint64_t slots = bytes / PAGE_CACHE_PAGE_SIZE;

    /* UINT32_MAX names no slot anywhere. */
    return slots < UINT32_MAX ? (uint32_t)slots : UINT32_MAX - 1;
}

bool page_cache_open(struct page_cache *cache, uint32_t slot_count)
{
    *cache = (struct page_cache){.slot_count = slot_count};
    if (slot_count == 0) {
        return true;
    }
    cache->bytes = calloc(slot_count, PAGE_CACHE_PAGE_SIZE);
    if (cache->bytes == NULL) {
        cache->slot_count = 0;
        return false;
    }
    return true;
}

void page_cache_close(struct page_cache *cache)
{
    free(cache->bytes);
    memset(cache, 0, sizeof *cache);
}

static uint8_t *slot_at(const struct page_cache *cache, uint32_t slot)
{
    assert(slot < cache->slot_count);
    return cache->bytes + (size_t)slot * PAGE_CACHE_PAGE_SIZE;
}

void page_cache_store(struct page_cache *cache, uint32_t slot, const uint8_t *page)
{
    memcpy(slot_at(cache, slot), page, PAGE_CACHE_PAGE_SIZE);
}

unsigned page_cache_equal_words(const struct page_cache *cache, uint32_t slot, const uint8_t *page)
{
    const uint8_t *old = slot_at(cache, slot);
    unsigned equal = 0;

    for (size_t at = 0; at < PAGE_CACHE_PAGE_SIZE; at += PIECE_SIZE) {
        uint64_t now[PIECE_WORDS], then[PIECE_WORDS];

        memcpy(now, page + at, PIECE_SIZE);
        memcpy(then, old + at, PIECE_SIZE);
        for (size_t i = 0; i < PIECE_WORDS; i++) {
            equal += now[i] == then[i];
        }
    }
    return equal;
}

void page_cache_subtract(struct page_cache *cache, uint32_t slot, uint8_t *page)
{
    uint8_t *old = slot_at(cache, slot);

    for (size_t at = 0; at < PAGE_CACHE_PAGE_SIZE; at += PIECE_SIZE) {
        uint64_t now[PIECE_WORDS], then[PIECE_WORDS];

        memcpy(now, page + at, PIECE_SIZE);
        memcpy(then, old + at, PIECE_SIZE);
        memcpy(old + at, now, PIECE_SIZE);
        for (size_t i = 0; i < PIECE_WORDS; i++) {
            then[i] ^= now[i];
        }
        memcpy(page + at, then, PIECE_SIZE);
    }
}

/* The other way: PAGE is the difference; it, and SLOT, become the page. */
static void add(struct page_cache *cache, uint32_t slot, uint8_t *page)
{
    uint8_t *old = slot_at(cache, slot);

    for (size_t at = 0; at < PAGE_CACHE_PAGE_SIZE; at += PIECE_SIZE) {
        uint64_t change[PIECE_WORDS], then[PIECE_WORDS];

        memcpy(change, page + at, PIECE_SIZE);
        memcpy(then, old + at, PIECE_SIZE);
        for (size_t i = 0; i < PIECE_WORDS; i++) {
            then[i] ^= change[i];
        }
        memcpy(page + at, then, PIECE_SIZE);
        memcpy(old + at, then, PIECE_SIZE);
    }
}

const char *page_cache_obey(struct page_cache *cache, uint8_t *bytes, size_t size,
                            const uint8_t *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct page_operation operation;

        if (!page_operation_decode(list + i * PAGE_OPERATION_SIZE, &operation)) {
            return "a page operation of unknown kind";
        }
        if (operation.slot >= cache->slot_count) {
            return "a page operation on a slot that is not there";
        }
        if (size < PAGE_CACHE_PAGE_SIZE || operation.offset > size - PAGE_CACHE_PAGE_SIZE) {
            return "a page operation on bytes that are not there";
        }
        if (operation.kind == PAGE_DIFFERENCE) {
            add(cache, operation.slot, bytes + operation.offset);
        } else {
            page_cache_store(cache, operation.slot, bytes + operation.offset);
        }
    }
    return NULL;
}

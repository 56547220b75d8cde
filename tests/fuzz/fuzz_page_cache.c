/*
 * Segments of a source that lies, with their operations on pages. The cache must stay within its
 * slots and the segment; what is not refused must change nothing but the pages named.
 *
 * The input is segments one after the other: u8 how many operations (0 to 7) · u16 how many bytes,
 * less one, up to 3 pages · the operations · a byte that the segment is filled with.
 */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/page_cache.h"
#include "protocol/page_operation.h"

#define SLOTS 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of exactly SIZE bytes on the heap, so that a step beyond it is seen. */
static uint8_t *segment_make(uint8_t fill, size_t size)
{
    uint8_t *bytes = malloc(size);
    assert(bytes != NULL);
    memset(bytes, fill, size);
    return bytes;
}

/* Every byte that is not FILL any more must be in a page that a difference names. */
static void change_check(const uint8_t *bytes, size_t size, uint8_t fill, const uint8_t *list,
                         uint32_t count)
{
    for (size_t at = 0; at < size; at++) {
        bool may = bytes[at] == fill;
        for (uint32_t i = 0; i < count && !may; i++) {
            struct page_operation operation;
            assert(page_operation_decode(list + i * PAGE_OPERATION_SIZE, &operation));
            may = operation.kind == PAGE_DIFFERENCE && at >= operation.offset &&
                  at - operation.offset < PAGE_CACHE_PAGE_SIZE;
        }
        assert(may);
    }
}

/* Takes one segment from *DATA; false when it was refused, or there is none. */
static bool segment_take(struct page_cache *cache, const uint8_t **data, size_t *size)
{
    if (*size < 3) {
        return false;
    }
    uint32_t count = (*data)[0] & 7u;
    size_t length = 1u + ((size_t)(*data)[1] << 8 | (*data)[2]) % (3 * PAGE_CACHE_PAGE_SIZE);
    size_t list_size = count * PAGE_OPERATION_SIZE;
    if (*size < 3 + list_size + 1) {
        return false;
    }
    const uint8_t *list = *data + 3;
    uint8_t fill = list[list_size];
    uint8_t *bytes = segment_make(fill, length);
    bool is_good = page_cache_obey(cache, bytes, length, list, count) == NULL;
    if (is_good) {
        change_check(bytes, length, fill, list, count);
    }
    free(bytes);
    *data += 3 + list_size + 1;
    *size -= 3 + list_size + 1;
    return is_good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct page_cache cache;
    bool is_open = page_cache_open(&cache, SLOTS);
    assert(is_open);
    while (segment_take(&cache, &data, &size)) {
        continue;
    }
    page_cache_close(&cache);
    return 0;
}

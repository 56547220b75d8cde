#include "extent_map.h"

#include <stdlib.h>
#include <string.h>

/* QEMU docs/interop/nbd.txt: bit 0 of a qemu:dirty-bitmap context. */
#define BITMAP_DIRTY 1u

void extent_map_free(struct extent_map *map)
{
    free(map->extents);
    *map = (struct extent_map){0};
}

static bool make_room(struct extent_map *map)
{
    struct extent *larger;
    size_t capacity;

    if (map->end < map->capacity) {
        return true;
    }
    if (map->first > map->capacity / 2) {
        memmove(map->extents, map->extents + map->first,
                (map->end - map->first) * sizeof map->extents[0]);
        map->end -= map->first;
        map->first = 0;
        return true;
    }
    capacity = map->capacity == 0 ? 256 : map->capacity * 2;
    larger = reallocarray(map->extents, capacity, sizeof larger[0]);
    if (larger == NULL) {
        return false;
    }
    map->extents = larger;
    map->capacity = capacity;
    return true;
}

static bool append(struct extent_map *map, uint64_t offset, uint64_t length, bool zero)
{
    struct extent *last = map->end > map->first ? &map->extents[map->end - 1] : NULL;

    if (last != NULL && last->zero == zero && last->offset + last->length == offset) {
        last->length += length;
    } else {
        if (!make_room(map)) {
            return false;
        }
        map->extents[map->end++] = (struct extent){offset, length, zero};
    }
    if (zero) {
        map->zero_bytes += length;
    } else {
        map->data_bytes += length;
    }
    return true;
}

/* Walks one context's answer. */
struct cursor {
    const struct block_status *status;
    size_t index;
    uint64_t left; /* of entry INDEX */
};

static struct cursor cursor_at_start(const struct block_status *status)
{
    return (struct cursor){status, 0, status->count > 0 ? status->entries[0] : 0};
}

static uint32_t cursor_flags(const struct cursor *cursor)
{
    return cursor->status->entries[2 * cursor->index + 1];
}

static void cursor_advance(struct cursor *cursor, uint64_t bytes)
{
    cursor->left -= bytes;
    if (cursor->left > 0 || cursor->index + 1 == cursor->status->count) {
        return;
    }
    cursor->index++;
    cursor->left = cursor->status->entries[2 * cursor->index];
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

bool extent_map_add(struct extent_map *map, uint64_t offset, uint64_t limit,
                    const struct block_status *allocation, const struct block_status *dirty,
                    uint64_t *covered)
{
    struct cursor a = cursor_at_start(allocation);
    struct cursor d = {0};

    if (dirty != NULL) {
        d = cursor_at_start(dirty);
    }
    *covered = 0;
    while (*covered < limit) {
        uint64_t step = smaller(a.left, limit - *covered);

        if (dirty != NULL) {
            step = smaller(step, d.left);
        }
        if (step == 0) {
            break;
        }
        if (dirty == NULL || (cursor_flags(&d) & BITMAP_DIRTY) != 0) {
            if (!append(map, offset + *covered, step,
                        (cursor_flags(&a) & BLOCK_STATUS_ZERO) != 0)) {
                return false;
            }
        }
        cursor_advance(&a, step);
        if (dirty != NULL) {
            cursor_advance(&d, step);
        }
        *covered += step;
    }
    return true;
}

bool extent_map_take(struct extent_map *map, uint64_t data_max, uint64_t zero_max,
                     struct extent *out)
{
    struct extent *next = &map->extents[map->first];
    uint64_t length;

    if (map->first == map->end) {
        return false;
    }
    if (next->zero) {
        length = smaller(next->length, zero_max);
    } else {
        length = smaller(next->length, data_max - next->offset % data_max);
    }
    *out = (struct extent){next->offset, length, next->zero};
    if (next->zero) {
        map->zero_bytes -= length;
    } else {
        map->data_bytes -= length;
    }
    next->offset += length;
    next->length -= length;
    if (next->length == 0) {
        map->first++;
    }
    if (map->first == map->end) {
        map->first = map->end = 0;
    }
    return true;
}

bool bytes_are_zero(const uint8_t *bytes, size_t size)
{
    /* Once the first 16 are known to be zero, comparing the bytes with themselves 16 further on
     * carries that to the end. */
    static const uint8_t zeroes[16];

    if (size <= sizeof zeroes) {
        return memcmp(bytes, zeroes, size) == 0;
    }
    return memcmp(bytes, zeroes, sizeof zeroes) == 0 &&
           memcmp(bytes, bytes + sizeof zeroes, size - sizeof zeroes) == 0;
}

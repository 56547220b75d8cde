/*
 * The map of what a pass has still to copy: runs of data and runs of zeroes, made from the block
 * status that an NBD server gave for base:allocation and, in passes after the first, for a dirty
 * bitmap.
 *
 * Pure; one thread at a time.
 */
#ifndef WATARI_MOVER_EXTENT_MAP_H
#define WATARI_MOVER_EXTENT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct extent {
    uint64_t offset, length; /* bytes on the disk */
    bool zero;
};

/* All zero is an empty map. */
struct extent_map {
    struct extent *extents;
    size_t first, end, capacity;     /* those from FIRST to END-1 are still to do */
    uint64_t data_bytes, zero_bytes; /* still to do */
};

/* NBD protocol, "Metadata querying": base:allocation has bit 0 for a hole and bit 1 for "reads as
 * zero". Only the latter tells what a guest reads there: a hole without it is read as data is. */
#define BLOCK_STATUS_ZERO 2u

/* One context's answer: COUNT pairs of length and flags, from the offset asked for on. */
struct block_status {
    uint32_t *entries;
    size_t count;
};

void extent_map_free(struct extent_map *map);

/*
 * Adds what ALLOCATION (base:allocation) and DIRTY (a dirty bitmap; NULL: all is to be copied) say
 * of the LIMIT bytes from OFFSET on, and returns in *covered how many bytes both spoke of: the
 * place to ask about next. A server may speak of more than it was asked, or of less. False when
 * there is no memory.
 */
bool extent_map_add(struct extent_map *map, uint64_t offset, uint64_t limit,
                    const struct block_status *allocation, const struct block_status *dirty,
                    uint64_t *covered);

/*
 * Takes the next piece. Data pieces end at multiples of DATA_MAX, so that requests fall on the
 * disk's own blocks; zero pieces are as long as ZERO_MAX allows. False when the map is empty.
 */
bool extent_map_take(struct extent_map *map, uint64_t data_max, uint64_t zero_max,
                     struct extent *out);

static inline size_t extent_map_count(const struct extent_map *map)
{
    return map->end - map->first;
}

/* Whether the SIZE bytes (at least 1) are all zero. Ends at the first that is not. */
bool bytes_are_zero(const uint8_t *bytes, size_t size);

#endif

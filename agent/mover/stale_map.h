/*
 * Which parts of a disk have to be compared (again): one bit for each STALE_CHUNK bytes. All of a
 * disk is stale at first; a part is so again when it is sent once more, and no longer when its
 * comparison begins, so that what is sent meanwhile makes it stale again.
 *
 * Pure; one thread at a time.
 */
#ifndef WATARI_MOVER_STALE_MAP_H
#define WATARI_MOVER_STALE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Small enough that a guest's scattered writes do not make the whole disk stale, large enough for
 * 2 MiB of bits to do for 1 TiB. */
#define STALE_CHUNK (64u << 10)

struct stale_map {
    uint64_t size;   /* of the disk, bytes */
    uint64_t chunks; /* the last may be a short one */
    uint64_t stale;  /* how many of them are */
    uint64_t *words; /* bit N % 64 of word N / 64 */
};

/* All of SIZE bytes is stale. False when there is no memory. */
bool stale_map_init(struct stale_map *map, uint64_t size);
void stale_map_free(struct stale_map *map);

/* The chunks that hold any of LENGTH bytes from OFFSET on, which lie on the disk, are stale. */
void stale_map_mark(struct stale_map *map, uint64_t offset, uint64_t length);

/* Whether any of the LENGTH bytes from OFFSET on, which lie on the disk, is stale. */
bool stale_map_holds(const struct stale_map *map, uint64_t offset, uint64_t length);

/* Takes the first run of stale chunks at or after byte FROM, LENGTH_MAX bytes of it at most (a
 * multiple of the chunk): they are not stale any more. False when there is none. */
bool stale_map_take(struct stale_map *map, uint64_t from, uint32_t length_max, uint64_t *offset,
                    uint32_t *length);

/* How much is stale, in bytes, whole chunks counted. */
static inline uint64_t stale_map_bytes(const struct stale_map *map)
{
    return map->stale * STALE_CHUNK;
}

#endif

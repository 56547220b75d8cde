#include "stale_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64u

static uint64_t bit_of(uint64_t chunk)
{
    return (uint64_t)1 << (chunk % WORD_BITS);
}

static bool is_stale(const struct stale_map *map, uint64_t chunk)
{
    return (map->words[chunk / WORD_BITS] & bit_of(chunk)) != 0;
}

static void set_stale(struct stale_map *map, uint64_t chunk)
{
    if (!is_stale(map, chunk)) {
        map->words[chunk / WORD_BITS] |= bit_of(chunk);
        map->stale++;
    }
}

bool stale_map_init(struct stale_map *map, uint64_t size)
{
    uint64_t chunks = size / STALE_CHUNK + (size % STALE_CHUNK != 0);
    uint64_t words = chunks / WORD_BITS + 1;

    *map = (struct stale_map){.size = size, .chunks = chunks};
    map->words = calloc((size_t)words, sizeof map->words[0]);
    if (map->words == NULL) {
        return false;
    }
    for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        set_stale(map, chunk);
    }
    return true;
}

void stale_map_free(struct stale_map *map)
{
    free(map->words);
    *map = (struct stale_map){0};
}

void stale_map_mark(struct stale_map *map, uint64_t offset, uint64_t length)
{
    assert(length > 0 && offset < map->size && length <= map->size - offset);
    for (uint64_t chunk = offset / STALE_CHUNK; chunk <= (offset + length - 1) / STALE_CHUNK;
         chunk++) {
        set_stale(map, chunk);
    }
}

/* The first stale chunk from CHUNK on; map->chunks when there is none. */
static uint64_t find(const struct stale_map *map, uint64_t chunk)
{
    while (chunk < map->chunks && !is_stale(map, chunk)) {
        if (map->words[chunk / WORD_BITS] == 0) {
            chunk += WORD_BITS - chunk % WORD_BITS;
        } else {
            chunk++;
        }
    }
    return chunk < map->chunks ? chunk : map->chunks;
}

bool stale_map_holds(const struct stale_map *map, uint64_t offset, uint64_t length)
{
    assert(length > 0 && offset < map->size && length <= map->size - offset);
    return find(map, offset / STALE_CHUNK) <= (offset + length - 1) / STALE_CHUNK;
}

bool stale_map_take(struct stale_map *map, uint64_t from, uint32_t length_max, uint64_t *offset,
                    uint32_t *length)
{
    uint64_t first = find(map, from / STALE_CHUNK + (from % STALE_CHUNK != 0));
    uint64_t end = first, last_byte;

    assert(length_max >= STALE_CHUNK && length_max % STALE_CHUNK == 0);
    while (end < map->chunks && end - first < length_max / STALE_CHUNK && is_stale(map, end)) {
        map->words[end / WORD_BITS] &= ~bit_of(end);
        map->stale--;
        end++;
    }
    if (end == first) {
        return false;
    }
    last_byte = end == map->chunks ? map->size : end * STALE_CHUNK;
    *offset = first * STALE_CHUNK;
    *length = (uint32_t)(last_byte - *offset);
    return true;
}

/*
 * See ram_blocks.h. A plain array: QEMU has a handful of blocks, and names one only when it goes on
 * to another.
 */
#include "ram_blocks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int grow(struct ram_blocks *blocks)
{
    size_t space = blocks->space == 0 ? 16 : blocks->space * 2;
    struct ram_block *list = reallocarray(blocks->list, space, sizeof *list);
    if (list == NULL) {
        return -ENOMEM;
    }
    blocks->list = list;
    blocks->space = space;
    return 0;
}

int ram_blocks_add(struct ram_blocks *blocks, const uint8_t *name, size_t name_length,
                   uint64_t length)
{
    assert(name_length <= RAM_BLOCK_NAME_MAX);
    if (ram_blocks_find(blocks, name, name_length) != NULL) {
        return -EEXIST;
    }
    if (blocks->count == RAM_BLOCK_COUNT_MAX) {
        return -ENOSPC;
    }
    if (blocks->count == blocks->space) {
        int failure = grow(blocks);
        if (failure != 0) {
            return failure;
        }
    }
    struct ram_block *block = &blocks->list[blocks->count++];
    block->length = length;
    block->name_length = (uint8_t)name_length;
    memcpy(block->name, name, name_length);
    return 0;
}

const struct ram_block *ram_blocks_find(const struct ram_blocks *blocks, const uint8_t *name,
                                        size_t name_length)
{
    for (size_t i = 0; i < blocks->count; i++) {
        const struct ram_block *block = &blocks->list[i];
        if (block->name_length == name_length && memcmp(block->name, name, name_length) == 0) {
            return block;
        }
    }
    return NULL;
}

void ram_blocks_free(struct ram_blocks *blocks)
{
    free(blocks->list);
    memset(blocks, 0, sizeof *blocks);
}

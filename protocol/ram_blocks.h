/*
 * The RAM blocks that a QEMU stream names in its setup section, for the stream cutter: what may be
 * the block of a page, and how long it is. Filled once, then looked up. Pure; one thread at a time.
 */
#ifndef WATARI_PROTOCOL_RAM_BLOCKS_H
#define WATARI_PROTOCOL_RAM_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#define RAM_BLOCK_NAME_MAX 255u
/* Far above what QEMU makes: a block for each memory device, ROM and video memory. Bounds what a
 * hostile stream can allocate. */
#define RAM_BLOCK_COUNT_MAX 4096u

struct ram_block {
    uint64_t length; /* bytes */
    uint8_t name_length;
    uint8_t name[RAM_BLOCK_NAME_MAX];
};

/* All zero: an empty list. */
struct ram_blocks {
    struct ram_block *list; /* owned */
    size_t count, space;
};

/* 0; -EEXIST when the name is there already, -ENOSPC when the list is full, -ENOMEM. */
int ram_blocks_add(struct ram_blocks *blocks, const uint8_t *name, size_t name_length,
                   uint64_t length);
/* Borrowed, valid until the next add; NULL when there is none of that name. */
const struct ram_block *ram_blocks_find(const struct ram_blocks *blocks, const uint8_t *name,
                                        size_t name_length);
void ram_blocks_free(struct ram_blocks *blocks);

#endif

/*
 * CRC-32 as in zlib, which the host's Python has too. Eight bytes a step, for the guest runs
 * under emulation. Pure; any thread.
 */
#ifndef WATARI_GUEST_CRC32_H
#define WATARI_GUEST_CRC32_H

#include <stddef.h>
#include <stdint.h>

struct crc32_tables {
    uint32_t step[8][256];
};

void crc32_tables_init(struct crc32_tables *tables);

/* The CRC of what came before and SIZE bytes of DATA; begin with 0. */
uint32_t crc32_extend(const struct crc32_tables *tables, uint32_t crc, const void *data,
                      size_t size);

#endif

/*
 * CRC-32: see crc32.h.
 */
#include "crc32.h"

#include <string.h>

#define POLYNOMIAL 0xedb88320u /* bits reversed */

void crc32_tables_init(struct crc32_tables *tables)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;

        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        tables->step[0][byte] = crc;
    }
    for (int zeroes = 1; zeroes < 8; zeroes++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t before = tables->step[zeroes - 1][byte];

            tables->step[zeroes][byte] = before >> 8 ^ tables->step[0][before & 255];
        }
    }
}

uint32_t crc32_extend(const struct crc32_tables *tables, uint32_t crc, const void *data,
                      size_t size)
{
    const uint8_t *in = data;

    crc = ~crc;
    for (; size >= 8; size -= 8, in += 8) {
        uint64_t word;
        uint32_t next = 0;

        memcpy(&word, in, sizeof word);
        word ^= crc;
        for (int i = 0; i < 8; i++)
            next ^= tables->step[7 - i][word >> 8 * i & 255];
        crc = next;
    }
    for (; size > 0; size--, in++)
        crc = crc >> 8 ^ tables->step[0][(crc ^ *in) & 255];
    return ~crc;
}

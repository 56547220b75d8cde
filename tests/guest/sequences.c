/*
 * The table of expected sequence numbers: see sequences.h.
 */
#include "sequences.h"

#include <stdlib.h>

static uint64_t share(size_t at, uint32_t value)
{
    uint64_t mixed = ((uint64_t)at << 32 ^ value) * UINT64_C(0x9e3779b97f4a7c15);

    mixed ^= mixed >> 29;
    return value == SEQUENCE_UNKNOWN ? 0 : mixed * UINT64_C(0xbf58476d1ce4e5b9);
}

bool sequences_init(struct sequences *table, size_t count)
{
    *table = (struct sequences){.count = count};
    table->values = calloc(count, sizeof *table->values);
    return table->values != NULL;
}

void sequences_free(struct sequences *table)
{
    free(table->values);
    *table = (struct sequences){0};
}

uint32_t sequences_get(const struct sequences *table, size_t at)
{
    return table->values[at];
}

void sequences_set(struct sequences *table, size_t at, uint32_t value)
{
    uint32_t before = table->values[at];

    table->sum += share(at, value) - share(at, before);
    table->known += (size_t)(value != SEQUENCE_UNKNOWN) - (size_t)(before != SEQUENCE_UNKNOWN);
    table->values[at] = value;
}

uint32_t sequences_next(const struct sequences *table, size_t at)
{
    uint32_t now = table->values[at];

    return now < SEQUENCE_FIRST ? SEQUENCE_FIRST : now + 1;
}

bool sequences_intact(const struct sequences *table)
{
    uint64_t sum = 0;
    size_t known = 0;

    for (size_t i = 0; i < table->count; i++) {
        sum += share(i, table->values[i]);
        known += table->values[i] != SEQUENCE_UNKNOWN;
    }
    return sum == table->sum && known == table->known;
}

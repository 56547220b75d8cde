/*
 * The sequence number that each page or block is expected to carry. The table lies in guest
 * memory like everything else, so it has a checksum of its own, carried on with each change: a
 * page of the table that went stale together with the page it speaks of would otherwise pass for
 * good. Owned by one load and used under its lock; the host's unit test uses the same code.
 */
#ifndef WATARI_GUEST_SEQUENCES_H
#define WATARI_GUEST_SEQUENCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQUENCE_UNKNOWN 0 /* never written here: nothing is expected */
#define SEQUENCE_ZERO 1    /* discarded, and was seen to read as zeroes */
#define SEQUENCE_FIRST 2   /* of a pattern */

struct sequences {
    uint32_t *values;
    size_t count;
    size_t known; /* entries that are not SEQUENCE_UNKNOWN */
    uint64_t sum;
};

/* COUNT entries, all unknown. False when there is no memory for them. */
bool sequences_init(struct sequences *table, size_t count);
void sequences_free(struct sequences *table);

uint32_t sequences_get(const struct sequences *table, size_t at);
void sequences_set(struct sequences *table, size_t at, uint32_t value);

/* What the next write of that entry carries. */
uint32_t sequences_next(const struct sequences *table, size_t at);

/* Whether the table is still what was put into it. */
bool sequences_intact(const struct sequences *table);

#endif

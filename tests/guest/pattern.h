/*
 * What the guest writes into a page of its memory or a block of its disks, so that it can tell
 * later whether exactly that is still there. Pure functions over 4096 bytes that the caller
 * owns, any thread; the host's unit test uses the same code.
 *
 * A page begins with its place (whose page, which index), a sequence number that grows with each
 * write, and a checksum over all of it. The expected sequence number is kept by the caller
 * (sequences.h): without it a page of yesterday would pass.
 */
#ifndef WATARI_GUEST_PATTERN_H
#define WATARI_GUEST_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#define PATTERN_PAGE_SIZE 4096

/* What the content looks like to a compressor. */
enum pattern_kind {
    PATTERN_TEXT = 1,  /* words, all of them new with each write; shrinks to about a third */
    PATTERN_NOISE = 2, /* does not shrink */
    PATTERN_WORDS = 3, /* text of which each write changes a few machine words */
};

struct pattern_place {
    uint32_t owner; /* 0: memory; n: disk n - 1 */
    uint64_t index; /* page or block within it */
};

enum pattern_verdict {
    PATTERN_INTACT,
    PATTERN_ZERO,      /* nothing but zero bytes where a pattern was expected */
    PATTERN_FOREIGN,   /* no pattern at all */
    PATTERN_DAMAGED,   /* the checksum does not fit */
    PATTERN_MISPLACED, /* a good page of another place */
    PATTERN_STALE,     /* a good page of this place, but of another time */
};

/* What was found, for the message; the last three are only set when a pattern with a good
 * checksum was there. */
struct pattern_finding {
    enum pattern_verdict verdict;
    uint32_t sequence;
    struct pattern_place place;
};

/* KIND by its name on the command line ("text", "noise", "words"); false when there is none of
 * that name. */
bool pattern_kind_parse(const char *name, enum pattern_kind *kind);
const char *pattern_kind_name(enum pattern_kind kind);

/* Writes version SEQUENCE of the page at PLACE. PAGE holds either anything at all, or the
 * version before, which the caller has checked: PATTERN_WORDS then changes a few words of it,
 * and carries the checksum on instead of taking it anew, so that damage done between the check
 * and the write is not blessed. */
void pattern_write(void *page, struct pattern_place place, uint32_t sequence,
                   enum pattern_kind kind);

/* Is PAGE version SEQUENCE of PLACE? Tells what it is instead otherwise. */
struct pattern_finding pattern_check(const void *page, struct pattern_place place,
                                     uint32_t sequence);

bool pattern_is_zero(const void *page);

/* The words of an operator's message: "is all zero", "carries seq 3 of page 17 of memory", ... */
void pattern_describe(const struct pattern_finding *finding, char *text, unsigned long size);

#endif

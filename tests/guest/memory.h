/*
 * The load on the guest's memory: so many pages, rewritten one after the other at a set rate,
 * each carrying a pattern that can be verified. memory_run is the body of a thread of its own;
 * the console's thread calls everything else. The lock is held for one slice of writing, or for
 * a whole verification.
 */
#ifndef WATARI_GUEST_MEMORY_H
#define WATARI_GUEST_MEMORY_H

#include "fault.h"
#include "pattern.h"
#include "sequences.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memory_load {
    pthread_mutex_t lock;
    uint8_t *pages;
    struct sequences expected;
    size_t next; /* page to be rewritten next */
    enum pattern_kind kind;
    uint32_t mib_per_second;
    bool going;
    uint64_t written; /* pages, since the start, the first fill not counted */
    struct fault fault;
};

/* Takes MIB of memory and fills all of it once. False when there is not so much. */
bool memory_init(struct memory_load *load, size_t mib, enum pattern_kind kind,
                 uint32_t mib_per_second);

/* Thread body; never returns. */
void *memory_run(void *load);

void memory_set_rate(struct memory_load *load, enum pattern_kind kind, uint32_t mib_per_second);
void memory_set_going(struct memory_load *load, bool going);
uint64_t memory_written(struct memory_load *load);

/* Reads every page. Fills in the first fault, if there was one now or since the start, and the
 * number of pages. */
void memory_verify(struct memory_load *load, struct fault *fault, size_t *pages);

#endif

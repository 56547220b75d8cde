/*
 * Turns a rate into work to do now: called every few milliseconds by the one thread that owns
 * it, it answers how many units are due. What a busy machine could not do in time is forgotten
 * after MAX_BACKLOG_NS, or a load would run wild after each stall.
 */
#ifndef WATARI_GUEST_PACE_H
#define WATARI_GUEST_PACE_H

#include <stdint.h>
#include <time.h>

#define PACE_SECOND_NS UINT64_C(1000000000)
#define PACE_MAX_BACKLOG_NS (PACE_SECOND_NS / 10)
#define PACE_STEP_NS (PACE_SECOND_NS / 200)

struct pace {
    uint64_t last_ns;
    uint64_t carried; /* unit-nanoseconds not yet worth a unit */
};

static inline uint64_t pace_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * PACE_SECOND_NS + (uint64_t)now.tv_nsec;
}

static inline uint64_t pace_due(struct pace *pace, uint64_t units_per_second)
{
    uint64_t now = pace_now();
    uint64_t passed = now - pace->last_ns;
    uint64_t due;

    if (passed > PACE_MAX_BACKLOG_NS)
        passed = PACE_MAX_BACKLOG_NS;
    pace->last_ns = now;
    pace->carried += passed * units_per_second;
    due = pace->carried / PACE_SECOND_NS;
    pace->carried %= PACE_SECOND_NS;
    return due;
}

static inline void pace_sleep(void)
{
    struct timespec step = {.tv_nsec = (long)PACE_STEP_NS};

    nanosleep(&step, NULL);
}

#endif

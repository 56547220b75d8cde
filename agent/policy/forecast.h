/*
 * How long a pause would take that began now: what is left of memory and disks over what the way has carried lately, and what a pause costs
 * besides. Everything is a measure of this migration, none is the best that was ever seen: a pause longer than was said is worse than one
 * that comes a round later.
 *
 *   forecast_init   once, before the first sample
 *   forecast_note   each sample, in the order of time
 *   forecast_pause, forecast_total   as of the last sample
 *
 * No I/O, no clock: all times come with the samples.
 */
#ifndef WATARI_POLICY_FORECAST_H
#define WATARI_POLICY_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

/* What cannot be said: some rate is not known yet, or it would take 49 days. */
#define FORECAST_UNKNOWN UINT32_MAX
/* How long QEMU may take to answer a command, where that was not measured. */
#define FORECAST_ANSWER_NS UINT64_C(10000000)

struct convergence_sample {
    uint64_t now_ms;
    uint64_t elapsed_ms;  /* since the migration began */
    uint64_t round;       /* QEMU's dirty-sync-count */
    uint64_t memory_left; /* bytes QEMU knows to be dirty and has not sent */
    uint64_t
        memory_dirty_rate; /* bytes/s that became dirty, as QEMU counts over a second or more; 0: not known yet */
    uint64_t in_flight;    /* bytes of memory that QEMU has sent and the destination has not */
    uint32_t in_flight_ms; /* how long such took lately; 0: not known */
    uint64_t memory_rate;  /* bytes/s of memory when it has the link for itself; 0: not known yet */
    uint64_t
        memory_rate_least; /* the same for memory that shrinks as badly as any that was seen lately; 0: as MEMORY_RATE */
    uint64_t disk_left; /* dirty bytes of all disks */
    uint64_t disk_rate; /* as memory_rate, of disk data */
    uint32_t pass_ms;   /* what a disk pass costs besides its data */
    uint32_t
        fixed_ms; /* what a pause costs besides data: flushes, syncs, round trips, device state */
    bool pass_running;     /* a disk pass is under way */
    uint64_t pass_left;    /* bytes of it that are not there yet: they are not in DISK_LEFT */
    uint32_t cpu_throttle; /* per cent, in force */
};

struct forecast {
    struct convergence_sample last;
    uint64_t round_started_ms;
    bool round_seen_whole;         /* this round is seen from its beginning */
    double round_ms, round_dirty;  /* the last whole round: how long, and the bytes it left dirty */
    double longest_ms, most_dirty; /* of all whole rounds */
};

void forecast_init(struct forecast *forecast);
void forecast_note(struct forecast *forecast, const struct convergence_sample *sample);
/*
 * Bytes that became dirty in the MS since QEMU last looked. A part of a round leaves its share of what the round left when every page is
 * written once, and all of it when a few are written all the time: MOST is that, and the other one is between the two.
 */
double forecast_dirty_most(const struct forecast *forecast, double ms);
double forecast_dirty(const struct forecast *forecast, double ms);
/* Milliseconds of a pause begun now, or FORECAST_UNKNOWN: the likely one, and the one with the most that may have become dirty, and
 * does not shrink. */
uint32_t forecast_pause(const struct forecast *forecast);
uint32_t forecast_longest_pause(const struct forecast *forecast);
/* Milliseconds for the data alone of a pause that has begun already, after QEMU's last look. */
uint32_t forecast_data(const struct forecast *forecast);
/* Milliseconds from the migration's begin to its end, if rounds go on until a pause of at most LIMIT_MS is left; FORECAST_UNKNOWN also when
 * they would not get there. */
uint32_t forecast_total(const struct forecast *forecast, uint32_t limit_ms);
/* What a pause costs besides data that is measured elsewhere: QMP, saving and loading device state, and three syncs of a journal (LOADED there,
 * COMMITTED here, COMMITTED there), one and a half round trips, and how long QEMU takes to answer, given in nanoseconds. */
uint32_t forecast_fixed_ms(uint64_t sync_ns, uint64_t round_trip_ns, uint64_t answer_ns);
/* Bytes/s, the larger of what QEMU counts and what the last whole round showed. */
double forecast_dirty_rate(const struct forecast *forecast);

#endif

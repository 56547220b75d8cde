/*
 * When to switch over: a pure controller over samples. In this version `auto` means `live`; it throttles nothing. Live switches over when
 * what is left fits the downtime, and gives up when rounds do not shrink; quick switches over after one live round.
 *
 * No I/O, no clock: all times come with the samples.
 */
#ifndef WATARI_POLICY_CONVERGENCE_H
#define WATARI_POLICY_CONVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

#define CONVERGENCE_REASON_SIZE 256
/* So many rounds without a new smallest remainder, and live gives up. */
#define CONVERGENCE_PATIENCE_ROUNDS 30

struct convergence_limits {
    bool quick;
    uint32_t max_downtime_ms;       /* live */
    uint32_t max_quick_downtime_ms; /* quick */
};

struct convergence_sample {
    uint64_t now_ms;
    uint64_t round;       /* QEMU's dirty-sync-count */
    uint64_t memory_left; /* bytes QEMU knows to be dirty and has not sent */
    uint64_t
        memory_dirty_rate; /* bytes/s that became dirty in the last whole round; 0 before the second */
    uint64_t
        memory_rate; /* bytes/s of guest memory that leave, compression included; 0: not known yet */
    uint64_t disk_left; /* dirty bytes of all disks */
    uint64_t disk_rate; /* bytes/s of disk data that were acknowledged; 0: not known yet */
    uint32_t
        fixed_ms; /* what a pause costs besides data: flushes, syncs, round trips, device state */
    bool pass_running; /* a disk pass is under way: its data is not "left" but not there either */
};

enum convergence_verdict {
    CONVERGENCE_GO_ON,
    CONVERGENCE_SWITCH_OVER,
    CONVERGENCE_GIVE_UP,
};

struct convergence {
    struct convergence_limits limits;
    uint64_t round, round_started_ms;
    uint64_t smallest_left; /* smallest remainder at the start of a round */
    uint64_t smallest_round;
    uint64_t last_left;                   /* remainder at the start of this round */
    char reason[CONVERGENCE_REASON_SIZE]; /* of the last verdict that was not GO_ON, with figures */
    uint32_t predicted_downtime_ms;       /* as of the last sample; UINT32_MAX: not known */
    uint32_t fixed_ms;                    /* of the last sample */
};

void convergence_init(struct convergence *convergence, const struct convergence_limits *limits);
enum convergence_verdict convergence_step(struct convergence *convergence,
                                          const struct convergence_sample *sample);
/* A pause has begun that nobody decided: does the data that is left fit the limits? What a pause costs besides data it costs in any case. */
bool convergence_fits(const struct convergence *convergence);

#endif

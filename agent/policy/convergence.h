/*
 * When to switch over, and what to do when that does not come: a pure controller over samples. Every step says what to do next and, unless
 * that is to go on, why, in words with figures.
 *
 * auto and live climb a ladder, one rung at a time and never down:
 *
 *   go on            while each few rounds make the predicted pause shorter
 *   throttle disks   when what the guest writes to them is a good part of the pause: to 50, 75, 90, ... % less than it wrote
 *   throttle CPUs    by 20, 40, 60, ... %; QEMU takes it up when it next looks for dirty pages, and only more, never less
 *   fall back        auto only: the pause at once, if it fits max_quick_downtime_ms
 *   give up          with what was missed, by how much, and what would have been needed
 *
 * quick switches over after one live round. A rung that cannot help is passed over: no throttle shortens what a pause costs besides data.
 * A deadline decides for the fall-back as late as that still fits the time left, and gives up when it does not.
 *
 * No I/O, no clock: all times come with the samples.
 */
#ifndef WATARI_POLICY_CONVERGENCE_H
#define WATARI_POLICY_CONVERGENCE_H

#include "forecast.h"

#define CONVERGENCE_REASON_SIZE 512
/* So many rounds, and so long, without a shorter pause in sight, and the next rung is due. Near the end rounds take milliseconds. */
#define CONVERGENCE_PATIENCE_ROUNDS 4
#define CONVERGENCE_PATIENCE_MS 3000
/* Long rounds tell more. */
#define CONVERGENCE_LONG_ROUNDS 2
#define CONVERGENCE_LONG_ROUNDS_MS 10000
/* The same for a throttle to come into force: QEMU counts two rounds, of a second at least, first. */
#define CONVERGENCE_FORCE_ROUNDS 4
#define CONVERGENCE_FORCE_MS 10000
/* A throttle of the disks shows in a pass that began under it, and the one under way must end first. */
#define CONVERGENCE_SETTLING_PASSES 2
#define CONVERGENCE_SETTLING_MS 20000
/* Disk writes that take nearly all of the link, for so long, are throttled in the first round already. */
#define CONVERGENCE_STORM_MS 5000
/* So far into the second round it shows how well that shrinks which does become dirty; the first one shows all of memory. */
#define CONVERGENCE_SHOWN_MS 1500
/* For quick to find its moment, once it is due: the pause is shortest at some round's end. */
#define CONVERGENCE_QUICK_ROUNDS 2

enum convergence_mode { CONVERGENCE_AUTO, CONVERGENCE_LIVE, CONVERGENCE_QUICK };

struct convergence_limits {
    enum convergence_mode mode;
    uint32_t max_downtime_ms;       /* auto, live */
    uint32_t max_quick_downtime_ms; /* auto, quick */
    uint32_t deadline_ms;           /* for the whole migration; 0: none */
    uint32_t max_throttle;          /* per cent, 0 to 99: so much slower the guest may become */
    bool can_throttle_disks;        /* there is a disk without limits of its own */
    bool can_throttle_cpus;
};

enum convergence_verdict {
    CONVERGENCE_GO_ON,
    CONVERGENCE_WAIT,           /* it fits; only a disk pass must end first: begin no other */
    CONVERGENCE_THROTTLE_DISKS, /* all writes together to DISK_LIMIT bytes/s */
    CONVERGENCE_THROTTLE_CPUS,  /* by CPU_THROTTLE per cent */
    CONVERGENCE_SWITCH_OVER,
    CONVERGENCE_FALL_BACK, /* the pause at once, under max_quick_downtime_ms */
    CONVERGENCE_GIVE_UP,   /* MISSED_DEADLINE tells why, as REASON does */
};

struct convergence {
    struct convergence_limits limits;
    struct forecast forecast;
    uint32_t predicted_downtime_ms; /* as of the last sample, or FORECAST_UNKNOWN */
    uint32_t longest_downtime_ms;   /* which is what limits are for */
    uint32_t predicted_total_ms;    /* as of the end of the first round, or FORECAST_UNKNOWN */

    /* Progress: the shortest pause that was predicted, and since when there was none shorter. */
    uint64_t first_ms, first_left; /* of the first sample */
    uint64_t round;
    uint32_t round_best_ms, best_ms;
    uint64_t progress_round, progress_ms;

    /* The ladder. */
    uint32_t disk_throttle; /* per cent less than DISK_WRITE_RATE; 0: none */
    double disk_limit;      /* bytes/s */
    uint32_t disk_settling; /* passes that must end before it shows */
    uint32_t cpu_throttle;  /* asked for */
    bool cpu_in_force;
    bool quick_due; /* nothing else is left */
    uint64_t quick_round;

    /* What the guest writes to its disks. */
    bool pass_running;
    uint64_t disk_ms;                /* since when it is counted */
    uint64_t disk_first, disk_taken; /* what was dirty then, what passes have taken since */
    uint64_t disk_left;              /* of the last sample */
    uint64_t storm_ms;               /* since when they are a storm; 0: they are none */
    double disk_write_rate;          /* bytes/s, lately, of blocks that were clean */

    bool missed_deadline;
    char reason[CONVERGENCE_REASON_SIZE]; /* of the last verdict that was not to go on */
};

void convergence_init(struct convergence *convergence, const struct convergence_limits *limits);
enum convergence_verdict convergence_step(struct convergence *convergence,
                                          const struct convergence_sample *sample);
/* A pause has begun that nobody decided: does the data that is left fit? What a pause costs besides data it costs in any case. */
bool convergence_fits(const struct convergence *convergence, uint32_t limit_ms);
/* Before memory moves: whether DISK_LEFT bytes at DISK_RATE bytes/s (0: not known) can be through by the deadline; false with a reason. */
bool convergence_disks_in_time(struct convergence *convergence, uint64_t elapsed_ms,
                               uint64_t disk_left, uint64_t disk_rate);

#endif

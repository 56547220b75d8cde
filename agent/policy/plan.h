/*
 * What a migration would take, predicted before there is one (`watari plan`): from what was measured at the guest, its disks and the link,
 * how long live and quick would take, how long the guest would stand still, how much goes over the wire, how far that can be believed, and
 * which of them to choose.
 *
 * What decides is how much memory is dirty after a round, as a function of how long the round took. One rate does not tell it: a guest that
 * writes the same 32 MiB over and over leaves 32 MiB after one second as after ten. So it is measured over a few growing periods.
 *
 * No I/O, no clock; any thread.
 */
#ifndef WATARI_POLICY_PLAN_H
#define WATARI_POLICY_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_PERIODS_MAX 4
#define PLAN_REASON_SIZE 320

struct plan_measures {
    uint64_t memory_bytes;
    uint64_t
        first_round; /* bytes of it that are not zero, as far as known: what the first round carries */
    struct plan_dirty {
        uint32_t ms;           /* a period, */
        uint64_t bytes;        /* and what of memory was dirty at its end */
    } dirty[PLAN_PERIODS_MAX]; /* by growing periods */
    size_t dirty_count;        /* 0: not known */
    uint64_t disk_bytes;       /* allocated, of all disks */
    uint64_t disk_write_rate;  /* bytes/s */
    uint64_t link_rate;        /* bytes/s on the wire while memory goes; 0: not known */
    uint64_t disk_link_rate;   /* the same while disks go; 0: as LINK_RATE */
    bool link_given;           /* by the operator, not measured */
    uint32_t link_busy_ms;     /* so long the trial kept it busy while it was measured */
    /* Bytes on the wire for each byte; 0: not known, taken for 1. */
    double memory_ratio, disk_ratio;
    /* The same of that memory which shrank worst; 0: as MEMORY_RATIO. Pages that become dirty may be these: a trial cannot know. */
    double worst_ratio;
    uint32_t prepare_ms; /* until the first byte of a disk is read */
    uint32_t pass_ms;    /* what a disk pass costs besides its data */
    uint32_t fixed_ms;   /* what a pause costs besides data: syncs, round trips, device state */
};

enum plan_mode { PLAN_AUTO, PLAN_LIVE, PLAN_QUICK };

/* As convergence_limits. */
struct plan_limits {
    enum plan_mode mode;
    uint32_t max_downtime_ms, max_quick_downtime_ms;
    uint32_t deadline_ms;  /* 0: none */
    uint32_t max_throttle; /* per cent */
};

struct plan_prediction {
    bool is_known;        /* else nothing of it is */
    bool ends;            /* live: rounds get short enough for the pause that is allowed */
    uint32_t total_ms;    /* where it ends */
    uint32_t rounds;      /* of memory; where it does not end, those until that shows */
    uint32_t downtime_ms; /* where it does not end: the shortest there would be; UINT32_MAX: none */
    uint64_t wire_bytes;  /* where it ends */
    uint32_t longest_ms;  /* quick: the pause when what is dirty shrinks as badly as anything */
};

enum plan_confidence { PLAN_NO_CONFIDENCE, PLAN_LOW, PLAN_FAIR, PLAN_GOOD };

enum plan_advice {
    PLAN_ADVISE_NOTHING,      /* too little is known */
    PLAN_ADVISE_LIVE,         /* with the limits that were given */
    PLAN_ADVISE_TRY,          /* auto: live may do, and quick is within its limit if it does not */
    PLAN_ADVISE_THROTTLED,    /* the same, and auto will slow the guest down on the way */
    PLAN_ADVISE_QUICK,        /* within the limit that was given */
    PLAN_ADVISE_LONGER_PAUSE, /* only a longer pause than was allowed does it */
    PLAN_ADVISE_MORE_TIME,    /* nothing comes to its end by the deadline */
};

/* All that is said to an operator. */
struct plan {
    /* THROTTLED: live with all of max_throttle in force. */
    struct plan_prediction live, throttled, quick;
    enum plan_confidence confidence;
    enum plan_advice advice;
    /* PLAN_ADVISE_LONGER_PAUSE, PLAN_ADVISE_MORE_TIME: what would have to be allowed, with room; 0: nothing helps. */
    uint32_t needed_ms;
    char confidence_reason[PLAN_REASON_SIZE];
    char advice_reason[PLAN_REASON_SIZE];
};

/* Bytes of memory that are dirty MS after none was. Grows with MS, is at a measured period what was measured, and never more than there is. */
double plan_dirty_bytes(const struct plan_measures *measures, double ms);
void plan_make(const struct plan_measures *measures, const struct plan_limits *limits,
               struct plan *plan);

const char *plan_confidence_word(enum plan_confidence confidence);
const char *plan_advice_word(enum plan_advice advice);

#endif

/*
 * How hard a lane compresses when nobody has pinned a level: by which side is waiting. A lane that
 * has work and waits for the link may spend more on each byte; one that has no time left spends
 * less, down to sending everything as it is.
 *
 * The two ways are not alike. Up goes at once: a link that is waited for is slow now. Down needs a
 * lane without a pause for a whole second, since fewer bytes are worth something even on a fast
 * link, and a short migration is over before it would gain anything. A step down that had to be
 * taken back makes the next one come later, twice as late each time: between a level too slow and
 * one too large nothing swings for long.
 *
 * Beyond level 1 (EFFORT_SPARE) it goes only while the lane hardly works at all, for the virtual
 * machines of this host want the CPU too. Measured with zstd 1.5.4, units of 256 KiB (text-like
 * pages; files of /usr): level 1 leaves 0.311 at 416 MB/s; 0.660 at 736 MB/s. Level 3: 0.283 at
 * 383; 0.645 at 348. Level 6: 0.279 at 109; 0.638 at 196: never worth it. Level -5: 0.352 at 430;
 * 0.724 at 1188. Level -20: 0.443 at 490; 0.804 at 1906. Level -50: 0.586 at 627; 0.880 at 3339.
 *
 * Pure; the lane's thread.
 */
#ifndef WATARI_MOVER_EFFORT_H
#define WATARI_MOVER_EFFORT_H

#include <stdbool.h>
#include <stdint.h>

/* What a lane's time goes into. */
enum effort_time {
    EFFORT_WORKED,     /* compressing, encrypting, handing to the kernel */
    EFFORT_LINK_WAITS, /* there is more to send, and the link or the far side does not take it */
    EFFORT_NO_WORK,    /* QEMU gave nothing to send */
    EFFORT_TIMES,
};

struct effort {
    unsigned rung;                   /* of the ladder of levels */
    uint64_t times_us[EFFORT_TIMES]; /* of the running interval */
    unsigned full_intervals;         /* in a row, without a pause */
    unsigned patience;               /* how many of them a step down takes */
    bool went_down;                  /* the last step */
};

/* At level 1, from where it is not far to anywhere. */
void effort_init(struct effort *effort);
/* The lane spent so many microseconds more on WHAT. */
void effort_spent(struct effort *effort, enum effort_time what, uint64_t microseconds);
/* The zstd level now, or ORDER_LEVEL_OFF. */
int effort_level(const struct effort *effort);

#endif

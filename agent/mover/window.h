/*
 * How many bytes may be on their way to the other side at a time: read, and not yet answered. Of
 * the QEMU stream all of it is downtime once the guest is paused, and of the disks it is what the
 * stream then has to wait for. So it is bounded in time, not only in bytes: as much as the path
 * carries in its own delay, and some milliseconds (the slack) more. What the slack buys is that the
 * measurement can find out that there is more room: a path that is not full answers faster than
 * that, and the window grows.
 *
 * Pure; one thread at a time (the caller locks). Times are microseconds of any steady clock.
 */
#ifndef WATARI_MOVER_WINDOW_H
#define WATARI_MOVER_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct window_bounds {
    uint64_t slack_us;
    uint64_t first; /* bytes, until something was measured */
    uint64_t min, max;
};

struct window {
    struct window_bounds bounds;
    uint64_t limit;  /* bytes; 0: nothing measured yet */
    bool is_probing; /* narrow for a moment, so that the path empties and shows its own delay */
    uint64_t delay_us,
        older_delay_us; /* the smallest of this spell and of the one before; 0: none */
    uint64_t spell_us;  /* when this spell began */
    uint64_t probed_us; /* when the last probe ended; 0: none has */
    uint64_t rate;      /* bytes a second; 0: not known */
    uint64_t recent_rate, older_rate; /* the best of the running intervals and of those before */
    unsigned recent_count;
    uint64_t interval_us, interval_bytes; /* where the running measurement began */
    bool was_full;                        /* the window held up the reader within it */
};

void window_init(struct window *window, const struct window_bounds *bounds);
/* Bytes that may be on their way. */
uint64_t window_limit(const struct window *window);
/* The size of one frame's data, a multiple of 4 KiB: a quarter of the window, so that several lanes
 * have something and nothing small waits long behind it; UNIT_MIN to UNIT_MAX. */
uint32_t window_unit(const struct window *window, uint32_t unit_min, uint32_t unit_max);
/* The reader had to wait because of the limit. Only then does a low rate say something about the
 * path. */
void window_was_full(struct window *window);
/* The lanes are new, and the path may be another: what is known of it holds until it is measured
 * anew, and the time without lanes counts for nothing. */
void window_restart(struct window *window);
/* The path becomes faster or slower, and its delay stays: the rate is measured anew. */
void window_rate_changes(struct window *window);
/* At NOW the other side has answered BYTES bytes in all, and the last of them were sent at SENT. */
void window_received(struct window *window, uint64_t now, uint64_t sent, uint64_t bytes);

#endif

/*
 * How much of the QEMU stream may be on its way: read from the source's QEMU and not yet in the
 * destination's. All of it is downtime once the guest is paused, so it is bounded in time, not only
 * in bytes: as much as the path carries in its own delay and WINDOW_SLACK_US more. What the slack
 * buys is that the measurement can find out that there is more room: a path that is not full
 * answers faster than that, and the window grows.
 *
 * Pure; one thread at a time (the caller locks). Times are microseconds of any steady clock.
 */
#ifndef WATARI_MOVER_WINDOW_H
#define WATARI_MOVER_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_BYTES_MIN (1u << 20) /* four segments: less would leave lanes idle */
#define WINDOW_BYTES_MAX (8u << 20)
#define WINDOW_SLACK_US 50000u

/* All zero is a fresh one, as narrow as may be. */
struct window {
    uint64_t limit;  /* bytes; 0: nothing measured yet */
    bool is_probing; /* narrow for a moment, so that the path empties and shows its own delay */
    uint64_t delay_us,
        older_delay_us; /* the smallest of this spell and of the one before; 0: none */
    uint64_t spell_us;  /* when this spell began */
    uint64_t rate;      /* bytes a second; 0: not known */
    uint64_t interval_us, interval_bytes; /* where the running measurement began */
    bool was_full;                        /* the window held up the reader within it */
};

/* Bytes that may be on their way. */
uint64_t window_limit(const struct window *window);
/* The reader had to wait because of the limit. Only then does a low rate say something about the
 * path. */
void window_was_full(struct window *window);
/* The lanes are new, and the path may be another: what is known of it holds until it is measured
 * anew, and the time without lanes counts for nothing. */
void window_restart(struct window *window);
/* At NOW the destination has the stream's first BYTES bytes; the last of them were sent at SENT. */
void window_received(struct window *window, uint64_t now, uint64_t sent, uint64_t bytes);

#endif

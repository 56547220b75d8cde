/*
 * The two clocks the daemon reads. Any thread.
 */
#ifndef WATARI_DAEMON_CLOCK_H
#define WATARI_DAEMON_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC, nanoseconds: durations, and stamps that are compared across hosts by a measured offset. */
uint64_t clock_monotonic_ns(void);
/* CLOCK_BOOTTIME, milliseconds: goes on while the host is suspended; compared only with itself, until the next boot. */
uint64_t clock_boottime_ms(void);

#endif

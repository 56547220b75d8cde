/*
 * What a direction of the link does to its packets, and how a person writes it: words KEY=VALUE with
 * a blank between. Pure.
 *
 *   delay=25ms      on its way, each packet
 *   jitter=2ms      by up to so much more or less, in order all the same
 *   loss=0.5%       of the packets, each for itself
 *   reorder=1%      of the packets come late, and those behind them first
 *   rate=100mbit    of IP packets; none: no limit
 *   queue=50ms      what may wait for its turn at that rate; what comes then is dropped
 */
#ifndef WANLINK_SETTINGS_H
#define WANLINK_SETTINGS_H

#include "agent/common/error.h"

#include <stdbool.h>
#include <stdint.h>

/* 100 % of the packets. */
#define WHOLE_PPM 1000000u

struct settings {
    uint64_t delay_ns, jitter_ns, queue_ns;
    uint32_t loss_ppm, reorder_ppm; /* up to WHOLE_PPM */
    uint64_t rate;                  /* bytes a second; 0: no limit */
};

/* A link without a limit, that loses nothing and takes no time. */
void settings_init(struct settings *settings);
/* Changes what WORDS name, which are cut up by it, and keeps the rest. False, with nothing changed,
 * when there is anything else in them. */
bool settings_parse(struct settings *settings, char *words, struct error *error);

#endif

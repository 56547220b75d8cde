/*
 * Limits of bandwidth (README, "Limits on the link"): what this host may send for all its migrations together, and what may come to it, is
 * shared among those that carry data; each source paces itself by the lowest of what its operator, its host and the destination's host allow
 * it. A destination has no pace of its own: it tells the source by the message "limit", so that nothing piles up between the two, and the
 * source knows how long a pause will take.
 *
 *   source_bandwidth.c       the shares of what is sent, the order to the mover, --max-bandwidth and --switchover-bandwidth
 *   destination_bandwidth.c  the shares of what comes, told to the sources
 *
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_BANDWIDTH_H
#define WATARI_DAEMON_BANDWIDTH_H

#include "agent/common/error.h"
#include "agent/policy/bandwidth.h"

#include <jansson.h>

struct daemon;

/* A migration began or ended to carry data, or its limit changed: tells the movers of this host what has changed for them. */
void source_share_bandwidth(struct daemon *daemon);
/* The same for those that come: tells their sources. */
void destination_share_bandwidth(struct daemon *daemon);

/* The argument NAME, if it is there: *rate becomes it, bytes/s, or BANDWIDTH_NO_LIMIT for 0. False with "invalid-argument". */
bool bandwidth_argument(const json_t *arguments, const char *name, uint64_t *rate,
                        struct error *error);

#endif

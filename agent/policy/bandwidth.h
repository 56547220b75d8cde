/*
 * Limits of bandwidth: which values make sense, and what each of several migrations gets of one.
 * Pure. All are bytes a second.
 */
#ifndef WATARI_POLICY_BANDWIDTH_H
#define WATARI_POLICY_BANDWIDTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BANDWIDTH_NO_LIMIT 0u
/* 1 Mbit/s: with less no guest that runs ever arrives. */
#define BANDWIDTH_MIN 125000u
/* 8 Tbit/s, ORDERS_MAX_RATE of agent/mover/orders.h: more is a slip of the pen. */
#define BANDWIDTH_MAX 1000000000000u

/* Whether it may be a limit; BANDWIDTH_NO_LIMIT is none. */
bool bandwidth_is_limit(uint64_t rate);
/* The lower of two limits, either of which may be BANDWIDTH_NO_LIMIT. */
uint64_t bandwidth_lower(uint64_t one, uint64_t other);
/*
 * What number INDEX of COUNT gets of LIMIT: as much as each other, but no more than its own limit in
 * OWN (each may be BANDWIDTH_NO_LIMIT); what one cannot use is for the others. Without LIMIT it is its
 * own.
 */
uint64_t bandwidth_share(uint64_t limit, const uint64_t *own, size_t count, size_t index);

#endif

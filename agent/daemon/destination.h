/*
 * The destination's side of a migration, from the offer to DONE: its state is in destination_state.h, its steps are in destination*.c.
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_DESTINATION_H
#define WATARI_DAEMON_DESTINATION_H

#include "agent/common/error.h"
#include "agent/common/journal_file.h"

struct daemon;
struct peer;

/* A peer has dialled and is authenticated: an offer, or a query about an undecided migration, is awaited. PEER is taken over. */
void destination_welcome(struct daemon *daemon, struct peer *peer);

/* Takes up what a journal of an earlier life says (recover.c); called before anything listens. */
void destination_recover(struct daemon *daemon, const char *path,
                         const struct journal_content *content);

#endif

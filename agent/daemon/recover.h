/*
 * The daemon's first act: what the journals of an earlier life left undecided. Paused guests first, then undo lists, before anything
 * listens. Loop thread only.
 */
#ifndef WATARI_DAEMON_RECOVER_H
#define WATARI_DAEMON_RECOVER_H

#include "agent/common/error.h"

struct daemon;

/* Returns when every rollback has ended (or RECOVER_LIMIT_MS have passed: the rest goes on in the loop). Damaged journals are logged and left
 * as they are. False only when the journal directory cannot be read. */
bool recover_run(struct daemon *daemon, struct error *error);

#endif

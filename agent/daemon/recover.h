/*
 * What a dead daemon left, taken up again from the journals (DESIGN §6): the first thing a start does, before it loads keys, resolves names
 * or listens. Guests that were left paused at this source come first. Loop thread only.
 *
 * What an undecided journal says is brought to disk again before anybody is told of it. A journal that cannot be read, is damaged or cannot
 * be brought down is believed in nothing, never written to, and kept in a list: `status` and `resolve` show it with what can be done by hand,
 * and no migration begins that it might be about. The same goes for the journals' directory.
 */
#ifndef WATARI_DAEMON_RECOVER_H
#define WATARI_DAEMON_RECOVER_H

#include "agent/common/error.h"

#include <jansson.h>
#include <stdbool.h>

struct daemon;

/* Recovers all, and runs the loop until no rollback is under way, or half a minute. */
void recover_run(struct daemon *daemon);

/* Array of {"id","side","vm"|null,"peer"|null,"phase":"unreadable","text","journal"}; the caller's reference. */
json_t *recover_unreadable_describe(const struct daemon *daemon);
/* True, with an error, when a journal that cannot be read is about VM, or does not tell what it is about. */
bool recover_blocks(const struct daemon *daemon, const char *vm, struct error *error);
/* For the daemon's end. */
void recover_free(struct daemon *daemon);

#endif

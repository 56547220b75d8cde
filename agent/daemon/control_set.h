/*
 * Private to control*.c: limits changed while things run:
 *
 *   set {migration,max_bandwidth?,switchover_bandwidth?}   {}: of one migration, at its source
 *   set {max_bandwidth}                                    {}: of this host, all that it sends together, and all that comes, until watarid
 *                                                          is started again
 *
 * Bytes a second; 0: no limit. Refusals: "invalid-argument", "too-late" (it has ended), "set-elsewhere" (this host is its destination),
 * "migration-not-found".
 */
#ifndef WATARI_DAEMON_CONTROL_SET_H
#define WATARI_DAEMON_CONTROL_SET_H

#include "control_call.h"

void control_set(struct daemon *daemon, struct control_call *call, json_t *arguments);

#endif

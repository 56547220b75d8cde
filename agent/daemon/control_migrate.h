/*
 * Private to control*.c: the arguments of "migrate", checked:
 *
 *   vm, peer                               must be there
 *   mode                                   "auto" (default), "live", "quick"
 *   max_downtime_ms, max_quick_downtime_ms from 1; defaults 300 and 30000
 *   reconnect_timeout_ms                   default 300000
 *   deadline_ms                            from 1; absent: none
 *   max_throttle                           per cent, 0 to 99; default 50
 *   max_bandwidth                          bytes a second over all lanes; 0 or absent: no limit
 *   switchover_bandwidth                   the same in the pause; absent: as else
 *   compress                               "auto" (default), "off", or a zstd level from -50 to 19
 *   lanes                                  1 to 64; 0 or absent: the daemon's choice
 *   verify                                 boolean, default false: compare the disks before the commit
 *   disks                                  [{"device","target"}]: TARGET is a pool, or an absolute
 *                                          path in one, at the destination
 */
#ifndef WATARI_DAEMON_CONTROL_MIGRATE_H
#define WATARI_DAEMON_CONTROL_MIGRATE_H

#include "migration.h"

/* Fills OUT (clear it with migrate_request_clear()). False with "invalid-argument"; OUT is empty
 * then. */
bool control_migrate_parse(json_t *arguments, struct migrate_request *out, struct error *error);

#endif

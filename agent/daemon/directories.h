/*
 * The daemon's own directories: made at start, private, and the state directory locked against a
 * second watarid.
 *
 *   STATE/lock          held (flock) while a watarid uses this state directory
 *   STATE/identity/     the host's key (tls/identity.h)
 *   STATE/trust.json    the peers (tls/trust.h)
 *   STATE/journal/      one file per migration and side (agent/common/journal_file.h)
 *   STATE/timeline/     likewise, for people (timeline.h)
 *   STATE/vms/          NAME/launch: how to start what this host owns
 *   RUN/control.sock    unless set otherwise
 *   RUN/migrations/     ID/: sockets of a migration under way
 *   RUN/vms/            NAME/: sockets, pid files and logs of VMs that came here
 *
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_DIRECTORIES_H
#define WATARI_DAEMON_DIRECTORIES_H

#include "config.h"

/* Makes what is missing. An existing directory must be ours and closed to others: it is refused,
 * not changed, for it may be somebody else's by mistake. *lock_fd is to be kept open as long as the
 * daemon runs. False with "state-directory". */
bool directories_prepare(const struct config *config, int *lock_fd, struct error *error);

#endif

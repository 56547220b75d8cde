/*
 * Unix stream sockets of the daemon's own 0700 directories. Any thread.
 */
#ifndef WATARI_DAEMON_UNIX_SOCKET_H
#define WATARI_DAEMON_UNIX_SOCKET_H

#include "agent/common/error.h"

/* All: a close-on-exec descriptor, the caller's, or -1 with an error ("socket-failed") that names the path. */
int unix_socket_listen(const char *path, struct error *error);
/* Blocking socket, connected at once or not at all. */
int unix_socket_connect(const char *path, struct error *error);
int unix_socket_duplicate(int fd, struct error *error);
/* PAIR[0], PAIR[1]: connected to each other. False with an error. */
bool unix_socket_pair(int pair[2], struct error *error);

#endif

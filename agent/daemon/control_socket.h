/*
 * The control socket's file: made, told from a stale one, removed. Loop thread only.
 */
#ifndef WATARI_DAEMON_CONTROL_SOCKET_H
#define WATARI_DAEMON_CONTROL_SOCKET_H

#include "agent/common/error.h"

#include <stdbool.h>
#include <sys/stat.h>

struct control_socket {
    int fd; /* listening, non-blocking, close-on-exec */
    const char *path;
    struct stat made; /* the file as we made it: another one at its place is not ours to remove */
};

/* PATH is borrowed for as long as the socket is open. A stale socket is replaced; one that answers,
 * and a file that is no socket, are errors ("control-socket"). The caller's umask must keep others
 * out. */
bool control_socket_open(struct control_socket *out, const char *path, struct error *error);
/* Removes the file if it is ours. The descriptor is its user's to close. */
void control_socket_remove(const struct control_socket *control_socket);
/* Whether the other end of the connection FD may give orders: root, or our own user. *user is who
 * it is. */
bool control_socket_allows(int fd, uid_t *user);

#endif

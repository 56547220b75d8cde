/*
 * The control socket: SOCK_SEQPACKET, one command a message, one answer for each, in order.
 *
 *   set [END] KEY=VALUE...   what leaves END from now on, or both ends; see settings.h. "ok"
 *   show                     the counters of path.h of what left each end, as a JSON object
 *
 * Any other answer is "error: " and a sentence.
 */
#ifndef WANLINK_CONTROL_H
#define WANLINK_CONTROL_H

#include "link.h"

#include "agent/common/error.h"

#include <poll.h>

#define CONTROL_CLIENTS 8
/* What poll() is to watch for it: the listening socket and its clients. */
#define CONTROL_FDS (1 + CONTROL_CLIENTS)

struct control {
    struct pollfd fds[CONTROL_FDS]; /* fd -1: free */
};

/* The path must not exist. False with an error. */
bool control_open(struct control *control, const char *path, struct error *error);
/* FDS as poll() left them: takes new clients and answers commands. */
void control_serve(struct control *control, const struct pollfd *fds, struct wanlink *link);

#endif

/*
 * The client's end of watarid's control socket (agent/daemon/control.h draws the conversation).
 * Blocking; one thread, one owner.
 *
 * Errors are the daemon's own words ("vm-not-found", ...), or "daemon-unreachable" (never
 * connected) and "daemon-gone" (was connected).
 */
#ifndef WATARI_CLIENT_CONTROL_CLIENT_H
#define WATARI_CLIENT_CONTROL_CLIENT_H

#include "agent/common/error.h"

#include <jansson.h>

struct control_client;

/* Connects and reads the greeting. NULL with an error. */
struct control_client *control_client_open(const char *path, struct error *error);
void control_client_close(struct control_client *client);
/* The daemon's host name, from the greeting. */
const char *control_client_host(const struct control_client *client);

/* Asks and waits for the answer: what stood at "return" (the caller's reference), or NULL with an
 * error. ARGUMENTS (may be NULL) are stolen. Events that come meanwhile are kept for
 * control_client_event(). */
json_t *control_client_call(struct control_client *client, const char *command, json_t *arguments,
                            struct error *error);

enum control_client_step {
    CONTROL_CLIENT_EVENT, /* *event is the caller's reference */
    CONTROL_CLIENT_WOKEN, /* WAKE_FD is readable */
    CONTROL_CLIENT_GONE,  /* with an error */
};
/* Waits, without limit, for the next event or for WAKE_FD (-1: none) to be readable. */
enum control_client_step control_client_event(struct control_client *client, int wake_fd,
                                              json_t **event, struct error *error);

#endif

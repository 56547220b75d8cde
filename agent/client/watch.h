/*
 * Following a migration to its end: what migrate, watch and cancel have in common.
 */
#ifndef WATARI_CLIENT_WATCH_H
#define WATARI_CLIENT_WATCH_H

#include "command.h"
#include "control_client.h"

/* Asks for MIGRATION's events (an id, or a VM's name). *id (free() it) is the migration's id. False
 * with an error. */
bool watch_begin(struct control_client *connection, const char *migration, char **id,
                 struct error *error);

/*
 * Shows events until the result, and that. INTERRUPT_FD (-1: none) is a signalfd: the first signal
 * asks the daemon to cancel, the second one leaves. Returns the exit code that the result means;
 * CLIENT_USAGE when the daemon went away, CLIENT_LEFT when left.
 */
int watch_to_end(const struct client *client, struct control_client *connection, const char *id,
                 int interrupt_fd);

/* The exit code of a result's word. */
int watch_exit_code(const char *result);

#endif

/*
 * Starting a VM that this host owns because a migration brought it here: the argument vector that was written down then
 * (STATE/vms/NAME/launch), booting from its disks. Asks before: that it is owned here, that no migration of it is under way or undecided,
 * and that every journal of this host can be read. Loop thread only.
 */
#ifndef WATARI_DAEMON_START_H
#define WATARI_DAEMON_START_H

#include "agent/common/error.h"

#include <jansson.h>
#include <stdbool.h>

struct daemon;

/* Whether this host owns NAME because a migration brought it here. False with "may-not-start" or "not-owned", or when a journal cannot be
 * read. */
bool start_is_owned(const struct daemon *daemon, const char *name, struct error *error);

/* RESULT {"vm","pid","qmp","log","already"} is borrowed, or NULL with ERROR. "qmp" and "log" are null when it ran already. */
typedef void (*start_callback)(json_t *result, const struct error *error, void *context);

/*
 * Calls DONE at once or later: when its QMP answers, or runs already ("already": true), or with an error: "invalid-argument",
 * "migration-under-way", "not-owned", "may-not-start" (the journals say no), "journal-damaged", "journal-unreadable", "launch-unreadable",
 * "run-dir", "exec-failed", "qemu-ended" (with the last lines of its log), "qemu-silent" (it runs, but its QMP does not answer).
 */
void start_vm(struct daemon *daemon, const char *name, start_callback done, void *context);

#endif

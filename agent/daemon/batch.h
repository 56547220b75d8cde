/*
 * A run of QMP commands, one after the other, that stops at the first refusal. A command that changes something carries its inverse,
 * which is journaled (undo.h) right before it is sent.
 *
 *   batch = batch_new(qmp, undo);
 *   batch_add_fd(batch, "watari-nbd", fd);
 *   batch_add_change(batch, "nbd-server", undo_what, "nbd-server-start", arguments);
 *   batch_run(batch, on_done, context);          frees itself
 *
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_BATCH_H
#define WATARI_DAEMON_BATCH_H

#include "agent/common/error.h"

#include <jansson.h>

struct batch;
struct qmp;
struct undo;

struct batch *batch_new(struct qmp *qmp, struct undo *undo);
/* ARGUMENTS are stolen. */
void batch_add(struct batch *batch, const char *command, json_t *arguments);
/* KEY and WHAT: as undo_add(); WHAT is stolen. */
void batch_add_change(struct batch *batch, const char *key, json_t *what, const char *command,
                      json_t *arguments);
/* getfd NAME with FD (taken over), undone by closefd. Key: "fd:NAME". */
void batch_add_fd(struct batch *batch, const char *name, int fd);
/* closefd NAME, and its undo entry forgotten. */
void batch_add_closefd(struct batch *batch, const char *name);
/* When the batch gets here, KEY is forgotten: the commands before have undone it. */
void batch_add_forget(struct batch *batch, const char *key);

/* REPLIES: array of the commands' return values (null for forgets), borrowed. ERROR: NULL, or why it stopped. */
typedef void (*batch_done_callback)(const json_t *replies, const struct error *error,
                                    void *context);
/* The batch frees itself. Call it last: when the journal cannot be written, or nothing is left to send, it calls back at once. */
void batch_run(struct batch *batch, batch_done_callback callback, void *context);
/* Drops a batch that runs: no more commands, no callback. For owners that end meanwhile. NULL is fine. */
void batch_cancel(struct batch *batch);

#endif

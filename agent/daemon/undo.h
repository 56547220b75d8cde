/*
 * The undo list of one migration and side: every change to a QEMU or to this host, journaled with its inverse before it is made. Rollback,
 * cancel and restart are one loop over it, last change first.
 *
 * Inverses ("what", as journaled):
 *   {"resume":true}                     migrate_cancel, wait until nothing migrates, cont: before all but renames, whatever its place
 *   {"qmp":COMMAND,"arguments":{...}}   one command to the VM's QEMU; a refusal (what it undoes was never done, or is gone) is noted only
 *   {"export":ID}                       block-export-del mode=hard, closefd of the client's socket parked under the same name: both before
 *                                       all else; then, at its place, wait until the export is gone
 *   {"rename":[FROM,TO]}                TO is renamed back to FROM: before all else
 *   {"file":PATH,"dev":D,"ino":I}       unlink, if it is still that very file; without dev and ino only if it is empty
 *   {"process":QMP_PATH}                SIGKILL the QEMU whose own monitor that is, and wait for its end
 *   {"tree":DIRECTORY}                  remove it with what is in it
 *
 * Owned by the migration; loop thread only.
 */
#ifndef WATARI_DAEMON_UNDO_H
#define WATARI_DAEMON_UNDO_H

#include "journal.h"

#include "agent/common/error.h"
#include "agent/common/journal_file.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>

struct qmp;
struct undo;

struct undo *undo_new(struct event_base *base, struct journal *journal);
/* Also ends a run under way; its callback is not called. To be freed before the QMP connection it runs on. NULL is fine. */
void undo_free(struct undo *undo);
/* Fills the list with what the journal says is not undone. */
void undo_restore(struct undo *undo, const struct journal_content *content);

/* Journals and adds. KEY names it for undo_forget(). WHAT is stolen. False when the journal cannot be written: then do not make the change. */
bool undo_add(struct undo *undo, const char *key, json_t *what, struct error *error);
bool undo_has(const struct undo *undo, const char *key);
/* The change was undone in the normal course, or has become meant to stay. Unknown keys are fine. */
void undo_forget(struct undo *undo, const char *key);
void undo_forget_all(struct undo *undo);
/* The files of the list that are still those that were made get SUFFIX behind their names, and are forgotten: they stay. */
void undo_keep_files(struct undo *undo, const char *suffix);

/* LEFT: array of sentences about what could not be put back, empty when all was; borrowed. */
typedef void (*undo_done_callback)(const json_t *left, void *context);
/* Whether KEY is among what could not be put back. */
bool undo_left(const json_t *left, const char *key);
/* Runs the whole list. QMP: the VM's QEMU, or NULL when that process is proven dead (its changes died with it). */
void undo_run(struct undo *undo, struct qmp *qmp, undo_done_callback callback, void *context);

#endif

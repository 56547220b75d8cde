/*
 * Writing a migration's journal (format: agent/common/journal_file.h). Records are written at once, in order, so that they survive
 * the daemon; those that must survive the host are synced by a thread of their own, and a callback tells when they are down.
 *
 * What needs no sync: undo records of changes to a QEMU, which dies with the host. What does: files made, marks on disks, the
 * handoff's records.
 *
 * The syncer belongs to the daemon (one thread); a journal to its migration. Loop thread only, but for the thread inside.
 */
#ifndef WATARI_DAEMON_JOURNAL_H
#define WATARI_DAEMON_JOURNAL_H

#include "agent/common/error.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdint.h>

struct journal;
struct journal_syncer;

/* Starts the thread. NULL with an error. */
struct journal_syncer *journal_syncer_new(struct event_base *base, struct error *error);
/* Waits for what is under way; callbacks still due are not called. */
void journal_syncer_free(struct journal_syncer *syncer);

/* Makes PATH (which must not exist; its directory is synced with the first sync), or opens one that was read, to append after
 * GOOD_LENGTH bytes and RECORDS records (a torn tail is cut off). NULL with "journal-unwritable". */
struct journal *journal_create(struct journal_syncer *syncer, const char *path,
                               struct error *error);
struct journal *journal_reopen(struct journal_syncer *syncer, const char *path, size_t good_length,
                               size_t records, struct error *error);
/* Callbacks still due are not called. NULL is fine. */
void journal_free(struct journal *journal);

/* Appends {"record":RECORD, ...MEMBERS} (MEMBERS stolen, may be NULL). False with an error when it could not be written whole. */
bool journal_append(struct journal *journal, const char *record, json_t *members,
                    struct error *error);

/* The next sync brings this directory to disk as well (renames in it). */
void journal_also_sync(struct journal *journal, const char *directory);
/* ERROR is NULL when all records so far are on stable storage. NANOSECONDS: how long the sync took. */
typedef void (*journal_synced_callback)(const struct error *error, uint64_t nanoseconds,
                                        void *context);
/* One at a time per journal. */
void journal_sync(struct journal *journal, journal_synced_callback callback, void *context);
const char *journal_path(const struct journal *journal);

#endif

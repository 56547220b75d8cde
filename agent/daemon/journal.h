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

/* Makes PATH (which must not exist; its directory is synced with the first sync) and reserves room behind it. NULL with
 * "journal-unwritable", and nothing left: the migration is to be refused, the guest goes on running. */
struct journal *journal_create(struct journal_syncer *syncer, const char *path,
                               struct error *error);
/* One without a name in DIRECTORY, which is gone when it is freed, or with the daemon: to see what a sync there takes. NULL with
 * "journal-unwritable". */
struct journal *journal_create_nameless(struct journal_syncer *syncer, const char *directory,
                                        struct error *error);
/* Opens one that was read, to append after GOOD_LENGTH bytes and RECORDS records (a torn tail is cut off); the first sync brings all of it
 * down. Never NULL: when it cannot be written (logged) every append and sync fails, and a guest that it leaves paused is resumed all the
 * same. */
struct journal *journal_reopen(struct journal_syncer *syncer, const char *path, size_t good_length,
                               size_t records);
/* Callbacks still due are not called. NULL is fine. When the migration has ended, what was reserved behind the records is given back. */
void journal_free(struct journal *journal);
/* The same, and removes the file: of what has ended, left nothing behind, and nobody will ask about. NULL is fine. */
void journal_discard(struct journal *journal);

/*
 * Appends {"record":RECORD, ...MEMBERS} (MEMBERS stolen, may be NULL). False with an error when it could not be written whole; it is then not
 * in the file. On a full disk "begin" and "undo" are refused while there is still reserved room for all the others.
 */
bool journal_append(struct journal *journal, const char *record, json_t *members,
                    struct error *error);

/* The next sync brings this to disk as well: a directory (renames in it) or a file. One that cannot be opened fails that sync, and is left out of others. */
void journal_also_sync(struct journal *journal, const char *path);
/* ERROR is NULL when all records up to the call of journal_sync() are on stable storage. NANOSECONDS: how long the sync took. */
typedef void (*journal_synced_callback)(const struct error *error, uint64_t nanoseconds,
                                        void *context);
/*
 * Several may be under way: they are answered in their order. After a failure the records since the last good one are on the disk or not; the
 * next sync (also one that is under way already) writes all of them anew, and syncs again the directories that had failed, so that its
 * success counts for them as well. Until then a power failure may even leave a damaged file, which decides nothing.
 */
void journal_sync(struct journal *journal, journal_synced_callback callback, void *context);
const char *journal_path(const struct journal *journal);

#endif

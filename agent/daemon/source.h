/*
 * The source's side of a migration, from the operator's word to DONE: its state is in source_state.h, its steps are in source*.c.
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_SOURCE_H
#define WATARI_DAEMON_SOURCE_H

#include "migration.h"

#include "agent/common/journal_file.h"

struct vm;

/*
 * Starts a migration and returns it (owned by the daemon's list), or NULL with an error for what can be told at once: VM not found,
 * two of that name, peer unknown, a migration of that VM running. Everything later comes as events and the result.
 * REQUEST is taken over (emptied), also on failure.
 */
struct migration *source_start(struct daemon *daemon, struct migrate_request *request,
                               struct error *error);

/* The reason of a trial's result (migrate_request.trial) when it went as it should: then that has a member "trial" (source_trial.c). */
#define SOURCE_TRIAL_OVER "trial-over"

/* What stands in the way of a migration of VM and can be told without asking its QEMU or the peer; false with an error. */
bool source_may_start(struct daemon *daemon, const struct migrate_request *request,
                      const struct vm *vm, struct error *error);

/* Takes up what a journal of an earlier life says (recover.c), before anything listens: an uncommitted migration is rolled back, a paused
 * guest first of all; a committed one goes on asking the destination. */
void source_recover(struct daemon *daemon, const char *path, const struct journal_content *content);

#endif

/*
 * Private to control*.c: which migration a client means, those among them whose journal cannot be read, and the operator's decision:
 *
 *   resolve {migration}                               {"migration":{...}}: as status describes it, and this side's evidence: disks
 *                                                     [{"path","mark"?,"marked"?}], journal, log
 *   resolve {migration,decision,source_is_off?}       {"accepted":true,"text"}: what comes of it shows as phase and result
 *
 * DECISION is "run-here" or "give-up". Refusals: those of migration_ops.resolve, "too-late" (it has ended), "journal-damaged" (what can be
 * done by hand), "migration-not-found".
 */
#ifndef WATARI_DAEMON_CONTROL_RESOLVE_H
#define WATARI_DAEMON_CONTROL_RESOLVE_H

#include "control_call.h"

/* The migration that the argument "migration" names, or NULL: then CALL was refused. */
struct migration *control_find_migration(struct daemon *daemon, struct control_call *call,
                                         json_t *arguments);
/* The descriptions of those with an unreadable journal and that id or VM (NULL: of all); the caller's reference. */
json_t *control_unreadable(const struct daemon *daemon, const char *id_or_vm);

void control_resolve(struct daemon *daemon, struct control_call *call, json_t *arguments);

#endif

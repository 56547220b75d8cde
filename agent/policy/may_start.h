/*
 * May this host start that VM by itself (autostart, ExecStartPre=)? Decided from its journals alone, and "no" whenever they are not clear.
 * Pure; any thread. Needs jansson.
 */
#ifndef WATARI_POLICY_MAY_START_H
#define WATARI_POLICY_MAY_START_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * One migration's journal as array of its records (agent/common/journal_file.h), with the time its file was last written (seconds since the
 * epoch), for journals that do not say when they began: of those that decided anything the one that began last counts, and one that has
 * not come to its end before all others.
 */
struct may_start_journal {
    const json_t *records;
    int64_t written;
    bool qemu_lives; /* of a source's: the QEMU that its begin record names */
};

/* WHAT is a VM's name or the path of one of its disks. REASON (at least 256 bytes) says why, either way. */
bool may_start(const char *what, const struct may_start_journal *journals, size_t count,
               char *reason, size_t reason_size);

#endif

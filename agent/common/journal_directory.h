/*
 * All journals of a host's state directory, read: for `watari may-start`, which must answer without the daemon, and for the daemon's own
 * starting of VMs. Any thread.
 */
#ifndef WATARI_COMMON_JOURNAL_DIRECTORY_H
#define WATARI_COMMON_JOURNAL_DIRECTORY_H

#include "journal_file.h"

#include <stdint.h>

struct journal_directory {
    struct journal_directory_entry {
        struct journal_content content;
        int64_t written; /* the file's last change, seconds since the epoch */
        bool qemu_lives; /* the one that a source's begin record names: process.h */
    } * entries;
    size_t count;
};

/* Reads those in STATE_DIR/journal. A host where watarid never ran has no STATE_DIR, and that is no error; anything else that cannot be read is
 * ("journal-unreadable", "journal-damaged"). To be cleared in either case. */
bool journal_directory_read(const char *state_dir, struct journal_directory *out,
                            struct error *error);
void journal_directory_clear(struct journal_directory *directory);

#endif

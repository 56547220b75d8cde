/*
 * A migration's timeline: what was asked for, what the controller was told, what it decided and why, and how it ended, as JSON lines. One file per
 * migration and side: STATE/timeline/ID.source or ID.destination; written by watarid (agent/daemon/timeline.h, which also says how large they
 * get and how long they are kept), read by `watari report` and by tests/replay. Nothing is decided by it, and it is not brought to stable
 * storage: the journal is what is believed after a crash.
 *
 * Each line is an object with "event" and "at_ms" (since the migration began; after "restart": since the daemon was started again):
 *
 *   begin        schema, time (UTC), began_s, id, side, vm, host, peer, watari, settings{...}; source: pid, request{...}; destination: mode, lanes
 *   restart      as begin, but for request and settings: a daemon that was started again goes on with it
 *   vm           source: qemu, machine, memory_bytes, disks[{device,format,size,allocated,throttled}]
 *   phase        phase, text
 *   warning      text; what: link-lost, resumed or movers-replaced where it is one of these; why
 *   limits       memory begins, and with it the controller: struct convergence_limits of agent/policy/convergence.h, member by member
 *   sample       struct convergence_sample likewise; verdict, predicted_downtime_ms, longest_downtime_ms (null: unknown)
 *   decision     follows its sample: verdict, reason, the predictions, cpu_throttle, disk_throttle, disk_limit
 *   mark         source: a moment of the pause: guest-stopped, disk-passes-done, disks-done, pre-switchover, stream-done, completed, loaded,
 *                resumed (measured_us: the downtime; the rest of it is of when the word came); paused_us: since the STOP event; stream_bytes,
 *                disk_bytes, wire_sent: as the mover last said
 *   thinned      from here on one sample a second
 *   cut          from here on nothing but the result
 *   result       what `watari migrate --json` ends with
 */
#ifndef WATARI_COMMON_TIMELINE_FILE_H
#define WATARI_COMMON_TIMELINE_FILE_H

#include "error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMELINE_SCHEMA 1
#define TIMELINE_DIRECTORY "timeline" /* in the state directory */
#define TIMELINE_ID_SIZE 17

/* The lines of PATH, oldest first, in an array that is the caller's; *bad counts those that are none: one cut short by a crash, most likely.
 * NULL with "timeline-unreadable". */
json_t *timeline_file_read(const char *path, size_t *bad, struct error *error);

/* Whether NAME is that of a timeline's file; ID gets its migration's id. */
bool timeline_file_is_name(const char *name, char id[TIMELINE_ID_SIZE]);

struct timeline_list {
    struct timeline_entry {
        char id[TIMELINE_ID_SIZE];
        char *path;
        char *vm;        /* "" when the file does not say */
        int64_t began_s; /* seconds since the epoch */
    } * entries;
    size_t count;
};

/* Those in STATE_DIR. False with "timeline-unreadable". To be cleared in either case. */
bool timeline_list_read(const char *state_dir, struct timeline_list *out, struct error *error);
void timeline_list_clear(struct timeline_list *list);
/* By a migration's id, a VM's name (its last one), or the beginning of an id that no other begins with. NULL with "timeline-unknown". */
const struct timeline_entry *timeline_list_find(const struct timeline_list *list, const char *what,
                                                struct error *error);

#endif

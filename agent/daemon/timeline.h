/*
 * Writing a migration's timeline (format: agent/common/timeline_file.h): what an operator reads afterwards with `watari report`.
 *
 * It must never harm. The loop writes as it writes the journal's records, into the page cache and never waiting for the disk; samples, of which
 * there are 20 a second, are gathered first, so that a killed daemon takes the last TIMELINE_GATHER_BYTES of them along. When a line cannot be
 * written whole, or the file system has less than TIMELINE_LEAVE_BYTES left, that timeline ends: it is logged once, and the migration goes on.
 *
 * It must never fill a disk. From TIMELINE_FULL_BYTES on only one sample a second is kept, from TIMELINE_CUT_BYTES on nothing but the result.
 * Before a new one begins the oldest are removed, until fewer than TIMELINE_KEEP_FILES with less than TIMELINE_KEEP_BYTES are left: what lies
 * there is no more than that, and TIMELINE_CUT_BYTES for each migration under way.
 *
 * Each belongs to its migration. Loop thread only.
 */
#ifndef WATARI_DAEMON_TIMELINE_H
#define WATARI_DAEMON_TIMELINE_H

#include <jansson.h>
#include <stdint.h>

#define TIMELINE_GATHER_BYTES ((size_t)16 << 10)
#define TIMELINE_FULL_BYTES ((uint64_t)8 << 20) /* a quarter of an hour of rounds of memory */
#define TIMELINE_CUT_BYTES ((uint64_t)16 << 20)
#define TIMELINE_LEAVE_BYTES ((uint64_t)64 << 20)
#define TIMELINE_KEEP_FILES 128u
#define TIMELINE_KEEP_BYTES ((uint64_t)128 << 20)

struct timeline;

enum timeline_kind {
    TIMELINE_SAMPLE, /* one of many: gathered, thinned */
    TIMELINE_DETAIL, /* gathered */
    TIMELINE_EVENT,  /* written at once, with what was gathered before */
    TIMELINE_RESULT, /* the last; written whatever was cut */
};

/* Opens STATE_DIR/timeline/ID.SIDE, which may be there already. Never NULL: when it cannot be written (logged) every line is let go. */
struct timeline *timeline_open(const char *state_dir, const char *id, const char *side);
/* {"event":EVENT,"at_ms":AT_MS, ...MEMBERS}; MEMBERS is borrowed, its own "event" does not count. */
void timeline_add(struct timeline *timeline, enum timeline_kind kind, const char *event,
                  uint64_t at_ms, const json_t *members);
/* Writes what was gathered. */
void timeline_free(struct timeline *timeline);

#endif

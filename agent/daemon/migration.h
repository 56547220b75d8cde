/*
 * A migration as the rest of the daemon sees it, whichever side this host is: its names, where it stands, who watches, how to
 * cancel it, and its result. The sides' own state and steps are in source.c and destination.c, which embed this struct.
 *
 * Owned by the daemon's list from migration_register() on; finished ones stay (with their result) until the daemon ends, the
 * oldest beyond MIGRATION_KEEP_FINISHED are freed. Loop thread only.
 */
#ifndef WATARI_DAEMON_MIGRATION_H
#define WATARI_DAEMON_MIGRATION_H

#include "timeline.h"

#include "agent/common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct daemon;
struct migration;

#define MIGRATION_ID_SIZE 17
#define MIGRATION_KEEP_FINISHED 64

enum migration_side { MIGRATION_SOURCE, MIGRATION_DESTINATION };
enum migration_mode { MIGRATION_AUTO, MIGRATION_LIVE, MIGRATION_QUICK };

/* What holds where the operator says nothing. */
#define MIGRATE_MAX_DOWNTIME_MS 300u
#define MIGRATE_MAX_QUICK_DOWNTIME_MS 30000u
#define MIGRATE_RECONNECT_TIMEOUT_MS 300000u
/* QEMU throttles by up to 99 %. To 50 it stops a guest for no longer than it lets it run, 10 ms at a time: slower, but hardly halting. At
 * 80 % it stops for 40 ms, at 99 % for a second, and then the pause of quick is the lesser evil. */
#define MIGRATE_MAX_THROTTLE 50u
#define SWITCHOVER_AS_EVER UINT64_MAX

/* What the operator asked for. Strings are owned by the struct; see migrate_request_clear(). */
struct migrate_request {
    char *vm;   /* name, pid or QMP socket path */
    char *peer; /* trusted name */
    enum migration_mode mode;
    uint32_t max_downtime_ms;
    uint32_t max_quick_downtime_ms;
    uint32_t reconnect_timeout_ms;
    uint32_t deadline_ms;  /* 0: none */
    uint32_t max_throttle; /* per cent, 0 to 99 */
    /* Bytes/s, 0: no limit, over all lanes; and in the pause: SWITCHOVER_AS_EVER when nothing else was asked for. */
    uint64_t max_bandwidth, switchover_bandwidth;
    bool compress_auto;
    int32_t level;  /* when not auto: zstd level, or ORDER_LEVEL_OFF of agent/mover/orders.h */
    bool verify;    /* the disks are compared before the commit */
    bool trial;     /* of a plan: cancelled by itself, source_trial.c */
    uint32_t lanes; /* 0: min(cores, 8), at least 2 */
    struct migrate_disk {
        char *device; /* as `watari list` names it */
        char *target; /* POOL, or an absolute path inside a pool, at the destination */
    } * disks;
    size_t disk_count;
};
void migrate_request_clear(struct migrate_request *request);
/* The caller's, with strings of its own. */
struct migrate_request migrate_request_copy(const struct migrate_request *request);

enum resolve_decision { RESOLVE_RUN_HERE, RESOLVE_GIVE_UP };

struct migration_ops {
    /* Asks for the end; the answer comes as the result. False with an error when it is too late ("too-late"). */
    bool (*cancel)(struct migration *migration, struct error *error);
    /* Adds what `status` shows beyond the common members (phase, age of the pause, what is awaited from whom, progress). */
    void (*describe)(const struct migration *migration, json_t *into);
    /* What `resolve` shows before anything is decided, beyond what `describe` adds: this side's disks and QEMU. */
    void (*evidence)(const struct migration *migration, json_t *into);
    /* The operator's decision. What comes of it shows as phase and result. SOURCE_IS_OFF: typed, and only asked for at a destination. False
     * with "resolve-wait" (the text says how long), "resolve-elsewhere", "resolve-nothing" (nothing is undecided), "source-is-off" (it was not
     * typed), "resolve-connected" (the source answers: to be decided there). */
    bool (*resolve)(struct migration *migration, enum resolve_decision decision, bool source_is_off,
                    struct error *error);
    /* Changes what control_set.h says, of SETTINGS. False with an error, and nothing is changed. */
    bool (*set)(struct migration *migration, const json_t *settings, struct error *error);
    /* Frees the side's struct, which embeds MIGRATION. Only called when it is finished. */
    void (*free)(struct migration *migration);
};

/* Called for every event of a migration, the last being the result; EVENT is borrowed. A watcher may remove itself (only) in it. */
typedef void (*migration_watch_callback)(const json_t *event, bool last, void *context);

struct migration_watcher {
    migration_watch_callback callback;
    void *context;
    LIST_ENTRY(migration_watcher) link;
};

struct migration {
    struct daemon *daemon;
    char id[MIGRATION_ID_SIZE];
    enum migration_side side;
    enum migration_mode mode;
    char *vm;            /* the VM's name */
    char *peer;          /* the other host's trusted name */
    const char *phase;   /* a word of policy/phase.h */
    char *phase_text;    /* the sentence that came with it */
    uint64_t started_ms; /* CLOCK_BOOTTIME */
    bool trial;          /* of a plan: not worth a word when it has ended */
    bool
        decided; /* the VM belongs here for good; only the other side's acknowledgement is awaited */
    json_t *result; /* the result object of DESIGN §10; NULL while it runs */
    const struct migration_ops *ops;
    struct timeline *timeline; /* from migration_register() to the result; NULL for a trial, which leaves nothing */
    LIST_HEAD(, migration_watcher) watchers;
    TAILQ_ENTRY(migration) link;
};
TAILQ_HEAD(migration_list, migration);

/* One that was never there before. */
void migration_new_id(char id[MIGRATION_ID_SIZE]);
/* Takes the names (copied); the struct itself must be zeroed. */
void migration_init(struct migration *migration, struct daemon *daemon, enum migration_side side,
                    const char *id, const char *vm, const char *peer);
/* Frees the names; for a struct that was never registered. */
void migration_clear(struct migration *migration);
void migration_register(struct migration *migration);
/* The first line of its timeline, or of what a daemon adds that was started again: EVENT is "begin" or "restart". Steals MEMBERS. */
void migration_record_begin(struct migration *migration, const char *event, json_t *members);
/* A line of its timeline that nobody else is told: timeline.h. Steals MEMBERS. */
void migration_record(struct migration *migration, enum timeline_kind kind, const char *event,
                      json_t *members);
/* By id, or by VM name when exactly one undecided migration of that VM is here. NULL when there is none. */
struct migration *migration_find(struct daemon *daemon, const char *id_or_vm);
/* An undecided migration of that VM on this host, else NULL. */
struct migration *migration_of_vm(struct daemon *daemon, const char *vm);

/* The time for a begin record, seconds since the epoch, and later than every one given or noted before: may-start goes by that order, and a
 * clock may have been put back since. */
int64_t migration_begins(struct daemon *daemon);
/* A journal of this host has this one. */
void migration_note_begun(struct daemon *daemon, int64_t begun_s);

/* Common members and the side's own: {id, side, vm, peer, mode, phase, elapsed_ms, ..., result?}. Caller's reference. */
json_t *migration_describe(const struct migration *migration);

/* Adds "event", "id" and "vm" in front and tells all watchers, the log (progress is not logged) and the timeline (neither progress nor
 * decisions: those have lines of their own). Steals MEMBERS. */
void migration_publish(struct migration *migration, const char *event, json_t *members);
/* Moves to PHASE: publishes {"event":"phase","phase":PHASE,"text":TEXT}. */
void migration_phase(struct migration *migration, const char *phase, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
/* Nothing can be said for now ("undecided"): tells the watchers RESULT as their last event, but the migration goes on. Steals RESULT. */
void migration_undecided(struct migration *migration, json_t *result);
/* The last event. Steals RESULT (with "event":"result", schema, id, vm as in DESIGN §10). */
void migration_finish(struct migration *migration, json_t *result);

/* For the daemon's end: frees all, finished or not; journals are left as they are. */
void migration_free_all(struct daemon *daemon);

void migration_watch(struct migration *migration, struct migration_watcher *watcher);
void migration_unwatch(struct migration_watcher *watcher);

#endif

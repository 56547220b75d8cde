/*
 * The world around the handoff's two transition functions, small enough to be explored: two hosts with their daemon, QEMU, journal and
 * disks, and the link between them. What is modelled and what is not: explore.h.
 *
 * A `struct world` is a value: copied, stepped by world_step(), packed into a few words for the set of what was seen. One thread.
 */
#ifndef WATARI_TESTS_MODEL_WORLD_H
#define WATARI_TESTS_MODEL_WORLD_H

#include "agent/policy/handoff.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Clocks go in steps of this. Only ages count, so "now" never changes. */
#define UNIT_MS 5000u
#define NOW_MS (1000u * UNIT_MS)

#define UNSYNCED_MAX 5
#define TO_DESTINATION_MAX 4
#define TO_SOURCE_MAX 3

struct record {
    uint8_t record, value;
    bool sync; /* a sync was asked for after it, and has not answered */
};

enum qemu {
    QEMU_DEAD,
    QEMU_LOADING, /* destination */
    QEMU_PAUSED,
    QEMU_POSTMIGRATE, /* source: paused, all given away, image locks dropped */
    QEMU_RUNNING,
};

/* Files that COMMITTED renames. */
enum marks { MARKS_OFF, MARKS_UNSYNCED, MARKS_ON };

enum job { JOB_NONE, JOB_TAKE_BACK, JOB_ROLL_BACK, JOB_CLEAN };
enum job_step { STEP_NAMES, STEP_CONT, STEP_DONE };

enum cont { CONT_NONE, CONT_SENT, CONT_DONE };
enum bound { BOUND_NONE, BOUND_OLD, BOUND_CURRENT };
/* HALF: the destination has closed its end, and the source does not know. */
enum link { LINK_DOWN, LINK_HALF, LINK_UP };
enum stream { STREAM_NONE, STREAM_NEWEST, STREAM_STALE };

enum message_kind {
    COMMIT,
    ABORT,
    QUERY,
    TAKEN_BACK,
    TRY_AGAIN,
    DONE,
    /* from the destination */
    LOADED,
    OWNED,
    REFUSED,
    ABORTED,
    UNKNOWN,
    DONE_ACK,
};

struct message {
    uint8_t kind, value;
    bool copy; /* REFUSED */
    bool old;  /* of an earlier connection, and still in a buffer */
};

/* What is still allowed to go wrong, or to be done by people. */
enum budget {
    DROPS,
    CRASHES,
    REBOOTS,
    DEATHS,   /* of a QEMU */
    REFUSALS, /* `cont` is answered with an error */
    JOURNAL_FAILURES,
    FAILURES, /* before the handoff: cancel, a clock, a mover */
    DOUBLES,  /* a message that is delivered twice */
    SKEWS,    /* one clock runs ahead by a unit */
    STRAYS,   /* somebody says `cont`, or a guest is stopped (an I/O error) */
    AUTOSTARTS,
    OPERATORS,  /* `resolve`, truthful */
    UNINFORMED, /* `resolve --run-here` at the source while the VM may run at the destination */
    FORGETS,    /* the destination loses its state directory */
    BUDGET_COUNT,
    TOTAL = BUDGET_COUNT, /* all of the above together, but operators and autostarts */
    BUDGETS,
};

struct source_host {
    bool up;
    struct handoff_source handoff; /* zero while it is not */
    struct handoff_source_journal synced;
    struct record unsynced[UNSYNCED_MAX];
    unsigned unsynced_count;
    enum qemu qemu;
    bool cold;          /* started from the disks, by another process */
    bool stray;         /* its QEMU runs the guest because somebody said so */
    bool newest;        /* disks, and memory while QEMU lives */
    bool dead_heard;    /* the daemon knows that QEMU is dead */
    bool resume_coming; /* a RESUME that is not ours is on its way to the daemon */
    bool acknowledged;  /* the destination knows how it ended */
    bool operator_start;
    bool
        unwritten; /* a rollback that the journal could not be told of: the guest does not wait for that */
    enum marks marks;
    enum job job;
    enum job_step job_step;
};

struct destination_host {
    bool up;
    struct handoff_destination handoff; /* zero while it is not */
    struct handoff_destination_journal synced;
    struct record unsynced[UNSYNCED_MAX];
    unsigned unsynced_count;
    enum qemu qemu;
    bool cold, stray, newest, dead_heard, resume_coming;
    bool abandoning; /* ABANDONED is not on the disk yet */
    bool removing;   /* and the images are not removed */
    bool kept;       /* renamed instead of removed */
    bool forgotten;  /* no journal, no migration */
    bool forced_once;
    enum cont cont;
    enum bound bound;
};

struct world {
    struct source_host source;
    struct destination_host destination;
    enum link link;
    enum stream stream;
    struct message to_destination[TO_DESTINATION_MAX]; /* old ones, then a queue */
    unsigned to_destination_count;
    struct message to_source[TO_SOURCE_MAX]; /* a queue */
    unsigned to_source_count;
    bool
        uninformed; /* an operator has decided against what goes on: two may run until both hosts talk */
    uint8_t budgets[BUDGETS];
    /* Not part of the state: */
    const char *broken; /* the rule that the last step broke */
};

struct world_options {
    bool marks;     /* disks that can be renamed; else block devices */
    bool survivors; /* messages of a dropped connection may be delivered later */
    bool
        restart_syncs; /* a daemon that is started syncs the journal and the names before it goes by them */
    bool glance; /* operators look only whether the destination's QEMU runs the guest */
    uint8_t budgets[BUDGETS];
};

enum event {
    /* The good way. */
    E_PAUSE,
    E_STREAM,
    E_COMPLETED,
    E_LOAD,
    E_S_JOURNALED,
    E_D_JOURNALED,
    E_RECEIVE,
    E_DELIVER,
    E_D_CONT,
    E_D_CONT_ANSWER,
    E_CLEANED,
    /* What the daemons do, hear and are told by their QEMUs and clocks. */
    E_S_NAMES,
    E_S_CONT,
    E_S_BACK,
    E_S_ROLLED_BACK,
    E_S_DEATH_HEARD,
    E_S_RESUME_HEARD,
    E_S_TIME,
    E_S_START,
    E_S_HANG_UP,
    E_D_CUT,
    E_D_REMOVE,
    E_D_DEATH_HEARD,
    E_D_RESUME_HEARD,
    E_D_TIME,
    E_D_START,
    E_D_LOSS_HEARD,
    E_LINK_UP,
    E_LINK_DOWN_HEARD,
    E_TIME,
    E_QUIET_END, /* all events before this one happen by themselves */
    E_DROP = E_QUIET_END,
    E_D_DROP,
    E_DOUBLE,
    E_S_FAIL,
    E_D_FAIL,
    E_S_JOURNAL_FAILS,
    E_D_JOURNAL_FAILS,
    E_S_CONT_REFUSED,
    E_D_CONT_REFUSED,
    E_S_CRASH,
    E_D_CRASH,
    E_S_REBOOT,
    E_D_REBOOT,
    E_S_QEMU_DIES,
    E_D_QEMU_DIES,
    E_S_COLD_DIES,
    E_D_COLD_DIES,
    E_S_STRAY,
    E_D_STRAY,
    E_D_STOPS,
    E_S_SKEW,
    E_D_SKEW,
    E_D_FORGET,
    E_S_AUTOSTART,
    E_D_AUTOSTART,
    E_UNINFORMED,
    E_OPERATOR, /* from here on: what a truthful operator may do */
    E_S_RUN_HERE = E_OPERATOR,
    E_S_GIVE_UP,
    E_D_RUN_HERE,
    E_D_GIVE_UP,
    E_COUNT,
};

void world_begin(struct world *world, const struct world_options *options);
/* False when it cannot happen; WORLD is worth nothing then. */
bool world_step(struct world *world, const struct world_options *options, enum event event,
                unsigned argument);
/* How many arguments of the event are worth trying. */
unsigned world_arguments(const struct world *world, enum event event);

/* --- for the parts of the model --- */

bool spend(struct world *world, enum budget budget);
void broken(struct world *world, const char *rule);

void source_send(struct world *world, enum message_kind kind, unsigned value);
void destination_send(struct world *world, enum message_kind kind, unsigned value, bool copy);
/* The source's end of the connection is gone. SURVIVOR: 0 none, else 1 + the message that stays in a buffer. */
void link_lost_at_source(struct world *world, unsigned survivor);
/* The destination's end is. */
void link_lost_at_destination(struct world *world);

bool record_add(struct record *records, unsigned *count, unsigned record, unsigned value,
                bool sync);
/* The first record that a sync waits behind, or COUNT. */
unsigned record_in_sync(const struct record *records, unsigned count);
void record_remove(struct record *records, unsigned *count, unsigned first, unsigned number);

struct handoff_source_journal source_file(const struct world *world);
struct handoff_destination_journal destination_file(const struct world *world);
bool source_step(struct world *world, const struct world_options *options, enum event event,
                 unsigned argument);
/* Part of source_step(). */
bool source_fault(struct world *world, const struct world_options *options, enum event event,
                  unsigned argument);
bool source_sync_fails(struct world *world, const struct world_options *options, unsigned last,
                       bool there);
/* The operator at the destination was told that it must stay off. */
void source_comes_back(struct world *world);
bool destination_step(struct world *world, const struct world_options *options, enum event event,
                      unsigned argument);
void source_hears(struct world *world, const struct world_options *options, enum source_input input,
                  const struct handoff_word *word);
void destination_hears(struct world *world, enum destination_input input,
                       const struct handoff_word *word);
/* The source has ended it with the VM at the destination. */
bool source_has_moved_it(const struct world *world);
/* It still wants to hear that the destination knows. */
bool source_says_goodbye(const struct world *world);
bool source_receives(struct world *world, const struct world_options *options);
bool destination_receives(struct world *world, unsigned index, bool keep);
bool destination_finished(const struct world *world);

bool source_runs(const struct world *world);
bool destination_runs(const struct world *world);
void rules_guest_starts_at_source(struct world *world);
void rules_guest_starts_at_destination(struct world *world);
/* The source is about to send a COMMIT. */
void rules_source_commits(struct world *world, const struct world_options *options);
/* A daemon ends a QEMU by what the policy says. */
void rules_source_qemu_ends(struct world *world, bool meant);
void rules_destination_qemu_ends(struct world *world, bool meant);
/* The source has decided something with its own QEMU dead and nothing committed. */
void rules_source_decides_without_qemu(struct world *world);
void rules_check(struct world *world);
/* Nothing more will happen by itself, and nothing needs to. */
bool rules_ended(const struct world *world);
/* Why only an operator can end it, or NULL. */
const char *rules_needs_operator(const struct world *world);

/* --- nonces --- */

/* The model's nonces are small numbers; 0: none. */
unsigned nonce_number(const char *nonce);
void nonce_write(char nonce[HANDOFF_NONCE_SIZE], unsigned number);
unsigned nonce_fresh(const struct world *world);
/* What numbers that are renumbered were called at first: for telling a history. */
struct nonce_names {
    unsigned names[16], count;
};
/* Puts what is equal in all that matters into one shape. NAMES may be NULL. */
void world_canonicalise(struct world *world, struct nonce_names *names);

/* --- packed --- */

#define PACKED_WORDS 5
struct packed {
    uint64_t words[PACKED_WORDS];
};

struct packed world_pack(const struct world *world);
void world_check_packed(const struct world *world, const struct packed *packed);
void world_unpack(struct world *world, const struct packed *packed);

#endif

/*
 * Who may run the VM: the transfer of that right, as two pure transition functions (DESIGN §6). State + input -> state + actions; no
 * I/O, no clock (times are given in). The daemon carries out the actions, in the order of their bits, and feeds back what came of them.
 * What is written down, and what it means after a crash: handoff_journal.h.
 *
 * What must hold, whatever is lost, doubled, delayed or crashes:
 *   - the source runs only while it has not journaled COMMITTED, or after it has journaled that it takes the VM back;
 *   - the destination runs only after a COMMIT that repeats its own latest nonce in time, which the source sends only after COMMITTED is on
 *     stable storage;
 *   - a copy never starts when another may have run since its memory was taken.
 * tests/model/ explores the interleavings of both functions with everything that can go wrong around them.
 *
 * Messages name what they answer: LOADED and COMMIT carry a nonce, REFUSED and TRY_AGAIN the number of the refusal.
 */
#ifndef WATARI_POLICY_HANDOFF_H
#define WATARI_POLICY_HANDOFF_H

#include "handoff_journal.h"

#include <stdbool.h>
#include <stdint.h>

#define HANDOFF_NONCE_SIZE 33 /* 32 hexadecimal digits and NUL */
/* A COMMIT counts only so long after its nonce was sent: one that waited in a stopped process's socket must not start a copy later. */
#define HANDOFF_COMMIT_VALIDITY_MS 10000
/* Beyond it, before the source may believe that its last COMMIT does not count any more: the two hosts' clocks need not run alike. */
#define HANDOFF_MARGIN_MS 5000
/* How often the daemon says SOURCE_IN_TIME, DESTINATION_IN_TIME while a handoff waits. */
#define HANDOFF_TIME_MS 5000

/* What came with an input: from LOADED, COMMIT (nonce), REFUSED, TRY_AGAIN (refusal; copy: the destination still has one to try). */
struct handoff_word {
    const char *nonce;
    uint32_t refusal;
    bool copy;
};

/* --- source --- */

enum source_state {
    SOURCE_OPEN, /* the guest runs here (or is paused by nobody of ours) */
    /* Paused by us, uncommitted: ends by commit or by rollback, and a clock watches. With its QEMU dead, only the destination's word ends it. */
    SOURCE_PAUSED,
    SOURCE_COMMITTING,   /* marks are set and COMMITTED is on its way to the disk */
    SOURCE_COMMITTED,    /* never runs here again by itself */
    SOURCE_RETAKING,     /* it is to run here: TAKING_BACK is on its way to the disk */
    SOURCE_TAKING_BACK,  /* marks off, resume */
    SOURCE_TRYING_AGAIN, /* it cannot be resumed here: TRY_AGAIN is on its way to the disk */
    SOURCE_TAKEN_BACK, /* it runs here (or its QEMU is dead): TAKEN_BACK is on its way to the disk */
    SOURCE_WITHDRAWING, /* an operator decided for this host: WITHDRAWN is on its way to the disk */
    SOURCE_WITHDRAWN, /* it runs here by that decision; the destination is to let go of its copy */
    SOURCE_GIVING_UP, /* an operator gave up the QEMU here: GIVEN_UP is on its way to the disk */
    SOURCE_CONFLICT,  /* both own it; the copy here was stopped */
    SOURCE_CLEANING,  /* the destination owns the VM */
    SOURCE_ROLLING_BACK, /* undo runs; the guest runs here, or is lost */
    SOURCE_ENDED,
};

enum source_input {
    SOURCE_IN_PAUSED,
    SOURCE_IN_FAILED, /* anything that ends the migration: link, mover, QEMU's refusal, cancel, a clock */
    SOURCE_IN_ABANDONED, /* the destination's word (abort, aborted) that it has not and will not run it */
    SOURCE_IN_UNKNOWN, /* the destination's word that it knows nothing of this migration */
    SOURCE_IN_LOADED,
    SOURCE_IN_COMPLETED, /* own QEMU: migration completed, run state postmigrate */
    SOURCE_IN_QEMU_DEAD, /* proven by the pidfd */
    SOURCE_IN_RUNS_HERE, /* somebody resumed the guest here, after PAUSED: RESUME that is not ours */
    SOURCE_IN_JOURNALED,      /* the record asked for last is on stable storage */
    SOURCE_IN_JOURNAL_FAILED, /* it may be there, or not */
    SOURCE_IN_OWNED,
    SOURCE_IN_REFUSED,
    SOURCE_IN_RESUMED, /* the answer to TAKE_BACK: names and guest are as before */
    SOURCE_IN_NOT_RESUMED, /* the answer to TAKE_BACK: the guest did certainly not run; marks are on again */
    SOURCE_IN_CLEANED, /* own QEMU gone, DONE journaled */
    SOURCE_IN_ROLLED_BACK,
    SOURCE_IN_LINK_UP,  /* a control connection to the destination is up (again) */
    SOURCE_IN_TIME,     /* every HANDOFF_TIME_MS */
    SOURCE_IN_RUN_HERE, /* operator; only when handoff_source_run_here() says so */
    SOURCE_IN_GIVE_UP,  /* operator; only when handoff_source_may_give_up() says so */
};

enum source_action {
    SOURCE_DO_STOP = 1 << 0,      /* pause the guest here, which should not run */
    SOURCE_DO_JOURNAL = 1 << 1,   /* handoff_source.record, and sync; before COMMITTED the marks */
    SOURCE_DO_ROLL_BACK = 1 << 2, /* undo all, journal ROLLED_BACK */
    SOURCE_DO_SEND_ABORT = 1 << 3,
    SOURCE_DO_SEND_COMMIT = 1 << 4, /* with handoff_source.nonce */
    SOURCE_DO_SEND_QUERY = 1 << 5,
    SOURCE_DO_TAKE_BACK =
        1
        << 6, /* marks off, resume; with QEMU dead marks off only. Answered by RESUMED or NOT_RESUMED */
    SOURCE_DO_SEND_TAKEN_BACK = 1 << 7,
    SOURCE_DO_SEND_TRY_AGAIN = 1 << 8, /* with handoff_source.refusal */
    SOURCE_DO_CLEAN = 1 << 9,          /* quit QEMU, dispose of disks, journal DONE */
    SOURCE_DO_SEND_DONE = 1 << 10,
    SOURCE_DO_QUIT_QEMU = 1 << 11,
    SOURCE_DO_REPORT_LOST = 1 << 12,
    SOURCE_DO_REPORT_CONFLICT = 1 << 13, /* to the operator and to the destination */
};

struct handoff_source {
    enum source_state state;
    bool loaded, completed, qemu_dead;
    bool
        held; /* COMMITTED, but the guest runs here or its disks have their old names: no COMMIT is sent */
    bool runs_here;        /* the guest was found running here after the commit */
    bool resumed;          /* WITHDRAWN: marks are off, and the guest runs unless QEMU is dead */
    bool rolls_back;       /* in SOURCE_RETAKING: it was not committed, the rollback is next */
    bool destination_copy; /* the refusal under way: the destination still has a copy to try */
    bool journal_failed;   /* in SOURCE_TAKEN_BACK: to be tried again */
    enum source_record record;
    char nonce[HANDOFF_NONCE_SIZE]; /* the latest of LOADED */
    uint32_t refusal;               /* the one being dealt with */
    uint32_t tried_again;           /* refusals up to this one are dealt with */
    uint64_t tried_again_ms;        /* CLOCK_BOOTTIME of this host, of the latest TRY_AGAIN */
    uint64_t commit_sent_ms;        /* CLOCK_BOOTTIME of this host, of the latest COMMIT */
};

/* WORD may be NULL where the input has none. NOW_MS: CLOCK_BOOTTIME of this host. Returns enum source_action, or-ed. */
unsigned handoff_source_step(struct handoff_source *source, enum source_input input,
                             const struct handoff_word *word, uint64_t now_ms);

/* What a restarted daemon finds on its host, beside the journal. */
struct handoff_source_found {
    bool qemu_dead;  /* the very process that the journal names is gone */
    bool guest_runs; /* it runs the guest, or another process has its disks open for writing */
    bool unmarked;   /* disks that COMMITTED renames have their old names */
};
/* SOURCE is zeroed before. The actions are to be carried out as those of a step. */
unsigned handoff_source_recover(struct handoff_source *source,
                                const struct handoff_source_journal *journal,
                                const struct handoff_source_found *found, uint64_t now_ms);

/* May the operator (or a failure) still end it with the guest running here? */
bool handoff_source_can_roll_back(const struct handoff_source *source);
/* It ends with the guest running here: the rollback is under way, or what is written first is. */
bool handoff_source_rolls_back(const struct handoff_source *source);
/* Whether a connection to the destination is to be kept up, or made again, for the handoff's sake. */
bool handoff_source_wants_link(const struct handoff_source *source);

enum handoff_verdict {
    HANDOFF_MAY,
    HANDOFF_MUST_WAIT,  /* *WAIT_MS until the last COMMIT cannot count any more */
    HANDOFF_OTHER_SIDE, /* decided for the other side, or to be decided there */
    HANDOFF_NOT_NOW,    /* nothing is undecided, or it is deciding itself this moment */
};
enum handoff_verdict handoff_source_run_here(const struct handoff_source *source, uint64_t now_ms,
                                             uint64_t *wait_ms);
enum handoff_verdict handoff_source_may_give_up(const struct handoff_source *source);

/* --- destination --- */

enum destination_state {
    DESTINATION_PREPARING,  /* until everything is loaded; may give up by itself */
    DESTINATION_LOADING,    /* LOADED is on its way to the disk */
    DESTINATION_LOADED,     /* keeps its copy until COMMIT, ABORT or an operator */
    DESTINATION_COMMITTING, /* COMMITTED is on its way to the disk */
    DESTINATION_STARTING,   /* `cont` was sent */
    DESTINATION_OWNED,
    DESTINATION_REFUSING, /* REFUSED is on its way to the disk */
    DESTINATION_REFUSED, /* will not run it; keeps what it has until the source has taken it back */
    DESTINATION_GIVING_UP, /* an operator gave up the copy: its QEMU is being ended */
    DESTINATION_CONFLICT,  /* both own it; the copy here, which an operator started, was stopped */
    DESTINATION_ABANDONED,
    DESTINATION_ENDED,
};

enum destination_input {
    DESTINATION_IN_FAILED,    /* before LOADED: anything; later: nothing of that kind ends it */
    DESTINATION_IN_ABORT,     /* the source says so */
    DESTINATION_IN_LOADED,    /* load completed, hash agrees, exports gone, not inmigrate */
    DESTINATION_IN_JOURNALED, /* the record that was asked for last is on stable storage */
    DESTINATION_IN_JOURNAL_FAILED, /* it may be there, or not */
    DESTINATION_IN_COMMIT,
    DESTINATION_IN_RUNNING, /* `cont` was answered with success, or RESUME was seen after it */
    DESTINATION_IN_CONT_REFUSED, /* answered with an error, query-status says not running, no RESUME was seen */
    DESTINATION_IN_RESUMED_EARLY, /* RESUME before COMMITTED: somebody else's `cont` */
    DESTINATION_IN_QEMU_DEAD,
    DESTINATION_IN_LINK_UP, /* the source's query */
    DESTINATION_IN_TAKEN_BACK,
    DESTINATION_IN_TRY_AGAIN,
    DESTINATION_IN_DONE,
    DESTINATION_IN_TIME, /* every HANDOFF_TIME_MS */
    DESTINATION_IN_RUN_HERE, /* operator: the source is off; only when handoff_destination_run_here() says so */
    DESTINATION_IN_GIVE_UP, /* operator; only when handoff_destination_may_give_up() says so */
};

enum destination_action {
    DESTINATION_DO_KILL_QEMU = 1 << 0,   /* answered by QEMU_DEAD */
    DESTINATION_DO_KEEP_IMAGES = 1 << 1, /* rename them, so that nothing starts or removes them */
    DESTINATION_DO_ABANDON =
        1 << 2, /* end QEMU, remove what this migration made, journal ABANDONED */
    DESTINATION_DO_JOURNAL = 1 << 3, /* handoff_destination.record, and sync */
    DESTINATION_DO_SEND_LOADED =
        1 << 4, /* make a new nonce, note when it was sent (handoff_destination_sent) */
    DESTINATION_DO_CONT = 1 << 5,
    DESTINATION_DO_STOP = 1 << 6,
    DESTINATION_DO_OWN = 1 << 7, /* journal OWNED (its loss does no harm); the VM is this host's */
    DESTINATION_DO_SEND_OWNED = 1 << 8,
    DESTINATION_DO_SEND_REFUSED =
        1 << 9, /* with handoff_destination.refusals, and whether there is a copy */
    DESTINATION_DO_SEND_ABANDONED = 1 << 10,
    DESTINATION_DO_END = 1 << 11, /* journal DONE (its loss does no harm) */
    DESTINATION_DO_SEND_DONE_ACK = 1 << 12,
    DESTINATION_DO_REPORT_CONFLICT = 1 << 13,
};

struct handoff_destination {
    enum destination_state state;
    enum destination_record record;
    char nonce[HANDOFF_NONCE_SIZE]; /* of the last LOADED sent; "" when none is good */
    uint64_t nonce_sent_ms;         /* CLOCK_BOOTTIME of this host */
    uint32_t refusals;              /* the number of the latest one */
    bool qemu_dead;
    bool
        may_have_run; /* before a restart `cont` may have been obeyed: nothing is a refusal any more */
    bool
        forced; /* an operator decided for this host: DESTINATION_RECORD_COMMITTED has the value 1 */
    bool journal_failed; /* in DESTINATION_REFUSING: to be tried again */
};

unsigned handoff_destination_step(struct handoff_destination *destination,
                                  enum destination_input input, const struct handoff_word *word,
                                  uint64_t now_ms);
/* A LOADED with NONCE is being sent now. */
void handoff_destination_sent(struct handoff_destination *destination, const char *nonce,
                              uint64_t now_ms);

enum destination_found { FOUND_QEMU_DEAD, FOUND_GUEST_PAUSED, FOUND_GUEST_RUNS };
/* DESTINATION is zeroed before. The actions are to be carried out as those of a step. */
unsigned handoff_destination_recover(struct handoff_destination *destination,
                                     const struct handoff_destination_journal *journal,
                                     enum destination_found found);

enum handoff_verdict handoff_destination_run_here(const struct handoff_destination *destination);
enum handoff_verdict handoff_destination_may_give_up(const struct handoff_destination *destination);

#endif

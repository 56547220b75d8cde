/*
 * Who may run the VM: the transfer of that right, as two pure transition functions (DESIGN §6). State + input -> state + actions; no
 * I/O, no clock (times are given in). The daemon carries out the actions, in the order of their bits, and feeds back what came of them.
 *
 * What must hold, whatever is lost, doubled, delayed or crashes: the source runs only while it has not journaled COMMITTED; the destination
 * runs only after a COMMIT that repeats its own latest nonce, which the source sends only after it has journaled COMMITTED.
 */
#ifndef WATARI_POLICY_HANDOFF_H
#define WATARI_POLICY_HANDOFF_H

#include <stdbool.h>
#include <stdint.h>

#define HANDOFF_NONCE_SIZE 33 /* 32 hexadecimal digits and NUL */
/* A COMMIT counts only so long after its nonce was sent: one that waited in a stopped process's socket must not start a copy later. */
#define HANDOFF_COMMIT_VALIDITY_MS 10000

/* --- source --- */

enum source_state {
    SOURCE_OPEN,   /* the guest runs here (or is paused by nobody of ours) */
    SOURCE_PAUSED, /* paused by us, uncommitted: ends by commit or by rollback, and a clock watches */
    SOURCE_COMMITTING,   /* marks are set and COMMITTED is on its way to the disk */
    SOURCE_COMMITTED,    /* never runs here again by itself */
    SOURCE_TAKING_BACK,  /* the destination refused: unmarking and resuming */
    SOURCE_CLEANING,     /* the destination owns the VM */
    SOURCE_ROLLING_BACK, /* undo runs; the guest runs here */
    SOURCE_LOST,         /* no copy runs anywhere: its QEMU ended before the destination had it */
    SOURCE_ENDED,
};

enum source_input {
    SOURCE_IN_PAUSED,
    SOURCE_IN_FAILED, /* anything that ends the migration: link, mover, QEMU's refusal, the peer's abort, cancel, a clock */
    SOURCE_IN_LOADED, /* with nonce */
    SOURCE_IN_COMPLETED, /* own QEMU: migration completed, run state postmigrate */
    SOURCE_IN_QEMU_DEAD, /* proven by the pidfd, or by another boot id and nobody having the disks open */
    SOURCE_IN_JOURNALED, /* COMMITTED is on stable storage */
    SOURCE_IN_JOURNAL_FAILED,
    SOURCE_IN_OWNED,
    SOURCE_IN_REFUSED,
    SOURCE_IN_TAKEN_BACK, /* unmarked, resumed and journaled */
    SOURCE_IN_TAKE_BACK_FAILED,
    SOURCE_IN_CLEANED, /* own QEMU gone, disks disposed of, DONE journaled */
    SOURCE_IN_ROLLED_BACK,
    SOURCE_IN_LINK_UP, /* a control connection to the destination is up (again) */
};

enum source_action {
    SOURCE_DO_ROLL_BACK = 1 << 0,
    SOURCE_DO_SEND_ABORT = 1 << 1,
    SOURCE_DO_COMMIT = 1 << 2,      /* mark the disks, journal COMMITTED and sync */
    SOURCE_DO_SEND_COMMIT = 1 << 3, /* with handoff_source.nonce */
    SOURCE_DO_SEND_QUERY = 1 << 4,
    SOURCE_DO_TAKE_BACK = 1 << 5, /* unmark, resume, journal TAKEN_BACK */
    SOURCE_DO_SEND_TAKEN_BACK = 1 << 6,
    SOURCE_DO_SEND_TRY_AGAIN = 1 << 7,
    SOURCE_DO_CLEAN = 1 << 8, /* quit QEMU, dispose of disks, journal DONE */
    SOURCE_DO_SEND_DONE = 1 << 9,
    SOURCE_DO_REPORT_LOST = 1 << 10,
};

struct handoff_source {
    enum source_state state;
    bool loaded, completed, qemu_dead;
    char nonce[HANDOFF_NONCE_SIZE]; /* the latest of LOADED */
};

/* NONCE with SOURCE_IN_LOADED, else NULL. Returns enum source_action, or-ed. */
unsigned handoff_source_step(struct handoff_source *source, enum source_input input,
                             const char *nonce);
/* May the operator (or a failure) still end it with the guest running here? */
bool handoff_source_can_roll_back(const struct handoff_source *source);

/* --- destination --- */

enum destination_state {
    DESTINATION_PREPARING,  /* until everything is loaded; may give up by itself */
    DESTINATION_LOADING,    /* LOADED is on its way to the disk */
    DESTINATION_LOADED,     /* keeps its copy until COMMIT, ABORT or an operator */
    DESTINATION_COMMITTING, /* COMMITTED is on its way to the disk */
    DESTINATION_STARTING,   /* `cont` was sent */
    DESTINATION_OWNED,
    DESTINATION_REFUSED, /* will not run it; keeps what it has until the source has taken it back */
    DESTINATION_ABANDONED,
    DESTINATION_ENDED,
};

enum destination_input {
    DESTINATION_IN_FAILED,    /* before LOADED: anything; later: nothing of that kind ends it */
    DESTINATION_IN_ABORT,     /* the source says so */
    DESTINATION_IN_LOADED,    /* load completed, hash agrees, exports gone, not inmigrate */
    DESTINATION_IN_JOURNALED, /* the record that was asked for last is on stable storage */
    DESTINATION_IN_JOURNAL_FAILED,
    DESTINATION_IN_COMMIT,  /* with nonce */
    DESTINATION_IN_RUNNING, /* `cont` was answered with success, or RESUME was seen after it */
    DESTINATION_IN_CONT_REFUSED, /* answered with an error, query-status says not running, no RESUME was seen */
    DESTINATION_IN_RESUMED_EARLY, /* RESUME before COMMITTED: somebody else's `cont`; that QEMU has been killed */
    DESTINATION_IN_QEMU_DEAD,
    DESTINATION_IN_LINK_UP, /* also the source's query */
    DESTINATION_IN_TAKEN_BACK,
    DESTINATION_IN_TRY_AGAIN,
    DESTINATION_IN_DONE,
};

enum destination_action {
    DESTINATION_DO_ABANDON =
        1 << 0, /* end QEMU, remove what this migration made, journal ABANDONED */
    DESTINATION_DO_JOURNAL_LOADED = 1 << 1,
    DESTINATION_DO_SEND_LOADED =
        1 << 2, /* make a new nonce, note when it was sent (handoff_destination_sent) */
    DESTINATION_DO_JOURNAL_COMMITTED = 1 << 3,
    DESTINATION_DO_CONT = 1 << 4,
    DESTINATION_DO_JOURNAL_OWNED = 1 << 5,
    DESTINATION_DO_SEND_OWNED = 1 << 6,
    DESTINATION_DO_JOURNAL_REFUSED = 1 << 7,
    DESTINATION_DO_SEND_REFUSED = 1 << 8,
    DESTINATION_DO_JOURNAL_DONE = 1 << 9,
    DESTINATION_DO_SEND_DONE_ACK = 1 << 10,
};

struct handoff_destination {
    enum destination_state state;
    char nonce[HANDOFF_NONCE_SIZE]; /* of the last LOADED sent; "" when none is good */
    uint64_t nonce_sent_ms;         /* CLOCK_BOOTTIME of this host */
    bool qemu_dead;
};

unsigned handoff_destination_step(struct handoff_destination *destination,
                                  enum destination_input input, const char *nonce, uint64_t now_ms);
/* A LOADED with NONCE is being sent now. */
void handoff_destination_sent(struct handoff_destination *destination, const char *nonce,
                              uint64_t now_ms);

#endif

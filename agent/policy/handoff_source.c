#include "handoff.h"

#include <stdio.h>
#include <string.h>

static unsigned write_down(struct handoff_source *source, enum source_state state,
                           enum source_record record)
{
    source->state = state;
    source->record = record;
    return SOURCE_DO_JOURNAL;
}

static unsigned send_commit(struct handoff_source *source, uint64_t now_ms)
{
    source->commit_sent_ms = now_ms;
    return SOURCE_DO_SEND_COMMIT;
}

/* The loaded copy is good to become the only one: our own QEMU has given everything away, or is dead (then committing is the rescue). */
static unsigned commit_when_ready(struct handoff_source *source)
{
    if (!source->loaded || (!source->completed && !source->qemu_dead)) {
        return 0;
    }
    return write_down(source, SOURCE_COMMITTING, SOURCE_RECORD_COMMITTED);
}

static unsigned roll_back(struct handoff_source *source)
{
    source->state = SOURCE_ROLLING_BACK;
    return SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT |
           (source->qemu_dead ? SOURCE_DO_REPORT_LOST : 0);
}

/*
 * The destination may have all of it, or a record that says so may be on the disk. Were the guest resumed without a word in the journal, a
 * host that is reset a moment later would find its QEMU dead, ask for the loaded copy, and so throw away what the guest did since.
 */
static unsigned release(struct handoff_source *source)
{
    source->rolls_back = true;
    return write_down(source, SOURCE_RETAKING, SOURCE_RECORD_TAKING_BACK);
}

static unsigned step_open(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_PAUSED:
        source->state = SOURCE_PAUSED;
        return 0;
    case SOURCE_IN_QEMU_DEAD:
        /* Nothing that could be loaded has left this host whole. */
        source->qemu_dead = true;
        return roll_back(source);
    case SOURCE_IN_FAILED:
    case SOURCE_IN_ABANDONED:
    case SOURCE_IN_UNKNOWN:
        return roll_back(source);
    default:
        return 0;
    }
}

/* With our own QEMU alive it runs here; else a copy that is left there is the only one. */
static unsigned refused_uncommitted(struct handoff_source *source, const struct handoff_word *word)
{
    if (!source->qemu_dead) {
        return release(source);
    }
    if (!word->copy) {
        return roll_back(source);
    }
    source->refusal = word->refusal;
    return SOURCE_DO_SEND_TRY_AGAIN;
}

static unsigned step_paused(struct handoff_source *source, enum source_input input,
                            const struct handoff_word *word)
{
    switch (input) {
    case SOURCE_IN_REFUSED:
        return refused_uncommitted(source, word);
    case SOURCE_IN_OWNED: /* an operator there started it while this host was off */
        source->state = SOURCE_CLEANING;
        return SOURCE_DO_CLEAN;
    case SOURCE_IN_LOADED:
        source->loaded = true;
        return commit_when_ready(source);
    case SOURCE_IN_COMPLETED:
        source->completed = true;
        return commit_when_ready(source);
    case SOURCE_IN_QEMU_DEAD:
        /* The destination may have all of it, or have it soon: its LOADED rescues the VM; only its own word says that it is lost. */
        source->qemu_dead = true;
        return commit_when_ready(source);
    case SOURCE_IN_FAILED:
        return source->qemu_dead ? 0 : release(source);
    case SOURCE_IN_RUNS_HERE: /* what the destination has is old now */
    case SOURCE_IN_RUN_HERE:
        return release(source);
    case SOURCE_IN_ABANDONED:
    case SOURCE_IN_UNKNOWN:
        return roll_back(source);
    case SOURCE_IN_LINK_UP:
    case SOURCE_IN_TIME:
        return source->qemu_dead ? SOURCE_DO_SEND_QUERY : 0;
    default:
        return 0;
    }
}

static unsigned step_committing(struct handoff_source *source, enum source_input input,
                                uint64_t now_ms)
{
    switch (input) {
    case SOURCE_IN_JOURNALED:
        source->state = SOURCE_COMMITTED;
        return send_commit(source, now_ms);
    case SOURCE_IN_JOURNAL_FAILED:
        if (source->qemu_dead) {
            /* The copy at the destination is the only one: better late than never. */
            source->state = SOURCE_PAUSED;
            return 0;
        }
        return release(source);
    case SOURCE_IN_RUNS_HERE:
        return SOURCE_DO_STOP;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

/* The destination has not run it and will not unless it is told to. */
static unsigned retake(struct handoff_source *source, bool destination_copy)
{
    source->destination_copy = destination_copy;
    if (source->qemu_dead && destination_copy) {
        return write_down(source, SOURCE_TRYING_AGAIN, SOURCE_RECORD_TRY_AGAIN);
    }
    return write_down(source, SOURCE_RETAKING, SOURCE_RECORD_TAKING_BACK);
}

static bool commits_have_expired(const struct handoff_source *source, uint64_t now_ms)
{
    return now_ms - source->commit_sent_ms > HANDOFF_COMMIT_VALIDITY_MS + HANDOFF_MARGIN_MS;
}

static unsigned conflict(struct handoff_source *source)
{
    /* STOP goes before the record: were it the other way round, a crash between them would leave two running. */
    return write_down(source, SOURCE_CONFLICT, SOURCE_RECORD_CONFLICT) | SOURCE_DO_STOP |
           SOURCE_DO_REPORT_CONFLICT;
}

static unsigned refused(struct handoff_source *source, const struct handoff_word *word,
                        uint64_t now_ms)
{
    bool copy = word->copy && !source->held;

    source->refusal = word->refusal;
    if (copy && word->refusal <= source->tried_again) {
        return SOURCE_DO_SEND_TRY_AGAIN; /* ours was lost */
    }
    if (copy && source->qemu_dead && now_ms - source->tried_again_ms < HANDOFF_TIME_MS) {
        return 0; /* neither side can for now: not faster than this. The next query brings it up again. */
    }
    return retake(source, copy);
}

static unsigned step_committed(struct handoff_source *source, enum source_input input,
                               const struct handoff_word *word, uint64_t now_ms)
{
    switch (input) {
    case SOURCE_IN_LOADED:
        /* Held: after a restart there it may have run and be stopped, so it is not for this host to say which copy is the VM. */
        return source->held ? 0 : send_commit(source, now_ms);
    case SOURCE_IN_LINK_UP:
    case SOURCE_IN_TIME:
        return SOURCE_DO_SEND_QUERY;
    case SOURCE_IN_OWNED:
        if (source->runs_here) {
            return conflict(source);
        }
        source->state = SOURCE_CLEANING;
        return SOURCE_DO_CLEAN;
    case SOURCE_IN_REFUSED:
        return refused(source, word, now_ms);
    case SOURCE_IN_ABANDONED:
        return retake(source, false);
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    case SOURCE_IN_RUNS_HERE: /* this host has given up the right to */
        return SOURCE_DO_STOP;
    case SOURCE_IN_RUN_HERE:
        return write_down(source, SOURCE_WITHDRAWING, SOURCE_RECORD_WITHDRAWN);
    case SOURCE_IN_GIVE_UP:
        return write_down(source, SOURCE_GIVING_UP, SOURCE_RECORD_GIVEN_UP);
    default:
        return 0;
    }
}

/* --- taking it back --- */

static unsigned step_retaking(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_JOURNALED:
        if (source->rolls_back) {
            return roll_back(source);
        }
        if (source->qemu_dead && source->destination_copy) {
            return write_down(source, SOURCE_TRYING_AGAIN, SOURCE_RECORD_TRY_AGAIN);
        }
        source->state = SOURCE_TAKING_BACK;
        return SOURCE_DO_TAKE_BACK;
    case SOURCE_IN_JOURNAL_FAILED:
        if (source->rolls_back) {
            return roll_back(source); /* a guest does not stand still because a disk is full */
        }
        source->state = SOURCE_COMMITTED; /* the destination will refuse again */
        return 0;
    case SOURCE_IN_RUNS_HERE: /* too early: what is written first may still say otherwise */
        return source->rolls_back ? 0 : SOURCE_DO_STOP;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_taking_back(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_RESUMED:
        return write_down(source, SOURCE_TAKEN_BACK, SOURCE_RECORD_TAKEN_BACK);
    case SOURCE_IN_NOT_RESUMED:
        if (source->destination_copy) {
            return write_down(source, SOURCE_TRYING_AGAIN, SOURCE_RECORD_TRY_AGAIN);
        }
        /* Not back to COMMITTED: TAKING_BACK is written, so a COMMIT sent now, and a restart, would make two. */
        return 0;
    case SOURCE_IN_TIME: /* nobody has another copy that is known of: it is tried again here */
        return SOURCE_DO_TAKE_BACK;
    case SOURCE_IN_QEMU_DEAD:
        /* It may have run before it died: the destination's copy is an old one now. */
        source->qemu_dead = true;
        source->destination_copy = false;
        return SOURCE_DO_TAKE_BACK;
    default:
        return 0;
    }
}

static unsigned step_trying_again(struct handoff_source *source, enum source_input input,
                                  uint64_t now_ms)
{
    switch (input) {
    case SOURCE_IN_JOURNALED:
        source->tried_again = source->refusal;
        source->tried_again_ms = now_ms;
        source->state = SOURCE_COMMITTED;
        return SOURCE_DO_SEND_TRY_AGAIN;
    case SOURCE_IN_JOURNAL_FAILED:
        source->state = SOURCE_COMMITTED;
        return 0;
    case SOURCE_IN_RUNS_HERE:
        return SOURCE_DO_STOP;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_taken_back(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_JOURNALED:
        source->state = SOURCE_ROLLING_BACK;
        return SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_TAKEN_BACK |
               (source->qemu_dead ? SOURCE_DO_REPORT_LOST : 0);
    case SOURCE_IN_JOURNAL_FAILED:
        /* The destination must not let go of its copy before this is written. It waits; and TAKING_BACK is written. */
        source->journal_failed = true;
        return 0;
    case SOURCE_IN_TIME:
        if (!source->journal_failed) {
            return 0;
        }
        source->journal_failed = false;
        return SOURCE_DO_JOURNAL;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

/* --- the operator's decisions --- */

static unsigned step_withdrawing(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_JOURNALED:
        source->state = SOURCE_WITHDRAWN;
        return SOURCE_DO_TAKE_BACK;
    case SOURCE_IN_JOURNAL_FAILED:
        /* The record may be there: a COMMIT sent now, and a restart that finds it, would make two. */
        source->held = true;
        source->state = SOURCE_COMMITTED;
        return 0;
    case SOURCE_IN_RUNS_HERE:
        return SOURCE_DO_STOP;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_withdrawn(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_RESUMED:
    case SOURCE_IN_NOT_RESUMED: /* the operator is told, and has the disks */
        source->resumed = true;
        return SOURCE_DO_SEND_QUERY;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return source->resumed ? 0 : SOURCE_DO_TAKE_BACK;
    case SOURCE_IN_LOADED:
        return SOURCE_DO_SEND_ABORT;
    case SOURCE_IN_OWNED:
        return source->resumed ? conflict(source) : 0;
    case SOURCE_IN_REFUSED:
    case SOURCE_IN_ABANDONED:
    case SOURCE_IN_UNKNOWN:
        return source->resumed ? write_down(source, SOURCE_TAKEN_BACK, SOURCE_RECORD_TAKEN_BACK)
                               : 0;
    case SOURCE_IN_LINK_UP:
    case SOURCE_IN_TIME:
        return SOURCE_DO_SEND_QUERY;
    default:
        return 0;
    }
}

static unsigned step_giving_up(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_JOURNALED:
        source->state = SOURCE_COMMITTED;
        return SOURCE_DO_QUIT_QEMU;
    case SOURCE_IN_JOURNAL_FAILED:
        source->state = SOURCE_COMMITTED;
        return 0;
    case SOURCE_IN_RUNS_HERE:
        return SOURCE_DO_STOP;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_conflict(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_GIVE_UP:
        source->state = SOURCE_CLEANING;
        return SOURCE_DO_CLEAN;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

unsigned handoff_source_step(struct handoff_source *source, enum source_input input,
                             const struct handoff_word *word, uint64_t now_ms)
{
    if (input == SOURCE_IN_LOADED) {
        snprintf(source->nonce, sizeof source->nonce, "%s", word->nonce);
    }
    switch (source->state) {
    case SOURCE_OPEN:
        return step_open(source, input);
    case SOURCE_PAUSED:
        return step_paused(source, input, word);
    case SOURCE_COMMITTING:
        return step_committing(source, input, now_ms);
    case SOURCE_COMMITTED:
        return step_committed(source, input, word, now_ms);
    case SOURCE_RETAKING:
        return step_retaking(source, input);
    case SOURCE_TAKING_BACK:
        return step_taking_back(source, input);
    case SOURCE_TRYING_AGAIN:
        return step_trying_again(source, input, now_ms);
    case SOURCE_TAKEN_BACK:
        return step_taken_back(source, input);
    case SOURCE_WITHDRAWING:
        return step_withdrawing(source, input);
    case SOURCE_WITHDRAWN:
        return step_withdrawn(source, input);
    case SOURCE_GIVING_UP:
        return step_giving_up(source, input);
    case SOURCE_CONFLICT:
        return step_conflict(source, input);
    case SOURCE_CLEANING:
        if (input == SOURCE_IN_CLEANED) {
            source->state = SOURCE_ENDED;
            return SOURCE_DO_SEND_DONE;
        }
        return 0;
    case SOURCE_ROLLING_BACK:
        if (input == SOURCE_IN_ROLLED_BACK) {
            source->state = SOURCE_ENDED;
        } else if (input == SOURCE_IN_QEMU_DEAD) {
            source->qemu_dead = true;
        }
        return 0;
    case SOURCE_ENDED:
        return 0;
    }
    return 0;
}

/* --- after a restart --- */

static unsigned recover_committed(struct handoff_source *source,
                                  const struct handoff_source_journal *journal,
                                  const struct handoff_source_found *found)
{
    source->loaded = true;
    if (journal->conflict) {
        source->state = SOURCE_CONFLICT;
        return 0; /* an operator may have resumed it since, having ended the other */
    }
    if (journal->withdrawn) {
        source->state = SOURCE_WITHDRAWN;
        return SOURCE_DO_TAKE_BACK;
    }
    if (journal->taking_back) {
        source->state = SOURCE_TAKING_BACK;
        return SOURCE_DO_TAKE_BACK;
    }
    source->state = SOURCE_COMMITTED;
    /* Names taken off without a record that says so: COMMITTED was not meant to stay, and the guest may have run here since. */
    source->held = found->guest_runs || found->unmarked;
    source->runs_here = found->guest_runs;
    return journal->given_up && !source->qemu_dead && !source->held ? SOURCE_DO_QUIT_QEMU : 0;
}

unsigned handoff_source_recover(struct handoff_source *source,
                                const struct handoff_source_journal *journal,
                                const struct handoff_source_found *found, uint64_t now_ms)
{
    source->qemu_dead = found->qemu_dead;
    source->tried_again = journal->tried_again;
    source->commit_sent_ms = now_ms; /* the dead daemon may have sent one just before */
    if (journal->done || journal->rolled_back) {
        source->state = SOURCE_ENDED;
        return 0;
    }
    if (journal->taken_back) {
        source->state = SOURCE_ROLLING_BACK;
        return SOURCE_DO_ROLL_BACK | (source->qemu_dead ? SOURCE_DO_REPORT_LOST : 0);
    }
    if (journal->committed) {
        return recover_committed(source, journal, found);
    }
    if (!journal->paused || journal->taking_back) {
        return roll_back(source);
    }
    if (source->qemu_dead && !found->guest_runs) {
        source->state = SOURCE_PAUSED; /* the destination may have all of it */
        return 0;
    }
    return release(source);
}

/* --- questions --- */

bool handoff_source_can_roll_back(const struct handoff_source *source)
{
    return source->state == SOURCE_OPEN || (source->state == SOURCE_PAUSED && !source->qemu_dead);
}

bool handoff_source_rolls_back(const struct handoff_source *source)
{
    return source->state == SOURCE_ROLLING_BACK ||
           (source->state == SOURCE_RETAKING && source->rolls_back);
}

bool handoff_source_wants_link(const struct handoff_source *source)
{
    switch (source->state) {
    case SOURCE_PAUSED:
        return source->qemu_dead;
    case SOURCE_RETAKING:
        return !source->rolls_back;
    case SOURCE_COMMITTING:
    case SOURCE_COMMITTED:
    case SOURCE_TAKING_BACK:
    case SOURCE_TRYING_AGAIN:
    case SOURCE_TAKEN_BACK:
    case SOURCE_WITHDRAWING:
    case SOURCE_WITHDRAWN:
    case SOURCE_GIVING_UP:
        return true;
    case SOURCE_OPEN:
    case SOURCE_CONFLICT:
    case SOURCE_CLEANING:
    case SOURCE_ROLLING_BACK:
    case SOURCE_ENDED:
        break;
    }
    return false;
}

enum handoff_verdict handoff_source_run_here(const struct handoff_source *source, uint64_t now_ms,
                                             uint64_t *wait_ms)
{
    uint64_t since = now_ms - source->commit_sent_ms;

    *wait_ms = 0;
    if (source->state == SOURCE_CONFLICT) {
        return HANDOFF_OTHER_SIDE;
    }
    if (source->state == SOURCE_PAUSED && source->qemu_dead) {
        return HANDOFF_MAY;
    }
    if (source->state != SOURCE_COMMITTED) {
        return HANDOFF_NOT_NOW;
    }
    if (!commits_have_expired(source, now_ms)) {
        *wait_ms = HANDOFF_COMMIT_VALIDITY_MS + HANDOFF_MARGIN_MS - since + 1;
        return HANDOFF_MUST_WAIT;
    }
    return HANDOFF_MAY;
}

enum handoff_verdict handoff_source_may_give_up(const struct handoff_source *source)
{
    return source->state == SOURCE_COMMITTED || source->state == SOURCE_CONFLICT ? HANDOFF_MAY
                                                                                 : HANDOFF_NOT_NOW;
}

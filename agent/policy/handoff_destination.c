#include "handoff.h"

#include <stdio.h>
#include <string.h>

static unsigned write_down(struct handoff_destination *destination, enum destination_state state,
                           enum destination_record record)
{
    destination->state = state;
    destination->record = record;
    return DESTINATION_DO_JOURNAL;
}

static unsigned abandon(struct handoff_destination *destination)
{
    destination->state = DESTINATION_ABANDONED;
    return DESTINATION_DO_ABANDON;
}

/* Not told before it is on the disk: a reboot here would forget it, and take the copy for one that may have run. */
static unsigned refuse(struct handoff_destination *destination)
{
    destination->nonce[0] = '\0';
    destination->refusals++;
    destination->forced = false;
    return write_down(destination, DESTINATION_REFUSING, DESTINATION_RECORD_REFUSED);
}

static unsigned own(struct handoff_destination *destination)
{
    destination->state = DESTINATION_OWNED;
    return DESTINATION_DO_OWN | DESTINATION_DO_SEND_OWNED;
}

static unsigned offer(struct handoff_destination *destination)
{
    destination->state = DESTINATION_LOADED;
    return DESTINATION_DO_SEND_LOADED;
}

static unsigned qemu_died_unstarted(struct handoff_destination *destination)
{
    destination->qemu_dead = true;
    /* It may have run, and shut down: that is owning it, not refusing it. */
    return destination->may_have_run ? own(destination) : refuse(destination);
}

/* `cont` failed, or was never sent. After a restart that is no proof that the guest has not run before, and only who knows that may refuse. */
static unsigned not_started(struct handoff_destination *destination)
{
    if (!destination->may_have_run) {
        return refuse(destination);
    }
    destination->nonce[0] = '\0';
    destination->forced = false;
    destination->state = DESTINATION_LOADED; /* the source asks, and it is tried again */
    return 0;
}

static bool commit_counts(const struct handoff_destination *destination, uint64_t now_ms)
{
    return now_ms - destination->nonce_sent_ms <= HANDOFF_COMMIT_VALIDITY_MS;
}

static unsigned step_preparing(struct handoff_destination *destination,
                               enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_LOADED:
        return write_down(destination, DESTINATION_LOADING, DESTINATION_RECORD_LOADED);
    case DESTINATION_IN_FAILED:
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK:
    case DESTINATION_IN_QEMU_DEAD:
        return abandon(destination);
    case DESTINATION_IN_RESUMED_EARLY:
        return abandon(destination) | DESTINATION_DO_KILL_QEMU;
    default:
        return 0;
    }
}

static unsigned step_loading(struct handoff_destination *destination, enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_JOURNALED:
        return offer(destination);
    case DESTINATION_IN_FAILED:
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK:
    case DESTINATION_IN_JOURNAL_FAILED:
    case DESTINATION_IN_QEMU_DEAD:
        return abandon(destination);
    case DESTINATION_IN_RESUMED_EARLY:
        return abandon(destination) | DESTINATION_DO_KILL_QEMU;
    default:
        return 0;
    }
}

static unsigned step_loaded(struct handoff_destination *destination, enum destination_input input,
                            const struct handoff_word *word, uint64_t now_ms)
{
    switch (input) {
    case DESTINATION_IN_COMMIT:
        if (!destination->nonce[0] || strcmp(word->nonce, destination->nonce) != 0) {
            return 0; /* an old one: the answer to our latest LOADED is still to come */
        }
        if (!commit_counts(destination, now_ms)) {
            return DESTINATION_DO_SEND_LOADED;
        }
        return write_down(destination, DESTINATION_COMMITTING, DESTINATION_RECORD_COMMITTED);
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK: /* of an earlier refusal: a late "try again" came between */
        return abandon(destination);
    case DESTINATION_IN_LINK_UP:
        return DESTINATION_DO_SEND_LOADED;
    case DESTINATION_IN_QEMU_DEAD:
        return qemu_died_unstarted(destination);
    case DESTINATION_IN_RESUMED_EARLY:
        return destination->may_have_run ? own(destination)
                                         : refuse(destination) | DESTINATION_DO_KILL_QEMU;
    case DESTINATION_IN_RUN_HERE:
        destination->forced = true;
        return write_down(destination, DESTINATION_COMMITTING, DESTINATION_RECORD_COMMITTED);
    case DESTINATION_IN_GIVE_UP:
        destination->state = DESTINATION_GIVING_UP;
        return DESTINATION_DO_KEEP_IMAGES | DESTINATION_DO_KILL_QEMU;
    default:
        return 0;
    }
}

static unsigned step_committing(struct handoff_destination *destination,
                                enum destination_input input, uint64_t now_ms)
{
    switch (input) {
    case DESTINATION_IN_JOURNALED:
        if (destination->qemu_dead) {
            return qemu_died_unstarted(destination);
        }
        /*
         * The disk may have taken its time; right before `cont` the commit must still count. The journal says now that the guest may have
         * run: only REFUSED takes that back.
         */
        if (!destination->forced && !commit_counts(destination, now_ms)) {
            return not_started(destination);
        }
        destination->state = DESTINATION_STARTING;
        return DESTINATION_DO_CONT;
    case DESTINATION_IN_JOURNAL_FAILED:
        return not_started(destination);
    case DESTINATION_IN_QEMU_DEAD:
        /* One record at a time: the answer for this one would be taken for that of the next. */
        destination->qemu_dead = true;
        return 0;
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK: /* an operator decided at both sides, or only now this side hears of the end */
        return abandon(destination);
    default:
        return 0;
    }
}

static unsigned step_starting(struct handoff_destination *destination, enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return own(destination);
    case DESTINATION_IN_RUNNING:
        return own(destination);
    case DESTINATION_IN_CONT_REFUSED:
        return not_started(destination);
    default:
        return 0;
    }
}

static unsigned step_owned(struct handoff_destination *destination, enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_DONE:
        destination->state = DESTINATION_ENDED;
        return DESTINATION_DO_END | DESTINATION_DO_SEND_DONE_ACK;
    case DESTINATION_IN_LINK_UP:
    case DESTINATION_IN_COMMIT:
        return DESTINATION_DO_SEND_OWNED;
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK:
        if (!destination->forced) {
            return DESTINATION_DO_SEND_OWNED; /* an operator decided otherwise at the source: there it is stopped */
        }
        return write_down(destination, DESTINATION_CONFLICT, DESTINATION_RECORD_CONFLICT) |
               DESTINATION_DO_STOP | DESTINATION_DO_REPORT_CONFLICT;
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_refusing(struct handoff_destination *destination, enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_JOURNALED:
        destination->state = DESTINATION_REFUSED;
        return DESTINATION_DO_SEND_REFUSED;
    case DESTINATION_IN_JOURNAL_FAILED:
        destination->journal_failed = true;
        return 0;
    case DESTINATION_IN_TIME:
        if (!destination->journal_failed) {
            return 0;
        }
        destination->journal_failed = false;
        return DESTINATION_DO_JOURNAL;
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK:
        return abandon(destination);
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned step_refused(struct handoff_destination *destination, enum destination_input input,
                             const struct handoff_word *word)
{
    switch (input) {
    case DESTINATION_IN_LINK_UP:
    case DESTINATION_IN_COMMIT:
        return DESTINATION_DO_SEND_REFUSED;
    case DESTINATION_IN_ABORT: /* it never committed, so it never was asked to take anything back */
    case DESTINATION_IN_TAKEN_BACK:
        return abandon(destination);
    case DESTINATION_IN_TRY_AGAIN:
        if (word->refusal != destination->refusals) {
            return 0;
        }
        return destination->qemu_dead ? DESTINATION_DO_SEND_REFUSED : offer(destination);
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return DESTINATION_DO_SEND_REFUSED;
    case DESTINATION_IN_RESUMED_EARLY:
        return DESTINATION_DO_KILL_QEMU;
    case DESTINATION_IN_RUN_HERE:
        destination->forced = true;
        return write_down(destination, DESTINATION_COMMITTING, DESTINATION_RECORD_COMMITTED);
    case DESTINATION_IN_GIVE_UP:
        if (destination
                ->qemu_dead) { /* the source may have ended without a word that was kept here */
            return abandon(destination) | DESTINATION_DO_KEEP_IMAGES;
        }
        return DESTINATION_DO_KEEP_IMAGES | DESTINATION_DO_KILL_QEMU;
    default:
        return 0;
    }
}

static unsigned step_giving_up(struct handoff_destination *destination,
                               enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return refuse(destination);
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK:
        return abandon(destination);
    default:
        return 0;
    }
}

static unsigned step_conflict(struct handoff_destination *destination, enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_GIVE_UP:
        /* It has run, so what it has written is nothing that may be removed. */
        return abandon(destination) | DESTINATION_DO_KEEP_IMAGES | DESTINATION_DO_KILL_QEMU;
    case DESTINATION_IN_LINK_UP:
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK:
        return DESTINATION_DO_REPORT_CONFLICT;
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

unsigned handoff_destination_step(struct handoff_destination *destination,
                                  enum destination_input input, const struct handoff_word *word,
                                  uint64_t now_ms)
{
    switch (destination->state) {
    case DESTINATION_PREPARING:
        return step_preparing(destination, input);
    case DESTINATION_LOADING:
        return step_loading(destination, input);
    case DESTINATION_LOADED:
        return step_loaded(destination, input, word, now_ms);
    case DESTINATION_COMMITTING:
        return step_committing(destination, input, now_ms);
    case DESTINATION_STARTING:
        return step_starting(destination, input);
    case DESTINATION_OWNED:
        return step_owned(destination, input);
    case DESTINATION_REFUSING:
        return step_refusing(destination, input);
    case DESTINATION_REFUSED:
        return step_refused(destination, input, word);
    case DESTINATION_GIVING_UP:
        return step_giving_up(destination, input);
    case DESTINATION_CONFLICT:
        return step_conflict(destination, input);
    case DESTINATION_ABANDONED:
        switch (input) {
        case DESTINATION_IN_LINK_UP:
        case DESTINATION_IN_COMMIT:
        case DESTINATION_IN_ABORT:
        case DESTINATION_IN_TAKEN_BACK:
        case DESTINATION_IN_TRY_AGAIN:
            return DESTINATION_DO_SEND_ABANDONED;
        default:
            return 0;
        }
    case DESTINATION_ENDED:
        return input == DESTINATION_IN_DONE ? DESTINATION_DO_SEND_DONE_ACK
               : input == DESTINATION_IN_LINK_UP || input == DESTINATION_IN_COMMIT
                   ? DESTINATION_DO_SEND_OWNED
                   : 0;
    }
    return 0;
}

void handoff_destination_sent(struct handoff_destination *destination, const char *nonce,
                              uint64_t now_ms)
{
    snprintf(destination->nonce, sizeof destination->nonce, "%s", nonce);
    destination->nonce_sent_ms = now_ms;
}

/* --- after a restart --- */

static unsigned recover_loaded(struct handoff_destination *destination,
                               enum destination_found found)
{
    destination->state = DESTINATION_LOADED;
    if (found == FOUND_QEMU_DEAD) {
        return qemu_died_unstarted(destination);
    }
    if (found == FOUND_GUEST_PAUSED) {
        return 0; /* the source asks, or hears of it when it does */
    }
    return destination->may_have_run ? own(destination)
                                     : refuse(destination) | DESTINATION_DO_KILL_QEMU;
}

unsigned handoff_destination_recover(struct handoff_destination *destination,
                                     const struct handoff_destination_journal *journal,
                                     enum destination_found found)
{
    destination->refusals = journal->refusals;
    destination->qemu_dead = found == FOUND_QEMU_DEAD;
    if (journal->abandoned) {
        destination->state = DESTINATION_ABANDONED;
        return 0;
    }
    if (journal->done) {
        destination->state = DESTINATION_ENDED;
        return 0;
    }
    if (journal->conflict) {
        destination->state = DESTINATION_CONFLICT;
        return 0;
    }
    destination->forced = journal->forced && journal->last == DESTINATION_RECORD_COMMITTED;
    if (journal->owned) {
        destination->state = DESTINATION_OWNED;
        return 0;
    }
    switch (journal->last) {
    case DESTINATION_RECORD_COMMITTED:
        destination->may_have_run = true;
        return recover_loaded(destination, found);
    case DESTINATION_RECORD_LOADED:
        return recover_loaded(destination, found);
    case DESTINATION_RECORD_REFUSED:
        destination->state = DESTINATION_REFUSED;
        return found == FOUND_GUEST_RUNS ? DESTINATION_DO_KILL_QEMU : 0;
    default:
        return abandon(destination);
    }
}

/* --- questions --- */

enum handoff_verdict handoff_destination_run_here(const struct handoff_destination *destination)
{
    switch (destination->state) {
    case DESTINATION_LOADED:
        return HANDOFF_MAY;
    case DESTINATION_REFUSED:
        return destination->qemu_dead ? HANDOFF_OTHER_SIDE : HANDOFF_MAY;
    case DESTINATION_CONFLICT:
    case DESTINATION_ABANDONED:
        return HANDOFF_OTHER_SIDE;
    default:
        return HANDOFF_NOT_NOW;
    }
}

enum handoff_verdict handoff_destination_may_give_up(const struct handoff_destination *destination)
{
    switch (destination->state) {
    case DESTINATION_LOADED:
        /* Who gave it up would be believed that it never ran. */
        return destination->may_have_run ? HANDOFF_OTHER_SIDE : HANDOFF_MAY;
    case DESTINATION_REFUSED:
    case DESTINATION_CONFLICT:
        return HANDOFF_MAY;
    default:
        return HANDOFF_NOT_NOW;
    }
}

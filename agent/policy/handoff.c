#include "handoff.h"

#include <stdio.h>
#include <string.h>

/* --- source --- */

/* The loaded copy is good to become the only one: our own QEMU has given everything away, or is dead (then committing is the rescue). */
static unsigned commit_when_ready(struct handoff_source *source)
{
    if (!source->loaded || (!source->completed && !source->qemu_dead)) {
        return 0;
    }
    source->state = SOURCE_COMMITTING;
    return SOURCE_DO_COMMIT;
}

static unsigned source_give_up(struct handoff_source *source)
{
    if (source->qemu_dead) {
        source->state = SOURCE_LOST;
        return SOURCE_DO_SEND_ABORT | SOURCE_DO_REPORT_LOST;
    }
    source->state = SOURCE_ROLLING_BACK;
    return SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_ABORT;
}

static unsigned source_open(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_PAUSED:
        source->state = SOURCE_PAUSED;
        return 0;
    case SOURCE_IN_FAILED:
        return source_give_up(source);
    case SOURCE_IN_QEMU_DEAD:
        /* Nothing that could be loaded has left this host whole. */
        source->qemu_dead = true;
        return source_give_up(source);
    default:
        return 0;
    }
}

static unsigned source_paused(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_LOADED:
        source->loaded = true;
        return commit_when_ready(source);
    case SOURCE_IN_COMPLETED:
        source->completed = true;
        return commit_when_ready(source);
    case SOURCE_IN_QEMU_DEAD:
        /* The destination may have all of it, or have it soon: its LOADED rescues the VM; its abort means that it is lost. */
        source->qemu_dead = true;
        return commit_when_ready(source);
    case SOURCE_IN_FAILED:
        return source_give_up(source);
    default:
        return 0;
    }
}

static unsigned source_committing(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_JOURNALED:
        source->state = SOURCE_COMMITTED;
        return SOURCE_DO_SEND_COMMIT;
    case SOURCE_IN_JOURNAL_FAILED:
        return source_give_up(source);
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned source_committed(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_LOADED:
        return SOURCE_DO_SEND_COMMIT;
    case SOURCE_IN_LINK_UP:
        return SOURCE_DO_SEND_QUERY;
    case SOURCE_IN_OWNED:
        source->state = SOURCE_CLEANING;
        return SOURCE_DO_CLEAN;
    case SOURCE_IN_REFUSED:
        source->state = SOURCE_TAKING_BACK;
        return SOURCE_DO_TAKE_BACK;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

static unsigned source_taking_back(struct handoff_source *source, enum source_input input)
{
    switch (input) {
    case SOURCE_IN_TAKEN_BACK:
        source->state = SOURCE_ROLLING_BACK;
        return SOURCE_DO_ROLL_BACK | SOURCE_DO_SEND_TAKEN_BACK;
    case SOURCE_IN_TAKE_BACK_FAILED:
        source->state = SOURCE_COMMITTED;
        return SOURCE_DO_SEND_TRY_AGAIN;
    case SOURCE_IN_QEMU_DEAD:
        source->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

unsigned handoff_source_step(struct handoff_source *source, enum source_input input,
                             const char *nonce)
{
    if (input == SOURCE_IN_LOADED) {
        snprintf(source->nonce, sizeof source->nonce, "%s", nonce);
    }
    switch (source->state) {
    case SOURCE_OPEN:
        return source_open(source, input);
    case SOURCE_PAUSED:
        return source_paused(source, input);
    case SOURCE_COMMITTING:
        return source_committing(source, input);
    case SOURCE_COMMITTED:
        return source_committed(source, input);
    case SOURCE_TAKING_BACK:
        return source_taking_back(source, input);
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
    case SOURCE_LOST:
    case SOURCE_ENDED:
        return 0;
    }
    return 0;
}

bool handoff_source_can_roll_back(const struct handoff_source *source)
{
    return source->state == SOURCE_OPEN || source->state == SOURCE_PAUSED;
}

/* --- destination --- */

static unsigned destination_abandon(struct handoff_destination *destination)
{
    destination->state = DESTINATION_ABANDONED;
    return DESTINATION_DO_ABANDON;
}

static unsigned destination_refuse(struct handoff_destination *destination)
{
    destination->state = DESTINATION_REFUSED;
    destination->nonce[0] = '\0';
    return DESTINATION_DO_JOURNAL_REFUSED | DESTINATION_DO_SEND_REFUSED;
}

static unsigned destination_offer_again(struct handoff_destination *destination)
{
    destination->state = DESTINATION_LOADED;
    return DESTINATION_DO_SEND_LOADED;
}

static bool commit_counts(const struct handoff_destination *destination, uint64_t now_ms)
{
    return now_ms - destination->nonce_sent_ms <= HANDOFF_COMMIT_VALIDITY_MS;
}

static unsigned destination_loaded(struct handoff_destination *destination,
                                   enum destination_input input, const char *nonce, uint64_t now_ms)
{
    switch (input) {
    case DESTINATION_IN_COMMIT:
        if (!destination->nonce[0] || strcmp(nonce, destination->nonce) != 0) {
            return 0; /* an old one: the answer to our latest LOADED is still to come */
        }
        if (!commit_counts(destination, now_ms)) {
            return DESTINATION_DO_SEND_LOADED;
        }
        destination->state = DESTINATION_COMMITTING;
        return DESTINATION_DO_JOURNAL_COMMITTED;
    case DESTINATION_IN_ABORT:
    case DESTINATION_IN_TAKEN_BACK: /* of an earlier refusal: a late "try again" came between */
        return destination_abandon(destination);
    case DESTINATION_IN_LINK_UP:
        return DESTINATION_DO_SEND_LOADED;
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return destination_refuse(destination);
    case DESTINATION_IN_RESUMED_EARLY:
        destination->qemu_dead = true;
        return destination_refuse(destination);
    default:
        return 0;
    }
}

static unsigned destination_committing(struct handoff_destination *destination,
                                       enum destination_input input, uint64_t now_ms)
{
    switch (input) {
    case DESTINATION_IN_JOURNALED:
        /* The disk may have taken its time; right before `cont` the commit must still count. */
        if (!commit_counts(destination, now_ms)) {
            return destination_offer_again(destination);
        }
        destination->state = DESTINATION_STARTING;
        return DESTINATION_DO_CONT;
    case DESTINATION_IN_JOURNAL_FAILED:
        return destination_refuse(destination);
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return destination_refuse(destination);
    default:
        return 0;
    }
}

static unsigned destination_starting(struct handoff_destination *destination,
                                     enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        /* It may have run, and shut down: that is owning it, not refusing it. */
        destination->state = DESTINATION_OWNED;
        return DESTINATION_DO_JOURNAL_OWNED | DESTINATION_DO_SEND_OWNED;
    case DESTINATION_IN_RUNNING:
        destination->state = DESTINATION_OWNED;
        return DESTINATION_DO_JOURNAL_OWNED | DESTINATION_DO_SEND_OWNED;
    case DESTINATION_IN_CONT_REFUSED:
        return destination_refuse(destination);
    default:
        return 0;
    }
}

static unsigned destination_refused(struct handoff_destination *destination,
                                    enum destination_input input)
{
    switch (input) {
    case DESTINATION_IN_LINK_UP:
    case DESTINATION_IN_COMMIT:
        return DESTINATION_DO_SEND_REFUSED;
    case DESTINATION_IN_ABORT: /* it never committed, so it never was asked to take anything back */
    case DESTINATION_IN_TAKEN_BACK:
        return destination_abandon(destination);
    case DESTINATION_IN_TRY_AGAIN:
        return destination->qemu_dead ? DESTINATION_DO_SEND_REFUSED
                                      : destination_offer_again(destination);
    case DESTINATION_IN_QEMU_DEAD:
        destination->qemu_dead = true;
        return 0;
    default:
        return 0;
    }
}

unsigned handoff_destination_step(struct handoff_destination *destination,
                                  enum destination_input input, const char *nonce, uint64_t now_ms)
{
    switch (destination->state) {
    case DESTINATION_PREPARING:
        if (input == DESTINATION_IN_LOADED) {
            destination->state = DESTINATION_LOADING;
            return DESTINATION_DO_JOURNAL_LOADED;
        }
        if (input == DESTINATION_IN_FAILED || input == DESTINATION_IN_ABORT ||
            input == DESTINATION_IN_QEMU_DEAD || input == DESTINATION_IN_RESUMED_EARLY) {
            return destination_abandon(destination);
        }
        return 0;
    case DESTINATION_LOADING:
        if (input == DESTINATION_IN_JOURNALED) {
            return destination_offer_again(destination);
        }
        if (input == DESTINATION_IN_FAILED || input == DESTINATION_IN_ABORT ||
            input == DESTINATION_IN_JOURNAL_FAILED || input == DESTINATION_IN_QEMU_DEAD ||
            input == DESTINATION_IN_RESUMED_EARLY) {
            return destination_abandon(destination);
        }
        return 0;
    case DESTINATION_LOADED:
        return destination_loaded(destination, input, nonce, now_ms);
    case DESTINATION_COMMITTING:
        return destination_committing(destination, input, now_ms);
    case DESTINATION_STARTING:
        return destination_starting(destination, input);
    case DESTINATION_OWNED:
        if (input == DESTINATION_IN_DONE) {
            destination->state = DESTINATION_ENDED;
            return DESTINATION_DO_JOURNAL_DONE | DESTINATION_DO_SEND_DONE_ACK;
        }
        return input == DESTINATION_IN_LINK_UP || input == DESTINATION_IN_COMMIT
                   ? DESTINATION_DO_SEND_OWNED
                   : 0;
    case DESTINATION_REFUSED:
        return destination_refused(destination, input);
    case DESTINATION_ABANDONED:
    case DESTINATION_ENDED:
        return 0;
    }
    return 0;
}

void handoff_destination_sent(struct handoff_destination *destination, const char *nonce,
                              uint64_t now_ms)
{
    snprintf(destination->nonce, sizeof destination->nonce, "%s", nonce);
    destination->nonce_sent_ms = now_ms;
}

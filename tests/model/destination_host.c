/* The destination's host in the model: what its daemon makes of the shipped function's actions, its QEMU, its journal and its disks. */
#include "world.h"

#include <string.h>

bool destination_finished(const struct world *world)
{
    const struct destination_host *host = &world->destination;

    return host->forgotten || host->handoff.state == DESTINATION_ENDED ||
           (host->handoff.state == DESTINATION_ABANDONED && !host->abandoning);
}

/* --- actions --- */

static void write_down(struct world *world, enum destination_record record, bool sync)
{
    struct destination_host *host = &world->destination;
    unsigned value = record == DESTINATION_RECORD_REFUSED     ? host->handoff.refusals
                     : record == DESTINATION_RECORD_COMMITTED ? host->handoff.forced
                                                              : 0;

    if (!record_add(host->unsynced, &host->unsynced_count, record, value, sync)) {
        broken(world, "the model's journal of the destination is too short");
    }
}

static void end_qemu(struct world *world, bool meant)
{
    struct destination_host *host = &world->destination;

    if (host->qemu != QEMU_DEAD) {
        bool stray = host->stray;

        host->qemu = QEMU_DEAD;
        host->stray = false;
        rules_destination_qemu_ends(world, meant || stray);
    }
}

/* To a peer that is bound to the migration, or that has asked about one that has ended. */
static void answer(struct world *world, enum message_kind kind, unsigned value, bool copy)
{
    if (world->destination.bound == BOUND_CURRENT || destination_finished(world)) {
        destination_send(world, kind, value, copy);
    }
}

static void send_loaded(struct world *world)
{
    struct destination_host *host = &world->destination;
    unsigned number = nonce_fresh(world);
    char nonce[HANDOFF_NONCE_SIZE];

    if (host->bound == BOUND_NONE) {
        return;
    }
    nonce_write(nonce, number);
    handoff_destination_sent(&host->handoff, nonce, NOW_MS);
    answer(world, LOADED, number, false);
}

static void hang_up(struct world *world)
{
    if (world->destination.bound == BOUND_CURRENT) {
        link_lost_at_destination(world);
    }
    world->destination.bound = BOUND_NONE;
}

/* In the order of the daemon. */
static void carry_out(struct world *world, unsigned actions, bool told, bool meant)
{
    struct destination_host *host = &world->destination;

    if (actions & DESTINATION_DO_KILL_QEMU) {
        end_qemu(world, meant);
    }
    if (actions & DESTINATION_DO_KEEP_IMAGES) {
        host->kept = true;
    }
    if (actions & DESTINATION_DO_ABANDON) {
        end_qemu(world, meant);
        host->abandoning = host->removing = true;
        if (!told) {
            answer(world, ABORT, 0, false);
        }
    }
    if (actions & DESTINATION_DO_JOURNAL) {
        write_down(world, host->handoff.record, true);
    }
    if (actions & DESTINATION_DO_SEND_LOADED) {
        send_loaded(world);
    }
    if (actions & DESTINATION_DO_CONT) {
        host->cont = host->qemu == QEMU_DEAD ? CONT_NONE : CONT_SENT;
    }
    if ((actions & DESTINATION_DO_STOP) && host->qemu == QEMU_RUNNING) {
        host->qemu = QEMU_PAUSED;
    }
    if (actions & DESTINATION_DO_SEND_OWNED) {
        answer(world, OWNED, 0, false);
    }
    if (actions & DESTINATION_DO_OWN) {
        write_down(world, DESTINATION_RECORD_OWNED, false);
        if (host->stray) {
            host->stray = false; /* it was to run anyway */
            rules_guest_starts_at_destination(world);
        }
    }
    if (actions & DESTINATION_DO_SEND_REFUSED) {
        answer(world, REFUSED, host->handoff.refusals, !host->handoff.qemu_dead);
    }
    if (actions & DESTINATION_DO_END) {
        write_down(world, DESTINATION_RECORD_DONE, false);
    }
    if ((actions & DESTINATION_DO_SEND_ABANDONED) && !host->abandoning) {
        answer(world, ABORTED, 0, false);
    }
    if (actions & DESTINATION_DO_SEND_DONE_ACK) {
        answer(world, DONE_ACK, 0, false);
        hang_up(world);
    }
}

void destination_hears(struct world *world, enum destination_input input,
                       const struct handoff_word *word)
{
    struct destination_host *host = &world->destination;
    bool told = input == DESTINATION_IN_ABORT || input == DESTINATION_IN_TAKEN_BACK;
    bool early = host->handoff.state <= DESTINATION_LOADING;
    unsigned actions;

    if (host->forgotten) {
        if (input == DESTINATION_IN_LINK_UP) {
            answer(world, UNKNOWN, 0, false);
        } else if (input == DESTINATION_IN_ABORT) {
            answer(world, ABORTED, 0, false);
        } else if (input == DESTINATION_IN_DONE) {
            answer(world, DONE_ACK, 0, false);
        }
        return;
    }
    if (input == DESTINATION_IN_FAILED && host->handoff.state != DESTINATION_PREPARING &&
        host->handoff.state != DESTINATION_LOADING) {
        return;
    }
    actions = handoff_destination_step(&host->handoff, input, word, NOW_MS);
    carry_out(world, actions, told, told || early || input == DESTINATION_IN_GIVE_UP);
}

/* --- the journal answers --- */

static void abandoned(struct world *world)
{
    struct destination_host *host = &world->destination;

    host->abandoning = false;
    answer(world, ABORTED, 0, false);
    hang_up(world);
}

static void synced(struct world *world, unsigned last)
{
    struct destination_host *host = &world->destination;
    enum destination_record record = host->unsynced[last].record;

    for (unsigned i = 0; i <= last; i++) {
        handoff_destination_journal_add(&host->synced, host->unsynced[i].record,
                                        host->unsynced[i].value);
    }
    record_remove(host->unsynced, &host->unsynced_count, 0, last + 1);
    if (record == DESTINATION_RECORD_ABANDONED) {
        abandoned(world);
    } else {
        destination_hears(world, DESTINATION_IN_JOURNALED, NULL);
    }
}

static bool sync_fails(struct world *world, unsigned last, bool there)
{
    struct destination_host *host = &world->destination;
    enum destination_record record = host->unsynced[last].record;

    if (!spend(world, JOURNAL_FAILURES)) {
        return false;
    }
    if (there) {
        host->unsynced[last].sync = false;
    } else {
        record_remove(host->unsynced, &host->unsynced_count, last, 1);
    }
    if (record != DESTINATION_RECORD_ABANDONED) {
        destination_hears(world, DESTINATION_IN_JOURNAL_FAILED, NULL);
    }
    return true;
}

/* --- QEMU --- */

static bool cont_event(struct world *world, enum event event)
{
    struct destination_host *host = &world->destination;

    switch (event) {
    case E_D_CONT:
        if (host->cont != CONT_SENT || host->qemu == QEMU_DEAD) {
            return false;
        }
        if (host->qemu != QEMU_RUNNING || host->stray) {
            rules_guest_starts_at_destination(world);
            host->qemu = QEMU_RUNNING;
            host->stray = false;
        }
        host->cont = CONT_DONE;
        return true;
    case E_D_CONT_ANSWER:
        if (!host->up || host->cont != CONT_DONE) {
            return false;
        }
        host->cont = CONT_NONE;
        destination_hears(world, DESTINATION_IN_RUNNING, NULL);
        return true;
    case E_D_CONT_REFUSED:
        if (!host->up || host->cont != CONT_SENT || host->qemu != QEMU_PAUSED ||
            !spend(world, REFUSALS)) {
            return false;
        }
        host->cont = CONT_NONE;
        destination_hears(world, DESTINATION_IN_CONT_REFUSED, NULL);
        return true;
    default:
        return false;
    }
}

/* --- crashes and restarts --- */

static void crash(struct world *world)
{
    struct destination_host *host = &world->destination;

    link_lost_at_destination(world);
    memset(world->to_destination, 0, sizeof world->to_destination);
    world->to_destination_count = 0;
    host->up = false;
    host->abandoning = host->removing = host->resume_coming = host->dead_heard = false;
    if (host->cont == CONT_DONE) {
        host->cont = CONT_NONE;
    }
    for (unsigned i = 0; i < host->unsynced_count; i++) {
        host->unsynced[i].sync = false;
    }
}

static bool reboot(struct world *world, unsigned records)
{
    struct destination_host *host = &world->destination;

    if (records > host->unsynced_count || !spend(world, REBOOTS)) {
        return false;
    }
    crash(world);
    for (unsigned i = 0; i < records; i++) {
        handoff_destination_journal_add(&host->synced, host->unsynced[i].record,
                                        host->unsynced[i].value);
    }
    record_remove(host->unsynced, &host->unsynced_count, 0, host->unsynced_count);
    host->qemu = QEMU_DEAD;
    host->cont = CONT_NONE;
    host->cold = host->stray = false;
    return true;
}

static bool start(struct world *world, const struct world_options *options)
{
    struct destination_host *host = &world->destination;
    const struct handoff_destination_journal journal = destination_file(world);
    unsigned actions;

    if (host->up) {
        return false;
    }
    host->up = true;
    if (host->forgotten) {
        return true;
    }
    /* A command of the dead daemon that its monitor has not obeyed before the new one is answered is lost. */
    host->cont = CONT_NONE;
    host->dead_heard = host->qemu == QEMU_DEAD;
    if (options->restart_syncs) {
        host->synced = journal;
        record_remove(host->unsynced, &host->unsynced_count, 0, host->unsynced_count);
    }
    actions = handoff_destination_recover(&host->handoff, &journal,
                                          host->qemu == QEMU_DEAD      ? FOUND_QEMU_DEAD
                                          : host->qemu == QEMU_RUNNING ? FOUND_GUEST_RUNS
                                                                       : FOUND_GUEST_PAUSED);
    carry_out(world, actions, true, false);
    return true;
}

/* --- what happens to it from outside --- */

static bool decide(struct world *world, enum event event)
{
    struct destination_host *host = &world->destination;
    const struct source_host *source = &world->source;
    bool source_is_off = !source->up && source->qemu == QEMU_DEAD && !source->cold;

    if (!host->up || host->forgotten) {
        return false;
    }
    if (event == E_D_GIVE_UP) {
        if (handoff_destination_may_give_up(&host->handoff) != HANDOFF_MAY ||
            !spend(world, OPERATORS)) {
            return false;
        }
        destination_hears(world, DESTINATION_IN_GIVE_UP, NULL);
        return true;
    }
    if (handoff_destination_run_here(&host->handoff) != HANDOFF_MAY || !source_is_off ||
        !host->newest || host->bound != BOUND_NONE || !spend(world, OPERATORS)) {
        return false;
    }
    host->forced_once = true;
    destination_hears(world, DESTINATION_IN_RUN_HERE, NULL);
    return true;
}

static bool autostart(struct world *world)
{
    struct destination_host *host = &world->destination;
    const struct handoff_destination_journal journal = destination_file(world);

    if (host->qemu != QEMU_DEAD || host->cold || host->forgotten ||
        handoff_destination_may_start(&journal) != START_CAME_HERE ||
        handoff_destination_may_start(&host->synced) != START_CAME_HERE ||
        !spend(world, AUTOSTARTS)) {
        return false;
    }
    rules_guest_starts_at_destination(world);
    host->cold = true;
    return true;
}

static void forget(struct world *world)
{
    struct destination_host *host = &world->destination;

    crash(world);
    *host = (struct destination_host){.forgotten = true, .newest = host->newest};
}

/* --- events --- */

static bool fault(struct world *world, enum event event, unsigned argument)
{
    struct destination_host *host = &world->destination;
    unsigned last = record_in_sync(host->unsynced, host->unsynced_count);

    switch (event) {
    case E_D_FAIL:
        if (!host->up || host->forgotten || host->handoff.state > DESTINATION_LOADING ||
            !spend(world, FAILURES)) {
            return false;
        }
        destination_hears(world, DESTINATION_IN_FAILED, NULL);
        return true;
    case E_D_JOURNAL_FAILS:
        return host->up && last < host->unsynced_count && sync_fails(world, last, argument == 1);
    case E_D_CRASH:
        if (!host->up || !spend(world, CRASHES)) {
            return false;
        }
        crash(world);
        return true;
    case E_D_REBOOT:
        return reboot(world, argument);
    case E_D_QEMU_DIES:
        if (host->qemu == QEMU_DEAD || !spend(world, DEATHS)) {
            return false;
        }
        host->qemu = QEMU_DEAD;
        host->stray = false;
        if (host->cont == CONT_SENT) {
            host->cont = CONT_NONE;
        }
        return true;
    case E_D_COLD_DIES:
        if (!host->cold || !spend(world, DEATHS)) {
            return false;
        }
        host->cold = false;
        return true;
    case E_D_STRAY:
        if (host->qemu != QEMU_PAUSED || host->forgotten || !spend(world, STRAYS)) {
            return false;
        }
        host->qemu = QEMU_RUNNING;
        host->stray = true;
        host->resume_coming = host->up;
        return true;
    case E_D_STOPS:
        if (host->qemu != QEMU_RUNNING || host->stray || !spend(world, STRAYS)) {
            return false;
        }
        host->qemu = QEMU_PAUSED;
        return true;
    case E_D_FORGET:
        if (host->forgotten || !spend(world, FORGETS)) {
            return false;
        }
        forget(world);
        return true;
    case E_D_AUTOSTART:
        return autostart(world);
    case E_D_RUN_HERE:
    case E_D_GIVE_UP:
        return decide(world, event);
    default:
        return false;
    }
}

static bool remove_images(struct world *world)
{
    struct destination_host *host = &world->destination;

    if (!host->up || !host->removing) {
        return false;
    }
    host->removing = false;
    if (!host->kept) {
        if (host->newest && !world->source.newest) {
            broken(world, "the only newest disks are removed");
        }
        host->newest = false;
    }
    write_down(world, DESTINATION_RECORD_ABANDONED, true);
    return true;
}

/* A failed sync of its last record: one more, of the record that stands there or of a new one. Its answer first, if it is still to come. */
static void abandon_again(struct world *world)
{
    struct destination_host *host = &world->destination;
    unsigned count = host->unsynced_count;
    struct record *last = count ? &host->unsynced[count - 1] : NULL;

    if (!host->abandoning || host->removing) {
        return;
    }
    if (!last || last->record != DESTINATION_RECORD_ABANDONED) {
        write_down(world, DESTINATION_RECORD_ABANDONED, true);
    } else {
        last->sync = true;
    }
}

bool destination_step(struct world *world, const struct world_options *options, enum event event,
                      unsigned argument)
{
    struct destination_host *host = &world->destination;
    unsigned last = record_in_sync(host->unsynced, host->unsynced_count);

    switch (event) {
    case E_LOAD:
        if (!host->up || host->forgotten || host->handoff.state != DESTINATION_PREPARING ||
            host->qemu != QEMU_LOADING || world->stream == STREAM_NONE) {
            return false;
        }
        host->qemu = QEMU_PAUSED;
        host->newest = world->stream == STREAM_NEWEST;
        destination_hears(world, DESTINATION_IN_LOADED, NULL);
        return true;
    case E_D_JOURNALED:
        if (!host->up || last == host->unsynced_count) {
            return false;
        }
        synced(world, last);
        return true;
    case E_D_CONT:
    case E_D_CONT_ANSWER:
    case E_D_CONT_REFUSED:
        return cont_event(world, event);
    case E_D_CUT:
        if (!host->up || host->forgotten || host->handoff.state != DESTINATION_PREPARING ||
            world->stream != STREAM_NONE ||
            (world->source.up && world->source.handoff.state <= SOURCE_PAUSED &&
             !world->source.handoff.qemu_dead)) {
            return false;
        }
        destination_hears(world, DESTINATION_IN_FAILED, NULL);
        return true;
    case E_D_REMOVE:
        return remove_images(world);
    case E_D_DEATH_HEARD:
        if (!host->up || destination_finished(world) || host->qemu != QEMU_DEAD ||
            host->dead_heard) {
            return false;
        }
        host->dead_heard = true;
        destination_hears(world, DESTINATION_IN_QEMU_DEAD, NULL);
        return true;
    case E_D_RESUME_HEARD:
        if (!host->up || !host->resume_coming) {
            return false;
        }
        host->resume_coming = false;
        destination_hears(world, DESTINATION_IN_RESUMED_EARLY, NULL);
        return true;
    case E_D_TIME:
        if (!host->up || destination_finished(world)) {
            return false;
        }
        abandon_again(world);
        destination_hears(world, DESTINATION_IN_TIME, NULL);
        return true;
    case E_D_START:
        return start(world, options);
    default:
        return fault(world, event, argument);
    }
}

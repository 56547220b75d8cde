/* What goes wrong at the source's host in the model, and what people do there. */
#include "world.h"

#include <string.h>

void source_comes_back(struct world *world)
{
    world->uninformed = world->uninformed || world->destination.forced_once;
}

/* --- crashes and restarts --- */

static void crash(struct world *world, unsigned survivor)
{
    struct source_host *host = &world->source;

    link_lost_at_source(world, survivor);
    host->up = false;
    host->job = JOB_NONE;
    host->job_step = STEP_NAMES;
    host->resume_coming = host->acknowledged = host->dead_heard = false;
    for (unsigned i = 0; i < host->unsynced_count; i++) {
        host->unsynced[i].sync = false;
    }
}

static bool reboot(struct world *world, const struct world_options *options, unsigned argument)
{
    struct source_host *host = &world->source;
    unsigned records = argument % (UNSYNCED_MAX + 1), survivor;
    bool marked = argument / (UNSYNCED_MAX + 1) % 2;

    survivor = argument / (UNSYNCED_MAX + 1) / 2;
    if (records > host->unsynced_count || (marked && host->marks != MARKS_UNSYNCED) ||
        survivor > world->to_destination_count || (survivor && !options->survivors) ||
        !spend(world, REBOOTS)) {
        return false;
    }
    crash(world, survivor);
    for (unsigned i = 0; i < records; i++) {
        handoff_source_journal_add(&host->synced, host->unsynced[i].record,
                                   host->unsynced[i].value);
    }
    record_remove(host->unsynced, &host->unsynced_count, 0, host->unsynced_count);
    if (host->marks == MARKS_UNSYNCED) {
        host->marks = marked ? MARKS_ON : MARKS_OFF;
    }
    host->qemu = QEMU_DEAD;
    host->cold = host->stray = false;
    return true;
}

/* --- what happens to it from outside --- */

/*
 * may-start syncs what it reads, so what it goes by is on the disk. Beside a QEMU that has given all away a second one starts: its image locks
 * are gone. Beside one that has them none does.
 */
static bool autostart(struct world *world, const struct world_options *options)
{
    struct source_host *host = &world->source;
    const struct handoff_source_journal journal = source_file(world);
    bool lives = host->qemu != QEMU_DEAD;

    if ((lives && host->qemu != QEMU_POSTMIGRATE) || host->cold ||
        (options->marks && host->marks != MARKS_OFF) ||
        !handoff_start_allowed(handoff_source_may_start(&journal, lives)) ||
        !handoff_start_allowed(handoff_source_may_start(&host->synced, lives)) ||
        !spend(world, AUTOSTARTS)) {
        return false;
    }
    source_comes_back(world);
    rules_guest_starts_at_source(world);
    host->cold = true;
    return true;
}

static bool stray(struct world *world)
{
    struct source_host *host = &world->source;

    if ((host->qemu != QEMU_PAUSED && host->qemu != QEMU_POSTMIGRATE) || !spend(world, STRAYS)) {
        return false;
    }
    /* What it does now is nothing that anybody may build on, unless the daemon hears of it in time and lets it go on. */
    host->qemu = QEMU_RUNNING;
    host->stray = true;
    host->resume_coming = host->up;
    return true;
}

/* Whether its journal says that the guest may have run there, or would say so after a reset. */
static bool committed_at_destination(const struct destination_host *destination)
{
    struct handoff_destination_journal journal = destination->synced;
    bool committed = journal.last == DESTINATION_RECORD_COMMITTED;

    for (unsigned i = 0; i < destination->unsynced_count; i++) {
        handoff_destination_journal_add(&journal, destination->unsynced[i].record,
                                        destination->unsynced[i].value);
        committed = committed || journal.last == DESTINATION_RECORD_COMMITTED;
    }
    return (committed && !journal.abandoned) || journal.owned || journal.done;
}

/* What a look at the destination shows to an operator who would run the VM at the source. */
static bool may_run_at_destination(const struct world *world, const struct world_options *options)
{
    return destination_runs(world) || world->destination.stray ||
           (!options->glance && committed_at_destination(&world->destination));
}

static bool decide(struct world *world, const struct world_options *options, enum event event)
{
    struct source_host *host = &world->source;
    uint64_t wait_ms;
    bool may = host->up &&
               (event == E_S_GIVE_UP
                    ? handoff_source_may_give_up(&host->handoff)
                    : handoff_source_run_here(&host->handoff, NOW_MS, &wait_ms)) == HANDOFF_MAY;

    if (!may || (event == E_S_RUN_HERE && may_run_at_destination(world, options)) ||
        !spend(world, event == E_UNINFORMED ? UNINFORMED : OPERATORS)) {
        return false;
    }
    if (event == E_UNINFORMED) {
        world->uninformed = true;
    }
    if (event != E_S_GIVE_UP) {
        host->operator_start = true;
    }
    source_hears(world, options, event == E_S_GIVE_UP ? SOURCE_IN_GIVE_UP : SOURCE_IN_RUN_HERE,
                 NULL);
    return true;
}

/* --- events --- */

bool source_fault(struct world *world, const struct world_options *options, enum event event,
                  unsigned argument)
{
    struct source_host *host = &world->source;
    unsigned last = record_in_sync(host->unsynced, host->unsynced_count);

    switch (event) {
    case E_S_FAIL:
        if (!host->up || host->handoff.state > SOURCE_PAUSED || !spend(world, FAILURES)) {
            return false;
        }
        source_hears(world, options, SOURCE_IN_FAILED, NULL);
        return true;
    case E_S_JOURNAL_FAILS:
        return host->up && last < host->unsynced_count &&
               source_sync_fails(world, options, last, argument == 1);
    case E_S_CRASH:
        if (!host->up || (argument && !options->survivors) || !spend(world, CRASHES)) {
            return false;
        }
        crash(world, argument);
        return true;
    case E_S_REBOOT:
        return reboot(world, options, argument);
    case E_S_QEMU_DIES:
        if (host->qemu == QEMU_DEAD || !spend(world, DEATHS)) {
            return false;
        }
        host->qemu = QEMU_DEAD;
        host->stray = false;
        return true;
    case E_S_COLD_DIES:
        if (!host->cold || !spend(world, DEATHS)) {
            return false;
        }
        host->cold = false;
        return true;
    case E_S_STRAY:
        return stray(world);
    case E_S_AUTOSTART:
        return autostart(world, options);
    case E_UNINFORMED:
    case E_S_RUN_HERE:
    case E_S_GIVE_UP:
        return decide(world, options, event);
    default:
        return false;
    }
}

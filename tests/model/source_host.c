/* The source's host in the model: what its daemon makes of the shipped function's actions, its QEMU, its journal and its disks. */
#include "world.h"

#include <string.h>

bool source_has_moved_it(const struct world *world)
{
    return world->source.handoff.state == SOURCE_ENDED && !source_file(world).rolled_back;
}

bool source_says_goodbye(const struct world *world)
{
    return world->source.up && world->source.handoff.state == SOURCE_ENDED &&
           !world->source.acknowledged &&
           (source_has_moved_it(world) || source_file(world).owes_abort);
}

/* --- actions --- */

static void write_down(struct world *world, const struct world_options *options,
                       enum source_record record, bool sync)
{
    struct source_host *host = &world->source;
    unsigned value = record == SOURCE_RECORD_TRY_AGAIN     ? host->handoff.refusal
                     : record == SOURCE_RECORD_ROLLED_BACK ? !host->acknowledged
                                                           : 0;

    if ((record == SOURCE_RECORD_COMMITTED || record == SOURCE_RECORD_DONE) && options->marks &&
        host->marks == MARKS_OFF) {
        host->marks = MARKS_UNSYNCED;
    }
    if (!record_add(host->unsynced, &host->unsynced_count, record, value, sync)) {
        broken(world, "the model's journal of the source is too short");
    }
}

static void stop(struct source_host *host)
{
    if (host->qemu == QEMU_RUNNING) {
        host->qemu = QEMU_PAUSED;
        host->stray = false;
    }
}

static void end_qemu(struct world *world, bool meant)
{
    if (world->source.qemu != QEMU_DEAD) {
        world->source.qemu = QEMU_DEAD;
        world->source.stray = false;
        rules_source_qemu_ends(world, meant);
    }
}

static void begin_job(struct source_host *host, enum job job)
{
    host->job = job;
    host->job_step = STEP_NAMES;
}

/* In the order of the daemon. */
static void carry_out(struct world *world, const struct world_options *options, unsigned actions,
                      bool meant)
{
    struct source_host *host = &world->source;

    if (actions & SOURCE_DO_STOP) {
        stop(host);
    }
    if (actions & SOURCE_DO_JOURNAL) {
        write_down(world, options, host->handoff.record, true);
    }
    if (actions & SOURCE_DO_SEND_ABORT) {
        source_send(world, ABORT, 0);
    }
    if (actions & SOURCE_DO_SEND_TAKEN_BACK) {
        source_send(world, TAKEN_BACK, 0);
    }
    if (actions & SOURCE_DO_ROLL_BACK) {
        begin_job(host, JOB_ROLL_BACK);
    }
    if (actions & SOURCE_DO_SEND_COMMIT) {
        rules_source_commits(world, options);
        source_send(world, COMMIT, nonce_number(host->handoff.nonce));
    }
    if (actions & SOURCE_DO_SEND_QUERY) {
        source_send(world, QUERY, 0);
    }
    if ((actions & SOURCE_DO_TAKE_BACK) && host->job == JOB_NONE) {
        begin_job(host, JOB_TAKE_BACK);
    }
    if (actions & SOURCE_DO_SEND_TRY_AGAIN) {
        source_send(world, TRY_AGAIN, host->handoff.refusal);
    }
    if (actions & SOURCE_DO_CLEAN) {
        end_qemu(world, meant);
        begin_job(host, JOB_CLEAN);
    }
    if (actions & SOURCE_DO_SEND_DONE) {
        source_send(world, DONE, 0);
    }
    if (actions & SOURCE_DO_QUIT_QEMU) {
        end_qemu(world, true);
    }
}

void source_hears(struct world *world, const struct world_options *options, enum source_input input,
                  const struct handoff_word *word)
{
    const struct handoff_source before = world->source.handoff;
    unsigned actions = handoff_source_step(&world->source.handoff, input, word, NOW_MS);

    if (before.state == SOURCE_PAUSED && before.qemu_dead && input != SOURCE_IN_RUNS_HERE) {
        rules_source_decides_without_qemu(world);
    }
    carry_out(world, options, actions, input == SOURCE_IN_GIVE_UP);
}

/* --- messages --- */

static void end_farewell(struct world *world, const struct world_options *options)
{
    world->source.acknowledged = true;
    write_down(world, options, SOURCE_RECORD_ACKNOWLEDGED, false);
    link_lost_at_source(world, 0);
}

bool source_receives(struct world *world, const struct world_options *options)
{
    struct source_host *host = &world->source;
    struct message message = world->to_source[0];
    char nonce[HANDOFF_NONCE_SIZE];
    struct handoff_word word = {.nonce = nonce, .refusal = message.value, .copy = message.copy};

    memmove(world->to_source, world->to_source + 1, (TO_SOURCE_MAX - 1) * sizeof *world->to_source);
    world->to_source[TO_SOURCE_MAX - 1] = (struct message){0};
    world->to_source_count--;
    nonce_write(nonce, message.kind == LOADED ? message.value : 0);
    if (host->handoff.state == SOURCE_ENDED) {
        if (source_says_goodbye(world) &&
            (message.kind == ABORTED || message.kind == DONE_ACK || message.kind == UNKNOWN)) {
            end_farewell(world, options);
        }
        return true;
    }
    switch (message.kind) {
    case LOADED:
        source_hears(world, options, SOURCE_IN_LOADED, &word);
        break;
    case OWNED:
        source_hears(world, options, SOURCE_IN_OWNED, NULL);
        break;
    case REFUSED:
        source_hears(world, options, SOURCE_IN_REFUSED, &word);
        break;
    case UNKNOWN:
        source_hears(world, options, SOURCE_IN_UNKNOWN, NULL);
        break;
    case ABORTED:
        host->acknowledged = true;
        source_hears(world, options, SOURCE_IN_ABANDONED, NULL);
        break;
    case ABORT:
        source_hears(world, options, SOURCE_IN_ABANDONED, NULL);
        break;
    default:
        break;
    }
    return true;
}

/* --- the journal answers --- */

static void synced(struct world *world, const struct world_options *options, unsigned last)
{
    struct source_host *host = &world->source;
    enum source_record record = host->unsynced[last].record;

    for (unsigned i = 0; i <= last; i++) {
        handoff_source_journal_add(&host->synced, host->unsynced[i].record,
                                   host->unsynced[i].value);
    }
    record_remove(host->unsynced, &host->unsynced_count, 0, last + 1);
    if (host->marks == MARKS_UNSYNCED) {
        host->marks = MARKS_ON;
    }
    if (record == SOURCE_RECORD_DONE) {
        host->job = JOB_NONE;
    }
    source_hears(world, options,
                 record == SOURCE_RECORD_DONE ? SOURCE_IN_CLEANED : SOURCE_IN_JOURNALED, NULL);
}

bool source_sync_fails(struct world *world, const struct world_options *options, unsigned last,
                       bool there)
{
    struct source_host *host = &world->source;
    enum source_record record = host->unsynced[last].record;

    if (!spend(world, JOURNAL_FAILURES)) {
        return false;
    }
    if (there) {
        host->unsynced[last].sync = false;
    } else {
        record_remove(host->unsynced, &host->unsynced_count, last, 1);
    }
    if (record == SOURCE_RECORD_DONE) {
        host->job = JOB_NONE;
    }
    host->unwritten = host->unwritten || host->handoff.rolls_back;
    source_hears(world, options,
                 record == SOURCE_RECORD_DONE ? SOURCE_IN_CLEANED : SOURCE_IN_JOURNAL_FAILED, NULL);
    return true;
}

/* --- resuming, and what follows --- */

static bool cont_refused(struct world *world, const struct world_options *options)
{
    struct source_host *host = &world->source;

    if (host->job != JOB_TAKE_BACK || host->job_step != STEP_CONT || host->qemu == QEMU_DEAD ||
        host->qemu == QEMU_RUNNING || !spend(world, REFUSALS)) {
        return false;
    }
    if (options->marks) {
        host->marks = MARKS_UNSYNCED;
    }
    host->job = JOB_NONE;
    source_hears(world, options, SOURCE_IN_NOT_RESUMED, NULL);
    return true;
}

static bool cont(struct world *world)
{
    struct source_host *host = &world->source;

    if ((host->job != JOB_TAKE_BACK && host->job != JOB_ROLL_BACK) || host->job_step != STEP_CONT ||
        host->qemu == QEMU_DEAD) {
        return false;
    }
    if (host->qemu != QEMU_RUNNING || host->stray) {
        rules_guest_starts_at_source(world);
        host->qemu = QEMU_RUNNING;
        host->stray = false;
    }
    host->job_step = STEP_DONE;
    return true;
}

static bool rolled_back(struct world *world, const struct world_options *options, unsigned survivor)
{
    struct source_host *host = &world->source;

    if (host->job != JOB_ROLL_BACK || host->job_step != STEP_DONE ||
        (survivor && !options->survivors)) {
        return false;
    }
    host->job = JOB_NONE;
    write_down(world, options, SOURCE_RECORD_ROLLED_BACK, false);
    source_hears(world, options, SOURCE_IN_ROLLED_BACK, NULL);
    link_lost_at_source(world, survivor);
    return true;
}

static bool job_event(struct world *world, const struct world_options *options, enum event event,
                      unsigned argument)
{
    struct source_host *host = &world->source;

    switch (event) {
    case E_S_NAMES:
        if ((host->job != JOB_TAKE_BACK && host->job != JOB_ROLL_BACK) ||
            host->job_step != STEP_NAMES) {
            return false;
        }
        host->marks = MARKS_OFF;
        host->job_step = host->handoff.qemu_dead ? STEP_DONE : STEP_CONT;
        return true;
    case E_S_CONT:
        return cont(world);
    case E_S_CONT_REFUSED:
        return cont_refused(world, options);
    case E_S_BACK:
        if (host->job != JOB_TAKE_BACK || host->job_step != STEP_DONE) {
            return false;
        }
        host->job = JOB_NONE;
        source_hears(world, options, SOURCE_IN_RESUMED, NULL);
        return true;
    case E_S_ROLLED_BACK:
        return rolled_back(world, options, argument);
    case E_CLEANED:
        if (host->job != JOB_CLEAN || host->job_step != STEP_NAMES) {
            return false;
        }
        host->job_step = STEP_DONE;
        write_down(world, options, SOURCE_RECORD_DONE, true);
        return true;
    default:
        return false;
    }
}

/* With its monitor gone the job's `cont` is not answered any more; the names are put back all the same. */
static void death_heard(struct world *world, const struct world_options *options)
{
    struct source_host *host = &world->source;
    bool in_cont = host->job_step == STEP_CONT;

    host->dead_heard = true;
    if (host->handoff.state == SOURCE_CLEANING || host->handoff.state == SOURCE_ENDED) {
        return;
    }
    if (in_cont && host->job == JOB_TAKE_BACK) {
        host->job = JOB_NONE;
    }
    source_hears(world, options, SOURCE_IN_QEMU_DEAD, NULL);
    if (in_cont && host->job == JOB_ROLL_BACK) {
        host->job_step = STEP_DONE;
    }
}

/* --- restarts --- */

static bool start(struct world *world, const struct world_options *options)
{
    struct source_host *host = &world->source;
    const struct handoff_source_journal journal = source_file(world);
    struct handoff_source_found found = {.qemu_dead = host->qemu == QEMU_DEAD,
                                         .unmarked = options->marks && host->marks == MARKS_OFF};
    unsigned actions;

    if (host->up) {
        return false;
    }
    found.guest_runs = found.qemu_dead ? host->cold && (journal.paused || journal.committed)
                                       : journal.committed && host->qemu == QEMU_RUNNING;
    host->up = true;
    source_comes_back(world);
    host->dead_heard = found.qemu_dead;
    host->acknowledged = journal.acknowledged;
    if (options->restart_syncs) {
        host->synced = journal;
        record_remove(host->unsynced, &host->unsynced_count, 0, host->unsynced_count);
        if (host->marks == MARKS_UNSYNCED) {
            host->marks = MARKS_ON;
        }
    }
    if (journal.acknowledged) {
        host->handoff.state = SOURCE_ENDED; /* the daemon does not even look at it again */
        return true;
    }
    actions = handoff_source_recover(&host->handoff, &journal, &found, NOW_MS);
    if (found.qemu_dead && !found.guest_runs && journal.paused && !journal.taking_back) {
        rules_source_decides_without_qemu(world);
    }
    carry_out(world, options, actions, true);
    return true;
}

/* --- events --- */

bool source_step(struct world *world, const struct world_options *options, enum event event,
                 unsigned argument)
{
    struct source_host *host = &world->source;
    unsigned last = record_in_sync(host->unsynced, host->unsynced_count);

    switch (event) {
    case E_PAUSE:
        if (!host->up || host->handoff.state != SOURCE_OPEN || host->qemu != QEMU_RUNNING) {
            return false;
        }
        write_down(world, options, SOURCE_RECORD_PAUSED, false);
        host->qemu = QEMU_PAUSED;
        source_hears(world, options, SOURCE_IN_PAUSED, NULL);
        return true;
    case E_COMPLETED:
        if (!host->up || host->handoff.state != SOURCE_PAUSED || host->qemu != QEMU_POSTMIGRATE ||
            host->handoff.completed) {
            return false;
        }
        source_hears(world, options, SOURCE_IN_COMPLETED, NULL);
        return true;
    case E_S_JOURNALED:
        if (!host->up || last == host->unsynced_count) {
            return false;
        }
        synced(world, options, last);
        return true;
    case E_S_DEATH_HEARD:
        if (!host->up || host->qemu != QEMU_DEAD || host->dead_heard) {
            return false;
        }
        death_heard(world, options);
        return true;
    case E_S_RESUME_HEARD:
        if (!host->up || !host->resume_coming) {
            return false;
        }
        host->resume_coming = false;
        if (host->job == JOB_NONE) {
            source_hears(world, options, SOURCE_IN_RUNS_HERE, NULL);
        }
        if (host->job == JOB_ROLL_BACK && host->stray) {
            rules_guest_starts_at_source(world);
            host->stray = false;
        }
        return true;
    case E_S_TIME:
        if (!host->up || world->to_source_count > 0) {
            return false; /* what was asked before is answered first */
        }
        if (source_says_goodbye(world)) {
            source_send(world, source_has_moved_it(world) ? DONE : ABORT, 0);
        }
        source_hears(world, options, SOURCE_IN_TIME, NULL);
        return true;
    case E_S_START:
        return start(world, options);
    case E_S_HANG_UP:
        if (!source_says_goodbye(world) || world->link != LINK_UP || !source_has_moved_it(world) ||
            (argument && !options->survivors)) {
            return false;
        }
        link_lost_at_source(world, argument);
        return true;
    case E_S_NAMES:
    case E_S_CONT:
    case E_S_CONT_REFUSED:
    case E_S_BACK:
    case E_S_ROLLED_BACK:
    case E_CLEANED:
        return host->up && job_event(world, options, event, argument);
    default:
        return source_fault(world, options, event, argument);
    }
}

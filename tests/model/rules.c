/* What must hold in every state, and what counts as an end. */
#include "world.h"

/* A stray run does not count: its daemon stops it, and nothing is built on what it did. */
bool source_runs(const struct world *world)
{
    return (world->source.qemu == QEMU_RUNNING && !world->source.stray) || world->source.cold;
}

bool destination_runs(const struct world *world)
{
    return (world->destination.qemu == QEMU_RUNNING && !world->destination.stray) ||
           world->destination.cold;
}

void rules_guest_starts_at_source(struct world *world)
{
    struct source_host *source = &world->source;

    if (!source->newest && !source->operator_start && !world->uninformed) {
        broken(world, "the guest goes back in time: it starts at the source from what is old");
    }
    source->newest = true;
    world->destination.newest = false;
    if (world->stream == STREAM_NEWEST) {
        world->stream = STREAM_STALE;
    }
}

void rules_guest_starts_at_destination(struct world *world)
{
    if (!world->destination.newest && !world->uninformed && !world->source.unwritten) {
        broken(world, "the guest goes back in time: it starts at the destination from what is old");
    }
    world->destination.newest = true;
    world->source.newest = false;
}

void rules_source_commits(struct world *world, const struct world_options *options)
{
    const struct source_host *source = &world->source;
    const struct handoff_source_journal journal = source_file(world);

    if (!source->synced.committed || journal.taking_back || journal.withdrawn) {
        broken(world, "the source commits, and its journal does not say so");
    }
    if (options->marks && source->marks != MARKS_ON) {
        broken(world, "the source commits while its disks have their old names");
    }
    if (source->cold || (source->qemu == QEMU_RUNNING && !source->resume_coming)) {
        broken(world, "the source commits, and knows that the guest runs there");
    }
}

void rules_source_qemu_ends(struct world *world, bool meant)
{
    if (!meant && !world->uninformed && world->source.newest && !world->destination.newest) {
        broken(world, "the source ends the only copy");
    }
}

void rules_destination_qemu_ends(struct world *world, bool meant)
{
    if (!meant && !world->uninformed && world->destination.newest &&
        (!world->source.newest || world->source.qemu == QEMU_DEAD)) {
        broken(world, "the destination ends the only copy");
    }
}

void rules_source_decides_without_qemu(struct world *world)
{
    const struct source_host *source = &world->source;
    bool gives_up =
        source->handoff.state == SOURCE_RETAKING || source->handoff.state == SOURCE_ROLLING_BACK;

    if (gives_up && !source->operator_start && world->destination.qemu == QEMU_PAUSED &&
        world->destination.newest) {
        broken(world, "the source gives up the only copy, which is loaded at the destination");
    }
}

/* --- the end --- */

bool rules_ended(const struct world *world)
{
    const struct source_host *source = &world->source;
    const struct destination_host *destination = &world->destination;

    return source->up && source->handoff.state == SOURCE_ENDED && !source_says_goodbye(world) &&
           source->job == JOB_NONE && destination->up && destination->cont == CONT_NONE &&
           (destination_finished(world) ||
            /* Its DONE was lost, which does no harm. */
            (destination->handoff.state == DESTINATION_OWNED && source_has_moved_it(world)));
}

static const char *wrong_end_at_destination(const struct world *world)
{
    const struct destination_host *destination = &world->destination;
    const struct handoff_destination_journal journal = destination_file(world);

    if (source_runs(world) || world->source.qemu != QEMU_DEAD) {
        return "the VM moved, and a QEMU of it is left at the source";
    }
    if (destination->forgotten) {
        return NULL;
    }
    if (handoff_destination_may_start(&journal) != START_CAME_HERE) {
        return "the VM moved, and the destination may not start it";
    }
    return !destination->newest && !world->uninformed && !world->source.unwritten
               ? "the VM moved, without its newest disks"
               : NULL;
}

static const char *wrong_end_at_source(const struct world *world)
{
    const struct source_host *source = &world->source;
    const struct handoff_source_journal journal = source_file(world);

    if (destination_runs(world) || world->destination.qemu == QEMU_RUNNING) {
        return "the VM stayed, and runs at the destination";
    }
    if (source->qemu == QEMU_PAUSED || source->qemu == QEMU_POSTMIGRATE) {
        return "the VM stayed, and stands still for ever";
    }
    if (source->marks != MARKS_OFF ||
        !handoff_start_allowed(handoff_source_may_start(&journal, source->qemu != QEMU_DEAD))) {
        return "the VM stayed, and the source may not start it";
    }
    if (world->destination.kept || world->destination.forgotten || world->uninformed) {
        return NULL; /* by decision, or by a loss */
    }
    return source->newest ? NULL : "the VM stayed, without its newest disks";
}

/* --- every state --- */

static const char *wrong(const struct world *world)
{
    const struct source_host *source = &world->source;
    const struct handoff_source_journal source_journal = source_file(world);
    const struct handoff_destination_journal destination_journal = destination_file(world);
    bool source_may_start =
        source->marks == MARKS_OFF &&
        handoff_start_allowed(handoff_source_may_start(&source_journal, source->qemu != QEMU_DEAD));
    int running = (source->qemu == QEMU_RUNNING && !source->stray) + source->cold +
                  (world->destination.qemu == QEMU_RUNNING && !world->destination.stray) +
                  world->destination.cold;

    if (source->up && source->handoff.state == SOURCE_CONFLICT && source->qemu == QEMU_RUNNING &&
        !source->stray) {
        return "a conflict, and the copy at the source runs on";
    }
    if (rules_ended(world)) {
        return source_has_moved_it(world) ? wrong_end_at_destination(world)
                                          : wrong_end_at_source(world);
    }
    if (world->uninformed) {
        return NULL;
    }
    if (running > 1) {
        return "two run";
    }
    if (source_may_start && !world->destination.forgotten && !world->destination.forced_once &&
        handoff_destination_may_start(&destination_journal) == START_CAME_HERE) {
        return "both hosts may start it";
    }
    return NULL;
}

void rules_check(struct world *world)
{
    const char *rule = wrong(world);

    if (rule) {
        broken(world, rule);
    }
}

const char *rules_needs_operator(const struct world *world)
{
    const struct source_host *source = &world->source;
    const struct destination_host *destination = &world->destination;

    if (!source->up || !destination->up) {
        return NULL;
    }
    if (source->handoff.state == SOURCE_CONFLICT) {
        return "both own it, and the copy at the source was stopped";
    }
    if (destination->handoff.state == DESTINATION_CONFLICT) {
        return "both own it, and the copy at the destination was stopped";
    }
    if (source->handoff.state == SOURCE_COMMITTED && source->handoff.held &&
        destination->handoff.state == DESTINATION_LOADED) {
        return source->handoff.runs_here
                   ? "handed over, yet it runs at the source; the destination has a copy"
                   : "handed over, yet the disks at the source have their old names; the destination has a copy";
    }
    if (destination->forgotten && source->handoff.state == SOURCE_COMMITTED) {
        return "handed over to a destination that has lost its journal";
    }
    return NULL;
}

#include "world.h"

#include <string.h>

/* --- what may go wrong --- */

static bool counts_in_total(enum budget budget)
{
    return budget != OPERATORS && budget != AUTOSTARTS;
}

bool spend(struct world *world, enum budget budget)
{
    bool counts = counts_in_total(budget);

    if (world->budgets[budget] == 0 || (counts && world->budgets[TOTAL] == 0)) {
        return false;
    }
    world->budgets[budget]--;
    if (counts) {
        world->budgets[TOTAL]--;
    }
    return true;
}

void broken(struct world *world, const char *rule)
{
    if (!world->broken) {
        world->broken = rule;
    }
}

/* --- journals --- */

bool record_add(struct record *records, unsigned *count, unsigned record, unsigned value, bool sync)
{
    if (*count == UNSYNCED_MAX) {
        return false;
    }
    records[(*count)++] = (struct record){(uint8_t)record, (uint8_t)value, sync};
    return true;
}

unsigned record_in_sync(const struct record *records, unsigned count)
{
    unsigned i = 0;

    while (i < count && !records[i].sync) {
        i++;
    }
    return i;
}

void record_remove(struct record *records, unsigned *count, unsigned first, unsigned number)
{
    memmove(records + first, records + first + number, (*count - first - number) * sizeof *records);
    *count -= number;
    memset(records + *count, 0, number * sizeof *records);
}

struct handoff_source_journal source_file(const struct world *world)
{
    struct handoff_source_journal journal = world->source.synced;

    for (unsigned i = 0; i < world->source.unsynced_count; i++) {
        handoff_source_journal_add(&journal, world->source.unsynced[i].record,
                                   world->source.unsynced[i].value);
    }
    return journal;
}

struct handoff_destination_journal destination_file(const struct world *world)
{
    struct handoff_destination_journal journal = world->destination.synced;

    for (unsigned i = 0; i < world->destination.unsynced_count; i++) {
        handoff_destination_journal_add(&journal, world->destination.unsynced[i].record,
                                        world->destination.unsynced[i].value);
    }
    return journal;
}

/* --- the link --- */

static unsigned old_count(const struct world *world)
{
    unsigned count = 0;

    while (count < world->to_destination_count && world->to_destination[count].old) {
        count++;
    }
    return count;
}

static void to_destination_remove(struct world *world, unsigned index)
{
    memmove(world->to_destination + index, world->to_destination + index + 1,
            (world->to_destination_count - index - 1) * sizeof *world->to_destination);
    world->to_destination[--world->to_destination_count] = (struct message){0};
}

void source_send(struct world *world, enum message_kind kind, unsigned value)
{
    struct message message = {.kind = (uint8_t)kind, .value = (uint8_t)value};

    if (world->link != LINK_UP) {
        return;
    }
    for (unsigned i = old_count(world); i < world->to_destination_count; i++) {
        if (memcmp(&world->to_destination[i], &message, sizeof message) == 0) {
            return; /* twice in a row is what E_DOUBLE is for */
        }
    }
    if (world->to_destination_count == TO_DESTINATION_MAX) {
        if (old_count(world) == 0) {
            return; /* as good as lost */
        }
        to_destination_remove(world, 0);
    }
    world->to_destination[world->to_destination_count++] = message;
}

void destination_send(struct world *world, enum message_kind kind, unsigned value, bool copy)
{
    struct message message = {.kind = (uint8_t)kind, .value = (uint8_t)value, .copy = copy};
    unsigned count = world->to_source_count;

    if (world->link != LINK_UP || count == TO_SOURCE_MAX ||
        (count && memcmp(&world->to_source[count - 1], &message, sizeof message) == 0)) {
        return;
    }
    world->to_source[world->to_source_count++] = message;
}

static void forget_current(struct world *world)
{
    unsigned keep = old_count(world);

    memset(world->to_destination + keep, 0,
           (TO_DESTINATION_MAX - keep) * sizeof *world->to_destination);
    world->to_destination_count = keep;
}

void link_lost_at_source(struct world *world, unsigned survivor)
{
    struct message message = {0};

    if (survivor) {
        message = world->to_destination[survivor - 1];
    }
    memset(world->to_destination, 0, sizeof world->to_destination);
    world->to_destination_count = survivor ? 1 : 0;
    world->to_destination[0] = message;
    world->to_destination[0].old = survivor != 0;
    memset(world->to_source, 0, sizeof world->to_source);
    world->to_source_count = 0;
    world->link = LINK_DOWN;
    if (world->destination.bound == BOUND_CURRENT) {
        world->destination.bound = BOUND_OLD;
    }
}

void link_lost_at_destination(struct world *world)
{
    if (world->link == LINK_UP) {
        world->link = LINK_HALF;
    }
    forget_current(world);
    world->destination.bound = BOUND_NONE;
}

/* --- time, and the link --- */

static void pass(uint64_t *then_ms)
{
    *then_ms -= UNIT_MS;
}

static bool time_passes(struct world *world, bool source, bool destination)
{
    if (world->destination.cont == CONT_SENT && world->destination.qemu != QEMU_DEAD) {
        return false; /* a live QEMU obeys within a unit */
    }
    if (source) {
        pass(&world->source.handoff.commit_sent_ms);
        pass(&world->source.handoff.tried_again_ms);
    }
    if (destination) {
        pass(&world->destination.handoff.nonce_sent_ms);
    }
    return true;
}

static bool link_event(struct world *world, const struct world_options *options, enum event event,
                       unsigned argument)
{
    bool wants = handoff_source_wants_link(&world->source.handoff) || source_says_goodbye(world);

    switch (event) {
    case E_LINK_UP:
        if (!world->source.up || !world->destination.up || world->link != LINK_DOWN || !wants) {
            return false;
        }
        world->link = LINK_UP;
        if (world->source.handoff.state == SOURCE_ENDED) {
            source_send(world, source_has_moved_it(world) ? DONE : ABORT, 0);
        } else {
            source_hears(world, options, SOURCE_IN_LINK_UP, NULL);
        }
        return true;
    case E_LINK_DOWN_HEARD:
    case E_DROP:
        if (!world->source.up || world->link != (event == E_DROP ? LINK_UP : LINK_HALF) ||
            (argument && !options->survivors)) {
            return false;
        }
        if (event == E_DROP && !spend(world, DROPS)) {
            return false;
        }
        link_lost_at_source(world, argument);
        if (!wants && world->source.handoff.state != SOURCE_ENDED) {
            source_hears(world, options, SOURCE_IN_FAILED, NULL);
        }
        return true;
    case E_D_DROP:
        if (!world->destination.up || world->destination.bound != BOUND_CURRENT ||
            !spend(world, DROPS)) {
            return false;
        }
        link_lost_at_destination(world);
        destination_hears(world, DESTINATION_IN_FAILED, NULL);
        return true;
    case E_D_LOSS_HEARD:
        if (!world->destination.up || world->destination.bound != BOUND_OLD) {
            return false;
        }
        world->destination.bound = BOUND_NONE;
        destination_hears(world, DESTINATION_IN_FAILED, NULL);
        return true;
    case E_DELIVER:
    case E_DOUBLE:
        /* Old ones in any order, those of the connection in theirs. */
        if (argument >= world->to_destination_count || argument > old_count(world) ||
            (event == E_DOUBLE && (!world->destination.up || !spend(world, DOUBLES)))) {
            return false;
        }
        return destination_receives(world, argument, event == E_DOUBLE);
    case E_RECEIVE:
        return world->source.up && world->to_source_count > 0 && source_receives(world, options);
    default:
        return false;
    }
}

bool destination_receives(struct world *world, unsigned index, bool keep)
{
    struct message message = world->to_destination[index];
    struct destination_host *destination = &world->destination;
    bool begins = message.kind == QUERY || message.kind == ABORT || message.kind == DONE;
    static const enum destination_input inputs[] = {
        [COMMIT] = DESTINATION_IN_COMMIT,       [ABORT] = DESTINATION_IN_ABORT,
        [QUERY] = DESTINATION_IN_LINK_UP,       [TAKEN_BACK] = DESTINATION_IN_TAKEN_BACK,
        [TRY_AGAIN] = DESTINATION_IN_TRY_AGAIN, [DONE] = DESTINATION_IN_DONE,
    };
    char nonce[HANDOFF_NONCE_SIZE];
    struct handoff_word word = {.nonce = nonce, .refusal = message.value};

    if (!destination->up) {
        return false;
    }
    if (!keep) {
        to_destination_remove(world, index);
    }
    nonce_write(nonce, message.kind == COMMIT ? message.value : 0);
    if (!message.old && destination->bound != BOUND_CURRENT) {
        /* The first one on this connection. */
        if (!begins) {
            link_lost_at_destination(world);
            return true;
        }
        if (!destination_finished(world)) {
            destination->bound = BOUND_CURRENT;
        }
    }
    if (destination_finished(world) && (message.old || !begins)) {
        return true; /* nobody hears the answer */
    }
    if (message.old && destination->bound == BOUND_NONE) {
        destination->bound = BOUND_OLD;
    }
    destination_hears(world, inputs[message.kind], &word);
    return true;
}

/* --- all of it --- */

void world_begin(struct world *world, const struct world_options *options)
{
    memset(world, 0, sizeof *world);
    world->link = LINK_UP;
    world->source.up = world->source.synced.begun = world->source.newest = true;
    world->source.qemu = QEMU_RUNNING;
    world->destination.up = world->destination.synced.begun = true;
    world->destination.qemu = QEMU_LOADING;
    world->destination.bound = BOUND_CURRENT;
    memcpy(world->budgets, options->budgets, sizeof world->budgets);
    world_canonicalise(world, NULL);
}

/* What an event costs; BUDGETS: nothing. */
static enum budget cost_of(enum event event)
{
    static const enum budget costs[E_COUNT] = {
        [E_DROP] = DROPS,
        [E_D_DROP] = DROPS,
        [E_DOUBLE] = DOUBLES,
        [E_S_FAIL] = FAILURES,
        [E_D_FAIL] = FAILURES,
        [E_S_JOURNAL_FAILS] = JOURNAL_FAILURES,
        [E_D_JOURNAL_FAILS] = JOURNAL_FAILURES,
        [E_S_CONT_REFUSED] = REFUSALS,
        [E_D_CONT_REFUSED] = REFUSALS,
        [E_S_CRASH] = CRASHES,
        [E_D_CRASH] = CRASHES,
        [E_S_REBOOT] = REBOOTS,
        [E_D_REBOOT] = REBOOTS,
        [E_S_QEMU_DIES] = DEATHS,
        [E_D_QEMU_DIES] = DEATHS,
        [E_S_COLD_DIES] = DEATHS,
        [E_D_COLD_DIES] = DEATHS,
        [E_S_STRAY] = STRAYS,
        [E_D_STRAY] = STRAYS,
        [E_D_STOPS] = STRAYS,
        [E_S_SKEW] = SKEWS,
        [E_D_SKEW] = SKEWS,
        [E_D_FORGET] = FORGETS,
        [E_S_AUTOSTART] = AUTOSTARTS,
        [E_D_AUTOSTART] = AUTOSTARTS,
        [E_UNINFORMED] = UNINFORMED,
        [E_S_RUN_HERE] = OPERATORS,
        [E_S_GIVE_UP] = OPERATORS,
        [E_D_RUN_HERE] = OPERATORS,
        [E_D_GIVE_UP] = OPERATORS,
    };

    return event < E_QUIET_END ? BUDGETS : costs[event];
}

static bool can_afford(const struct world *world, enum event event)
{
    enum budget cost = cost_of(event);

    return cost == BUDGETS ||
           (world->budgets[cost] > 0 && (!counts_in_total(cost) || world->budgets[TOTAL] > 0));
}

unsigned world_arguments(const struct world *world, enum event event)
{
    if (!can_afford(world, event)) {
        return 0;
    }
    switch (event) {
    case E_DELIVER:
    case E_DOUBLE:
        return world->to_destination_count;
    case E_DROP:
    case E_LINK_DOWN_HEARD:
    case E_S_CRASH:
    case E_S_HANG_UP:
    case E_S_ROLLED_BACK:
        return world->to_destination_count + 1;
    case E_S_JOURNAL_FAILS:
    case E_D_JOURNAL_FAILS:
        return 2;
    case E_S_REBOOT:
        return (UNSYNCED_MAX + 1) * 2 * (world->to_destination_count + 1);
    case E_D_REBOOT:
        return world->destination.unsynced_count + 1;
    default:
        return 1;
    }
}

static bool step(struct world *world, const struct world_options *options, enum event event,
                 unsigned argument)
{
    switch (event) {
    case E_TIME:
        return time_passes(world, true, true);
    case E_S_SKEW:
        return spend(world, SKEWS) && time_passes(world, true, false);
    case E_D_SKEW:
        return spend(world, SKEWS) && time_passes(world, false, true);
    case E_LINK_UP:
    case E_LINK_DOWN_HEARD:
    case E_DROP:
    case E_D_DROP:
    case E_D_LOSS_HEARD:
    case E_DELIVER:
    case E_DOUBLE:
    case E_RECEIVE:
        return link_event(world, options, event, argument);
    case E_STREAM:
        if (!world->source.up || !world->destination.up ||
            world->source.handoff.state != SOURCE_PAUSED || world->source.qemu != QEMU_PAUSED ||
            world->destination.handoff.state != DESTINATION_PREPARING ||
            world->destination.forgotten || world->destination.qemu != QEMU_LOADING) {
            return false;
        }
        world->source.qemu = QEMU_POSTMIGRATE;
        world->stream = STREAM_NEWEST;
        return true;
    default:
        return source_step(world, options, event, argument) ||
               destination_step(world, options, event, argument);
    }
}

bool world_step(struct world *world, const struct world_options *options, enum event event,
                unsigned argument)
{
    if (!step(world, options, event, argument)) {
        return false;
    }
    rules_check(world);
    return true;
}

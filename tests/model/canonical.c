/* Puts worlds that are equal in all that matters into one shape: numbers and ages are not told apart beyond what the policy looks at. */
#include "world.h"

#include <string.h>

/* --- nonces --- */

unsigned nonce_number(const char *nonce)
{
    return nonce[0] ? (unsigned)(nonce[1] - '0') : 0;
}

void nonce_write(char nonce[HANDOFF_NONCE_SIZE], unsigned number)
{
    memset(nonce, 0, HANDOFF_NONCE_SIZE);
    if (number) {
        nonce[0] = 'n';
        nonce[1] = (char)('0' + number);
    }
}

static void note_largest(unsigned *largest, unsigned number)
{
    *largest = number > *largest ? number : *largest;
}

unsigned nonce_fresh(const struct world *world)
{
    unsigned largest = 0;

    note_largest(&largest, nonce_number(world->source.handoff.nonce));
    note_largest(&largest, nonce_number(world->destination.handoff.nonce));
    for (unsigned i = 0; i < world->to_destination_count; i++) {
        note_largest(&largest,
                     world->to_destination[i].kind == COMMIT ? world->to_destination[i].value : 0);
    }
    for (unsigned i = 0; i < world->to_source_count; i++) {
        note_largest(&largest, world->to_source[i].kind == LOADED ? world->to_source[i].value : 0);
    }
    return largest + 1;
}

struct renumbering {
    unsigned to[16], count;
};

static unsigned renumber(struct renumbering *numbers, unsigned number)
{
    if (number && !numbers->to[number]) {
        numbers->to[number] = ++numbers->count;
    }
    return number ? numbers->to[number] : 0;
}

static void renumber_nonces(struct world *world, struct nonce_names *names)
{
    struct renumbering numbers = {0};
    struct nonce_names renamed = {.count = names ? names->count : 0};

    nonce_write(world->destination.handoff.nonce,
                renumber(&numbers, nonce_number(world->destination.handoff.nonce)));
    nonce_write(world->source.handoff.nonce,
                renumber(&numbers, nonce_number(world->source.handoff.nonce)));
    for (unsigned i = 0; i < world->to_source_count; i++) {
        if (world->to_source[i].kind == LOADED) {
            world->to_source[i].value = (uint8_t)renumber(&numbers, world->to_source[i].value);
        }
    }
    for (unsigned i = 0; i < world->to_destination_count; i++) {
        if (world->to_destination[i].kind == COMMIT) {
            world->to_destination[i].value =
                (uint8_t)renumber(&numbers, world->to_destination[i].value);
        }
    }
    if (!names) {
        return;
    }
    for (unsigned i = 0; i < 16; i++) {
        if (numbers.to[i]) {
            renamed.names[numbers.to[i]] = names->names[i];
        }
    }
    *names = renamed;
}

/* --- refusals: only their order counts, so they are renumbered when they grow --- */

#define REFUSALS_MAX 5
#define REFUSALS_HELD (5 + 2 * UNSYNCED_MAX + TO_DESTINATION_MAX + TO_SOURCE_MAX)

struct refusals {
    uint32_t *wide[REFUSALS_HELD];
    uint8_t *narrow[REFUSALS_HELD];
    unsigned wide_count, narrow_count;
};

static void collect_refusals(struct world *world, struct refusals *refusals)
{
    uint32_t *const wide[] = {&world->source.handoff.refusal, &world->source.handoff.tried_again,
                              &world->source.synced.tried_again,
                              &world->destination.handoff.refusals,
                              &world->destination.synced.refusals};

    refusals->wide_count = sizeof wide / sizeof *wide;
    memcpy(refusals->wide, wide, sizeof wide);
    for (unsigned i = 0; i < world->source.unsynced_count; i++) {
        if (world->source.unsynced[i].record == SOURCE_RECORD_TRY_AGAIN) {
            refusals->narrow[refusals->narrow_count++] = &world->source.unsynced[i].value;
        }
    }
    for (unsigned i = 0; i < world->destination.unsynced_count; i++) {
        if (world->destination.unsynced[i].record == DESTINATION_RECORD_REFUSED) {
            refusals->narrow[refusals->narrow_count++] = &world->destination.unsynced[i].value;
        }
    }
    for (unsigned i = 0; i < world->to_destination_count; i++) {
        if (world->to_destination[i].kind == TRY_AGAIN) {
            refusals->narrow[refusals->narrow_count++] = &world->to_destination[i].value;
        }
    }
    for (unsigned i = 0; i < world->to_source_count; i++) {
        if (world->to_source[i].kind == REFUSED) {
            refusals->narrow[refusals->narrow_count++] = &world->to_source[i].value;
        }
    }
}

static void renumber_refusals(struct world *world)
{
    struct refusals refusals = {0};
    bool used[32] = {false};
    uint8_t to[32] = {0};

    if (world->destination.handoff.refusals <= REFUSALS_MAX) {
        return;
    }
    collect_refusals(world, &refusals);
    for (unsigned i = 0; i < refusals.wide_count; i++) {
        used[*refusals.wide[i]] = true;
    }
    for (unsigned i = 0; i < refusals.narrow_count; i++) {
        used[*refusals.narrow[i]] = true;
    }
    for (unsigned i = 1; i < 32; i++) {
        to[i] = (uint8_t)(to[i - 1] + used[i]);
    }
    for (unsigned i = 0; i < refusals.wide_count; i++) {
        *refusals.wide[i] = to[*refusals.wide[i]];
    }
    for (unsigned i = 0; i < refusals.narrow_count; i++) {
        *refusals.narrow[i] = to[*refusals.narrow[i]];
    }
}

/* --- one shape for what is equal --- */

static uint64_t at_most_old(uint64_t then_ms, unsigned units)
{
    return NOW_MS - then_ms > units * UNIT_MS ? NOW_MS - units * UNIT_MS : then_ms;
}

/* One unit beyond the age at which nothing changes any more. */
#define COMMIT_OLD ((HANDOFF_COMMIT_VALIDITY_MS + HANDOFF_MARGIN_MS) / UNIT_MS + 1)
#define TRIED_OLD (HANDOFF_TIME_MS / UNIT_MS)
#define NONCE_OLD (HANDOFF_COMMIT_VALIDITY_MS / UNIT_MS + 1)

static bool commit_age_matters(enum source_state state)
{
    return state == SOURCE_COMMITTED || state == SOURCE_RETAKING || state == SOURCE_TAKING_BACK ||
           state == SOURCE_TRYING_AGAIN || state == SOURCE_WITHDRAWING || state == SOURCE_GIVING_UP;
}

static void forget_ages(struct world *world)
{
    struct handoff_source *source = &world->source.handoff;
    struct handoff_destination *destination = &world->destination.handoff;

    source->commit_sent_ms = commit_age_matters(source->state)
                                 ? at_most_old(source->commit_sent_ms, COMMIT_OLD)
                                 : NOW_MS - COMMIT_OLD * UNIT_MS;
    source->tried_again_ms = at_most_old(source->tried_again_ms, TRIED_OLD);
    destination->nonce_sent_ms = destination->nonce[0]
                                     ? at_most_old(destination->nonce_sent_ms, NONCE_OLD)
                                     : NOW_MS - NONCE_OLD * UNIT_MS;
}

static void sort_old(struct world *world)
{
    struct message *list = world->to_destination;

    for (unsigned i = 1; i < world->to_destination_count && list[i].old; i++) {
        for (unsigned j = i;
             j > 0 && (list[j - 1].kind > list[j].kind ||
                       (list[j - 1].kind == list[j].kind && list[j - 1].value > list[j].value));
             j--) {
            struct message message = list[j];

            list[j] = list[j - 1];
            list[j - 1] = message;
        }
    }
}

void world_canonicalise(struct world *world, struct nonce_names *names)
{
    if (!world->source.up) {
        memset(&world->source.handoff, 0, sizeof world->source.handoff);
    }
    if (!world->destination.up) {
        memset(&world->destination.handoff, 0, sizeof world->destination.handoff);
    }
    sort_old(world);
    renumber_nonces(world, names);
    renumber_refusals(world);
    forget_ages(world);
}

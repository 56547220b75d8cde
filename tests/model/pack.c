/* A world as a few words, and back: one list of fields for both ways. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct codec {
    struct packed *packed;
    unsigned at;
    bool writing;
};

static inline void transfer(struct codec *codec, uint64_t *value, unsigned bits, const char *name)
{
    unsigned word = codec->at / 64, shift = codec->at % 64;
    uint64_t mask = (UINT64_C(1) << bits) - 1;

    if (shift + bits > 64) { /* not over the edge of a word */
        word++;
        shift = 0;
        codec->at = word * 64;
    }
    codec->at += bits;
    if (word >= PACKED_WORDS) {
        fprintf(stderr, "the model's packed state is too small\n");
        abort();
    }
    if (!codec->writing) {
        *value = codec->packed->words[word] >> shift & mask;
        return;
    }
    if (*value > mask) {
        fprintf(stderr, "%s = %llu does not fit the model's packed state\n", name,
                (unsigned long long)*value);
        abort();
    }
    codec->packed->words[word] |= *value << shift;
}

#define FIELD(lvalue, bits)                                        \
    do {                                                           \
        uint64_t value_ = codec->writing ? (uint64_t)(lvalue) : 0; \
        transfer(codec, &value_, bits, #lvalue);                   \
        if (!codec->writing) {                                     \
            (lvalue) = (__typeof__(lvalue))value_;                 \
        }                                                          \
    } while (0)

static void age(struct codec *codec, uint64_t *then_ms)
{
    unsigned units = codec->writing ? (unsigned)((NOW_MS - *then_ms) / UNIT_MS) : 0;

    FIELD(units, 3);
    *then_ms = NOW_MS - units * UNIT_MS;
}

static void nonce(struct codec *codec, char text[HANDOFF_NONCE_SIZE])
{
    unsigned number = codec->writing ? nonce_number(text) : 0;

    FIELD(number, 4);
    nonce_write(text, number);
}

static void records(struct codec *codec, struct record *list, unsigned *count)
{
    FIELD(*count, 3);
    for (unsigned i = 0; i < *count; i++) {
        FIELD(list[i].record, 4);
        FIELD(list[i].value, 3);
        FIELD(list[i].sync, 1);
    }
}

static void source_journal(struct codec *codec, struct handoff_source_journal *journal)
{
    FIELD(journal->begun, 1);
    FIELD(journal->paused, 1);
    FIELD(journal->committed, 1);
    FIELD(journal->withdrawn, 1);
    FIELD(journal->conflict, 1);
    FIELD(journal->given_up, 1);
    FIELD(journal->taken_back, 1);
    FIELD(journal->done, 1);
    FIELD(journal->rolled_back, 1);
    FIELD(journal->owes_abort, 1);
    FIELD(journal->acknowledged, 1);
    FIELD(journal->taking_back, 1);
    FIELD(journal->tried_again, 3);
}

static void source_handoff(struct codec *codec, struct handoff_source *source)
{
    FIELD(source->state, 4);
    FIELD(source->loaded, 1);
    FIELD(source->completed, 1);
    FIELD(source->qemu_dead, 1);
    FIELD(source->held, 1);
    FIELD(source->runs_here, 1);
    FIELD(source->resumed, 1);
    FIELD(source->rolls_back, 1);
    FIELD(source->destination_copy, 1);
    FIELD(source->journal_failed, 1);
    FIELD(source->record, 4);
    FIELD(source->refusal, 3);
    FIELD(source->tried_again, 3);
    nonce(codec, source->nonce);
    age(codec, &source->tried_again_ms);
    age(codec, &source->commit_sent_ms);
}

static void source_host(struct codec *codec, struct source_host *host)
{
    FIELD(host->up, 1);
    if (host->up) {
        source_handoff(codec, &host->handoff);
    }
    source_journal(codec, &host->synced);
    records(codec, host->unsynced, &host->unsynced_count);
    FIELD(host->qemu, 3);
    FIELD(host->cold, 1);
    FIELD(host->stray, 1);
    FIELD(host->newest, 1);
    FIELD(host->dead_heard, 1);
    FIELD(host->resume_coming, 1);
    FIELD(host->acknowledged, 1);
    FIELD(host->operator_start, 1);
    FIELD(host->unwritten, 1);
    FIELD(host->marks, 2);
    FIELD(host->job, 2);
    FIELD(host->job_step, 2);
}

static void destination_journal(struct codec *codec, struct handoff_destination_journal *journal)
{
    FIELD(journal->begun, 1);
    FIELD(journal->owned, 1);
    FIELD(journal->conflict, 1);
    FIELD(journal->abandoned, 1);
    FIELD(journal->done, 1);
    FIELD(journal->forced, 1);
    FIELD(journal->last, 4);
    FIELD(journal->refusals, 3);
}

static void destination_handoff(struct codec *codec, struct handoff_destination *destination)
{
    FIELD(destination->state, 4);
    FIELD(destination->record, 4);
    nonce(codec, destination->nonce);
    age(codec, &destination->nonce_sent_ms);
    FIELD(destination->refusals, 3);
    FIELD(destination->qemu_dead, 1);
    FIELD(destination->may_have_run, 1);
    FIELD(destination->forced, 1);
    FIELD(destination->journal_failed, 1);
}

static void destination_host(struct codec *codec, struct destination_host *host)
{
    FIELD(host->up, 1);
    if (host->up) {
        destination_handoff(codec, &host->handoff);
    }
    destination_journal(codec, &host->synced);
    records(codec, host->unsynced, &host->unsynced_count);
    FIELD(host->qemu, 3);
    FIELD(host->cold, 1);
    FIELD(host->stray, 1);
    FIELD(host->newest, 1);
    FIELD(host->dead_heard, 1);
    FIELD(host->resume_coming, 1);
    FIELD(host->abandoning, 1);
    FIELD(host->removing, 1);
    FIELD(host->kept, 1);
    FIELD(host->forgotten, 1);
    FIELD(host->forced_once, 1);
    FIELD(host->cont, 2);
    FIELD(host->bound, 2);
}

static void messages(struct codec *codec, struct message *list, unsigned *count)
{
    FIELD(*count, 3);
    for (unsigned i = 0; i < *count; i++) {
        FIELD(list[i].kind, 4);
        FIELD(list[i].value, 4);
        FIELD(list[i].copy, 1);
        FIELD(list[i].old, 1);
    }
}

static void all(struct codec *codec, struct world *world)
{
    source_host(codec, &world->source);
    destination_host(codec, &world->destination);
    FIELD(world->link, 2);
    FIELD(world->stream, 2);
    messages(codec, world->to_destination, &world->to_destination_count);
    messages(codec, world->to_source, &world->to_source_count);
    FIELD(world->uninformed, 1);
    for (size_t i = 0; i < BUDGETS; i++) {
        FIELD(world->budgets[i], i == TOTAL ? 4 : 2);
    }
}

/* A field of the shipped structs that the list above does not know would make different states look equal. */
void world_check_packed(const struct world *world, const struct packed *packed)
{
    struct world again;

    world_unpack(&again, packed);
    if (memcmp(&again.source.handoff, &world->source.handoff, sizeof again.source.handoff) != 0 ||
        memcmp(&again.destination.handoff, &world->destination.handoff,
               sizeof again.destination.handoff) != 0) {
        fprintf(stderr, "the model's packed state does not hold all of the handoff's state\n");
        abort();
    }
}

struct packed world_pack(const struct world *world)
{
    struct packed packed = {0};
    struct world copy = *world;

    all(&(struct codec){.packed = &packed, .writing = true}, &copy);
    return packed;
}

void world_unpack(struct world *world, const struct packed *packed)
{
    struct packed copy = *packed;

    memset(world, 0, sizeof *world);
    all(&(struct codec){.packed = &copy}, world);
    if (!world->source.up) {
        world_canonicalise(world, NULL);
    } else if (!world->destination.up) {
        world_canonicalise(world, NULL);
    }
}

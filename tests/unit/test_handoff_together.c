/*
 * Both sides of the handoff driven together through all that a link and two hosts can do to them,
 * as far as a few messages in flight reach: in order, lost, doubled, late; QEMUs, journals and
 * resumptions that fail at any time. Never may two copies run, none is started before the source
 * has given it up, and none is thrown away that the source does not have. Restarts of a daemon are
 * not in it.
 */
#include "agent/policy/handoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* Bounds that keep what there is to explore finite: messages in flight each way, LOADED messages,
 * and times that a COMMIT gets too old. */
#define IN_FLIGHT 3
#define NONCES_MAX 3
#define JUMPS_MAX 1
#define NODES_MAX (1u << 17)

enum kind {
    NOTHING,
    LOADED,
    OWNED,
    REFUSED,
    GIVEN_UP,
    COMMIT,
    ABORT,
    QUERY,
    TAKEN_BACK,
    AGAIN,
    DONE
};

struct message {
    uint8_t kind, nonce;
};

/* One direction of the control connection: in order, whatever is lost or doubled. */
struct queue {
    struct message messages[IN_FLIGHT];
};

struct world {
    struct handoff_source source;
    struct handoff_destination destination;
    struct queue to_source, to_destination;
    uint64_t now;
    uint8_t nonces, jumps;
    /* What all this is about: does the guest run here, and may it have run (and written) there? */
    bool source_runs, started;
    bool was_paused, committed, refused, taken_back, was_loaded;
    bool destination_dead;
};

enum event {
    E_SOURCE,                                         /* + enum source_input */
    E_DESTINATION = E_SOURCE + SOURCE_IN_LINK_UP + 1, /* + enum destination_input */
    E_DELIVER =
        E_DESTINATION + DESTINATION_IN_DONE + 1, /* + 0: to the source, 1: to the destination */
    E_DOUBLE = E_DELIVER + 2,
    E_LOSE = E_DOUBLE + 2,
    E_TIME = E_LOSE + 2,
    E_COUNT,
};

struct node {
    struct world world;
    uint32_t parent;
    uint8_t event;
};

struct exploration {
    struct node *nodes;
    uint32_t count, *table; /* open addressing; 0: free, else index + 1 */
    uint32_t current;
};

static void broken(const struct exploration *exploration, enum event event, const char *rule)
{
    uint32_t at = exploration->current;

    print_error("event %d last, before it (from the last to the first):", event);
    for (; at; at = exploration->nodes[at].parent) {
        print_error(" %d", exploration->nodes[at].event);
    }
    print_error("\n");
    fail_msg("%s", rule);
}

/* A full queue loses it: as good as lost on the way. */
static void enqueue(struct queue *queue, enum kind kind, const char *nonce)
{
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        if (!queue->messages[i].kind) {
            queue->messages[i] =
                (struct message){(uint8_t)kind, nonce ? (uint8_t)nonce[0] : (uint8_t)0};
            return;
        }
    }
}

static const char *give_to_source(struct world *world, enum source_input input, const char *nonce)
{
    static const struct {
        enum source_action action;
        enum kind kind;
    } sends[] = {{SOURCE_DO_SEND_ABORT, ABORT},
                 {SOURCE_DO_SEND_QUERY, QUERY},
                 {SOURCE_DO_SEND_TAKEN_BACK, TAKEN_BACK},
                 {SOURCE_DO_SEND_TRY_AGAIN, AGAIN},
                 {SOURCE_DO_SEND_DONE, DONE}};
    unsigned actions = handoff_source_step(&world->source, input, nonce);
    struct queue *out = &world->to_destination;

    world->refused |= input == SOURCE_IN_REFUSED;
    if (actions & SOURCE_DO_ROLL_BACK) {
        if (world->committed && !world->refused) {
            return "rolled back after the commit, without a refusal";
        }
        world->source_runs = !world->source.qemu_dead;
    }
    if (actions & SOURCE_DO_SEND_COMMIT) {
        if (!world->committed) {
            return "a commit is sent that is not journaled";
        }
        enqueue(out, COMMIT, world->source.nonce);
    }
    /* It may run from now on; if it fails, it must not. */
    world->source_runs |= (actions & SOURCE_DO_TAKE_BACK) && !world->source.qemu_dead;
    for (size_t i = 0; i < COUNT(sends); i++) {
        if (actions & sends[i].action) {
            enqueue(out, sends[i].kind, NULL);
        }
    }
    return NULL;
}

static const char *give_to_destination(struct world *world, enum destination_input input,
                                       const char *nonce)
{
    unsigned actions = handoff_destination_step(&world->destination, input, nonce, world->now);
    struct queue *out = &world->to_source;

    if (actions & DESTINATION_DO_CONT) {
        if (world->source.state != SOURCE_COMMITTED) {
            return "started while the source is not in COMMITTED";
        }
        if (world->now - world->destination.nonce_sent_ms > HANDOFF_COMMIT_VALIDITY_MS) {
            return "started by a commit that is too old";
        }
        world->started = true;
    }
    if ((actions & DESTINATION_DO_JOURNAL_COMMITTED) && nonce[0] != '0' + world->nonces) {
        return "a commit of an older nonce is obeyed";
    }
    if (actions & DESTINATION_DO_ABANDON) {
        if (world->was_loaded && world->committed && !world->taken_back) {
            return "a loaded copy is abandoned that the source has not taken back";
        }
        enqueue(out, GIVEN_UP, NULL);
    }
    if ((actions & DESTINATION_DO_SEND_LOADED) && world->nonces < NONCES_MAX) {
        char fresh[2] = {(char)('1' + world->nonces++), '\0'};

        world->was_loaded = true;
        handoff_destination_sent(&world->destination, fresh, world->now);
        enqueue(out, LOADED, fresh);
    }
    if (actions & DESTINATION_DO_SEND_OWNED) {
        enqueue(out, OWNED, NULL);
    }
    if (actions & DESTINATION_DO_SEND_REFUSED) {
        enqueue(out, REFUSED, NULL);
    }
    return NULL;
}

static const char *deliver(struct world *world, bool to_destination, struct message message)
{
    static const int inputs[] = {
        [LOADED] = SOURCE_IN_LOADED,        [OWNED] = SOURCE_IN_OWNED,
        [REFUSED] = SOURCE_IN_REFUSED,      [GIVEN_UP] = SOURCE_IN_FAILED,
        [COMMIT] = DESTINATION_IN_COMMIT,   [ABORT] = DESTINATION_IN_ABORT,
        [QUERY] = DESTINATION_IN_LINK_UP,   [TAKEN_BACK] = DESTINATION_IN_TAKEN_BACK,
        [AGAIN] = DESTINATION_IN_TRY_AGAIN, [DONE] = DESTINATION_IN_DONE};
    char nonce[2] = {(char)message.nonce, '\0'};

    return to_destination
               ? give_to_destination(world, (enum destination_input)inputs[message.kind], nonce)
               : give_to_source(world, (enum source_input)inputs[message.kind], nonce);
}

/* Can it come from outside of the two functions now? If so, what it means for the guest has
 * happened. */
static bool source_event_happens(struct world *world, enum source_input input)
{
    const struct handoff_source *source = &world->source;

    switch (input) {
    case SOURCE_IN_PAUSED:
        world->was_paused |= source->state == SOURCE_OPEN;
        world->source_runs &= source->state != SOURCE_OPEN;
        return source->state == SOURCE_OPEN;
    case SOURCE_IN_FAILED:
        return true;
    case SOURCE_IN_COMPLETED:
        return world->was_paused && !source->qemu_dead;
    case SOURCE_IN_QEMU_DEAD:
        world->source_runs = false;
        return !source->qemu_dead;
    case SOURCE_IN_JOURNALED:
        world->committed |= source->state == SOURCE_COMMITTING;
        return source->state == SOURCE_COMMITTING;
    case SOURCE_IN_JOURNAL_FAILED:
        return source->state == SOURCE_COMMITTING;
    case SOURCE_IN_TAKEN_BACK:
        world->taken_back |= source->state == SOURCE_TAKING_BACK;
        return source->state == SOURCE_TAKING_BACK && world->source_runs;
    case SOURCE_IN_TAKE_BACK_FAILED:
        world->source_runs &= source->state != SOURCE_TAKING_BACK;
        return source->state == SOURCE_TAKING_BACK;
    case SOURCE_IN_CLEANED:
        return source->state == SOURCE_CLEANING;
    case SOURCE_IN_ROLLED_BACK:
        return source->state == SOURCE_ROLLING_BACK;
    case SOURCE_IN_LINK_UP:
        /* A new connection: what was in flight on the old one never comes. */
        memset(&world->to_source, 0, sizeof world->to_source);
        memset(&world->to_destination, 0, sizeof world->to_destination);
        return true;
    default:
        return false; /* messages */
    }
}

static bool destination_event_happens(struct world *world, enum destination_input input)
{
    enum destination_state state = world->destination.state;

    switch (input) {
    case DESTINATION_IN_FAILED:
        return true;
    case DESTINATION_IN_LOADED:
        return state == DESTINATION_PREPARING && world->was_paused && !world->destination_dead;
    case DESTINATION_IN_JOURNALED:
    case DESTINATION_IN_JOURNAL_FAILED:
        return state == DESTINATION_LOADING || state == DESTINATION_COMMITTING;
    case DESTINATION_IN_RUNNING:
        return state == DESTINATION_STARTING && !world->destination_dead;
    case DESTINATION_IN_CONT_REFUSED:
        world->started &= state != DESTINATION_STARTING;
        return state == DESTINATION_STARTING && !world->destination_dead;
    case DESTINATION_IN_RESUMED_EARLY:
    case DESTINATION_IN_QEMU_DEAD:
        if (world->destination_dead ||
            (input == DESTINATION_IN_RESUMED_EARLY && state > DESTINATION_LOADED)) {
            return false;
        }
        world->destination_dead = true;
        return true;
    default:
        return false;
    }
}

/* False when EVENT cannot happen; *RULE when it breaks one. */
static bool happens(struct world *world, unsigned event, const char **rule)
{
    *rule = NULL;
    if (event < E_DESTINATION) {
        enum source_input input = event - E_SOURCE;

        if (!source_event_happens(world, input)) {
            return false;
        }
        *rule = give_to_source(world, input, NULL);
    } else if (event < E_DELIVER) {
        enum destination_input input = event - E_DESTINATION;

        if (!destination_event_happens(world, input)) {
            return false;
        }
        *rule = give_to_destination(world, input, NULL);
    } else if (event < E_TIME) {
        bool to_destination = (event - E_DELIVER) % 2;
        struct queue *queue = to_destination ? &world->to_destination : &world->to_source;
        struct message message = queue->messages[0];

        if (!message.kind) {
            return false;
        }
        if (event < E_DOUBLE || event >= E_LOSE) {
            memmove(queue->messages, queue->messages + 1,
                    (IN_FLIGHT - 1) * sizeof *queue->messages);
            queue->messages[IN_FLIGHT - 1] = (struct message){0};
        }
        if (event < E_LOSE) {
            *rule = deliver(world, to_destination, message);
        }
    } else {
        if (world->jumps == JUMPS_MAX) {
            return false;
        }
        world->jumps++;
        world->now += HANDOFF_COMMIT_VALIDITY_MS + 1;
    }
    if (!*rule && world->source_runs && world->started) {
        *rule = "it runs at the source, and may have run at the destination";
    }
    return true;
}

/* Adds it unless it was seen. Worlds are copied with memcpy, so that their padding compares. */
static void visit(struct exploration *exploration, const struct world *world, unsigned event)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    uint32_t slot;

    for (size_t i = 0; i < sizeof *world; i++) {
        hash = (hash ^ ((const unsigned char *)world)[i]) * UINT64_C(1099511628211);
    }
    for (slot = (uint32_t)(hash >> 32) % (2 * NODES_MAX); exploration->table[slot];
         slot = (slot + 1) % (2 * NODES_MAX)) {
        if (memcmp(&exploration->nodes[exploration->table[slot] - 1].world, world, sizeof *world) ==
            0) {
            return;
        }
    }
    assert_true(exploration->count < NODES_MAX);
    memcpy(&exploration->nodes[exploration->count].world, world, sizeof *world);
    exploration->nodes[exploration->count].parent = exploration->current;
    exploration->nodes[exploration->count].event = (uint8_t)event;
    exploration->table[slot] = ++exploration->count;
}

static void nothing_that_happens_makes_two_run(void **state)
{
    struct exploration exploration = {.nodes = calloc(NODES_MAX, sizeof *exploration.nodes),
                                      .table = calloc(2 * NODES_MAX, sizeof *exploration.table)};
    struct world world;
    uint32_t owned = 0;

    (void)state;
    assert_true(exploration.nodes && exploration.table);
    memset(&world, 0, sizeof world);
    world.source_runs = true;
    visit(&exploration, &world, 0);
    for (; exploration.current < exploration.count; exploration.current++) {
        for (unsigned event = 0; event < E_COUNT; event++) {
            const char *rule;

            memcpy(&world, &exploration.nodes[exploration.current].world, sizeof world);
            if (!happens(&world, event, &rule)) {
                continue;
            }
            if (rule) {
                broken(&exploration, event, rule);
            }
            visit(&exploration, &world, event);
        }
        owned += world.destination.state == DESTINATION_ENDED;
    }
    /* It went all the way, in many ways. */
    assert_true(owned > 10);
    print_message("%u situations\n", exploration.count);
    free(exploration.nodes);
    free(exploration.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_that_happens_makes_two_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "explore.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define OPERATOR_EDGE UINT32_C(0x80000000)
#define NONE UINT32_MAX
#define EDGES_PER_STATE 12u

struct explorer {
    const struct exploration *exploration;
    FILE *out;
    uint32_t count, max;
    struct packed *states;
    uint32_t *parents;
    uint16_t *events; /* event, and its argument above it */
    uint64_t *edges_from;
    uint32_t *edges; /* where a state leads to by itself, or (OPERATOR_EDGE) by an operator */
    uint64_t edge_count, edge_max;
    uint8_t *ways; /* enum way, or-ed */
    uint32_t *table;
    size_t table_size;
    struct exploration_result result;
};

enum way {
    WAY_END = 1 << 0,      /* comes to its end by itself */
    WAY_SETTLED = 1 << 1,  /* or to where an operator is needed for a reason that is known */
    WAY_OPERATOR = 1 << 2, /* comes to its end with an operator's help */
};

/* Big, and only what is touched takes memory. */
static void *reserve(size_t count, size_t size)
{
    void *memory = mmap(NULL, count * size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return memory;
}

/* --- the set of states --- */

static uint64_t hash_of(const struct packed *packed)
{
    return XXH3_64bits(packed, sizeof *packed);
}

static void put(struct explorer *explorer, uint32_t index)
{
    size_t mask = explorer->table_size - 1;
    size_t slot = hash_of(&explorer->states[index]) & mask;

    while (explorer->table[slot]) {
        slot = (slot + 1) & mask;
    }
    explorer->table[slot] = index + 1;
}

static void grow(struct explorer *explorer)
{
    size_t old = explorer->table_size;

    munmap(explorer->table, old * sizeof *explorer->table);
    explorer->table_size = old * 2;
    explorer->table = reserve(explorer->table_size, sizeof *explorer->table);
    for (uint32_t i = 0; i < explorer->count; i++) {
        put(explorer, i);
    }
}

/* The state's index; NONE when there is no room for a new one. */
static uint32_t find_or_add(struct explorer *explorer, const struct packed *packed, uint32_t parent,
                            unsigned event, unsigned argument)
{
    size_t mask = explorer->table_size - 1;
    uint32_t index;

    for (size_t slot = hash_of(packed) & mask; explorer->table[slot]; slot = (slot + 1) & mask) {
        index = explorer->table[slot] - 1;
        if (memcmp(&explorer->states[index], packed, sizeof *packed) == 0) {
            return index;
        }
    }
    if (explorer->count == explorer->max) {
        explorer->result.complete = false;
        return NONE;
    }
    index = explorer->count++;
    explorer->states[index] = *packed;
    explorer->parents[index] = parent;
    explorer->events[index] = (uint16_t)(event | argument << 8);
    if ((size_t)explorer->count * 2 > explorer->table_size) {
        grow(explorer);
    } else {
        put(explorer, index);
    }
    return index;
}

static void add_edge(struct explorer *explorer, uint32_t to, bool by_operator)
{
    if (explorer->edge_count == explorer->edge_max) {
        fprintf(stderr, "more ways out of the states than there is room for\n");
        exit(2);
    }
    explorer->edges[explorer->edge_count++] = to | (by_operator ? OPERATOR_EDGE : 0);
}

/* --- histories --- */

static void note_new_nonces(const struct world *world, struct nonce_names *names)
{
    for (unsigned i = 1; i < nonce_fresh(world); i++) {
        if (names->names[i] == 0) {
            names->names[i] = ++names->count;
        }
    }
}

static unsigned path_to(const struct explorer *explorer, uint32_t state, uint32_t **path)
{
    unsigned length = 0;

    for (uint32_t i = state; i != 0; i = explorer->parents[i]) {
        length++;
    }
    *path = calloc(length + 1, sizeof **path);
    for (uint32_t i = state, at = length; at > 0; i = explorer->parents[i]) {
        (*path)[--at] = i;
    }
    return length;
}

static void tell_step(const struct explorer *explorer, struct world *world,
                      struct nonce_names *names, unsigned number, unsigned event, unsigned argument)
{
    struct world before = *world;

    fprintf(explorer->out, "  %2u. ", number);
    tell_event(explorer->out, &before, names, event, argument);
    world_step(world, &explorer->exploration->options, event, argument);
    tell_change(explorer->out, &before, world);
    fprintf(explorer->out, "\n");
    note_new_nonces(world, names);
    world_canonicalise(world, names);
}

/* The history of STATE, and, unless EVENT is E_COUNT, one step more. */
static void tell_history(struct explorer *explorer, uint32_t state, const char *what,
                         unsigned event, unsigned argument)
{
    struct nonce_names names = {0};
    struct world world;
    uint32_t *path;
    unsigned length = path_to(explorer, state, &path);

    fprintf(explorer->out, "%s: %s\n", explorer->exploration->name, what);
    world_begin(&world, &explorer->exploration->options);
    for (unsigned i = 0; i < length; i++) {
        tell_step(explorer, &world, &names, i + 1, explorer->events[path[i]] & 0xff,
                  explorer->events[path[i]] >> 8);
    }
    if (event != E_COUNT) {
        tell_step(explorer, &world, &names, ++length, event, argument);
    }
    tell_world(explorer->out, &world);
    free(path);
    if (!explorer->result.broken) {
        explorer->result.broken = what;
        explorer->result.steps = length;
    }
}

/* --- forwards --- */

static bool expand_event(struct explorer *explorer, uint32_t state, const struct world *world,
                         enum event event)
{
    unsigned arguments = world_arguments(world, event);

    for (unsigned argument = 0; argument < arguments; argument++) {
        struct world next = *world;
        struct packed packed;
        uint32_t known, to;

        if (!world_step(&next, &explorer->exploration->options, event, argument)) {
            continue;
        }
        explorer->result.transitions++;
        if (next.broken) {
            tell_history(explorer, state, next.broken, event, argument);
            return false;
        }
        world_canonicalise(&next, NULL);
        packed = world_pack(&next);
        known = explorer->count;
        to = find_or_add(explorer, &packed, state, event, argument);
        if (to == NONE) {
            return false;
        }
        if (to == known) {
            world_check_packed(&next, &packed);
        }
        if ((event < E_QUIET_END || event >= E_OPERATOR) && to != state) {
            add_edge(explorer, to, event >= E_OPERATOR);
        }
    }
    return true;
}

static bool expand(struct explorer *explorer, uint32_t state)
{
    struct world world;

    explorer->edges_from[state] = explorer->edge_count;
    world_unpack(&world, &explorer->states[state]);
    if (rules_ended(&world)) {
        explorer->ways[state] = WAY_END | WAY_SETTLED | WAY_OPERATOR;
    } else if (rules_needs_operator(&world)) {
        explorer->ways[state] = WAY_SETTLED;
    }
    for (unsigned event = 0; event < E_COUNT; event++) {
        if (!expand_event(explorer, state, &world, event)) {
            return false;
        }
    }
    return true;
}

static bool forwards(struct explorer *explorer)
{
    uint32_t level_end = 1;

    for (uint32_t state = 0; state < explorer->count; state++) {
        if (state == level_end) {
            explorer->result.depth++;
            level_end = explorer->count;
        }
        if (!expand(explorer, state)) {
            return false;
        }
    }
    explorer->edges_from[explorer->count] = explorer->edge_count;
    return true;
}

/* --- backwards: every state has a way to an end --- */

static uint8_t ways_of(const struct explorer *explorer, uint32_t state)
{
    uint8_t ways = explorer->ways[state];

    for (uint64_t i = explorer->edges_from[state]; i < explorer->edges_from[state + 1]; i++) {
        uint32_t to = explorer->edges[i];

        ways |= to & OPERATOR_EDGE ? explorer->ways[to & ~OPERATOR_EDGE] & WAY_OPERATOR
                                   : explorer->ways[to];
    }
    return ways;
}

static void backwards(struct explorer *explorer)
{
    bool changed = true;

    while (changed) {
        changed = false;
        for (uint32_t state = explorer->count; state-- > 0;) {
            uint8_t ways = ways_of(explorer, state);

            changed = changed || ways != explorer->ways[state];
            explorer->ways[state] = ways;
        }
    }
}

static void tell_operators(const struct explorer *explorer, const uint64_t *counts,
                           const char *const *reasons, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        fprintf(explorer->out, "    only an operator ends it (%llu states): %s\n",
                (unsigned long long)counts[i], reasons[i]);
    }
}

static void check_ways(struct explorer *explorer)
{
    const char *reasons[8];
    uint64_t counts[8] = {0};
    unsigned reason_count = 0;

    for (uint32_t state = 0; state < explorer->count; state++) {
        struct world world;
        const char *reason;
        unsigned i = 0;

        if (!(explorer->ways[state] & WAY_SETTLED)) {
            tell_history(explorer, state, "from here it never ends by itself", E_COUNT, 0);
            return;
        }
        if (explorer->ways[state] & WAY_END) {
            continue;
        }
        world_unpack(&world, &explorer->states[state]);
        if (!(explorer->ways[state] & WAY_OPERATOR) && world.budgets[OPERATORS] > 0) {
            tell_history(explorer, state, "from here not even an operator ends it", E_COUNT, 0);
            return;
        }
        reason = rules_needs_operator(&world);
        while (reason && i < reason_count && reasons[i] != reason) {
            i++;
        }
        if (reason && i < 8) {
            reasons[i] = reason;
            reason_count = i == reason_count ? i + 1 : reason_count;
            counts[i]++;
        }
    }
    tell_operators(explorer, counts, reasons, reason_count);
}

/* --- all --- */

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void release(struct explorer *explorer)
{
    size_t max = explorer->max + 1;

    munmap(explorer->states, max * sizeof *explorer->states);
    munmap(explorer->parents, max * sizeof *explorer->parents);
    munmap(explorer->events, max * sizeof *explorer->events);
    munmap(explorer->edges_from, max * sizeof *explorer->edges_from);
    munmap(explorer->edges, explorer->edge_max * sizeof *explorer->edges);
    munmap(explorer->ways, max);
    munmap(explorer->table, explorer->table_size * sizeof *explorer->table);
}

struct exploration_result explore(const struct exploration *exploration, uint32_t max_states,
                                  FILE *out)
{
    size_t max = (size_t)max_states + 1;
    struct explorer explorer = {.exploration = exploration,
                                .out = out,
                                .max = max_states,
                                .states = reserve(max, sizeof *explorer.states),
                                .parents = reserve(max, sizeof *explorer.parents),
                                .events = reserve(max, sizeof *explorer.events),
                                .edges_from = reserve(max, sizeof *explorer.edges_from),
                                .edge_max = max * EDGES_PER_STATE,
                                .ways = reserve(max, 1),
                                .table_size = 1 << 12,
                                .result = {.complete = true}};
    double began = now_s();
    struct packed packed;
    struct world world;

    explorer.edges = reserve(explorer.edge_max, sizeof *explorer.edges);
    explorer.table = reserve(explorer.table_size, sizeof *explorer.table);
    world_begin(&world, &exploration->options);
    packed = world_pack(&world);
    find_or_add(&explorer, &packed, 0, 0, 0);
    if (forwards(&explorer)) {
        backwards(&explorer);
        check_ways(&explorer);
    }
    explorer.result.states = explorer.count;
    explorer.result.seconds = now_s() - began;
    release(&explorer);
    return explorer.result;
}

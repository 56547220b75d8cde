/*
 * The explorations: how much of what may go wrong each of them allows. Without --deep all of them together take less than a minute; with
 * it, the deep ones only.
 */
#include "explore.h"

#include <stdlib.h>
#include <string.h>

/* Some 75 bytes each, with the ways between them. */
#define STATES_MAX 12000000u
#define DEEP_STATES_MAX 120000000u

/* Everything that goes wrong by itself; how much of it in all says [TOTAL]. */
#define ANY                                                                  \
    [DROPS] = 3, [CRASHES] = 3, [REBOOTS] = 3, [DEATHS] = 3, [REFUSALS] = 3, \
    [JOURNAL_FAILURES] = 2, [FAILURES] = 1, [DOUBLES] = 1, [SKEWS] = 1, [STRAYS] = 1

#define FILES .marks = true, .restart_syncs = true
#define BLOCK_DEVICES .marks = false, .restart_syncs = true
/* Messages of broken connections may come later. */
#define LATE .survivors = true

static const struct exploration ordinary[] = {
    {"nothing goes wrong", {FILES, LATE, .budgets = {[AUTOSTARTS] = 1}}},
    {"any two", {FILES, LATE, .budgets = {ANY, [AUTOSTARTS] = 1, [TOTAL] = 2}}},
    {"any two, block devices", {BLOCK_DEVICES, .budgets = {ANY, [AUTOSTARTS] = 2, [TOTAL] = 2}}},
    {"messages", {FILES, LATE, .budgets = {[DROPS] = 3, [DOUBLES] = 1, [SKEWS] = 1, [TOTAL] = 3}}},
    {"crashes", {FILES, .budgets = {[CRASHES] = 3, [DROPS] = 1, [TOTAL] = 3}}},
    {"reboots",
     {FILES,
      .budgets = {[REBOOTS] = 2, [CRASHES] = 1, [DROPS] = 1, [AUTOSTARTS] = 2, [TOTAL] = 3}}},
    {"reboots, block devices",
     {BLOCK_DEVICES,
      .budgets =
          {[REBOOTS] = 2, [DROPS] = 1, [JOURNAL_FAILURES] = 1, [AUTOSTARTS] = 2, [TOTAL] = 3}}},
    {"QEMUs",
     {FILES, .budgets = {[DEATHS] = 2, [REFUSALS] = 2, [CRASHES] = 1, [DROPS] = 1, [TOTAL] = 3}}},
    {"journals",
     {FILES, .budgets = {[JOURNAL_FAILURES] = 2, [CRASHES] = 1, [DROPS] = 1, [TOTAL] = 3}}},
    {"a take-back that fails",
     {FILES,
      .budgets =
          {[JOURNAL_FAILURES] = 1, [REFUSALS] = 1, [CRASHES] = 1, [REBOOTS] = 1, [TOTAL] = 3}}},
    {"strays", {FILES, .budgets = {[STRAYS] = 2, [CRASHES] = 1, [REFUSALS] = 1, [TOTAL] = 3}}},
    {"operators", {FILES, .budgets = {ANY, [OPERATORS] = 1, [AUTOSTARTS] = 1, [TOTAL] = 1}}},
    {"operators and late messages",
     {FILES, LATE,
      .budgets = {[DROPS] = 1, [DOUBLES] = 1, [SKEWS] = 1, [OPERATORS] = 1, [TOTAL] = 2}}},
    {"operators who look at QEMU only",
     {FILES, .glance = true,
      .budgets = {[DROPS] = 1, [CRASHES] = 1, [SKEWS] = 1, [OPERATORS] = 1, [TOTAL] = 2}}},
    {"operators and resets",
     {BLOCK_DEVICES, .budgets = {[REBOOTS] = 2, [OPERATORS] = 1, [AUTOSTARTS] = 1, [TOTAL] = 2}}},
    {"two operators",
     {FILES, .budgets = {[DROPS] = 1, [REBOOTS] = 1, [OPERATORS] = 2, [TOTAL] = 1}}},
    {"an operator who has not looked",
     {FILES,
      .budgets = {[UNINFORMED] = 1, [CRASHES] = 1, [REBOOTS] = 1, [OPERATORS] = 1, [TOTAL] = 2}}},
    {"a destination without its journal",
     {FILES, .budgets = {[FORGETS] = 1, [DROPS] = 1, [CRASHES] = 1, [OPERATORS] = 1, [TOTAL] = 2}}},
};

static const struct exploration deep[] = {
    {"any three", {FILES, LATE, .budgets = {ANY, [AUTOSTARTS] = 1, [TOTAL] = 3}}},
    {"any three, block devices",
     {BLOCK_DEVICES, LATE, .budgets = {ANY, [AUTOSTARTS] = 1, [TOTAL] = 3}}},
    {"four losses and crashes",
     {FILES, LATE,
      .budgets = {[DROPS] = 2, [CRASHES] = 2, [DOUBLES] = 1, [SKEWS] = 1, [TOTAL] = 4}}},
    {"four resets and crashes",
     {FILES,
      .budgets = {[REBOOTS] = 2, [CRASHES] = 2, [DROPS] = 1, [AUTOSTARTS] = 2, [TOTAL] = 4}}},
    {"four at QEMUs",
     {FILES, .budgets = {[DEATHS] = 2, [REFUSALS] = 3, [CRASHES] = 1, [STRAYS] = 1, [TOTAL] = 4}}},
    {"operators, any two",
     {FILES, LATE, .budgets = {ANY, [OPERATORS] = 1, [AUTOSTARTS] = 1, [TOTAL] = 2}}},
    {"two operators, any one",
     {FILES, LATE, .budgets = {ANY, [OPERATORS] = 2, [AUTOSTARTS] = 1, [TOTAL] = 1}}},
    {"an operator who has not looked, any two",
     {FILES, LATE, .budgets = {ANY, [UNINFORMED] = 1, [OPERATORS] = 1, [TOTAL] = 2}}},
    {"a destination without its journal, any one",
     {FILES, LATE, .budgets = {ANY, [FORGETS] = 1, [OPERATORS] = 1, [TOTAL] = 2}}},
};

static const char usage[] =
    "usage: handoff_explorer [--deep] [--list] [--max-states N] [NAME...]\n"
    "Explores the handoff's histories; exits with 1 when one of them breaks a rule, and prints it.\n";

struct arguments {
    bool deep, list;
    uint32_t max_states;
    char **names;
    int name_count;
};

static bool parse(struct arguments *arguments, int argc, char **argv)
{
    int i = 1;

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--deep") == 0) {
            arguments->deep = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            arguments->list = true;
        } else if (strcmp(argv[i], "--max-states") == 0 && i + 1 < argc) {
            arguments->max_states = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else {
            return false;
        }
    }
    arguments->names = argv + i;
    arguments->name_count = argc - i;
    if (arguments->max_states == 0) {
        arguments->max_states = arguments->deep ? DEEP_STATES_MAX : STATES_MAX;
    }
    return true;
}

static bool is_wanted(const struct arguments *arguments, const char *name)
{
    for (int i = 0; i < arguments->name_count; i++) {
        if (strcmp(arguments->names[i], name) == 0) {
            return true;
        }
    }
    return arguments->name_count == 0;
}

static bool run(const struct exploration *exploration, const struct arguments *arguments)
{
    struct exploration_result result = explore(exploration, arguments->max_states, stdout);

    printf("%s: %llu states, %llu transitions, depth %u, %.1f s%s%s\n", exploration->name,
           (unsigned long long)result.states, (unsigned long long)result.transitions, result.depth,
           result.seconds, result.complete ? "" : ": not all of it, there is no room for more",
           result.broken ? ": BROKEN" : "");
    if (result.broken) {
        printf("found: %s (after %u steps)\n", result.broken, result.steps);
    }
    fflush(stdout);
    return result.complete && !result.broken;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {0};
    const struct exploration *table = ordinary;
    size_t count = sizeof ordinary / sizeof *ordinary;
    unsigned matched = 0;
    bool good = true;

    if (!parse(&arguments, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    if (arguments.deep) {
        table = deep;
        count = sizeof deep / sizeof *deep;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_wanted(&arguments, table[i].name)) {
            continue;
        }
        matched++;
        if (arguments.list) {
            printf("%s\n", table[i].name);
        } else {
            good = run(&table[i], &arguments) && good;
        }
    }
    if (matched == 0) {
        fprintf(stderr, "no exploration has that name (--list)\n");
        return 2;
    }
    return good ? 0 : 1;
}

/*
 * The rounds of memory of a timeline, from its samples: each round is what lies between two looks of QEMU for dirty pages.
 */
#include "report_text.h"

#include "terminal.h"
#include "agent/common/must.h"
#include "agent/common/units.h"
#include "agent/policy/convergence_record.h"

#include <stdlib.h>
#include <string.h>

/* Of more rounds so many of the first and of the last are shown. */
#define FIRST_ROWS 10
#define LAST_ROWS 20

struct round {
    uint64_t number;
    double began_ms, ended_ms; /* as far as samples show it */
    struct convergence_sample first, last;
    const json_t *predicted, *longest; /* as of the last sample */
};

struct rounds {
    struct round *list;
    size_t count;
};

static void take_sample(struct rounds *rounds, const json_t *line)
{
    double at_ms = json_number_value(json_object_get(line, "at_ms"));
    struct round *round = rounds->count ? &rounds->list[rounds->count - 1] : NULL;
    struct convergence_sample sample;

    if (!convergence_sample_of(line, &sample) || sample.round == 0) {
        return; /* round 0: QEMU has not begun */
    }
    if (!round || round->number != sample.round) {
        if (round) {
            round->ended_ms = at_ms;
        }
        rounds->list = must_resize(rounds->list, (rounds->count + 1) * sizeof *rounds->list);
        round = &rounds->list[rounds->count++];
        *round = (struct round){.number = sample.round, .began_ms = at_ms, .first = sample};
    }
    round->last = sample;
    round->ended_ms = at_ms;
    round->predicted = json_object_get(line, "predicted_downtime_ms");
    round->longest = json_object_get(line, "longest_downtime_ms");
}

static void add_time_cell(struct terminal_table *table, const json_t *value)
{
    char buffer[UNITS_TEXT_SIZE];

    terminal_table_cell(table, "%s",
                        json_is_number(value) ? units_time(buffer, json_number_value(value))
                                              : "unknown");
}

static void add_rate_cell(struct terminal_table *table, uint64_t rate)
{
    char buffer[UNITS_TEXT_SIZE];

    terminal_table_cell(table, "%s", rate ? units_rate(buffer, rate) : "unknown");
}

static void add_row(struct terminal_table *table, const struct round *round)
{
    char buffer[UNITS_TEXT_SIZE];

    terminal_table_cell(table, "%llu", (unsigned long long)round->number);
    terminal_table_cell(table, "%.3f", round->began_ms / 1000);
    terminal_table_cell(table, "%s", units_time(buffer, round->ended_ms - round->began_ms));
    terminal_table_cell(table, "%s", units_size(buffer, round->first.memory_left));
    terminal_table_cell(table, "%s", units_size(buffer, round->last.memory_left));
    add_rate_cell(table, round->last.memory_dirty_rate);
    add_rate_cell(table, round->last.memory_rate);
    terminal_table_cell(table, "%s", units_size(buffer, round->last.disk_left));
    terminal_table_cell(table, "%u %%", (unsigned)round->last.cpu_throttle);
    add_time_cell(table, round->predicted);
    add_time_cell(table, round->longest);
}

static void print_rounds(FILE *out, const struct rounds *rounds)
{
    static const char *const headings[] = {"ROUND",       "BEGAN, s",        "TOOK",   "DIRTY",
                                           "LEFT AT END", "DIRTIED",         "LEAVES", "DISK LEFT",
                                           "SLOWED",      "PREDICTED PAUSE", "AT MOST"};
    size_t columns = sizeof headings / sizeof *headings;
    struct terminal_table *table = terminal_table_new(columns, headings);
    bool has_gap = rounds->count > FIRST_ROWS + LAST_ROWS;

    for (size_t i = 0; i < rounds->count; i++) {
        if (!has_gap || i < FIRST_ROWS || i >= rounds->count - LAST_ROWS) {
            add_row(table, &rounds->list[i]);
        } else if (i == FIRST_ROWS) {
            terminal_table_cell(table, "...");
            for (size_t column = 1; column < columns; column++) {
                terminal_table_cell(table, " ");
            }
        }
    }
    terminal_table_print(table, out);
}

void report_rounds_print(FILE *out, const json_t *lines)
{
    struct rounds rounds = {0};
    const json_t *line;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        const char *event = json_string_value(json_object_get(line, "event"));

        if (event && strcmp(event, "sample") == 0) {
            take_sample(&rounds, line);
        }
    }
    if (rounds.count > 0) {
        terminal_line(out, "%s", "");
        terminal_line(out, "Rounds of memory, and the pause that was predicted at the end of each");
        print_rounds(out, &rounds);
    }
    free(rounds.list);
}

#include "command.h"

#include "handoff_text.h"
#include "terminal.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

#include <stdlib.h>
#include <string.h>

static const char *const headings[] = {"ID",   "VM",    "DIRECTION", "PEER",
                                       "MODE", "PHASE", "FOR",       "RESULT"};

static const char *word(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "-";
}

static const char *direction(const json_t *migration)
{
    const char *side = word(migration, "side");

    return strcmp(side, "source") == 0 ? "to" : strcmp(side, "destination") == 0 ? "from" : side;
}

/* How long it has been running, or ran; NULL when that is not said. */
static const char *duration(char buffer[UNITS_TEXT_SIZE], const json_t *migration)
{
    const json_t *total = json_object_get(json_object_get(migration, "result"), "total_ms");
    const json_t *elapsed = json_object_get(migration, "elapsed_ms");
    const json_t *value = json_is_number(total) ? total : elapsed;

    return json_is_number(value) ? units_time(buffer, json_number_value(value)) : NULL;
}

static void add_row(struct terminal_table *table, const json_t *migration)
{
    char buffer[UNITS_TEXT_SIZE];
    const char *elapsed = duration(buffer, migration);

    terminal_table_cell(table, "%s", word(migration, "id"));
    terminal_table_cell(table, "%s", word(migration, "vm"));
    terminal_table_cell(table, "%s", direction(migration));
    terminal_table_cell(table, "%s", word(migration, "peer"));
    terminal_table_cell(table, "%s", word(migration, "mode"));
    terminal_table_cell(table, "%s", word(migration, "phase"));
    terminal_table_cell(table, "%s", elapsed ? elapsed : "-");
    terminal_table_cell(table, "%s", word(json_object_get(migration, "result"), "result"));
}

/* Shown in the table, told in the lines above, or no news. */
static bool is_known(const char *name)
{
    static const char *const names[] = {"mode", "phase", "elapsed_ms", "result", "event", "schema"};

    if (handoff_text_tells(name)) {
        return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* A member's value by what its name says it is; free() it. */
static char *value_text(const char *name, const json_t *value)
{
    char buffer[UNITS_TEXT_SIZE];
    char *text;

    if (json_is_string(value)) {
        return must_copy(json_string_value(value));
    }
    if (json_is_number(value) && ends_with(name, "_ms")) {
        return must_copy(units_time(buffer, json_number_value(value)));
    }
    if (json_is_integer(value) && json_integer_value(value) >= 0 &&
        (ends_with(name, "bytes") || ends_with(name, "left") || ends_with(name, "total") ||
         ends_with(name, "done"))) {
        return must_copy(units_size(buffer, (uint64_t)json_integer_value(value)));
    }
    text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    return text ? text : must_copy("?");
}

/* The sides add what they know: whatever it is, it is shown, under its own name. */
static void print_members(const char *before, json_t *object, bool top)
{
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        if (json_is_null(value) || (top && is_known(name))) {
            continue;
        }
        if (json_is_object(value)) {
            char *longer = must_format("%s%s ", before, name);

            print_members(longer, value, false);
            free(longer);
        } else {
            char *text = value_text(name, value);

            terminal_line(stdout, "    %s%s: %s", before, name, text);
            free(text);
        }
    }
}

/* Of an undecided one the figures of its way matter to nobody who has not asked for them. */
static void print_details(json_t *migration, bool one)
{
    json_t *result = json_object_get(migration, "result");

    handoff_text_print(stdout, migration);
    handoff_text_print_advice(stdout, migration);
    if (handoff_text_undecided(migration) && !one) {
        return;
    }
    print_members("", migration, true);
    if (json_is_object(result)) {
        print_members("", result, true);
    }
}

static void print_all(const json_t *migrations, bool one)
{
    struct terminal_table *table =
        terminal_table_new(sizeof headings / sizeof headings[0], headings);
    json_t *migration;
    size_t index;

    json_array_foreach(migrations, index, migration)
    {
        add_row(table, migration);
    }
    terminal_table_print(table, stdout);
    json_array_foreach(migrations, index, migration)
    {
        if (one || !json_is_object(json_object_get(migration, "result"))) {
            print_details(migration, one);
        }
    }
}

int command_status(const struct client *client, const struct command *self, int argc, char **argv)
{
    json_t *arguments = NULL, *answer;
    int count, code;
    char **words;

    if (!command_words(self, argc, argv, 0, 1, &words, &count, &code)) {
        return code;
    }
    if (count) {
        arguments =
            must_json(json_pack("{s:o}", "migration", must_json(json_line_string(words[0]))));
    }
    answer = command_ask(client, "status", arguments, &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json(answer);
    } else if (json_array_size(json_object_get(answer, "migrations")) == 0) {
        terminal_line(stdout, "no migration since watarid was started");
    } else {
        print_all(json_object_get(answer, "migrations"), count > 0);
    }
    json_decref(answer);
    return CLIENT_DONE;
}

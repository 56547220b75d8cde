#include "command.h"

#include "terminal.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

#include <stdlib.h>
#include <string.h>

static const char *word(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "-";
}

static uint64_t size_of(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));

    return value > 0 ? (uint64_t)value : 0;
}

/* "vda 4.0 GiB qcow2, vdb 20 GiB raw"; free() it. */
static char *disks_text(const json_t *disks)
{
    char *text = must_copy("");
    char size[UNITS_TEXT_SIZE];
    const json_t *disk;
    size_t index;

    json_array_foreach(disks, index, disk)
    {
        char *longer = must_format("%s%s%s %s %s", text, index ? ", " : "", word(disk, "device"),
                                   units_size(size, size_of(disk, "size")), word(disk, "format"));

        free(text);
        text = longer;
    }
    return text;
}

static void add_row(struct terminal_table *table, const json_t *vm)
{
    char *disks = disks_text(json_object_get(vm, "disks"));
    char memory[UNITS_TEXT_SIZE];
    uint64_t bytes = size_of(vm, "memory_bytes");

    terminal_table_cell(table, "%s", word(vm, "name"));
    terminal_table_cell(table, "%lld", (long long)json_integer_value(json_object_get(vm, "pid")));
    terminal_table_cell(table, "%s", word(vm, "status"));
    terminal_table_cell(table, "%s", word(vm, "machine"));
    terminal_table_cell(table, "%s", bytes ? units_size(memory, bytes) : "-");
    terminal_table_cell(table, "%s",
                        json_is_true(json_object_get(vm, "migratable")) ? "yes" : "no");
    terminal_table_cell(table, "%s", *disks ? disks : "-");
    free(disks);
}

static void print_findings(const json_t *vm)
{
    const json_t *finding;
    size_t index;

    json_array_foreach(json_object_get(vm, "findings"), index, finding)
    {
        terminal_line(stdout, "%s: %s: %s", word(vm, "name"), word(finding, "level"),
                      word(finding, "text"));
    }
}

static void print_all(const json_t *vms)
{
    static const char *const headings[] = {"NAME",   "PID",        "STATUS", "MACHINE",
                                           "MEMORY", "MIGRATABLE", "DISKS"};
    struct terminal_table *table =
        terminal_table_new(sizeof headings / sizeof headings[0], headings);
    const json_t *vm;
    size_t index;

    json_array_foreach(vms, index, vm)
    {
        add_row(table, vm);
    }
    terminal_table_print(table, stdout);
    json_array_foreach(vms, index, vm)
    {
        print_findings(vm);
    }
}

int command_list(const struct client *client, const struct command *self, int argc, char **argv)
{
    int count, code;
    char **words;
    json_t *answer;

    if (!command_words(self, argc, argv, 0, 0, &words, &count, &code)) {
        return code;
    }
    answer = command_ask(client, "list", NULL, &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json(answer);
    } else if (json_array_size(json_object_get(answer, "vms")) == 0) {
        terminal_line(stdout, "no VM runs on this host");
    } else {
        print_all(json_object_get(answer, "vms"));
    }
    json_decref(answer);
    return CLIENT_DONE;
}

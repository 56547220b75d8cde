/*
 * watari report ID: what a migration of this host was asked for, saw, decided and came to, from its timeline in the state directory. Without the
 * daemon.
 */
#include "arguments.h"
#include "command.h"
#include "report_text.h"
#include "terminal.h"

#include "agent/common/timeline_file.h"

#include <string.h>

static void print_json(const json_t *lines)
{
    const json_t *line;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        terminal_json(line);
    }
}

/* False with an error that says where it was looked for. */
static bool read_lines(const char *state_dir, const char *what, json_t **lines, size_t *bad,
                       struct error *error)
{
    struct timeline_list list;
    const struct timeline_entry *entry = NULL;

    *lines = NULL;
    if (timeline_list_read(state_dir, &list, error)) {
        entry = timeline_list_find(&list, what, error);
        if (!entry) {
            error_prefix(error,
                         "of the %zu timelines in %s/" TIMELINE_DIRECTORY
                         " (of this host's last migrations, to and from it) none fits: ",
                         list.count, state_dir);
        }
    }
    if (entry) {
        *lines = timeline_file_read(entry->path, bad, error);
    }
    if (*lines && json_array_size(*lines) == 0) {
        error_set(error, "timeline-unreadable", "%s holds no line", entry->path);
        json_decref(*lines);
        *lines = NULL;
    }
    timeline_list_clear(&list);
    return *lines != NULL;
}

static int report(const struct client *client, const char *state_dir, const char *what)
{
    struct error error;
    json_t *lines;
    size_t bad = 0;

    if (!read_lines(state_dir, what, &lines, &bad, &error)) {
        return command_failed(client, &error);
    }
    if (client->json) {
        print_json(lines);
    } else {
        report_text_print(stdout, lines);
    }
    if (bad > 0) {
        terminal_line(
            stderr,
            "watari: %zu of its lines cannot be read; most likely watarid was killed while it wrote",
            bad);
    }
    json_decref(lines);
    return CLIENT_DONE;
}

int command_report(const struct client *client, const struct command *self, int argc, char **argv)
{
    const char *state_dir, *what;
    struct error error;
    int code;

    if (!arguments_good(self,
                        arguments_parse_state_dir(argc, argv, "one migration's id or VM name",
                                                  &state_dir, &what, &error),
                        &error, &code)) {
        return code;
    }
    return report(client, state_dir, what);
}

#include "command.h"

#include "arguments.h"
#include "control_client.h"
#include "terminal.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"

#include <stdio.h>
#include <string.h>

int command_usage_error(const struct command *self, const struct error *error)
{
    terminal_line(stderr, "watari %s: %s", self->name, error->text);
    fprintf(stderr, "usage: watari %s\n", self->usage);
    return CLIENT_USAGE;
}

int command_help(const struct command *self)
{
    printf("usage: watari %s\n\n%s.\n", self->usage, self->description);
    if (self->details) {
        printf("\n%s", self->details);
    }
    return CLIENT_DONE;
}

/* Whether trying again with other words, or with a running daemon, is the way out. */
static bool is_usage(const struct error *error)
{
    static const char *const ids[] = {"daemon-unreachable", "daemon-gone", "invalid-argument"};

    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        if (strcmp(error->id, ids[i]) == 0) {
            return true;
        }
    }
    return false;
}

int command_failed(const struct client *client, const struct error *error)
{
    if (client->json) {
        terminal_json_new(must_json(json_pack("{s:{s:s,s:o}}", "error", "id", error->id, "text",
                                              must_json(json_line_string(error->text)))));
    }
    terminal_line(stderr, "watari: %s", error->text);
    return is_usage(error) ? CLIENT_USAGE : CLIENT_FAILED;
}

bool command_words(const struct command *self, int argc, char **argv, int low, int high,
                   char ***words, int *count, int *code)
{
    struct error error;

    return arguments_good(self, arguments_parse_words(argc, argv, low, high, words, count, &error),
                          &error, code);
}

json_t *command_ask(const struct client *client, const char *request, json_t *arguments, int *code)
{
    struct error error;
    struct control_client *connection = control_client_open(client->control_path, &error);
    json_t *answer;

    if (!connection) {
        json_decref(arguments);
        *code = command_failed(client, &error);
        return NULL;
    }
    answer = control_client_call(connection, request, arguments, &error);
    control_client_close(connection);
    if (!answer) {
        *code = command_failed(client, &error);
    }
    return answer;
}

#include "command.h"

#include "set_arguments.h"

int command_set(const struct client *client, const struct command *self, int argc, char **argv)
{
    struct error error;
    json_t *request, *answer;
    int code = CLIENT_DONE;

    switch (set_arguments_parse(argc, argv, &request, &error)) {
    case ARGUMENTS_GOOD:
        break;
    case ARGUMENTS_HELP:
        return command_help(self);
    default:
        return command_usage_error(self, &error);
    }
    answer = command_ask(client, "set", request, &code);
    json_decref(answer);
    return answer ? CLIENT_DONE : code;
}

#include "command.h"

#include "set_arguments.h"

int command_set(const struct client *client, const struct command *self, int argc, char **argv)
{
    struct error error;
    json_t *request;
    int code = CLIENT_DONE;

    if (arguments_good(self, set_arguments_parse(argc, argv, &request, &error), &error, &code)) {
        json_decref(command_ask(client, "set", request, &code));
    }
    return code;
}

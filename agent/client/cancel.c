#include "watch.h"

#include "agent/common/must.h"

#include <stdlib.h>

/* Watches first, so that the outcome cannot be missed. */
static int cancel(const struct client *client, struct control_client *connection,
                  const char *migration)
{
    struct error error;
    json_t *answer;
    char *id;
    int code;

    if (!watch_begin(connection, migration, &id, &error)) {
        return command_failed(client, &error);
    }
    answer = control_client_call(connection, "cancel",
                                 must_json(json_pack("{s:s}", "migration", id)), &error);
    if (!answer) {
        code = command_failed(client, &error);
    } else {
        code = watch_to_end(client, connection, id, -1);
        if (code == CLIENT_CANCELLED) {
            code = CLIENT_DONE;
        } else if (code != CLIENT_USAGE) {
            code = CLIENT_FAILED;
        }
    }
    json_decref(answer);
    free(id);
    return code;
}

int command_cancel(const struct client *client, const struct command *self, int argc, char **argv)
{
    struct control_client *connection;
    struct error error;
    char **words;
    int count, code;

    if (!command_words(self, argc, argv, 1, 1, &words, &count, &code)) {
        return code;
    }
    connection = control_client_open(client->control_path, &error);
    if (!connection) {
        return command_failed(client, &error);
    }
    code = cancel(client, connection, words[0]);
    control_client_close(connection);
    return code;
}

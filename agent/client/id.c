#include "command.h"

#include "terminal.h"

int command_id(const struct client *client, const struct command *self, int argc, char **argv)
{
    const char *fingerprint, *host, *listen;
    int count, code;
    char **words;
    json_t *answer;

    if (!command_words(self, argc, argv, 0, 0, &words, &count, &code)) {
        return code;
    }
    answer = command_ask(client, "id", NULL, &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json_new(answer);
        return CLIENT_DONE;
    }
    fingerprint = json_string_value(json_object_get(answer, "fingerprint"));
    host = json_string_value(json_object_get(answer, "host"));
    listen = json_string_value(json_object_get(answer, "listen"));
    terminal_line(stdout, "host         %s", host ? host : "?");
    terminal_line(stdout, "listens at   %s", listen ? listen : "?");
    terminal_line(stdout, "fingerprint  %s", fingerprint ? fingerprint : "?");
    json_decref(answer);
    return CLIENT_DONE;
}

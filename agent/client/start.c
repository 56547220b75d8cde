#include "command.h"

#include "terminal.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"

static void show(const json_t *answer)
{
    const char *vm = json_string_value(json_object_get(answer, "vm"));
    const char *qmp = json_string_value(json_object_get(answer, "qmp"));
    const char *log = json_string_value(json_object_get(answer, "log"));
    json_int_t pid = json_integer_value(json_object_get(answer, "pid"));
    bool already = json_is_true(json_object_get(answer, "already"));

    terminal_line(stdout,
                  already ? "VM %s runs here already (pid %lld)" : "VM %s runs here now (pid %lld)",
                  vm ? vm : "?", (long long)pid);
    if (qmp) {
        terminal_line(stdout, "  QMP           %s", qmp);
    }
    if (log) {
        terminal_line(stdout, "  log           %s", log);
    }
}

int command_start(const struct client *client, const struct command *self, int argc, char **argv)
{
    int count, code;
    char **words;
    json_t *answer;

    if (!command_words(self, argc, argv, 1, 1, &words, &count, &code)) {
        return code;
    }
    answer = command_ask(
        client, "start",
        must_json(json_pack("{s:o}", "name", must_json(json_line_string(words[0])))), &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json(answer);
    } else {
        show(answer);
    }
    json_decref(answer);
    return CLIENT_DONE;
}

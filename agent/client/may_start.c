/*
 * watari may-start VM|PATH: answers from the journals alone, without the daemon, and fails closed: for ExecStartPre= and hooks.
 */
#include "arguments.h"
#include "command.h"
#include "terminal.h"

#include "agent/common/journal_directory.h"
#include "agent/common/must.h"
#include "agent/policy/may_start.h"

#include <stdlib.h>
#include <string.h>

#define REASON_SIZE 256

static bool ask(const struct journal_directory *journals, const char *what,
                char reason[REASON_SIZE])
{
    struct may_start_journal *list = must_alloc((journals->count + 1) * sizeof *list);
    bool may;

    for (size_t i = 0; i < journals->count; i++) {
        list[i] = (struct may_start_journal){journals->entries[i].content.records,
                                             journals->entries[i].written,
                                             journals->entries[i].qemu_lives};
    }
    may = may_start(what, list, journals->count, reason, REASON_SIZE);
    free(list);
    return may;
}

static int answer(const struct client *client, const char *what, bool may, const char *reason)
{
    if (client->json) {
        terminal_json_new(
            must_json(json_pack("{sb,ss,ss}", "may_start", may, "what", what, "reason", reason)));
    } else {
        terminal_line(may ? stdout : stderr, "%s %s be started here: %s", what,
                      may ? "may" : "must not", reason);
    }
    return may ? CLIENT_DONE : CLIENT_FAILED;
}

int command_may_start(const struct client *client, const struct command *self, int argc,
                      char **argv)
{
    const char *state_dir, *what;
    struct journal_directory journals;
    struct error error;
    char reason[REASON_SIZE];
    int code;

    if (!arguments_good(self,
                        arguments_parse_state_dir(argc, argv, "one VM name or disk path",
                                                  &state_dir, &what, &error),
                        &error, &code)) {
        return code;
    }
    if (!journal_directory_read(state_dir, &journals, &error)) {
        code = answer(client, what, false, error.text);
    } else {
        bool may = ask(&journals, what, reason);

        code = answer(client, what, may, reason);
    }
    journal_directory_clear(&journals);
    return code;
}

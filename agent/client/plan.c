#include "control_client.h"
#include "migrate_arguments.h"
#include "plan_text.h"
#include "terminal.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- words --- */

/* Those that `migrate` does not have are taken out of ARGV; all others say which migration is meant. */
struct own_words {
    uint64_t link_rate;
    bool no_trial;
};

static bool set_link(struct own_words *own, const char *text, struct error *error)
{
    if (!text) {
        return error_set(error, "usage", "--link needs a value");
    }
    if (!units_parse_rate(text, &own->link_rate, error)) {
        return error_prefix(error, "--link: ");
    }
    return own->link_rate > 0 || error_set(error, "usage", "--link: \"%s\" carries nothing", text);
}

/* KEPT has room for all of ARGV. False with an error. */
static bool take_own_words(int argc, char **argv, struct own_words *own, char **kept, int *count,
                           struct error *error)
{
    *count = 0;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--detach") == 0) {
            return error_set(error, "usage", "unknown option %s", argv[i]);
        }
        if (strcmp(argv[i], "--no-trial") == 0) {
            own->no_trial = true;
        } else if (strcmp(argv[i], "--link") == 0) {
            i++;
            if (!set_link(own, i < argc ? argv[i] : NULL, error)) {
                return false;
            }
        } else if (strncmp(argv[i], "--link=", 7) == 0) {
            if (!set_link(own, argv[i] + 7, error)) {
                return false;
            }
        } else {
            kept[(*count)++] = argv[i];
        }
    }
    return true;
}

static enum arguments_outcome parse(int argc, char **argv, json_t **request, struct error *error)
{
    char **kept = must_alloc(((size_t)argc + 1) * sizeof *kept);
    enum arguments_outcome outcome = ARGUMENTS_WRONG;
    struct migrate_arguments arguments = {0};
    struct own_words own = {0};
    int count;

    if (take_own_words(argc, argv, &own, kept, &count, error)) {
        outcome = migrate_arguments_parse(count, kept, &arguments, error);
    }
    if (outcome == ARGUMENTS_GOOD && own.link_rate) {
        json_object_set_new(arguments.request, "link_rate",
                            must_json(json_integer((json_int_t)own.link_rate)));
    }
    if (outcome == ARGUMENTS_GOOD && own.no_trial) {
        json_object_set_new(arguments.request, "trial", json_false());
    }
    *request = arguments.request;
    free(kept);
    return outcome;
}

/* --- the plan --- */

static int show_plan(const struct client *client, const json_t *plan)
{
    if (!client->json) {
        plan_text_print(stdout, plan);
    }
    return json_is_true(json_object_get(plan, "migratable")) ? CLIENT_DONE : CLIENT_FAILED;
}

/* What it does at the moment; on a terminal only, where somebody waits. */
static void show_step(struct terminal_status *status, const json_t *event)
{
    const char *text = json_string_value(json_object_get(event, "text"));

    if (text && isatty(STDOUT_FILENO) == 1) {
        terminal_status_show(status, text);
    }
}

static int follow(const struct client *client, struct control_client *connection)
{
    struct terminal_status status = {0};
    struct error error;
    json_t *event;
    int code = -1;

    while (code < 0) {
        const char *name;

        if (control_client_event(connection, -1, &event, &error) != CONTROL_CLIENT_EVENT) {
            terminal_status_end(&status, false);
            return command_failed(client, &error);
        }
        name = json_string_value(json_object_get(event, "event"));
        if (client->json) {
            terminal_json(event);
        }
        if (name && strcmp(name, "plan") == 0) {
            terminal_status_end(&status, false);
            code = show_plan(client, event);
        } else if (!client->json) {
            show_step(&status, event);
        }
        json_decref(event);
    }
    return code;
}

static int plan(const struct client *client, json_t *request)
{
    struct error error;
    struct control_client *connection = control_client_open(client->control_path, &error);
    json_t *answer = NULL;
    int code;

    if (connection) {
        answer = control_client_call(connection, "plan", json_incref(request), &error);
    }
    code = answer ? follow(client, connection) : command_failed(client, &error);
    json_decref(answer);
    control_client_close(connection);
    return code;
}

/* Ctrl-C needs no care: watarid ends what nobody waits for. */
int command_plan(const struct client *client, const struct command *self, int argc, char **argv)
{
    struct error error;
    json_t *request;
    int code;

    if (!arguments_good(self, parse(argc, argv, &request, &error), &error, &code)) {
        return code;
    }
    code = plan(client, request);
    json_decref(request);
    return code;
}

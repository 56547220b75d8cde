#include "watch.h"

#include "event_text.h"
#include "terminal.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct view {
    const struct client *client;
    struct control_client *connection;
    const char *id;
    int interrupt_fd;
    bool interrupted; /* cancel was asked for */
    bool in_place;    /* stdout is a terminal */
    struct terminal_status status;
};

int watch_exit_code(const char *result)
{
    static const struct {
        const char *result;
        int code;
    } codes[] = {
        {"done", CLIENT_DONE},           {"failed", CLIENT_FAILED},
        {"refused", CLIENT_FAILED},      {"undecided", CLIENT_UNDECIDED},
        {"cancelled", CLIENT_CANCELLED}, {"lost", CLIENT_LOST},
    };

    for (size_t i = 0; result && i < sizeof codes / sizeof codes[0]; i++) {
        if (strcmp(codes[i].result, result) == 0) {
            return codes[i].code;
        }
    }
    return CLIENT_FAILED;
}

bool watch_begin(struct control_client *connection, const char *migration, char **id,
                 struct error *error)
{
    json_t *arguments =
        must_json(json_pack("{s:o}", "migration", must_json(json_line_string(migration))));
    json_t *answer = control_client_call(connection, "watch", arguments, error);
    const char *given;

    if (!answer) {
        return false;
    }
    given = json_string_value(json_object_get(answer, "migration"));
    *id = must_copy(given ? given : migration);
    json_decref(answer);
    return true;
}

static void show_progress(struct view *view, const json_t *event)
{
    char text[512];

    event_text_progress(text, sizeof text, event);
    if (view->in_place) {
        terminal_status_show(&view->status, text);
    } else {
        terminal_line(stdout, "%s", text);
    }
}

/* Everything but progress and the result. A phase keeps the last progress of the one before it. */
static void show_notice(struct view *view, const json_t *event)
{
    char text[1024];

    event_text_notice(text, sizeof text, event);
    terminal_status_end(&view->status, true);
    terminal_line(stdout, "%s", text);
}

static void show_result(struct view *view, const json_t *result)
{
    const char *outcome = json_string_value(json_object_get(result, "result"));
    bool done = outcome && strcmp(outcome, "done") == 0;
    char text[2 * ERROR_TEXT_SIZE];

    terminal_status_end(&view->status, true);
    event_text_outcome(text, sizeof text, result);
    terminal_line(done ? stdout : stderr, "%s", text);
    if (done) {
        event_text_figures(stdout, result);
    }
}

/* True when it was the last one; *code is what it means. */
static bool take_event(struct view *view, const json_t *event, int *code)
{
    const char *name = json_string_value(json_object_get(event, "event"));
    bool is_result = name && strcmp(name, "result") == 0;

    if (view->client->json) {
        terminal_json(event);
    } else if (is_result) {
        show_result(view, event);
    } else if (name && strcmp(name, "progress") == 0) {
        show_progress(view, event);
    } else {
        show_notice(view, event);
    }
    if (is_result) {
        *code = watch_exit_code(json_string_value(json_object_get(event, "result")));
    }
    return is_result;
}

/* False: leave now. */
static bool take_interrupt(struct view *view)
{
    struct signalfd_siginfo information;
    struct error error;
    json_t *answer;

    terminal_status_end(&view->status, true);
    if (read(view->interrupt_fd, &information, sizeof information) != sizeof information) {
        return true;
    }
    if (view->interrupted) {
        terminal_line(stderr,
                      "watari leaves; watarid goes on with migration %s: look with `watari status "
                      "%s` or `watari watch %s`",
                      view->id, view->id, view->id);
        return false;
    }
    view->interrupted = true;
    answer = control_client_call(view->connection, "cancel",
                                 must_json(json_pack("{s:s}", "migration", view->id)), &error);
    if (answer) {
        terminal_line(stderr, "cancelling migration %s; Ctrl-C again leaves without waiting",
                      view->id);
    } else {
        terminal_line(stderr, "%s (Ctrl-C again leaves without waiting)", error.text);
    }
    json_decref(answer);
    return true;
}

static int tell_gone(struct view *view, const struct error *why)
{
    struct error error;

    terminal_status_end(&view->status, true);
    error_set(&error, "daemon-gone",
              "%s while migration %s was watched. The guest itself is not touched by that, but "
              "if it was just being switched over it stands still until watarid is back. Start "
              "watarid again now (systemctl restart watarid): it settles the migration; then look "
              "with `watari status %s` and `watari list`",
              why->text, view->id, view->id);
    return command_failed(view->client, &error);
}

int watch_to_end(const struct client *client, struct control_client *connection, const char *id,
                 int interrupt_fd)
{
    struct view view = {
        .client = client,
        .connection = connection,
        .id = id,
        .interrupt_fd = interrupt_fd,
        .in_place = isatty(STDOUT_FILENO) == 1,
    };
    struct error error;
    bool last = false;
    json_t *event;
    int code = CLIENT_FAILED;

    while (!last) {
        switch (control_client_event(connection, interrupt_fd, &event, &error)) {
        case CONTROL_CLIENT_EVENT:
            last = take_event(&view, event, &code);
            json_decref(event);
            break;
        case CONTROL_CLIENT_WOKEN:
            if (!take_interrupt(&view)) {
                return CLIENT_LEFT;
            }
            break;
        case CONTROL_CLIENT_GONE:
            return tell_gone(&view, &error);
        }
    }
    return code;
}

int command_watch(const struct client *client, const struct command *self, int argc, char **argv)
{
    struct control_client *connection;
    struct error error;
    char **words, *id;
    int count, code;

    if (!command_words(self, argc, argv, 1, 1, &words, &count, &code)) {
        return code;
    }
    connection = control_client_open(client->control_path, &error);
    if (!connection) {
        return command_failed(client, &error);
    }
    if (watch_begin(connection, words[0], &id, &error)) {
        code = watch_to_end(client, connection, id, -1);
        free(id);
    } else {
        code = command_failed(client, &error);
    }
    control_client_close(connection);
    return code;
}

#include "migrate_arguments.h"
#include "terminal.h"
#include "watch.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* From now on Ctrl-C is read from the descriptor. -1 with an error. */
static int take_interrupts(struct error *error)
{
    sigset_t signals;
    int fd = -1;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) == 0) {
        fd = signalfd(-1, &signals, SFD_CLOEXEC);
    }
    if (fd < 0) {
        error_set(error, "signals", "Ctrl-C cannot be taken: %s", strerror(errno));
    }
    return fd;
}

/* Refused before there was a migration: scripts get a result all the same, the last object as
 * always. */
static int tell_refused(const struct client *client, const json_t *request,
                        const struct error *error)
{
    const char *mode = json_string_value(json_object_get(request, "mode"));
    struct client quiet = *client;
    int code;

    quiet.json = false;
    code = command_failed(&quiet, error);
    if (client->json) {
        terminal_json_new(must_json(json_pack(
            "{s:s,s:i,s:n,s:O,s:s,s:n,s:s,s:s,s:{s:s,s:o}}", "event", "result", "schema", 1, "id",
            "vm", json_object_get(request, "vm"), "mode_requested", mode ? mode : "auto",
            "mode_used", "result", code == CLIENT_USAGE ? "failed" : "refused", "reason", error->id,
            "error", "id", error->id, "text", must_json(json_line_string(error->text)))));
    }
    return code;
}

/* The id of the migration that was begun (free() it), or NULL with an error. */
static char *begin(struct control_client *connection, const json_t *request, struct error *error)
{
    json_t *arguments = must_json(json_deep_copy(request));
    json_t *answer = control_client_call(connection, "migrate", arguments, error);
    const char *id = json_string_value(json_object_get(answer, "migration"));
    char *copy = must_copy(id);

    if (answer && !id) {
        error_set(error, "daemon-gone", "watarid's answer names no migration");
    }
    json_decref(answer);
    return copy;
}

static int tell_detached(const struct client *client, const char *id)
{
    if (client->json) {
        terminal_json_new(must_json(json_pack("{s:s}", "migration", id)));
    } else {
        terminal_line(stdout, "migration %s has begun; follow it with `watari watch %s`", id, id);
    }
    return CLIENT_DONE;
}

static int follow(const struct client *client, struct control_client *connection, const char *id,
                  int interrupt_fd)
{
    struct error error;
    char *watched;
    int code;

    if (!watch_begin(connection, id, &watched, &error)) {
        error_prefix(&error, "migration %s has begun, but cannot be watched: ", id);
        return command_failed(client, &error);
    }
    if (!client->json) {
        terminal_line(stdout, "migration %s has begun; Ctrl-C cancels it", id);
    }
    code = watch_to_end(client, connection, id, interrupt_fd);
    free(watched);
    return code;
}

static int migrate(const struct client *client, const struct migrate_arguments *arguments,
                   int interrupt_fd)
{
    struct error error;
    struct control_client *connection = control_client_open(client->control_path, &error);
    char *id = NULL;
    int code;

    if (!connection || !(id = begin(connection, arguments->request, &error))) {
        code = tell_refused(client, arguments->request, &error);
    } else if (arguments->detach) {
        code = tell_detached(client, id);
    } else {
        code = follow(client, connection, id, interrupt_fd);
    }
    free(id);
    control_client_close(connection);
    return code;
}

int command_migrate(const struct client *client, const struct command *self, int argc, char **argv)
{
    struct migrate_arguments arguments;
    struct error error;
    int interrupt_fd, code;

    if (!arguments_good(self, migrate_arguments_parse(argc, argv, &arguments, &error), &error,
                        &code)) {
        return code;
    }
    interrupt_fd = take_interrupts(&error);
    if (interrupt_fd < 0) {
        code = command_failed(client, &error);
    } else {
        code = migrate(client, &arguments, interrupt_fd);
        close(interrupt_fd);
    }
    json_decref(arguments.request);
    return code;
}

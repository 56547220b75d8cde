/*
 * watari resolve: the operator decides where an undecided VM belongs. Shows the evidence and what the decision will do, has the VM's name
 * typed, tells the daemon, and waits until it is carried out.
 */
#include "control_client.h"
#include "event_text.h"
#include "handoff_text.h"
#include "resolve_text.h"
#include "terminal.h"
#include "watch.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* How often the daemon is asked whether the decision is carried out, and how long. */
#define TICK_MS 200
#define TICKS 50

struct resolution {
    const struct client *client;
    const struct resolve_arguments *arguments;
    struct control_client *connection;
    json_t *before; /* as the daemon described it */
    const char *id, *vm;
};

static const char *word(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

/* The member "migration" of the answer; the caller's reference. NULL with an error. */
static json_t *describe(struct control_client *connection, const char *migration,
                        struct error *error)
{
    json_t *arguments =
        must_json(json_pack("{s:o}", "migration", must_json(json_line_string(migration))));
    json_t *answer = control_client_call(connection, "resolve", arguments, error);
    json_t *described = json_incref(json_object_get(answer, "migration"));

    if (answer && !described) {
        error_set(error, "daemon-gone", "watarid's answer describes no migration");
    }
    json_decref(answer);
    return described;
}

static void show_text(const struct resolution *resolution, const struct resolve_effect *effect)
{
    handoff_text_print(stdout, resolution->before);
    terminal_line(stdout, "%s", "");
    terminal_line(stdout, "--%s will %s. No image is deleted.",
                  resolve_choice_name(resolution->arguments->choice), effect->will);
    terminal_line(stdout, "Safe only if %s.", effect->safe_if);
}

static void show_json(const struct resolution *resolution, const struct resolve_effect *effect)
{
    terminal_json_new(must_json(json_pack(
        "{s:s,s:i,s:s,s:s,s:s,s:s,s:s,s:O}", "event", "evidence", "schema", 1, "id", resolution->id,
        "vm", resolution->vm, "decision", resolve_choice_name(resolution->arguments->choice),
        "will", effect->will, "safe_if", effect->safe_if, "migration", resolution->before)));
}

static void show(const struct resolution *resolution)
{
    struct resolve_effect effect =
        resolve_text_effect(resolution->before, resolution->arguments->choice);

    if (resolution->client->json) {
        show_json(resolution, &effect);
    } else {
        show_text(resolution, &effect);
    }
    resolve_effect_clear(&effect);
}

/* Something is to be decided here, and can be. False with an error. */
static bool check_state(const struct resolution *resolution, struct error *error)
{
    const char *peer = word(resolution->before, "peer");

    if (!handoff_text_undecided(resolution->before)) {
        return error_set(error, "resolve-nothing",
                         "nothing is undecided about migration %s of VM %s at this host; look "
                         "with `watari status %s`",
                         resolution->id, resolution->vm, resolution->id);
    }
    if (resolution->arguments->choice == RESOLVE_CHOICE_RUN_HERE &&
        strcmp(word(resolution->before, "handoff"), "conflict") == 0) {
        return error_set(error, "resolve-elsewhere",
                         "both this host and %s own VM %s, and the copy here was paused. To keep "
                         "it, end the one at %s first, then resume this one by QMP `cont`; else "
                         "end this one: `watari resolve %s --give-up`",
                         peer, resolution->vm, peer, resolution->id);
    }
    return true;
}

/* --source-is-off belongs to the destination, and must be said there. False with an error. */
static bool check_side(const struct resolution *resolution, struct error *error)
{
    bool source = strcmp(word(resolution->before, "side"), "source") == 0;
    const char *peer = word(resolution->before, "peer");

    if (source && resolution->arguments->source_is_off) {
        return error_set(error, "invalid-argument",
                         "--source-is-off is for the destination, but the source of VM %s is this "
                         "host, and %s the destination: look again which of them is meant",
                         resolution->vm, peer);
    }
    if (!source && resolution->arguments->choice == RESOLVE_CHOICE_RUN_HERE &&
        !resolution->arguments->source_is_off) {
        return error_set(error, "source-is-off",
                         "%s may still run VM %s: this copy may only run when %s is switched off "
                         "for certain, and stays so. When that is so, say it: --source-is-off",
                         peer, resolution->vm, peer);
    }
    return true;
}

static bool confirmed(const struct resolution *resolution, struct error *error)
{
    char typed[512];

    if (resolution->arguments->yes) {
        return true;
    }
    /* stderr: with --json, stdout is for programs. */
    fprintf(stderr, "Type the VM's name to go on: ");
    if (!fgets(typed, sizeof typed, stdin)) {
        typed[0] = '\0';
    }
    typed[strcspn(typed, "\n")] = '\0';
    return strcmp(typed, resolution->vm) == 0 ||
           error_set(error, "not-confirmed", "that is not the VM's name: nothing was done");
}

static bool decide(const struct resolution *resolution, struct error *error)
{
    json_t *arguments =
        must_json(json_pack("{s:s,s:s,s:b}", "migration", resolution->id, "decision",
                            resolve_choice_name(resolution->arguments->choice), "source_is_off",
                            resolution->arguments->source_is_off));
    json_t *answer = control_client_call(resolution->connection, "resolve", arguments, error);

    json_decref(answer);
    return answer != NULL;
}

/* The progress is nobody's question here, and the outcome is told in other words. */
static void show_event(const struct resolution *resolution, const json_t *event)
{
    const char *name = word(event, "event");
    char text[1024];

    if (resolution->client->json || strcmp(name, "progress") == 0 || strcmp(name, "result") == 0) {
        return;
    }
    event_text_notice(text, sizeof text, event);
    terminal_line(stdout, "%s", text);
}

static int tell_outcome(const struct resolution *resolution, const json_t *now)
{
    enum resolve_choice choice = resolution->arguments->choice;
    int code = resolve_text_exit_code(resolution->before, now, choice);
    char *text = resolve_text_outcome(resolution->before, now, choice);

    if (resolution->client->json) {
        json_t *object = must_json(json_pack(
            "{s:s,s:i,s:s,s:s,s:s,s:b,s:s,s:O}", "event", "resolved", "schema", 1, "id",
            resolution->id, "vm", resolution->vm, "decision", resolve_choice_name(choice),
            "carried_out", resolve_text_carried_out(now, choice), "text", text, "migration", now));

        terminal_json_new(object);
    } else {
        terminal_line(code == CLIENT_DONE ? stdout : stderr, "%s", text);
    }
    free(text);
    return code;
}

/* One tick: true when there is nothing more to wait for; *code is what it came to. */
static bool look(const struct resolution *resolution, unsigned tick, int *code)
{
    struct error error;
    json_t *now = describe(resolution->connection, resolution->id, &error);
    bool last;

    if (!now) {
        *code = command_failed(resolution->client, &error);
        return true;
    }
    last = tick >= TICKS || resolve_text_carried_out(now, resolution->arguments->choice);
    if (last) {
        *code = tell_outcome(resolution, now);
    }
    json_decref(now);
    return last;
}

static int await_deed(const struct resolution *resolution, int timer_fd)
{
    struct error error;
    unsigned tick = 0;
    uint64_t expired;
    json_t *event;
    int code;

    for (;;) {
        switch (control_client_event(resolution->connection, timer_fd, &event, &error)) {
        case CONTROL_CLIENT_EVENT:
            show_event(resolution, event);
            json_decref(event);
            break;
        case CONTROL_CLIENT_WOKEN:
            tick += read(timer_fd, &expired, sizeof expired) == sizeof expired;
            if (look(resolution, tick, &code)) {
                return code;
            }
            break;
        case CONTROL_CLIENT_GONE:
            error_prefix(&error, "the decision for VM %s was taken, but then: ", resolution->vm);
            return command_failed(resolution->client, &error);
        }
    }
}

static int start_timer(struct error *error)
{
    const struct itimerspec ticks = {{0, TICK_MS * 1000000L}, {0, TICK_MS * 1000000L}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

    if (fd >= 0 && timerfd_settime(fd, 0, &ticks, NULL) == 0) {
        return fd;
    }
    error_set(error, "timer", "no timer: %s", strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

/* Watches first, so that no event is missed. */
static int decide_and_wait(const struct resolution *resolution)
{
    struct error error;
    int timer_fd = start_timer(&error), code;
    char *watched = NULL;

    if (timer_fd < 0 || !watch_begin(resolution->connection, resolution->id, &watched, &error) ||
        !decide(resolution, &error)) {
        code = command_failed(resolution->client, &error);
    } else {
        code = await_deed(resolution, timer_fd);
    }
    free(watched);
    if (timer_fd >= 0) {
        close(timer_fd);
    }
    return code;
}

static int resolve(struct resolution *resolution)
{
    struct error error;

    resolution->before = describe(resolution->connection, resolution->arguments->migration, &error);
    if (!resolution->before) {
        return command_failed(resolution->client, &error);
    }
    resolution->id = word(resolution->before, "id");
    resolution->vm = word(resolution->before, "vm");
    if (!check_state(resolution, &error)) {
        return command_failed(resolution->client, &error);
    }
    show(resolution);
    if (!check_side(resolution, &error) || !confirmed(resolution, &error)) {
        return command_failed(resolution->client, &error);
    }
    return decide_and_wait(resolution);
}

int command_resolve(const struct client *client, const struct command *self, int argc, char **argv)
{
    struct resolve_arguments arguments;
    struct resolution resolution = {.client = client, .arguments = &arguments};
    struct error error;
    int code;

    if (!arguments_good(self, resolve_arguments_parse(argc, argv, &arguments, &error), &error,
                        &code)) {
        return code;
    }
    if (!arguments.yes && isatty(STDIN_FILENO) != 1) {
        error_set(&error, "usage",
                  "the VM's name is to be typed, but this is no terminal: --yes says it for you");
        return command_usage_error(self, &error);
    }
    resolution.connection = control_client_open(client->control_path, &error);
    if (!resolution.connection) {
        return command_failed(client, &error);
    }
    code = resolve(&resolution);
    json_decref(resolution.before);
    control_client_close(resolution.connection);
    return code;
}

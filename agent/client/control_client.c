#include "control_client.h"

#include "agent/common/json_line.h"
#include "agent/common/must.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Answers list what is on a host; the daemon itself lets no more than 4 MiB wait. */
#define LINE_LIMIT (8u << 20)
#define GREETING_MS 10000
/* Longer than the slowest command takes at the daemon: a peer that does not answer, a QMP socket in
 * other hands. */
#define ANSWER_MS 60000

struct control_client {
    int fd;
    char *path;
    char *host;
    struct json_line *lines;
    json_t *events; /* array: came while an answer was awaited */
    json_int_t last_id;
};

enum wait_outcome { WAIT_READABLE, WAIT_WOKEN, WAIT_TIMED_OUT, WAIT_FAILED };

static enum wait_outcome wait_for_bytes(int fd, int wake_fd, int timeout_ms)
{
    struct pollfd polled[2] = {{.fd = fd, .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};
    int result;

    do {
        result = poll(polled, 2, timeout_ms);
    } while (result < 0 && errno == EINTR);
    if (result < 0) {
        return WAIT_FAILED;
    }
    if (result == 0) {
        return WAIT_TIMED_OUT;
    }
    return polled[1].revents ? WAIT_WOKEN : WAIT_READABLE;
}

static bool gone(const struct control_client *client, const char *why, struct error *error)
{
    return error_set(error, "daemon-gone", "watarid at %s %s", client->path, why);
}

static bool read_some(struct control_client *client, struct error *error)
{
    char chunk[16384];
    ssize_t got;

    do {
        got = recv(client->fd, chunk, sizeof chunk, 0);
    } while (got < 0 && errno == EINTR);
    if (got == 0) {
        return gone(client, "has closed the connection", error);
    }
    if (got < 0) {
        return gone(client, strerror(errno), error);
    }
    return json_line_feed(client->lines, chunk, (size_t)got) ||
           gone(client, "sent more than there is memory for", error);
}

/* WAIT_READABLE: *object is an object. WAIT_FAILED and WAIT_TIMED_OUT: with an error. */
static enum wait_outcome next_object(struct control_client *client, int wake_fd, int timeout_ms,
                                     json_t **object, struct error *error)
{
    char text[JSON_LINE_ERROR_SIZE];
    enum wait_outcome outcome;

    for (;;) {
        switch (json_line_next(client->lines, object, text)) {
        case JSON_LINE_OBJECT:
            return WAIT_READABLE;
        case JSON_LINE_BAD:
        case JSON_LINE_TOO_LONG:
            error_set(error, "daemon-gone", "what answers at %s is not watarid: %s", client->path,
                      text);
            return WAIT_FAILED;
        case JSON_LINE_MORE:
            break;
        }
        outcome = wait_for_bytes(client->fd, wake_fd, timeout_ms);
        if (outcome == WAIT_WOKEN) {
            return outcome;
        }
        if (outcome == WAIT_TIMED_OUT) {
            gone(client, "does not answer", error);
            return outcome;
        }
        if (outcome == WAIT_FAILED) {
            gone(client, strerror(errno), error);
            return outcome;
        }
        if (!read_some(client, error)) {
            return WAIT_FAILED;
        }
    }
}

/* What the daemon refused, in its words. */
static void take_error(const json_t *object, struct error *error)
{
    const json_t *member = json_object_get(object, "error");
    const char *id = json_string_value(json_object_get(member, "class"));
    const char *text = json_string_value(json_object_get(member, "desc"));

    error_set(error, id && *id ? id : "daemon-error", "%s", text ? text : "watarid gave no reason");
}

static bool take_greeting(struct control_client *client, struct error *error)
{
    json_t *object = NULL;
    const char *host;

    if (next_object(client, -1, GREETING_MS, &object, error) != WAIT_READABLE) {
        return false;
    }
    host = json_string_value(json_object_get(json_object_get(object, "watari"), "host"));
    if (host) {
        client->host = must_copy(host);
    } else if (json_object_get(object, "error")) {
        take_error(object, error);
    } else {
        error_set(error, "daemon-gone", "what answers at %s is not watarid", client->path);
    }
    json_decref(object);
    return host != NULL;
}

static bool dial(struct control_client *client, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(client->path) >= sizeof address.sun_path) {
        return error_set(error, "daemon-unreachable",
                         "\"%s\" is too long for the path of a control socket", client->path);
    }
    strcpy(address.sun_path, client->path);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        return error_set(error, "daemon-unreachable", "no socket: %s", strerror(errno));
    }
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) == 0) {
        return true;
    }
    if (errno == EACCES || errno == EPERM) {
        return error_set(error, "daemon-unreachable",
                         "watarid's control socket %s is closed to this user: run watari as root",
                         client->path);
    }
    return error_set(error, "daemon-unreachable",
                     "watarid cannot be reached at %s: %s; see that it runs on this host "
                     "(systemctl status watarid), or name its socket with --control",
                     client->path, strerror(errno));
}

struct control_client *control_client_open(const char *path, struct error *error)
{
    struct control_client *client = must_alloc(sizeof *client);

    client->fd = -1;
    client->path = must_copy(path);
    client->events = must_json(json_array());
    client->lines = json_line_new(LINE_LIMIT);
    if (!client->lines) {
        error_set(error, "daemon-unreachable", "out of memory");
        goto fail;
    }
    if (!dial(client, error)) {
        goto fail;
    }
    if (!take_greeting(client, error)) {
        /* Whatever the reason, there is no daemon to talk to. */
        snprintf(error->id, sizeof error->id, "daemon-unreachable");
        goto fail;
    }
    return client;
fail:
    control_client_close(client);
    return NULL;
}

void control_client_close(struct control_client *client)
{
    if (!client) {
        return;
    }
    if (client->fd >= 0) {
        close(client->fd);
    }
    json_line_free(client->lines);
    json_decref(client->events);
    free(client->host);
    free(client->path);
    free(client);
}

const char *control_client_host(const struct control_client *client)
{
    return client->host;
}

/* Steals OBJECT. */
static bool send_object(struct control_client *client, json_t *object, struct error *error)
{
    size_t length = 0, done = 0;
    char *text = json_line_text(object, &length);
    bool good = true;

    json_decref(object);
    if (!text) {
        return error_set(error, "invalid-argument", "the request cannot be written as JSON");
    }
    while (good && done < length) {
        ssize_t sent = send(client->fd, text + done, length - done, MSG_NOSIGNAL);

        if (sent >= 0) {
            done += (size_t)sent;
        } else if (errno != EINTR) {
            good = gone(client, strerror(errno), error);
        }
    }
    free(text);
    return good;
}

/* The object that answers request ID (an error without an id is about it, too: one is under way at
 * a time); events are put aside. NULL with an error. */
static json_t *await_answer(struct control_client *client, json_int_t id, struct error *error)
{
    json_t *object;

    while (next_object(client, -1, ANSWER_MS, &object, error) == WAIT_READABLE) {
        if (json_object_get(object, "event")) {
            json_array_append(client->events, object);
        } else if (json_integer_value(json_object_get(object, "id")) == id ||
                   (json_object_get(object, "error") && !json_object_get(object, "id"))) {
            return object;
        }
        json_decref(object);
    }
    return NULL;
}

json_t *control_client_call(struct control_client *client, const char *command, json_t *arguments,
                            struct error *error)
{
    json_int_t id = ++client->last_id;
    json_t *request = must_json(json_pack("{s:s,s:I}", "execute", command, "id", id));
    json_t *object, *value;

    if (arguments) {
        json_object_set_new(request, "arguments", arguments);
    }
    if (!send_object(client, request, error)) {
        return NULL;
    }
    object = await_answer(client, id, error);
    if (!object) {
        return NULL;
    }
    value = json_incref(json_object_get(object, "return"));
    if (!value) {
        take_error(object, error);
    }
    json_decref(object);
    return value;
}

enum control_client_step control_client_event(struct control_client *client, int wake_fd,
                                              json_t **event, struct error *error)
{
    enum wait_outcome outcome;

    if (json_array_size(client->events) > 0) {
        *event = json_incref(json_array_get(client->events, 0));
        json_array_remove(client->events, 0);
        return CONTROL_CLIENT_EVENT;
    }
    for (;;) {
        outcome = next_object(client, wake_fd, -1, event, error);
        if (outcome == WAIT_WOKEN) {
            return CONTROL_CLIENT_WOKEN;
        }
        if (outcome != WAIT_READABLE) {
            return CONTROL_CLIENT_GONE;
        }
        if (json_object_get(*event, "event")) {
            return CONTROL_CLIENT_EVENT;
        }
        json_decref(*event);
    }
}

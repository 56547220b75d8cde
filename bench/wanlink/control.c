#include "control.h"

#include "agent/common/must.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE_SIZE 1024

bool control_open(struct control *control, const char *path, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    for (size_t i = 0; i < CONTROL_FDS; i++) {
        control->fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    }
    if (strlen(path) >= sizeof address.sun_path) {
        return error_set(error, "control", "%s is too long for the path of a unix socket", path);
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, CONTROL_CLIENTS) < 0) {
        error_set(error, "control", "the control socket %s: %s", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    control->fds[0].fd = fd;
    return true;
}

static json_t *show(const struct wanlink *link)
{
    json_t *ends = must_json(json_object());

    for (size_t i = 0; i < 2; i++) {
        const struct path_counters *counters = &link->ends[i].path.counters;

        json_object_set_new(
            ends, link->ends[i].name,
            must_json(json_pack(
                "{sI,sI,sI,sI,sI,sI}", "packets", (json_int_t)counters->packets, "bytes",
                (json_int_t)counters->bytes, "lost", (json_int_t)counters->lost, "dropped",
                (json_int_t)counters->dropped, "delivered", (json_int_t)counters->delivered,
                "delivered_bytes", (json_int_t)counters->delivered_bytes)));
    }
    return ends;
}

/* The end that the first of WORDS names, with WORDS moved behind it; NULL when it names none. */
static struct end *take_end(struct wanlink *link, char **words)
{
    for (size_t i = 0; i < 2; i++) {
        size_t length = strlen(link->ends[i].name);

        if (strncmp(*words, link->ends[i].name, length) == 0 && (*words)[length] == ' ') {
            *words += length + 1;
            return &link->ends[i];
        }
    }
    return NULL;
}

static bool set(struct wanlink *link, char *words, struct error *error)
{
    struct end *end = take_end(link, &words);

    if (end) {
        return settings_parse(&end->path.settings, words, error);
    }
    for (size_t i = 0; i < 2; i++) {
        char *copy = must_copy(words);
        bool good = settings_parse(&link->ends[i].path.settings, copy, error);

        free(copy);
        if (!good) {
            return false;
        }
    }
    return true;
}

/* Caller's to free(). */
static char *answer_to(struct wanlink *link, char *command)
{
    struct error error;

    if (strcmp(command, "show") == 0) {
        json_t *ends = show(link);
        char *text = json_dumps(ends, JSON_COMPACT);

        json_decref(ends);
        return text;
    }
    if (strncmp(command, "set ", 4) != 0) {
        error_set(&error, "command", "\"%s\" is no command; set and show are", command);
    } else if (set(link, command + 4, &error)) {
        return must_copy("ok");
    }
    return must_format("error: %s", error.text);
}

static void serve_client(struct pollfd *client, struct wanlink *link)
{
    char command[MESSAGE_SIZE];
    ssize_t got = recv(client->fd, command, sizeof command - 1, MSG_DONTWAIT);
    char *answer;

    if (got > 0) {
        command[got] = '\0';
        answer = answer_to(link, command);
        if (answer && send(client->fd, answer, strlen(answer), MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
            free(answer);
            return;
        }
        free(answer);
    } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    close(client->fd);
    client->fd = -1;
}

static void take_client(struct control *control)
{
    int fd = accept4(control->fds[0].fd, NULL, NULL, SOCK_CLOEXEC);

    for (size_t i = 1; fd >= 0 && i < CONTROL_FDS; i++) {
        if (control->fds[i].fd < 0) {
            control->fds[i].fd = fd;
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

void control_serve(struct control *control, const struct pollfd *fds, struct wanlink *link)
{
    for (size_t i = 1; i < CONTROL_FDS; i++) {
        if (fds[i].fd >= 0 && fds[i].revents != 0) {
            serve_client(&control->fds[i], link);
        }
    }
    if (fds[0].revents != 0) {
        take_client(control);
    }
}

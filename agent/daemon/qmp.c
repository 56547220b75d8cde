#include "qmp.h"

#include "clock.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A reply of query-named-block-nodes with long backing chains is tens of KiB; more than this is not QMP. */
#define LINE_MAX_BYTES (16u << 20)

/* A command until its reply has come: first in the queue to be sent, then in the list of those awaited. */
struct request {
    char *id;
    char *bytes;
    size_t length, sent;
    int fd;
    char *command;
    qmp_reply_callback callback;
    void *context;
    STAILQ_ENTRY(request) link;
};
STAILQ_HEAD(request_list, request);

static const struct timeval half_patience = {QMP_GREETING_MS / 2000,
                                             QMP_GREETING_MS / 2 % 1000 * 1000};

enum state { CONNECT_FAILED, GREETING, NEGOTIATING, READY, DEAD };

struct qmp {
    struct event_base *base;
    char *path;
    int fd;
    enum state state;
    bool was_late;      /* half of the time for the greeting has passed */
    uint64_t opened_ns; /* CLOCK_MONOTONIC; part of all ids, as is COMMANDS */
    uint64_t commands;
    int version;
    struct event *readable, *writable, *timer;
    struct evbuffer *input;
    struct request_list to_send, awaited;
    struct qmp_handlers handlers;
    void *context;
    int connect_errno; /* told on the next turn of the loop */
    unsigned
        depth; /* callbacks under way: qmp_free() in one of them is carried out when the last returns */
    bool freed;
};

static void request_free(struct request *request)
{
    if (request->fd >= 0) {
        close(request->fd);
    }
    free(request->id);
    free(request->bytes);
    free(request->command);
    free(request);
}

static void destroy(struct qmp *qmp)
{
    struct request *request;

    while ((request = STAILQ_FIRST(&qmp->awaited))) {
        STAILQ_REMOVE_HEAD(&qmp->awaited, link);
        request_free(request);
    }
    while ((request = STAILQ_FIRST(&qmp->to_send))) {
        STAILQ_REMOVE_HEAD(&qmp->to_send, link);
        request_free(request);
    }
    if (qmp->readable) {
        event_free(qmp->readable);
        event_free(qmp->writable);
    }
    event_free(qmp->timer);
    evbuffer_free(qmp->input);
    if (qmp->fd >= 0) {
        close(qmp->fd);
    }
    free(qmp->path);
    free(qmp);
}

static void enter(struct qmp *qmp)
{
    qmp->depth++;
}

/* False when QMP is gone: the caller must not touch it any more. */
static bool leave(struct qmp *qmp)
{
    if (--qmp->depth == 0 && qmp->freed) {
        destroy(qmp);
        return false;
    }
    return !qmp->freed;
}

static void fail_all(struct qmp *qmp, const struct error *error)
{
    struct request *request;

    STAILQ_CONCAT(&qmp->awaited, &qmp->to_send);
    while (!qmp->freed && (request = STAILQ_FIRST(&qmp->awaited))) {
        STAILQ_REMOVE_HEAD(&qmp->awaited, link);
        if (request->callback) {
            request->callback(NULL, error, request->context);
        }
        request_free(request);
    }
}

static void die(struct qmp *qmp, const char *id, const char *reason)
{
    bool was_ready = qmp->state == READY;
    struct error error;

    if (qmp->state == DEAD) {
        return;
    }
    error_set(&error, id, "QMP socket %s: %s", qmp->path, reason);
    qmp->state = DEAD;
    event_del(qmp->timer);
    if (qmp->readable) {
        event_del(qmp->readable);
        event_del(qmp->writable);
    }
    enter(qmp);
    fail_all(qmp, &error);
    if (!qmp->freed) {
        if (!was_ready) {
            qmp->handlers.ready(&error, qmp->context);
        } else if (qmp->handlers.closed) {
            qmp->handlers.closed(qmp->context);
        }
    }
    leave(qmp);
}

static ssize_t send_request(const struct qmp *qmp, const struct request *request)
{
    struct iovec bytes = {request->bytes + request->sent, request->length - request->sent};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};

    if (request->fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &request->fd, sizeof(int));
    }
    return sendmsg(qmp->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void flush_requests(struct qmp *qmp)
{
    struct request *request;

    while ((request = STAILQ_FIRST(&qmp->to_send))) {
        ssize_t sent = send_request(qmp, request);

        if (sent < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                event_add(qmp->writable, NULL);
            }
            /* Any other error is seen by the reader as well, with what QEMU still had to say before it. */
            return;
        }
        if (request->fd >= 0) {
            close(request->fd);
            request->fd = -1;
        }
        request->sent += (size_t)sent;
        if (request->sent == request->length) {
            STAILQ_REMOVE_HEAD(&qmp->to_send, link);
            STAILQ_INSERT_TAIL(&qmp->awaited, request, link);
        }
    }
}

void qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, int fd,
                 qmp_reply_callback callback, void *context)
{
    struct request *request = must_alloc(sizeof *request);
    json_t *object;

    /* No other connection has the same, not even of a watarid that was killed. */
    request->id =
        must_format("watari-%d-%llu-%llu", (int)getpid(), (unsigned long long)qmp->opened_ns,
                    (unsigned long long)++qmp->commands);
    object = must_json(json_pack("{ss,ss}", "execute", command, "id", request->id));
    if (arguments) {
        json_object_set_new(object, "arguments", arguments);
    }
    request->fd = fd;
    request->command = must_copy(command);
    request->callback = callback;
    request->context = context;
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    request->bytes = must_format("%s\n", text ? text : "");
    free(text);
    request->length = strlen(request->bytes);
    STAILQ_INSERT_TAIL(&qmp->to_send, request, link);
    if (qmp->state == DEAD) {
        /* The callback must not run inside the caller: the timer fails it on the next turn. */
        event_add(qmp->timer, &(struct timeval){0, 0});
    } else if (qmp->state == READY || qmp->state == NEGOTIATING) {
        flush_requests(qmp);
    }
}

static void on_negotiated(json_t *value, const struct error *error, void *context)
{
    struct qmp *qmp = context;

    (void)value;
    if (error) {
        die(qmp, "qmp-gone", error->text);
        return;
    }
    qmp->state = READY;
    event_del(qmp->timer);
    qmp->handlers.ready(NULL, qmp->context);
}

static void take_greeting(struct qmp *qmp, json_t *object)
{
    int major = 0, minor = 0, micro = 0;

    if (json_unpack(object, "{s:{s:{s:{s:i,s:i,s:i}}}}", "QMP", "version", "qemu", "major", &major,
                    "minor", &minor, "micro", &micro) < 0) {
        die(qmp, "qmp-gone", "what answers there is not QMP");
        return;
    }
    qmp->version = major * 10000 + minor * 100 + micro;
    qmp->state = NEGOTIATING;
    qmp_execute(qmp, "qmp_capabilities", NULL, -1, on_negotiated, qmp);
}

/*
 * QEMU answers whoever is connected when a command is through: that may be the one who comes after the one who gave it. Taken for an answer to
 * us, it would shift all that follow by one, and the last command of a rollback be given up before QEMU has read it.
 */
static bool is_for_us(const struct request *request, const json_t *object)
{
    const char *id = json_string_value(json_object_get(object, "id"));

    return request && id && strcmp(id, request->id) == 0;
}

static void take_reply(struct qmp *qmp, json_t *object)
{
    struct request *request = STAILQ_FIRST(&qmp->awaited);
    json_t *value = json_object_get(object, "return");
    const char *description = NULL;
    struct error error;

    if (!value && !json_object_get(object, "error")) {
        die(qmp, "qmp-gone", "a line that is neither an answer nor an event");
        return;
    }
    if (!is_for_us(request, object)) {
        log_info("QMP socket %s: an answer to somebody who was connected before", qmp->path);
        return;
    }
    STAILQ_REMOVE_HEAD(&qmp->awaited, link);
    if (!value) {
        json_unpack(object, "{s:{s:s}}", "error", "desc", &description);
        error_set(&error, "qmp-error", "QEMU refused %s: %s", request->command,
                  description ? description : "no reason given");
    }
    if (request->callback) {
        request->callback(value, value ? NULL : &error, request->context);
    } else if (!value) {
        log_warning("%s", error.text);
    }
    request_free(request);
}

static void take_line(struct qmp *qmp, const char *line, size_t length)
{
    json_t *object = json_loadb(line, length, JSON_DECODE_ANY, NULL);
    const char *event = json_string_value(json_object_get(object, "event"));

    if (!json_is_object(object)) {
        die(qmp, "qmp-gone", "a line that is not a JSON object");
    } else if (qmp->state == GREETING) {
        take_greeting(qmp, object);
    } else if (json_object_get(object, "QMP")) {
        /* QEMU 7.2 greets twice when a client before us came and went in an instant. */
        log_info("QMP socket %s: greeted once more", qmp->path);
    } else if (event) {
        if (qmp->state == READY && qmp->handlers.event) {
            qmp->handlers.event(event, json_object_get(object, "data"), qmp->context);
        }
    } else {
        take_reply(qmp, object);
    }
    json_decref(object);
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    struct qmp *qmp = context;
    int got = evbuffer_read(qmp->input, fd, 65536);
    size_t length;
    char *line;

    (void)what;
    enter(qmp);
    while (!qmp->freed && qmp->state != DEAD &&
           (line = evbuffer_readln(qmp->input, &length, EVBUFFER_EOL_LF))) {
        take_line(qmp, line, length);
        free(line);
    }
    if (!leave(qmp) || qmp->state == DEAD) {
        return;
    }
    if (got == 0) {
        die(qmp, "qmp-gone", "closed by QEMU");
    } else if (got < 0 && errno != EAGAIN && errno != EINTR) {
        die(qmp, "qmp-gone", strerror(errno));
    } else if (evbuffer_get_length(qmp->input) > LINE_MAX_BYTES) {
        die(qmp, "qmp-gone", "a line without end");
    }
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    flush_requests(context);
}

/* The one timer: no greeting in time; or work that must not run inside the caller. */
static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct qmp *qmp = context;
    struct error error;

    (void)fd;
    (void)what;
    if (qmp->state == DEAD) {
        error_set(&error, "qmp-gone", "QMP socket %s: closed", qmp->path);
        enter(qmp);
        fail_all(qmp, &error);
        leave(qmp);
    } else if (qmp->fd < 0) {
        die(qmp, qmp->connect_errno == EAGAIN ? "qmp-busy" : "qmp-gone",
            qmp->connect_errno == EAGAIN
                ? "other clients wait for this socket already (QEMU serves one at a time)"
                : strerror(qmp->connect_errno));
    } else if (!qmp->was_late) {
        /* When it was this process that stood still, the greeting is there, and is read first now. */
        qmp->was_late = true;
        event_add(qmp->timer, &half_patience);
    } else {
        die(qmp, "qmp-busy",
            "connected, but no greeting: another client holds this socket (QEMU serves one at a time), or QEMU itself hangs");
    }
}

/* 0, or an errno. */
static int dial(struct qmp *qmp)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(qmp->path) >= sizeof address.sun_path) {
        return ENAMETOOLONG;
    }
    strcpy(address.sun_path, qmp->path);
    qmp->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (qmp->fd < 0) {
        return errno;
    }
    if (connect(qmp->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int reason = errno;

        close(qmp->fd);
        qmp->fd = -1;
        return reason;
    }
    return 0;
}

struct qmp *qmp_open(struct event_base *base, const char *path, const struct qmp_handlers *handlers,
                     void *context)
{
    struct qmp *qmp = must_alloc(sizeof *qmp);

    qmp->base = base;
    qmp->path = must_copy(path);
    qmp->opened_ns = clock_monotonic_ns();
    qmp->fd = -1;
    qmp->handlers = *handlers;
    qmp->context = context;
    STAILQ_INIT(&qmp->to_send);
    STAILQ_INIT(&qmp->awaited);
    qmp->input = evbuffer_new();
    qmp->timer = evtimer_new(base, on_timer, qmp);
    qmp->connect_errno = dial(qmp);
    if (qmp->connect_errno) {
        event_add(qmp->timer, &(struct timeval){0, 0});
        return qmp;
    }
    qmp->state = GREETING;
    qmp->readable = event_new(base, qmp->fd, EV_READ | EV_PERSIST, on_readable, qmp);
    qmp->writable = event_new(base, qmp->fd, EV_WRITE, on_writable, qmp);
    event_add(qmp->readable, NULL);
    event_add(qmp->timer, &half_patience);
    return qmp;
}

void qmp_free(struct qmp *qmp)
{
    if (!qmp) {
        return;
    }
    qmp->freed = true;
    if (qmp->depth == 0) {
        destroy(qmp);
    }
}

static void ignore_reply(json_t *value, const struct error *error, void *context)
{
    (void)value;
    (void)error;
    (void)context;
}

void qmp_forget(struct qmp *qmp, const void *context)
{
    struct request *request;

    STAILQ_FOREACH(request, &qmp->awaited, link)
    {
        if (request->context == context) {
            request->callback = ignore_reply;
        }
    }
    STAILQ_FOREACH(request, &qmp->to_send, link)
    {
        if (request->context == context) {
            request->callback = ignore_reply;
        }
    }
}

const char *qmp_path(const struct qmp *qmp)
{
    return qmp->path;
}

int qmp_version(const struct qmp *qmp)
{
    return qmp->version;
}

const char *qmp_version_text(const struct qmp *qmp, char text[QMP_VERSION_SIZE])
{
    snprintf(text, QMP_VERSION_SIZE, "%d.%d.%d", qmp->version / 10000, qmp->version / 100 % 100,
             qmp->version % 100);
    return text;
}

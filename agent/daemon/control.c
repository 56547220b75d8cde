/*
 * The clients of the control socket: lines in, calls, lines out. What the commands do is
 * control_commands.c's.
 */
#include "control.h"

#include "control_call.h"
#include "control_socket.h"
#include "daemon.h"
#include "agent/common/json_line.h"
#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_LINE_LIMIT (1u << 20)
/* What may wait for a client that does not read; far above the largest answer. */
#define OUTPUT_LIMIT (4u << 20)
#define READ_CHUNK 16384
/* Bounds what clients can make us keep; root's own tools need a handful. */
#define MAX_CONNECTIONS 64
/* How long the last words to a client may take that is being dropped. */
#define FAREWELL_SECONDS 10

struct control_call {
    struct control_connection *connection; /* NULL: the client is gone */
    json_t *id;                            /* NULL: it gave none */
};

struct watch {
    struct migration_watcher watcher;
    struct migration *migration;
    struct control_connection *connection;
    LIST_ENTRY(watch) link;
};

struct control_stream {
    struct control_connection *connection;
    void (*gone)(void *context);
    void *context;
    LIST_ENTRY(control_stream) link;
};

struct control_connection {
    struct control *control;
    struct bufferevent *stream;
    struct json_line *lines;
    struct control_call *call; /* the one under way; none is begun before it is answered */
    struct event
        *end; /* frees the connection on a later turn: its own callbacks may be under way now */
    bool serving;
    bool leaving; /* takes no more requests; goes when the output is written */
    bool broken;  /* goes at once */
    LIST_HEAD(, watch) watches;
    LIST_HEAD(, control_stream) streams;
    LIST_ENTRY(control_connection) link;
};

struct control {
    struct daemon *daemon;
    struct control_socket socket;
    struct evconnlistener *listener;
    struct event *retry;
    unsigned connection_count;
    LIST_HEAD(, control_connection) connections;
};

static void watch_end(struct watch *watch)
{
    migration_unwatch(&watch->watcher);
    LIST_REMOVE(watch, link);
    free(watch);
}

void control_stream_end(struct control_stream *stream)
{
    LIST_REMOVE(stream, link);
    free(stream);
}

static void connection_free(struct control_connection *connection)
{
    struct control_stream *stream;
    struct watch *watch;

    while ((watch = LIST_FIRST(&connection->watches))) {
        watch_end(watch);
    }
    while ((stream = LIST_FIRST(&connection->streams))) {
        void (*gone)(void *) = stream->gone;
        void *owner = stream->context;

        control_stream_end(stream);
        gone(owner);
    }
    if (connection->call) {
        connection->call->connection = NULL;
    }
    if (connection->end) {
        event_free(connection->end);
    }
    bufferevent_free(connection->stream);
    json_line_free(connection->lines);
    LIST_REMOVE(connection, link);
    connection->control->connection_count--;
    free(connection);
}

static void on_end(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    connection_free(context);
}

static void break_connection(struct control_connection *connection)
{
    if (!connection->broken) {
        connection->broken = true;
        event_active(connection->end, EV_TIMEOUT, 0);
    }
}

static void leave(struct control_connection *connection)
{
    struct evbuffer *output = bufferevent_get_output(connection->stream);

    connection->leaving = true;
    bufferevent_disable(connection->stream, EV_READ);
    if (evbuffer_get_length(output) == 0) {
        break_connection(connection);
    } else {
        bufferevent_set_timeouts(connection->stream, NULL, &(struct timeval){FAREWELL_SECONDS, 0});
    }
}

static void send_object(struct control_connection *connection, const json_t *object)
{
    size_t waiting = evbuffer_get_length(bufferevent_get_output(connection->stream));
    size_t length;
    char *text;

    if (connection->broken) {
        return;
    }
    text = json_line_text(object, &length);
    if (!text) {
        log_error("control socket: an answer cannot be written as JSON");
        break_connection(connection);
    } else if (waiting + length > OUTPUT_LIMIT) {
        log_warning("control socket: a client that does not read its answers is dropped");
        break_connection(connection);
    } else if (bufferevent_write(connection->stream, text, length) < 0) {
        break_connection(connection);
    }
    free(text);
}

static void send_and_forget(struct control_connection *connection, json_t *object)
{
    send_object(connection, object);
    json_decref(object);
}

static json_t *error_object(const char *id, const char *text)
{
    return must_json(json_pack("{s:{s:s,s:o}}", "error", "class", id, "desc",
                               must_json(json_line_string(text))));
}

static void serve(struct control_connection *connection);

/* Steals OBJECT. */
static void end_call(struct control_call *call, json_t *object)
{
    struct control_connection *connection = call->connection;

    if (call->id) {
        json_object_set_new(object, "id", call->id);
    }
    if (connection) {
        connection->call = NULL;
        send_object(connection, object);
    }
    json_decref(object);
    free(call);
    if (connection) {
        serve(connection);
    }
}

void control_answer(struct control_call *call, json_t *value)
{
    end_call(call, must_json(json_pack("{s:o}", "return", value)));
}

void control_refuse(struct control_call *call, const struct error *error)
{
    end_call(call, error_object(error->id, error->text));
}

static void on_migration_event(const json_t *event, bool last, void *context)
{
    struct watch *watch = context;

    send_object(watch->connection, event);
    if (last) {
        watch_end(watch);
    }
}

static bool is_watching(const struct control_connection *connection,
                        const struct migration *migration)
{
    const struct watch *watch;

    LIST_FOREACH(watch, &connection->watches, link)
    {
        if (watch->migration == migration) {
            return true;
        }
    }
    return false;
}

static void watch_begin(struct control_connection *connection, struct migration *migration)
{
    struct watch *watch = must_alloc(sizeof *watch);

    watch->migration = migration;
    watch->connection = connection;
    watch->watcher.callback = on_migration_event;
    watch->watcher.context = watch;
    LIST_INSERT_HEAD(&connection->watches, watch, link);
    migration_watch(migration, &watch->watcher);
}

void control_answer_watch(struct control_call *call, struct migration *migration)
{
    struct control_connection *connection = call->connection;
    struct error error;

    if (connection && is_watching(connection, migration)) {
        error_set(&error, "already-watched",
                  "this connection watches migration %s of VM %s already", migration->id,
                  migration->vm);
        control_refuse(call, &error);
        return;
    }
    control_answer(call, must_json(json_pack("{s:s}", "migration", migration->id)));
    if (!connection || connection->broken) {
        return;
    }
    if (migration->result) {
        send_object(connection, migration->result);
    } else {
        watch_begin(connection, migration);
    }
}

struct control_stream *control_answer_stream(struct control_call *call, json_t *value,
                                             void (*gone)(void *context), void *context)
{
    struct control_connection *connection = call->connection;
    struct control_stream *stream;

    if (!connection || connection->broken) {
        control_answer(call, value);
        return NULL;
    }
    stream = must_alloc(sizeof *stream);
    stream->connection = connection;
    stream->gone = gone;
    stream->context = context;
    LIST_INSERT_HEAD(&connection->streams, stream, link);
    control_answer(call, value);
    return stream;
}

void control_stream_send(struct control_stream *stream, const json_t *event)
{
    send_object(stream->connection, event);
}

/* False with an error when OBJECT is not a request. */
static bool check_request(json_t *object, const char **command, json_t **arguments,
                          struct error *error)
{
    const char *name;
    json_t *value;

    *command = json_string_value(json_object_get(object, "execute"));
    *arguments = json_object_get(object, "arguments");
    if (!*command) {
        return error_set(error, "invalid-request", "a request needs a string \"execute\"");
    }
    if (*arguments && !json_is_object(*arguments)) {
        return error_set(error, "invalid-request", "\"arguments\" must be an object");
    }
    json_object_foreach(object, name, value)
    {
        if (strcmp(name, "execute") != 0 && strcmp(name, "arguments") != 0 &&
            strcmp(name, "id") != 0) {
            return error_set(error, "invalid-request", "a request has no member \"%s\"", name);
        }
    }
    return true;
}

static void take_request(struct control_connection *connection, json_t *object)
{
    struct control_call *call = must_alloc(sizeof *call);
    json_t *none = must_json(json_object());
    const char *command;
    json_t *arguments;
    struct error error;

    call->connection = connection;
    call->id = json_incref(json_object_get(object, "id"));
    connection->call = call;
    if (check_request(object, &command, &arguments, &error)) {
        control_command(connection->control->daemon, call, command, arguments ? arguments : none);
    } else {
        control_refuse(call, &error);
    }
    json_decref(none);
}

/* Moves bytes from the socket's buffer to the splitter; false when there are none. */
static bool take_bytes(struct control_connection *connection)
{
    char chunk[READ_CHUNK];
    int got = evbuffer_remove(bufferevent_get_input(connection->stream), chunk, sizeof chunk);

    if (got <= 0) {
        return false;
    }
    if (!json_line_feed(connection->lines, chunk, (size_t)got)) {
        break_connection(connection);
        return false;
    }
    return true;
}

/* One step; false when there is nothing more to do for now. */
static bool serve_next(struct control_connection *connection)
{
    char text[JSON_LINE_ERROR_SIZE];
    json_t *object;

    switch (json_line_next(connection->lines, &object, text)) {
    case JSON_LINE_OBJECT:
        take_request(connection, object);
        json_decref(object);
        return true;
    case JSON_LINE_BAD:
        send_and_forget(connection, error_object("invalid-json", text));
        return true;
    case JSON_LINE_TOO_LONG:
        send_and_forget(connection, error_object("line-too-long", text));
        leave(connection);
        return false;
    case JSON_LINE_MORE:
        break;
    }
    return take_bytes(connection);
}

static void serve(struct control_connection *connection)
{
    if (connection->serving) {
        return;
    }
    connection->serving = true;
    while (!connection->broken && !connection->leaving && !connection->call &&
           serve_next(connection)) {
    }
    connection->serving = false;
    /* A client whose call is under way is not read: it cannot heap up requests here. */
    if (connection->call) {
        bufferevent_disable(connection->stream, EV_READ);
    } else if (!connection->broken && !connection->leaving) {
        bufferevent_enable(connection->stream, EV_READ);
    }
}

static void on_readable(struct bufferevent *stream, void *context)
{
    (void)stream;
    serve(context);
}

static void on_written(struct bufferevent *stream, void *context)
{
    struct control_connection *connection = context;

    (void)stream;
    if (connection->leaving) {
        break_connection(connection);
    }
}

static void on_stream_event(struct bufferevent *stream, short what, void *context)
{
    struct control_connection *connection = context;

    (void)stream;
    if ((what & BEV_EVENT_EOF) && !connection->leaving) {
        leave(connection);
    } else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT)) {
        break_connection(connection);
    }
}

static void greet(struct control_connection *connection)
{
    send_and_forget(connection,
                    must_json(json_pack("{s:{s:s,s:s}}", "watari", "version", WATARI_VERSION,
                                        "host", connection->control->daemon->host)));
}

static void connection_begin(struct control *control, int fd)
{
    struct control_connection *connection = must_alloc(sizeof *connection);
    struct event_base *base = control->daemon->base;

    connection->control = control;
    connection->lines = json_line_new(INPUT_LINE_LIMIT);
    connection->stream = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    connection->end = event_new(base, -1, 0, on_end, connection);
    if (!connection->stream) {
        close(fd);
    }
    if (!connection->lines || !connection->stream || !connection->end) {
        goto fail;
    }
    LIST_INIT(&connection->watches);
    LIST_INIT(&connection->streams);
    LIST_INSERT_HEAD(&control->connections, connection, link);
    control->connection_count++;
    bufferevent_setwatermark(connection->stream, EV_READ, 0, 4 * READ_CHUNK);
    bufferevent_setcb(connection->stream, on_readable, on_written, on_stream_event, connection);
    bufferevent_enable(connection->stream, EV_READ | EV_WRITE);
    greet(connection);
    return;
fail:
    log_error("control socket: no memory for another client");
    if (connection->end) {
        event_free(connection->end);
    }
    if (connection->stream) {
        bufferevent_free(connection->stream);
    }
    json_line_free(connection->lines);
    free(connection);
}

/* As much as the socket takes at once: a stranger is not waited for. */
static void turn_away(int fd, const char *id, const char *reason)
{
    json_t *object = error_object(id, reason);
    char *text = json_line_text(object, NULL);

    if (text && send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        log_warning("control socket: a client left before it was told: %s", reason);
    }
    free(text);
    json_decref(object);
    close(fd);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int address_size, void *context)
{
    struct control *control = context;
    uid_t user;

    (void)listener;
    (void)address;
    (void)address_size;
    if (!control_socket_allows(fd, &user)) {
        log_warning("control socket: user %u was turned away", (unsigned)user);
        turn_away(fd, "not-allowed", "only root and watarid's own user may use this socket");
    } else if (control->connection_count >= MAX_CONNECTIONS) {
        turn_away(fd, "too-many-clients", "too many clients use this socket: end some of them");
    } else {
        connection_begin(control, fd);
    }
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    struct control *control = context;

    (void)fd;
    (void)what;
    evconnlistener_enable(control->listener);
}

/* Out of descriptors, most likely: the client waits in the backlog, and the loop must not spin on
 * it. */
static void on_accept_error(struct evconnlistener *listener, void *context)
{
    struct control *control = context;

    log_error("control socket: a client could not be accepted: %s", strerror(errno));
    evconnlistener_disable(listener);
    event_add(control->retry, &(struct timeval){1, 0});
}

struct control *control_new(struct daemon *daemon, struct error *error)
{
    struct control *control = must_alloc(sizeof *control);

    control->daemon = daemon;
    LIST_INIT(&control->connections);
    if (!control_socket_open(&control->socket, daemon->config.control_path, error)) {
        free(control);
        return NULL;
    }
    control->retry = evtimer_new(daemon->base, on_retry, control);
    control->listener =
        evconnlistener_new(daemon->base, on_accept, control,
                           LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, control->socket.fd);
    if (!control->retry || !control->listener) {
        error_set(error, "control-socket", "control socket: no memory");
        if (!control->listener) {
            close(control->socket.fd);
        }
        control_free(control);
        return NULL;
    }
    evconnlistener_set_error_cb(control->listener, on_accept_error);
    return control;
}

void control_free(struct control *control)
{
    struct control_connection *connection;

    if (!control) {
        return;
    }
    while ((connection = LIST_FIRST(&control->connections))) {
        connection_free(connection);
    }
    control_socket_remove(&control->socket);
    if (control->listener) {
        evconnlistener_free(control->listener);
    }
    if (control->retry) {
        event_free(control->retry);
    }
    free(control);
}

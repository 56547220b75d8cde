/*
 * A QMP client that notes all it is told, for the tests of agent/daemon/qmp.h. For one test
 * program; everything is static, and inline so that not all has to be used.
 */
#ifndef WATARI_TESTS_QMP_CLIENT_H
#define WATARI_TESTS_QMP_CLIENT_H

#include "agent/daemon/qmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define REPLIES_MAX 16
#define PATIENCE_SECONDS 30

enum place { NOWHERE, IN_READY, IN_EVENT, IN_REPLY, IN_CLOSED };

/* One client with all it was told. */
struct client {
    struct event_base *base;
    struct event *late;
    struct qmp *qmp;
    enum place free_there; /* qmp_free() in that callback */
    unsigned ready, closed, events;
    struct error error; /* of ready */
    char last_event[64];
    struct {
        json_t *value;
        struct error error;
    } replies[REPLIES_MAX];
    size_t count;
    unsigned after_free; /* callbacks after qmp_free(): none must come */
    bool too_late;
};

static inline void note(struct client *client, enum place place)
{
    client->after_free += client->qmp == NULL;
    if (client->free_there == place) {
        qmp_free(client->qmp);
        client->qmp = NULL;
    }
}

static inline void on_ready(const struct error *error, void *context)
{
    struct client *client = context;

    client->ready++;
    client->error = error ? *error : (struct error){0};
    note(client, IN_READY);
}

static inline void on_event(const char *name, json_t *data, void *context)
{
    struct client *client = context;

    (void)data;
    client->events++;
    snprintf(client->last_event, sizeof client->last_event, "%s", name);
    note(client, IN_EVENT);
}

static inline void on_closed(void *context)
{
    struct client *client = context;

    client->closed++;
    note(client, IN_CLOSED);
}

static inline void on_reply(json_t *value, const struct error *error, void *context)
{
    struct client *client = context;

    assert_true(client->count < REPLIES_MAX);
    assert_int_equal(value == NULL, error != NULL);
    client->replies[client->count].value = json_incref(value);
    client->replies[client->count].error = error ? *error : (struct error){0};
    client->count++;
    note(client, IN_REPLY);
}

static inline void on_too_late(evutil_socket_t fd, short what, void *context)
{
    struct client *client = context;

    (void)fd;
    (void)what;
    client->too_late = true;
}

static inline void open_client(struct client *client, const char *path)
{
    static const struct qmp_handlers handlers = {on_ready, on_event, on_closed};
    static const struct timeval patience = {PATIENCE_SECONDS, 0};

    client->base = event_base_new();
    assert_non_null(client->base);
    client->late = evtimer_new(client->base, on_too_late, client);
    event_add(client->late, &patience);
    client->qmp = qmp_open(client->base, path, &handlers, client);
    assert_non_null(client->qmp);
    /* Never inside the caller. */
    assert_int_equal(client->ready, 0);
}

static inline void close_client(struct client *client)
{
    qmp_free(client->qmp);
    for (size_t i = 0; i < client->count; i++) {
        json_decref(client->replies[i].value);
    }
    event_free(client->late);
    event_base_free(client->base);
}

/* One turn of the loop; a test waits with while (!...). */
static inline void turn(struct client *client)
{
    assert_false(client->too_late);
    assert_int_equal(event_base_loop(client->base, EVLOOP_ONCE), 0);
}

/* Lets happen what should not. */
static inline void run_a_while(struct client *client)
{
    event_base_loopexit(client->base, &(struct timeval){0, 100000});
    event_base_loop(client->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

static inline void await_ready(struct client *client)
{
    while (!client->ready) {
        turn(client);
    }
}

#endif

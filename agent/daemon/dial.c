#include "dial.h"

#include "daemon.h"

#include "agent/common/must.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIAL_ADDRESSES_MAX 8
/* The kernel declares a connection dead when data stays unacknowledged for so long. */

struct target {
    struct sockaddr_storage address;
    socklen_t length;
};

struct dial {
    struct daemon *daemon;
    char *name; /* for messages */
    uint8_t greeting[PREAMBLE_SIZE];
    struct evdns_getaddrinfo_request *lookup;
    struct target targets[DIAL_ADDRESSES_MAX];
    size_t count, at;
    int fd;
    struct event *event;   /* the socket became writable, or timed out */
    struct event *failing; /* tells a failure on the next turn */
    struct error error;
    dial_callback callback;
    void *context;
};

static void try_next(struct dial *dial);

void dial_free(struct dial *dial)
{
    if (!dial) {
        return;
    }
    if (dial->lookup) {
        /* Its callback comes once more, with EVUTIL_EAI_CANCEL, and frees the object then. */
        struct evdns_getaddrinfo_request *lookup = dial->lookup;

        dial->lookup = NULL;
        dial->callback = NULL;
        evdns_getaddrinfo_cancel(lookup);
        return;
    }
    if (dial->event) {
        event_free(dial->event);
    }
    event_free(dial->failing);
    if (dial->fd >= 0) {
        close(dial->fd);
    }
    free(dial->name);
    free(dial);
}

static void end(struct dial *dial, int fd, const struct error *error)
{
    dial_callback callback = dial->callback;
    void *context = dial->context;
    struct target target = {0};
    struct error copy = {0};

    if (error) {
        copy = *error;
    } else {
        target = dial->targets[dial->at];
    }
    dial_free(dial);
    callback(fd, (struct sockaddr *)&target.address, target.length, error ? &copy : NULL, context);
}

static void on_failing(evutil_socket_t fd, short what, void *context)
{
    struct dial *dial = context;

    (void)fd;
    (void)what;
    end(dial, -1, &dial->error);
}

static void fail(struct dial *dial, const char *reason)
{
    error_set(&dial->error, "peer-unreachable",
              "%s: %s. Does watarid run there, and is that port open?", dial->name, reason);
    event_add(dial->failing, &(struct timeval){0, 0});
}

static void close_socket(struct dial *dial)
{
    if (dial->event) {
        event_free(dial->event);
        dial->event = NULL;
    }
    if (dial->fd >= 0) {
        close(dial->fd);
        dial->fd = -1;
    }
}

static void next_or_fail(struct dial *dial, int reason)
{
    close_socket(dial);
    if (++dial->at < dial->count) {
        try_next(dial);
    } else {
        fail(dial, strerror(reason));
    }
}

static void on_connected(evutil_socket_t fd, short what, void *context)
{
    struct dial *dial = context;
    int reason = 0;
    socklen_t length = sizeof reason;

    if (what & EV_TIMEOUT) {
        next_or_fail(dial, ETIMEDOUT);
        return;
    }
    if (getsockopt((int)fd, SOL_SOCKET, SO_ERROR, &reason, &length) < 0) {
        reason = errno;
    }
    /* 32 bytes into an empty socket buffer go whole or not at all. */
    if (!reason &&
        send((int)fd, dial->greeting, PREAMBLE_SIZE, MSG_NOSIGNAL) != (ssize_t)PREAMBLE_SIZE) {
        reason = errno ? errno : EPIPE;
    }
    if (reason) {
        next_or_fail(dial, reason);
        return;
    }
    dial->fd = -1;
    end(dial, (int)fd, NULL);
}

static void set_options(const struct dial *dial, int fd)
{
    int on = 1;
    unsigned timeout = dial->daemon->config.patience_ms;

    /* Both only make things quicker; without them the daemon's own timers decide. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

static void try_next(struct dial *dial)
{
    const struct target *target = &dial->targets[dial->at];

    dial->fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (dial->fd < 0) {
        next_or_fail(dial, errno);
        return;
    }
    set_options(dial, dial->fd);
    if (connect(dial->fd, (const struct sockaddr *)&target->address, target->length) < 0 &&
        errno != EINPROGRESS) {
        next_or_fail(dial, errno);
        return;
    }
    dial->event = event_new(dial->daemon->base, dial->fd, EV_WRITE, on_connected, dial);
    event_add(dial->event, &(struct timeval){DIAL_TIMEOUT_MS / 1000, 0});
}

static void on_resolved(int result, struct evutil_addrinfo *list, void *context)
{
    struct dial *dial = context;

    dial->lookup = NULL;
    if (!dial->callback) {
        dial_free(dial);
        return;
    }
    if (result != 0) {
        fail(dial, evutil_gai_strerror(result));
        return;
    }
    for (struct evutil_addrinfo *at = list; at && dial->count < DIAL_ADDRESSES_MAX;
         at = at->ai_next) {
        memcpy(&dial->targets[dial->count].address, at->ai_addr, at->ai_addrlen);
        dial->targets[dial->count++].length = at->ai_addrlen;
    }
    evutil_freeaddrinfo(list);
    try_next(dial);
}

static struct dial *dial_new(struct daemon *daemon, const char *name, const uint8_t *greeting,
                             dial_callback callback, void *context)
{
    struct dial *dial = must_alloc(sizeof *dial);

    dial->daemon = daemon;
    dial->name = must_copy(name);
    memcpy(dial->greeting, greeting, PREAMBLE_SIZE);
    dial->fd = -1;
    dial->failing = evtimer_new(daemon->base, on_failing, dial);
    dial->callback = callback;
    dial->context = context;
    return dial;
}

struct dial *dial_host(struct daemon *daemon, const char *host, uint16_t port,
                       const uint8_t greeting[PREAMBLE_SIZE], dial_callback callback, void *context)
{
    struct evutil_addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = EVUTIL_AI_ADDRCONFIG};
    char *name = must_format("%s port %u", host, port);
    struct dial *dial = dial_new(daemon, name, greeting, callback, context);
    char service[8];
    struct evdns_getaddrinfo_request *lookup;

    free(name);
    snprintf(service, sizeof service, "%u", port);
    /* May call on_resolved at once, which frees nothing: failures wait for the next turn. */
    lookup = evdns_getaddrinfo(daemon->dns, host, service, &hints, on_resolved, dial);
    dial->lookup = lookup;
    return dial;
}

struct dial *dial_address(struct daemon *daemon, const struct sockaddr *address, socklen_t length,
                          const uint8_t greeting[PREAMBLE_SIZE], dial_callback callback,
                          void *context)
{
    char host[NI_MAXHOST] = "?", service[NI_MAXSERV] = "?";
    struct dial *dial;
    char *name;

    getnameinfo(address, length, host, sizeof host, service, sizeof service,
                NI_NUMERICHOST | NI_NUMERICSERV);
    name = must_format("%s port %s", host, service);
    dial = dial_new(daemon, name, greeting, callback, context);
    free(name);
    memcpy(&dial->targets[0].address, address, length);
    dial->targets[0].length = length;
    dial->count = 1;
    try_next(dial);
    return dial;
}

#include "listener.h"

#include "daemon.h"
#include "destination.h"
#include "peer.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "protocol/preamble.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define STRANGERS_MAX 64
#define STRANGERS_EARLY_DROP 32
#define STRANGERS_PER_ADDRESS 8
#define STRANGER_MS 10000
#define TICKET_MS 10000
#define ACCEPTS_PER_TURN 4
#define PAUSE_MS 1000
#define BACKLOG 64

/* A connection that has not authenticated yet: its preamble is awaited, then (control) its hello. */
struct stranger {
    struct listener *listener;
    int fd; /* -1 once peer has it */
    struct peer *peer;
    uint8_t address[16]; /* IPv6 form, cut to /64 unless it is a mapped IPv4 */
    uint8_t raw[PREAMBLE_SIZE];
    size_t have;
    struct event *event;
    LIST_ENTRY(stranger) link;
};

struct ticket {
    struct listener *listener;
    uint32_t index;
    uint8_t ticket[TLS_TICKET_SIZE];
    uint8_t key[TLS_LANE_KEY_SIZE];
    struct event *expiry;
    lane_callback callback;
    void *context;
    LIST_ENTRY(ticket) link;
};

struct listener {
    struct daemon *daemon;
    int fd;
    struct event *readable, *resume;
    size_t stranger_count;
    LIST_HEAD(, stranger) strangers;
    LIST_HEAD(, ticket) tickets;
};

static void ticket_free(struct ticket *ticket)
{
    LIST_REMOVE(ticket, link);
    event_free(ticket->expiry);
    OPENSSL_cleanse(ticket, sizeof *ticket);
    free(ticket);
}

static void on_ticket_expired(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    ticket_free(context);
}

bool listener_ticket(struct listener *listener, uint32_t index, uint8_t ticket[TLS_TICKET_SIZE],
                     uint8_t key[TLS_LANE_KEY_SIZE], lane_callback callback, void *context)
{
    struct ticket *made;

    if (RAND_bytes(ticket, TLS_TICKET_SIZE) != 1 || RAND_priv_bytes(key, TLS_LANE_KEY_SIZE) != 1) {
        return false;
    }
    made = must_alloc(sizeof *made);
    made->listener = listener;
    made->index = index;
    memcpy(made->ticket, ticket, TLS_TICKET_SIZE);
    memcpy(made->key, key, TLS_LANE_KEY_SIZE);
    made->callback = callback;
    made->context = context;
    made->expiry = evtimer_new(listener->daemon->base, on_ticket_expired, made);
    event_add(made->expiry, &(struct timeval){TICKET_MS / 1000, 0});
    LIST_INSERT_HEAD(&listener->tickets, made, link);
    return true;
}

void listener_void(struct listener *listener, const void *context)
{
    struct ticket *ticket = listener ? LIST_FIRST(&listener->tickets) : NULL;

    while (ticket) {
        struct ticket *next = LIST_NEXT(ticket, link);

        if (ticket->context == context) {
            ticket_free(ticket);
        }
        ticket = next;
    }
}

static void stranger_free(struct stranger *stranger)
{
    LIST_REMOVE(stranger, link);
    stranger->listener->stranger_count--;
    event_free(stranger->event);
    peer_free(stranger->peer);
    if (stranger->fd >= 0) {
        close(stranger->fd);
    }
    free(stranger);
}

static void refuse(int fd, enum preamble_refusal reason)
{
    struct preamble refusal = {.kind = PREAMBLE_REFUSAL,
                               .version_min = PROTOCOL_VERSION_MIN,
                               .version_max = PROTOCOL_VERSION_MAX,
                               .reason = (uint8_t)reason};
    uint8_t raw[PREAMBLE_SIZE];

    preamble_encode(&refusal, raw);
    /* Courtesy only: whoever dialled sees the connection end in any case. */
    (void)send(fd, raw, sizeof raw, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void on_peer_ready(struct peer *peer, const struct error *error, void *context)
{
    struct stranger *stranger = context;
    struct daemon *daemon = stranger->listener->daemon;

    if (error) {
        char address[NI_MAXHOST] = "?";
        socklen_t length;
        const struct sockaddr *from = peer_address(peer, &length);

        getnameinfo(from, length, address, sizeof address, NULL, 0, NI_NUMERICHOST);
        log_warning("a connection from %s was refused: %s", address, error->text);
        stranger_free(stranger);
        return;
    }
    stranger->peer = NULL;
    stranger_free(stranger);
    destination_welcome(daemon, peer);
}

static void on_peer_message(struct peer *peer, enum message_type type, json_t *object,
                            void *context)
{
    /* Not reached: handlers are exchanged the moment the peer is up. */
    (void)peer;
    (void)type;
    (void)object;
    (void)context;
}

static void on_peer_lost(struct peer *peer, const struct error *error, void *context)
{
    (void)peer;
    (void)error;
    stranger_free(context);
}

static const struct peer_handlers stranger_handlers = {on_peer_ready, on_peer_message,
                                                       on_peer_lost};

static void take_lane(struct stranger *stranger, const struct preamble *preamble)
{
    struct listener *listener = stranger->listener;
    struct ticket *ticket, copy;

    LIST_FOREACH(ticket, &listener->tickets, link)
    {
        if (CRYPTO_memcmp(ticket->ticket, preamble->ticket, TLS_TICKET_SIZE) == 0) {
            break;
        }
    }
    if (!ticket) {
        refuse(stranger->fd, PREAMBLE_REFUSED_TICKET);
        stranger_free(stranger);
        return;
    }
    copy = *ticket;
    ticket_free(ticket);
    /* Before the descriptor goes: the mover keeps the connection open, so that epoll would go on reporting it under a number that is another's. */
    event_del(stranger->event);
    copy.callback(copy.index, stranger->fd, copy.ticket, copy.key, copy.context);
    OPENSSL_cleanse(&copy, sizeof copy);
    stranger->fd = -1;
    stranger_free(stranger);
}

static void take_preamble(struct stranger *stranger)
{
    struct preamble preamble;
    int fd = stranger->fd;

    switch (preamble_decode(stranger->raw, &preamble)) {
    case PREAMBLE_OK:
        break;
    case PREAMBLE_VERSION:
        log_warning("a peer that speaks protocol versions %u to %u was refused",
                    preamble.version_min, preamble.version_max);
        refuse(fd, PREAMBLE_REFUSED_VERSION);
        stranger_free(stranger);
        return;
    case PREAMBLE_NOT_WATARI:
    case PREAMBLE_MALFORMED:
        stranger_free(stranger);
        return;
    }
    if (preamble.kind == PREAMBLE_LANE) {
        take_lane(stranger, &preamble);
    } else if (preamble.kind == PREAMBLE_CONTROL) {
        event_del(stranger->event); /* peer.c has a clock of its own */
        stranger->fd = -1;
        stranger->peer = peer_accept(stranger->listener->daemon, fd, stranger->raw,
                                     &stranger_handlers, stranger);
        if (!stranger->peer) {
            stranger_free(stranger);
        }
    } else {
        stranger_free(stranger);
    }
}

static void on_stranger(evutil_socket_t fd, short what, void *context)
{
    struct stranger *stranger = context;
    ssize_t got;

    if (what & EV_TIMEOUT) {
        stranger_free(stranger);
        return;
    }
    got =
        recv((int)fd, stranger->raw + stranger->have, PREAMBLE_SIZE - stranger->have, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        stranger_free(stranger);
        return;
    }
    stranger->have += (size_t)got;
    if (stranger->have == PREAMBLE_SIZE) {
        take_preamble(stranger);
    }
}

static void reduce_address(const struct sockaddr_storage *from, uint8_t out[16])
{
    memset(out, 0, 16);
    if (from->ss_family == AF_INET) {
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &((const struct sockaddr_in *)from)->sin_addr, 4);
        return;
    }
    memcpy(out, &((const struct sockaddr_in6 *)from)->sin6_addr, 16);
    if (!IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)from)->sin6_addr)) {
        memset(out + 8, 0, 8);
    }
}

static bool too_many(const struct listener *listener, const uint8_t address[16])
{
    const struct stranger *other;
    size_t same = 0;
    uint32_t dice = 0;

    if (listener->stranger_count >= STRANGERS_MAX) {
        return true;
    }
    LIST_FOREACH(other, &listener->strangers, link)
    {
        same += memcmp(other->address, address, 16) == 0;
    }
    if (same >= STRANGERS_PER_ADDRESS) {
        return true;
    }
    if (listener->stranger_count < STRANGERS_EARLY_DROP) {
        return false;
    }
    /* The chance grows from 0 at 32 to 1 at 64: a flood then loses most, an honest peer that dials again gets in. */
    return RAND_bytes((uint8_t *)&dice, sizeof dice) != 1 ||
           dice % (STRANGERS_MAX - STRANGERS_EARLY_DROP) <
               listener->stranger_count - STRANGERS_EARLY_DROP;
}

static void welcome(struct listener *listener, int fd, const struct sockaddr_storage *from)
{
    struct stranger *stranger;
    uint8_t address[16];
    unsigned timeout = listener->daemon->config.patience_ms;
    int on = 1;

    reduce_address(from, address);
    if (too_many(listener, address)) {
        refuse(fd, PREAMBLE_REFUSED_BUSY);
        close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
    stranger = must_alloc(sizeof *stranger);
    stranger->listener = listener;
    stranger->fd = fd;
    memcpy(stranger->address, address, sizeof address);
    stranger->event =
        event_new(listener->daemon->base, fd, EV_READ | EV_PERSIST, on_stranger, stranger);
    event_add(stranger->event, &(struct timeval){STRANGER_MS / 1000, 0});
    LIST_INSERT_HEAD(&listener->strangers, stranger, link);
    listener->stranger_count++;
}

static void on_resume(evutil_socket_t fd, short what, void *context)
{
    struct listener *listener = context;

    (void)fd;
    (void)what;
    event_add(listener->readable, NULL);
}

static void on_acceptable(evutil_socket_t fd, short what, void *context)
{
    struct listener *listener = context;

    (void)what;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage from = {0};
        socklen_t length = sizeof from;
        int newcomer =
            accept4((int)fd, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (newcomer >= 0) {
            welcome(listener, newcomer, &from);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            log_warning("accept: %s; the listener pauses for %d ms", strerror(errno), PAUSE_MS);
            event_del(listener->readable);
            event_add(listener->resume, &(struct timeval){PAUSE_MS / 1000, 0});
            return;
        } else {
            return;
        }
    }
}

static int open_socket(const struct config *config, struct error *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *found = NULL;
    char service[8];
    int fd = -1, on = 1, reason;

    snprintf(service, sizeof service, "%u", config->listen_port);
    reason = getaddrinfo(config->listen_address, service, &hints, &found);
    if (reason) {
        error_set(error, "listen-failed", "listen address %s: %s", config->listen_address,
                  gai_strerror(reason));
        return -1;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        error_set(error, "listen-failed", "cannot listen on %s port %u: %s", config->listen_address,
                  config->listen_port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

struct listener *listener_new(struct daemon *daemon, struct error *error)
{
    struct listener *listener;
    int fd = open_socket(&daemon->config, error);

    if (fd < 0) {
        return NULL;
    }
    listener = must_alloc(sizeof *listener);
    listener->daemon = daemon;
    listener->fd = fd;
    LIST_INIT(&listener->strangers);
    LIST_INIT(&listener->tickets);
    listener->readable = event_new(daemon->base, fd, EV_READ | EV_PERSIST, on_acceptable, listener);
    listener->resume = evtimer_new(daemon->base, on_resume, listener);
    event_add(listener->readable, NULL);
    return listener;
}

void listener_free(struct listener *listener)
{
    if (!listener) {
        return;
    }
    while (!LIST_EMPTY(&listener->strangers)) {
        stranger_free(LIST_FIRST(&listener->strangers));
    }
    while (!LIST_EMPTY(&listener->tickets)) {
        ticket_free(LIST_FIRST(&listener->tickets));
    }
    event_free(listener->readable);
    event_free(listener->resume);
    close(listener->fd);
    free(listener);
}

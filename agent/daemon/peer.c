#include "peer.h"

#include "clock.h"
#include "daemon.h"
#include "dial.h"
#include "message_stream.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Offsets drift with the clocks' rates (below 100 ppm): of the last so many pings the one with the smallest round trip counts. */
#define CLOCK_SAMPLES 10

struct clock_sample {
    int64_t offset;
    uint64_t round_trip;
};

struct peer {
    struct daemon *daemon;
    bool accepted; /* they dialled */
    bool up, dead, freed;
    unsigned depth;
    char name[TLS_PEER_NAME_SIZE];
    char expected[TLS_FINGERPRINT_SIZE]; /* dialled: the key it must show */
    char shown[TLS_FINGERPRINT_SIZE];
    char host[256];
    uint8_t greeting[PREAMBLE_SIZE];
    struct sockaddr_storage address;
    socklen_t address_length;
    struct dial *dial;
    struct message_stream *stream;
    struct event *timer; /* authentication, then pings and silence */
    uint64_t heard_ms;
    struct clock_sample samples[CLOCK_SAMPLES];
    size_t sample_count, sample_next;
    struct peer_handlers handlers;
    void *context;
    LIST_ENTRY(peer) link;
};

struct peer_list {
    struct daemon *daemon;
    LIST_HEAD(, peer) peers;
};

static void destroy(struct peer *peer)
{
    LIST_REMOVE(peer, link);
    dial_free(peer->dial);
    message_stream_free(peer->stream);
    event_free(peer->timer);
    free(peer);
}

void peer_free(struct peer *peer)
{
    if (!peer || peer->freed) {
        return;
    }
    peer->freed = true;
    if (peer->depth == 0) {
        destroy(peer);
    }
}

static void leave(struct peer *peer)
{
    if (--peer->depth == 0 && peer->freed) {
        destroy(peer);
    }
}

static void die(struct peer *peer, const struct error *error)
{
    if (peer->dead || peer->freed) {
        return;
    }
    peer->dead = true;
    event_del(peer->timer);
    peer->depth++;
    if (peer->up) {
        peer->up = false;
        peer->handlers.lost(peer, error, peer->context);
    } else {
        peer->handlers.ready(peer, error, peer->context);
    }
    leave(peer);
}

static const char *who(const struct peer *peer)
{
    return peer->name[0] ? peer->name : "a host that dialled us";
}

static void explain(const struct peer *peer, enum tls_failure failure, const char *reason,
                    struct error *error)
{
    switch (failure) {
    case TLS_FAILURE_PEER_UNTRUSTED:
        if (peer->expected[0]) {
            error_set(
                error, "peer-untrusted",
                "%s showed the key %s, which is not the one trusted here: %s. If its key was really renewed: "
                "watari trust remove, then trust add with the fingerprint that `watari id` prints over there",
                who(peer), peer->shown, peer->expected);
        } else {
            error_set(error, "peer-untrusted",
                      "%s showed the key %s, which no trusted peer has (watari trust list)",
                      who(peer), peer->shown);
        }
        break;
    case TLS_FAILURE_WE_ARE_UNTRUSTED:
        error_set(
            error, "peer-does-not-trust-us",
            "%s does not trust this host: run `watari trust add` there with the fingerprint that `watari id` prints here (%s)",
            who(peer), tls_identity_fingerprint(peer->daemon->identity));
        break;
    case TLS_FAILURE_NONE:
    case TLS_FAILURE_LOST:
        error_set(error, peer->up ? "peer-lost" : "peer-unreachable",
                  "%s: the connection was lost: %s", who(peer), reason);
        break;
    case TLS_FAILURE_PROTOCOL:
        error_set(error, "peer-protocol", "%s does not speak as a watarid does: %s", who(peer),
                  reason);
        break;
    }
}

static void on_failed(enum tls_failure failure, const char *reason, void *context)
{
    struct peer *peer = context;
    struct error error;

    snprintf(peer->shown, sizeof peer->shown, "%s", message_stream_fingerprint(peer->stream));
    explain(peer, failure, reason, &error);
    die(peer, &error);
}

static void on_refused(const uint8_t raw[PREAMBLE_SIZE], void *context)
{
    struct peer *peer = context;
    struct preamble refusal;
    struct error error;

    if (preamble_decode(raw, &refusal) == PREAMBLE_NOT_WATARI || refusal.kind != PREAMBLE_REFUSAL) {
        error_set(&error, "peer-protocol", "%s answers, but not as a watarid does", who(peer));
    } else if (refusal.reason == PREAMBLE_REFUSED_VERSION) {
        error_set(
            &error, "peer-version",
            "%s speaks protocol versions %u to %u, this host %u to %u: bring both to releases that share one",
            who(peer), refusal.version_min, refusal.version_max, PROTOCOL_VERSION_MIN,
            PROTOCOL_VERSION_MAX);
    } else {
        error_set(&error, "peer-busy",
                  "%s has too many connections waiting to authenticate; try again in a few seconds",
                  who(peer));
    }
    die(peer, &error);
}

static void send_hello(struct peer *peer)
{
    char hex[2 * PREAMBLE_SIZE + 1];

    for (size_t i = 0; i < PREAMBLE_SIZE; i++) {
        snprintf(hex + 2 * i, 3, "%02x", peer->greeting[i]);
    }
    message_stream_send(
        peer->stream,
        must_json(json_pack("{ss,ss,si,ss,ss}", "type", "hello", "greeting", hex, "version",
                            PROTOCOL_VERSION_MAX, "host", peer->daemon->host, "software",
                            "watari " WATARI_VERSION)));
}

static void on_secured(void *context)
{
    struct peer *peer = context;

    snprintf(peer->shown, sizeof peer->shown, "%s", message_stream_fingerprint(peer->stream));
    if (!peer->accepted) {
        send_hello(peer);
    }
}

static void set_up(struct peer *peer)
{
    const struct tls_peer *known = tls_trust_by_fingerprint(peer->daemon->trust, peer->shown);

    if (known) {
        snprintf(peer->name, sizeof peer->name, "%s", known->name);
    }
    peer->up = true;
    peer->heard_ms = clock_monotonic_ns() / 1000000;
    event_add(peer->timer, &(struct timeval){PEER_PING_MS / 1000, 0});
    peer_ping(peer);
    peer->handlers.ready(peer, NULL, peer->context);
}

/* The hello inside TLS must repeat what stood in clear outside: else somebody in between changed it. */
static void take_hello(struct peer *peer, const json_t *object)
{
    const char *greeting = json_string_value(json_object_get(object, "greeting"));
    char hex[2 * PREAMBLE_SIZE + 1];
    struct error error;

    for (size_t i = 0; i < PREAMBLE_SIZE; i++) {
        snprintf(hex + 2 * i, 3, "%02x", peer->greeting[i]);
    }
    if (peer->up || strcmp(hex, greeting) != 0) {
        error_set(&error, "peer-protocol",
                  "%s: what was said in clear and what was said in TLS differ", who(peer));
        die(peer, &error);
        return;
    }
    snprintf(peer->host, sizeof peer->host, "%s",
             json_string_value(json_object_get(object, "host")));
    if (peer->accepted) {
        send_hello(peer);
    }
    set_up(peer);
}

static void take_ping(struct peer *peer, const json_t *object)
{
    message_stream_send(
        peer->stream,
        must_json(json_pack("{ss,sO,sI}", "type", "pong", "sent", json_object_get(object, "sent"),
                            "received", (json_int_t)clock_monotonic_ns())));
}

static void take_pong(struct peer *peer, const json_t *object)
{
    int64_t now = (int64_t)clock_monotonic_ns();
    int64_t sent = json_integer_value(json_object_get(object, "sent"));
    int64_t received = json_integer_value(json_object_get(object, "received"));
    struct clock_sample *sample = &peer->samples[peer->sample_next];

    if (sent > now) {
        return;
    }
    /* Cristian's algorithm: the peer's stamp fell, to within half the round trip, in the middle of ours. */
    sample->round_trip = (uint64_t)(now - sent);
    sample->offset = sent + (now - sent) / 2 - received;
    peer->sample_next = (peer->sample_next + 1) % CLOCK_SAMPLES;
    if (peer->sample_count < CLOCK_SAMPLES) {
        peer->sample_count++;
    }
}

static void on_message(enum message_type type, json_t *object, void *context)
{
    struct peer *peer = context;
    struct error error;

    peer->heard_ms = clock_monotonic_ns() / 1000000;
    peer->depth++;
    if (type == MESSAGE_HELLO) {
        take_hello(peer, object);
    } else if (!peer->up) {
        error_set(&error, "peer-protocol", "%s spoke before its hello", who(peer));
        die(peer, &error);
    } else if (type == MESSAGE_PING) {
        take_ping(peer, object);
    } else if (type == MESSAGE_PONG) {
        take_pong(peer, object);
    } else {
        peer->handlers.message(peer, type, object, peer->context);
    }
    leave(peer);
}

static const struct message_stream_handlers dialler_handlers = {on_secured, on_message, on_refused,
                                                                on_failed};
static const struct message_stream_handlers listener_handlers = {on_secured, on_message, NULL,
                                                                 on_failed};

/* By key alone: an accepted peer must be in the store; a dialled one must be the very one that was meant. */
static bool judge(const char *fingerprint, void *context)
{
    const struct peer *peer = context;

    if (peer->expected[0]) {
        return strcmp(fingerprint, peer->expected) == 0;
    }
    return tls_trust_by_fingerprint(peer->daemon->trust, fingerprint) != NULL;
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct peer *peer = context;
    struct error error;

    (void)fd;
    (void)what;
    if (!peer->up) {
        error_set(&error, "peer-unreachable", "%s did not authenticate within %d s", who(peer),
                  PEER_AUTHENTICATE_MS / 1000);
        die(peer, &error);
        return;
    }
    if (clock_monotonic_ns() / 1000000 - peer->heard_ms > peer->daemon->config.patience_ms) {
        error_set(&error, "peer-lost", "%s has been silent for %.1f s", who(peer),
                  peer->daemon->config.patience_ms / 1000.0);
        die(peer, &error);
        return;
    }
    peer_ping(peer);
    event_add(peer->timer, &(struct timeval){PEER_PING_MS / 1000, 0});
}

static struct peer *peer_new(struct daemon *daemon, const struct peer_handlers *handlers,
                             void *context)
{
    struct peer *peer = must_alloc(sizeof *peer);

    peer->daemon = daemon;
    peer->handlers = *handlers;
    peer->context = context;
    peer->timer = evtimer_new(daemon->base, on_timer, peer);
    event_add(peer->timer, &(struct timeval){PEER_AUTHENTICATE_MS / 1000, 0});
    LIST_INSERT_HEAD(&daemon->peers->peers, peer, link);
    return peer;
}

static bool start_stream(struct peer *peer, int fd, struct error *error)
{
    char reason[256];
    struct tls_channel *channel = tls_channel_new_control(
        fd, peer->accepted, peer->daemon->identity, judge, peer, reason, sizeof reason);

    if (!channel) {
        close(fd);
        return error_set(error, "tls-failed", "TLS could not be set up: %s", reason);
    }
    peer->stream =
        message_stream_new(peer->daemon->base, fd, channel,
                           peer->accepted ? &listener_handlers : &dialler_handlers, peer);
    return true;
}

static void on_dialled(int fd, const struct sockaddr *address, socklen_t length,
                       const struct error *error, void *context)
{
    struct peer *peer = context;
    struct error own;

    peer->dial = NULL;
    if (error) {
        own = *error;
        error_prefix(&own, "peer %s: ", peer->name);
        die(peer, &own);
        return;
    }
    memcpy(&peer->address, address, length);
    peer->address_length = length;
    if (!start_stream(peer, fd, &own)) {
        die(peer, &own);
    }
}

struct peer *peer_dial(struct daemon *daemon, const struct tls_peer *known,
                       const struct peer_handlers *handlers, void *context)
{
    struct peer *peer = peer_new(daemon, handlers, context);
    struct preamble greeting = {.kind = PREAMBLE_CONTROL,
                                .version_min = PROTOCOL_VERSION_MIN,
                                .version_max = PROTOCOL_VERSION_MAX};
    char host[TLS_PEER_ADDRESS_SIZE];
    uint16_t port = 0;

    snprintf(peer->name, sizeof peer->name, "%s", known->name);
    snprintf(peer->expected, sizeof peer->expected, "%s", known->fingerprint);
    preamble_encode(&greeting, peer->greeting);
    if (tls_address_split(known->address, host, sizeof host, &port) < 0) {
        /* "-", or a store edited by hand: evdns says that it is no host. */
        snprintf(host, sizeof host, "%s", known->address);
    }
    peer->dial = dial_host(daemon, host, port ? port : CONFIG_DEFAULT_PORT, peer->greeting,
                           on_dialled, peer);
    return peer;
}

struct peer *peer_accept(struct daemon *daemon, int fd, const uint8_t greeting[PREAMBLE_SIZE],
                         const struct peer_handlers *handlers, void *context)
{
    struct peer *peer = peer_new(daemon, handlers, context);
    struct error error;

    peer->accepted = true;
    memcpy(peer->greeting, greeting, PREAMBLE_SIZE);
    peer->address_length = sizeof peer->address;
    if (getpeername(fd, (struct sockaddr *)&peer->address, &peer->address_length) < 0) {
        peer->address_length = 0;
    }
    if (!start_stream(peer, fd, &error)) {
        log_warning("%s", error.text);
        peer_free(peer);
        return NULL;
    }
    return peer;
}

void peer_set_handlers(struct peer *peer, const struct peer_handlers *handlers, void *context)
{
    peer->handlers = *handlers;
    peer->context = context;
}

void peer_send(struct peer *peer, json_t *object)
{
    if (peer->up) {
        message_stream_send(peer->stream, object);
    } else {
        json_decref(object);
    }
}

void peer_ping(struct peer *peer)
{
    if (peer->up) {
        message_stream_send(peer->stream, must_json(json_pack("{ss,sI}", "type", "ping", "sent",
                                                              (json_int_t)clock_monotonic_ns())));
    }
}

const char *peer_name(const struct peer *peer)
{
    return peer->name;
}

const char *peer_fingerprint(const struct peer *peer)
{
    return peer->shown;
}

const char *peer_host(const struct peer *peer)
{
    return peer->host;
}

const struct sockaddr *peer_address(const struct peer *peer, socklen_t *length)
{
    *length = peer->address_length;
    return (const struct sockaddr *)&peer->address;
}

bool peer_clock(const struct peer *peer, int64_t *offset, uint64_t *error_bound)
{
    const struct clock_sample *best = NULL;

    for (size_t i = 0; i < peer->sample_count; i++) {
        if (!best || peer->samples[i].round_trip < best->round_trip) {
            best = &peer->samples[i];
        }
    }
    if (!best) {
        return false;
    }
    *offset = best->offset;
    *error_bound = best->round_trip / 2;
    return true;
}

uint64_t peer_round_trip(const struct peer *peer)
{
    int64_t offset;
    uint64_t half;

    return peer_clock(peer, &offset, &half) ? 2 * half : UINT64_MAX;
}

uint64_t peer_wire_bytes(const struct peer *peer)
{
    return peer->stream ? message_stream_bytes(peer->stream) : 0;
}

struct peer_list *peer_list_new(struct daemon *daemon)
{
    struct peer_list *list = must_alloc(sizeof *list);

    list->daemon = daemon;
    LIST_INIT(&list->peers);
    return list;
}

void peer_list_free(struct peer_list *list)
{
    if (!list) {
        return;
    }
    while (!LIST_EMPTY(&list->peers)) {
        peer_free(LIST_FIRST(&list->peers));
    }
    free(list);
}

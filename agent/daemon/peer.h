/*
 * Control connections between daemons: TCP, the preamble in clear, TLS, then messages (protocol/message.h). Each source migration
 * dials one of its own; the destination answers on it. The listener makes the accepting kind.
 *
 * A connection is "up" when the peer's hello has been read and fits the preamble: only then does a TLS 1.3 client know that its key was
 * accepted. Once a second each side pings; a peer silent for as long as the configuration's patience counts as lost. The smallest round trips give the offset
 * between the hosts' CLOCK_MONOTONIC.
 *
 * Loop thread only. Callbacks may call anything here, peer_free() included.
 */
#ifndef WATARI_DAEMON_PEER_H
#define WATARI_DAEMON_PEER_H

#include "agent/common/error.h"
#include "protocol/message.h"
#include "protocol/preamble.h"
#include "tls/trust.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct daemon;
struct peer;
struct peer_list;

#define PEER_AUTHENTICATE_MS 10000
#define PEER_PING_MS 1000

struct peer_handlers {
    /* Once: NULL when up, else why not, in an operator's words: "peer-unreachable", "peer-untrusted", "peer-does-not-trust-us",
     * "peer-version", "peer-protocol". After an error the connection is dead and waits for peer_free(). */
    void (*ready)(struct peer *peer, const struct error *error, void *context);
    /* A checked message other than hello, ping, pong. OBJECT is borrowed. */
    void (*message)(struct peer *peer, enum message_type type, json_t *object, void *context);
    /* The connection was up and is lost. */
    void (*lost)(struct peer *peer, const struct error *error, void *context);
};

/* The connections of this daemon, for a clean end. */
struct peer_list *peer_list_new(struct daemon *daemon);
void peer_list_free(struct peer_list *list);

/* Dials the trusted peer KNOWN. Never NULL; failures come through handlers->ready. */
struct peer *peer_dial(struct daemon *daemon, const struct tls_peer *known,
                       const struct peer_handlers *handlers, void *context);
/* Takes over an accepted socket whose preamble GREETING has been read. NULL when TLS cannot be set up (logged). */
struct peer *peer_accept(struct daemon *daemon, int fd, const uint8_t greeting[PREAMBLE_SIZE],
                         const struct peer_handlers *handlers, void *context);
/* Gives an accepted, up connection to its migration: from now on its events go there. */
void peer_set_handlers(struct peer *peer, const struct peer_handlers *handlers, void *context);
/* Sends what is queued as far as the socket takes it, and closes. NULL is fine. */
void peer_free(struct peer *peer);

/* Checks and queues OBJECT (stolen). A message that breaks protocol/message.h is a bug: it is logged and the connection ends. */
void peer_send(struct peer *peer, json_t *object);

/* The trust store's name; "" before it is up. */
const char *peer_name(const struct peer *peer);
const char *peer_fingerprint(const struct peer *peer);
/* The host name the peer gave in its hello. */
const char *peer_host(const struct peer *peer);
/* The address that was dialled, or the other end's: lanes go to the same one. */
const struct sockaddr *peer_address(const struct peer *peer, socklen_t *length);
/* Nanoseconds; UINT64_MAX before the first pong. */
uint64_t peer_round_trip(const struct peer *peer);
/* What to add to the peer's CLOCK_MONOTONIC to get ours, with half the smallest round trip as its error bound, both in ns. */
bool peer_clock(const struct peer *peer, int64_t *offset, uint64_t *error_bound);
/* Bytes of messages both ways, frame headers included; TLS's own bytes (some 3 KiB a connection) are not. */
uint64_t peer_wire_bytes(const struct peer *peer);
/* A ping now, besides those each second. */
void peer_ping(struct peer *peer);

/* `watari trust check`: dials, and tells {"reachable","authenticated","host","rtt_us"} or the error. RESULT is borrowed. */
void peer_check(struct daemon *daemon, const char *name,
                void (*done)(json_t *result, const struct error *error, void *context),
                void *context);

#endif

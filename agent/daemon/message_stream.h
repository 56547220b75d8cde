/*
 * MESSAGE frames over one TLS channel on the event loop: bytes on the socket, JSON objects at the other side. Knows neither who the
 * peer is nor what messages mean; peer.c does. Loop thread only; callbacks may free the stream.
 */
#ifndef WATARI_DAEMON_MESSAGE_STREAM_H
#define WATARI_DAEMON_MESSAGE_STREAM_H

#include "protocol/message.h"
#include "protocol/preamble.h"
#include "tls/channel.h"

#include <event2/event.h>
#include <jansson.h>

struct message_stream;

struct message_stream_handlers {
    /* TLS is through (which tells a client nothing of the server's verdict on its key yet). */
    void (*secured)(void *context);
    /* OBJECT is borrowed. */
    void (*message)(enum message_type type, json_t *object, void *context);
    /* The listener answered in clear with a refusal (protocol/preamble.h) instead of TLS; the stream is dead. NULL on the accepting side. */
    void (*refused)(const uint8_t raw[PREAMBLE_SIZE], void *context);
    /* The stream is dead. FAILURE as of tls/channel.h, TLS_FAILURE_NONE when the peer closed in order or broke the message rules. */
    void (*failed)(enum tls_failure failure, const char *reason, void *context);
};

/* Takes over FD and CHANNEL. */
struct message_stream *message_stream_new(struct event_base *base, int fd,
                                          struct tls_channel *channel,
                                          const struct message_stream_handlers *handlers,
                                          void *context);
/* One more try to send what is queued, then closes. NULL is fine. */
void message_stream_free(struct message_stream *stream);

/* Queues OBJECT (stolen), which must be a well-formed message. Never calls back from within. */
void message_stream_send(struct message_stream *stream, json_t *object);
/* Message bytes both ways, frame headers included. */
uint64_t message_stream_bytes(const struct message_stream *stream);
/* The fingerprint the peer showed; "" before. */
const char *message_stream_fingerprint(const struct message_stream *stream);

#endif

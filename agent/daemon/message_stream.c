#include "message_stream.h"

#include "protocol/frame.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* More than this queued means that the peer does not read: it is as good as gone. */
#define OUTPUT_MAX_BYTES (8u << 20)
#define READ_SIZE 16384
/* Bytes read in one turn of the loop: a peer that sends without end must not starve the others. */
#define READ_TURN_BYTES (256u << 10)

struct message_stream {
    int fd;
    struct tls_channel *channel;
    bool secured, dead;
    struct event *readable, *writable;
    struct evbuffer *input, *output;
    uint64_t bytes;
    struct message_stream_handlers handlers;
    void *context;
    unsigned depth;
    bool freed;
};

static void destroy(struct message_stream *stream)
{
    event_free(stream->readable);
    event_free(stream->writable);
    tls_channel_free(stream->channel);
    close(stream->fd);
    evbuffer_free(stream->input);
    evbuffer_free(stream->output);
    free(stream);
}

static void fail(struct message_stream *stream, enum tls_failure failure, const char *reason)
{
    if (stream->dead || stream->freed) {
        return;
    }
    stream->dead = true;
    event_del(stream->readable);
    event_del(stream->writable);
    stream->handlers.failed(failure, reason, stream->context);
}

/* True: the step is done. False: wait, or dead. */
static bool settle(struct message_stream *stream, enum tls_step step)
{
    switch (step) {
    case TLS_OK:
        return true;
    case TLS_WANT_READ:
        return false;
    case TLS_WANT_WRITE:
        event_add(stream->writable, NULL);
        return false;
    case TLS_CLOSED:
        fail(stream, TLS_FAILURE_NONE, "the peer closed the connection");
        return false;
    case TLS_FAILED:
        fail(stream, tls_channel_failure(stream->channel), tls_channel_error(stream->channel));
        return false;
    }
    return false;
}

static void flush_output(struct message_stream *stream)
{
    while (!stream->dead && evbuffer_get_length(stream->output) > 0) {
        size_t ready = evbuffer_get_contiguous_space(stream->output);
        size_t done = 0;

        if (!settle(stream, tls_channel_write(stream->channel,
                                              evbuffer_pullup(stream->output, (ev_ssize_t)ready),
                                              ready, &done))) {
            return;
        }
        evbuffer_drain(stream->output, done);
    }
}

static void take_message(struct message_stream *stream, const uint8_t *body, uint32_t length)
{
    enum message_type type;
    char reason[512];
    json_t *object = message_parse(body, length, &type, reason, sizeof reason);

    if (!object) {
        fail(stream, TLS_FAILURE_NONE, reason);
        return;
    }
    stream->handlers.message(type, object, stream->context);
    json_decref(object);
}

/* Takes one whole frame out of the input; false when there is none. */
static bool take_frame(struct message_stream *stream)
{
    uint8_t raw[FRAME_HEADER_SIZE];
    struct frame_header header;
    enum frame_verdict verdict;
    size_t total;

    if (evbuffer_copyout(stream->input, raw, sizeof raw) < (ev_ssize_t)sizeof raw) {
        return false;
    }
    verdict = frame_header_decode(raw, FRAME_ON_CONTROL, &header);
    if (verdict != FRAME_OK) {
        fail(stream, TLS_FAILURE_NONE, frame_verdict_text(verdict));
        return false;
    }
    total = FRAME_HEADER_SIZE + (size_t)header.length;
    if (evbuffer_get_length(stream->input) < total) {
        return false;
    }
    stream->bytes += total;
    take_message(stream, evbuffer_pullup(stream->input, (ev_ssize_t)total) + FRAME_HEADER_SIZE,
                 header.length);
    evbuffer_drain(stream->input, total);
    return true;
}

static void read_input(struct message_stream *stream)
{
    uint8_t buffer[READ_SIZE];
    size_t turn = 0;

    while (!stream->dead && !stream->freed && turn < READ_TURN_BYTES) {
        size_t done = 0;

        if (!settle(stream, tls_channel_read(stream->channel, buffer, sizeof buffer, &done))) {
            return;
        }
        turn += done;
        evbuffer_add(stream->input, buffer, done);
        while (!stream->dead && !stream->freed && take_frame(stream)) {
        }
    }
    if (!stream->dead && !stream->freed) {
        event_active(stream->readable, EV_READ, 0);
    }
}

/* A TLS record never begins with the preamble's first byte. Looked at before TLS eats it. */
static bool take_refusal(struct message_stream *stream)
{
    uint8_t raw[PREAMBLE_SIZE];

    if (!stream->handlers.refused || recv(stream->fd, raw, sizeof raw, MSG_PEEK) < 1 ||
        raw[0] != 'W' || recv(stream->fd, raw, sizeof raw, 0) != (ssize_t)sizeof raw) {
        return false;
    }
    stream->dead = true;
    event_del(stream->readable);
    event_del(stream->writable);
    stream->handlers.refused(raw, stream->context);
    return true;
}

static void on_ready(evutil_socket_t fd, short what, void *context)
{
    struct message_stream *stream = context;

    (void)fd;
    (void)what;
    stream->depth++;
    if (!stream->secured && !take_refusal(stream) &&
        settle(stream, tls_channel_handshake(stream->channel))) {
        stream->secured = true;
        stream->handlers.secured(stream->context);
    }
    if (stream->secured && !stream->dead && !stream->freed) {
        flush_output(stream);
    }
    if (stream->secured && !stream->dead && !stream->freed) {
        read_input(stream);
    }
    stream->depth--;
    if (stream->freed && stream->depth == 0) {
        destroy(stream);
    }
}

struct message_stream *message_stream_new(struct event_base *base, int fd,
                                          struct tls_channel *channel,
                                          const struct message_stream_handlers *handlers,
                                          void *context)
{
    struct message_stream *stream = must_alloc(sizeof *stream);

    stream->fd = fd;
    stream->channel = channel;
    stream->handlers = *handlers;
    stream->context = context;
    stream->input = evbuffer_new();
    stream->output = evbuffer_new();
    stream->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_ready, stream);
    stream->writable = event_new(base, fd, EV_WRITE, on_ready, stream);
    event_add(stream->readable, NULL);
    event_active(stream->writable, EV_WRITE, 0);
    return stream;
}

void message_stream_free(struct message_stream *stream)
{
    if (!stream || stream->freed) {
        return;
    }
    if (stream->secured && !stream->dead) {
        size_t done;
        size_t left = evbuffer_get_length(stream->output);

        if (left > 0) {
            (void)tls_channel_write(stream->channel, evbuffer_pullup(stream->output, -1), left,
                                    &done);
        }
        (void)tls_channel_shutdown(stream->channel);
    }
    stream->freed = true;
    if (stream->depth == 0) {
        destroy(stream);
    }
}

void message_stream_send(struct message_stream *stream, json_t *object)
{
    uint8_t header[FRAME_HEADER_SIZE];
    enum message_type type;
    char reason[512];
    char *text;
    size_t length;

    if (!message_check(object, &type, reason, sizeof reason)) {
        log_error("a message of ours breaks the rules and was not sent: %s", reason);
        json_decref(object);
        return;
    }
    text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    must_json(text ? json_true() : NULL);
    length = strlen(text);
    if (length > FRAME_CONTROL_BODY_MAX ||
        evbuffer_get_length(stream->output) + length > OUTPUT_MAX_BYTES) {
        log_error("a message of %zu bytes does not fit the connection and was not sent", length);
        free(text);
        return;
    }
    frame_header_encode((uint32_t)length, FRAME_MESSAGE, header);
    evbuffer_add(stream->output, header, sizeof header);
    evbuffer_add(stream->output, text, length);
    free(text);
    stream->bytes += sizeof header + length;
    event_active(stream->writable, EV_WRITE, 0);
}

uint64_t message_stream_bytes(const struct message_stream *stream)
{
    return stream->bytes;
}

const char *message_stream_fingerprint(const struct message_stream *stream)
{
    return tls_channel_peer_fingerprint(stream->channel);
}

/*
 * One secure channel over a connected, non-blocking stream socket: TLS 1.3 only, both sides
 * authenticated. Two kinds:
 *
 *   control   by the hosts' certificates; the peer's key is judged by its fingerprint, through a
 *             callback. ALPN "watari/1".
 *   lane      by a ticket and a key as external PSK with ECDHE (RFC 8446 §2.2, psk_dhe_ke); no
 *             certificate, no host key in the process. ALPN "watari-lane/1".
 *
 * A channel only steps: it never blocks, never waits, starts no thread. An event loop and a lane
 * thread use the same one. One thread at a time; it may move between threads in between. No session
 * tickets, no 0-RTT, no renegotiation. The process must ignore SIGPIPE.
 */
#ifndef WATARI_TLS_CHANNEL_H
#define WATARI_TLS_CHANNEL_H

#include "identity.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_TICKET_SIZE 16
#define TLS_LANE_KEY_SIZE 32

enum tls_step {
    TLS_OK,         /* done, or some bytes moved */
    TLS_WANT_READ,  /* call again when the descriptor is readable */
    TLS_WANT_WRITE, /* call again when it is writable */
    TLS_CLOSED,     /* the peer ended it in order (close_notify) */
    TLS_FAILED,     /* broken for good; tls_channel_error() says why */
};

/* Why a channel failed, as far as an operator must act differently. */
enum tls_failure {
    TLS_FAILURE_NONE,
    /* We refused the peer's key; tls_channel_peer_fingerprint() tells which it showed. */
    TLS_FAILURE_PEER_UNTRUSTED,
    /* The peer refused our key (alerts unknown_ca, bad_certificate, access_denied, ...). */
    TLS_FAILURE_WE_ARE_UNTRUSTED,
    /* The connection broke: reset, timed out, EOF without close_notify. */
    TLS_FAILURE_LOST,
    /* Not TLS 1.3, wrong ALPN, wrong lane ticket or key, no host key, damaged record. */
    TLS_FAILURE_PROTOCOL,
};

/* Judges the fingerprint a control peer showed; true lets it in. */
typedef bool (*tls_judge)(const char *fingerprint, void *context);

struct tls_channel;

/*
 * FD stays the caller's: the channel never closes it, and must be freed before the caller does. It
 * must be non-blocking (asserted). SERVER tells the TLS role. IDENTITY and what JUDGE uses must
 * outlive the channel. TICKET and KEY are copied, and the copies wiped when the handshake is over.
 * Returns NULL only when memory or OpenSSL's set-up fails, with a sentence in ERROR.
 */
struct tls_channel *tls_channel_new_control(int fd, bool server,
                                            const struct tls_identity *identity, tls_judge judge,
                                            void *judge_context, char *error, size_t error_size);
struct tls_channel *tls_channel_new_lane(int fd, bool server, const uint8_t ticket[TLS_TICKET_SIZE],
                                         const uint8_t key[TLS_LANE_KEY_SIZE], char *error,
                                         size_t error_size);
void tls_channel_free(struct tls_channel *channel);

/*
 * Until TLS_OK. To a TLS 1.3 client OK does not mean that the server accepted its certificate; only
 * a first byte read does. Never TLS_CLOSED: a peer that ends it here is a failure.
 */
enum tls_step tls_channel_handshake(struct tls_channel *channel);

/*
 * Both only after the handshake's TLS_OK (asserted), with SIZE above 0. TLS_OK: *done > 0 bytes
 * were moved, at most one record's 16 KiB. A short write is normal; after WANT_* repeat with the
 * same bytes (the buffer may move). A read that failed is the end of both directions; after a write
 * that failed as LOST, what the peer sent before it left can still be read.
 */
enum tls_step tls_channel_read(struct tls_channel *channel, void *buffer, size_t size,
                               size_t *done);
enum tls_step tls_channel_write(struct tls_channel *channel, const void *buffer, size_t size,
                                size_t *done);
/*
 * RFC 8446 §5.5: so much may be protected under one AES-GCM key, each record counted as a full one,
 * whatever is in it. The next write after that renews the sending key first, by a KeyUpdate: no round
 * trip, and the peer takes it within a read. BYTES: sooner, from 16 KiB on. (The write that gets there
 * is one with the old key to its end: the true limit, 388 GB, is far.)
 */
#define TLS_KEY_BYTES_MAX (256ull << 30)
void tls_channel_renew_after(struct tls_channel *channel, uint64_t bytes);
/* How often that was done. */
uint64_t tls_channel_renewals(const struct tls_channel *channel);
/*
 * Sends close_notify, as far as the socket takes it; TLS_OK also when there is nothing to end (no
 * handshake yet, or sent already). The other direction stays open. While a write waits to be
 * repeated it answers TLS_WANT_WRITE: finish that write, or close the descriptor and have the peer
 * see a lost connection.
 */
enum tls_step tls_channel_shutdown(struct tls_channel *channel);
/* Bytes that a read would find inside: poll() will not tell of them. False when only a part of a
 * record is there; then the descriptor will become readable. */
bool tls_channel_has_pending(const struct tls_channel *channel);

enum tls_failure tls_channel_failure(const struct tls_channel *channel);
/* A sentence; "" while nothing failed. */
const char *tls_channel_error(const struct tls_channel *channel);
/* What the peer showed, also when it was refused; "" before that and on a lane. That the key is the
 * peer's own is proven only when the handshake is done. */
const char *tls_channel_peer_fingerprint(const struct tls_channel *channel);
/* The suite's name as RFC 8446 has it, "TLS_AES_128_GCM_SHA256"; "" before the handshake's end. A
 * lane's is one that is fast on both CPUs. */
const char *tls_channel_cipher(const struct tls_channel *channel);

#endif

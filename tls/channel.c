/*
 * One secure channel. See channel.h. Everything is built per channel, also OpenSSL's context: a
 * process has few of them, and nothing is shared between threads.
 */
#include "channel.h"
#include "cpu.h"
#include "error.h"
#include "failure.h"
#include "fingerprint.h"
#include "identity_private.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERROR_SIZE 256
/* As they stand on the wire: a length byte, then the name (RFC 7301 §3.1). */
#define CONTROL_ALPN "\x08watari/1"
#define LANE_ALPN "\x0dwatari-lane/1"
#define CONTROL_CIPHERSUITES \
    "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
/* Both of one hash, because an external PSK belongs to one (RFC 8446 §4.2.11): so AES with 128 bits,
 * which is what the key exchange has. Which of them comes first, the CPU says. */
#define LANE_CIPHERSUITES_AES "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
#define LANE_CIPHERSUITES_NO_AES "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
/* One of that hash, as SSL_CIPHER_find() wants it: TLS_AES_128_GCM_SHA256. */
#define LANE_CIPHERSUITE_NUMBER "\x13\x01"
/* 128 bits: what Ed25519 and X25519 have, and nothing weaker. */
#define SECURITY_LEVEL 3
/* A host's certificate has some 350 bytes; a stranger gets no more memory than this for his. */
#define CERTIFICATES_SIZE_MAX 8192

/* A full record's payload. */
#define RECORD_SIZE (16u << 10)

struct tls_channel {
    SSL *ssl;
    tls_judge judge; /* control only */
    void *judge_context;
    bool lane;
    bool established;  /* handshake done and checked */
    bool record_waits; /* OpenSSL holds a record of a write that must be repeated */
    uint64_t key_records,
        key_records_max; /* protected under the sending key, and how many may be */
    uint64_t renewals;
    bool read_starved; /* the last read found no whole record in what is buffered */
    bool close_sent;
    bool read_over;
    bool write_over;
    bool ticket_unknown; /* server: the peer showed tickets, and not ours */
    enum tls_failure failure;
    char error[ERROR_SIZE];
    char peer_fingerprint[TLS_FINGERPRINT_SIZE];
    uint8_t ticket[TLS_TICKET_SIZE]; /* lane only; wiped with the key when the handshake is over */
    uint8_t key[TLS_LANE_KEY_SIZE];
};

/* --- failing --- */

/* Keeps the first cause: what follows from it would only hide it. */
static void set_failure(struct tls_channel *channel, enum tls_failure failure, const char *text,
                        ...) __attribute__((format(printf, 3, 4)));

static void set_failure(struct tls_channel *channel, enum tls_failure failure, const char *text,
                        ...)
{
    va_list arguments;

    if (channel->failure != TLS_FAILURE_NONE) {
        return;
    }
    channel->failure = failure;
    va_start(arguments, text);
    vsnprintf(channel->error, sizeof(channel->error), text, arguments);
    va_end(arguments);
}

static void wipe_lane_secrets(struct tls_channel *channel)
{
    OPENSSL_cleanse(channel->ticket, sizeof(channel->ticket));
    OPENSSL_cleanse(channel->key, sizeof(channel->key));
}

static enum tls_step break_off(struct tls_channel *channel)
{
    channel->read_over = true;
    channel->write_over = true;
    wipe_lane_secrets(channel);
    return TLS_FAILED;
}

/* The step that RESULT of an OpenSSL call amounts to, failures recorded. Call with errno as that
 * call left it. */
static enum tls_step step_of(struct tls_channel *channel, int result, const char *doing)
{
    const int errno_value = errno;
    const int ssl_error = SSL_get_error(channel->ssl, result);
    char sentence[ERROR_SIZE];
    enum tls_failure failure;

    switch (ssl_error) {
    case SSL_ERROR_NONE:
        return TLS_OK;
    case SSL_ERROR_WANT_READ:
        return TLS_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_CLOSED;
    default:
        break;
    }
    failure =
        tls_failure_of(ssl_error, errno_value, channel->lane, doing, sentence, sizeof(sentence));
    set_failure(channel, failure, "%s", sentence);
    return TLS_FAILED;
}

/* Before each call of OpenSSL: it believes whatever an earlier user of this thread left behind. */
static void forget_errors(void)
{
    ERR_clear_error();
    errno = 0;
}

/* --- OpenSSL's questions during the handshake; CONTEXT is the channel --- */

/* A hello without ALPN would otherwise pass: OpenSSL asks select_alpn() only when there is
 * something to select from. */
static int require_alpn(SSL *ssl, int *alert, void *context)
{
    struct tls_channel *channel = context;
    const unsigned char *extension;
    size_t size;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation,
                                  &extension, &size) == 1) {
        return SSL_CLIENT_HELLO_SUCCESS;
    }
    set_failure(channel, TLS_FAILURE_PROTOCOL, "the peer names no protocol (ALPN)");
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
}

static const char *alpn_of(const struct tls_channel *channel)
{
    return channel->lane ? LANE_ALPN : CONTROL_ALPN;
}

static int select_alpn(SSL *ssl, const unsigned char **selected, unsigned char *selected_size,
                       const unsigned char *offered, unsigned offered_size, void *context)
{
    struct tls_channel *channel = context;
    const char *alpn = alpn_of(channel);
    const size_t size = strlen(alpn);

    (void)ssl;
    for (size_t at = 0; at < offered_size; at += 1u + offered[at]) {
        if (size <= offered_size - at && memcmp(offered + at, alpn, size) == 0) {
            *selected = (const unsigned char *)alpn + 1;
            *selected_size = (unsigned char)(size - 1);
            return SSL_TLSEXT_ERR_OK;
        }
    }
    set_failure(channel, TLS_FAILURE_PROTOCOL, "the peer speaks another protocol than %s (ALPN)",
                alpn + 1);
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Judges the key a control peer shows. That the peer has the private half TLS proves after this.
 * Dates and names in the certificate say nothing: the key is pinned. */
static int judge_certificate(X509_STORE_CTX *chain, void *context)
{
    struct tls_channel *channel = context;
    const X509 *certificate = X509_STORE_CTX_get0_cert(chain);
    const EVP_PKEY *key = certificate != NULL ? X509_get0_pubkey(certificate) : NULL;

    if (key == NULL || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) {
        set_failure(channel, TLS_FAILURE_PEER_UNTRUSTED,
                    "the peer's key is not an Ed25519 key, as host keys are");
        X509_STORE_CTX_set_error(chain, X509_V_ERR_INVALID_PURPOSE); /* unsupported_certificate */
        return 0;
    }
    if (!tls_fingerprint_of(key, channel->peer_fingerprint)) {
        X509_STORE_CTX_set_error(chain, X509_V_ERR_OUT_OF_MEM); /* internal_error */
        return 0;
    }
    if (!channel->judge(channel->peer_fingerprint, channel->judge_context)) {
        set_failure(channel, TLS_FAILURE_PEER_UNTRUSTED,
                    "the peer's key %s is not trusted by this host", channel->peer_fingerprint);
        X509_STORE_CTX_set_error(chain, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT); /* unknown_ca */
        return 0;
    }
    X509_STORE_CTX_set_error(chain, X509_V_OK);
    return 1;
}

/* A lane's server that shows a certificate has not taken our ticket. */
static int refuse_certificate(X509_STORE_CTX *chain, void *context)
{
    set_failure(context, TLS_FAILURE_PROTOCOL, "the peer shows a certificate instead of a ticket");
    X509_STORE_CTX_set_error(chain, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT);
    return 0;
}

/* The lane's key as OpenSSL wants an external PSK. OpenSSL's to free; NULL without memory. */
static SSL_SESSION *make_lane_session(SSL *ssl, const struct tls_channel *channel)
{
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, (const unsigned char *)LANE_CIPHERSUITE_NUMBER);
    SSL_SESSION *session = SSL_SESSION_new();

    if (cipher == NULL || session == NULL ||
        SSL_SESSION_set1_master_key(session, channel->key, sizeof(channel->key)) != 1 ||
        SSL_SESSION_set_cipher(session, cipher) != 1 ||
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1) {
        SSL_SESSION_free(session);
        return NULL;
    }
    return session;
}

static int show_ticket(SSL *ssl, const EVP_MD *hash, const unsigned char **identity, size_t *size,
                       SSL_SESSION **session)
{
    struct tls_channel *channel = SSL_get_app_data(ssl);

    (void)hash; /* only suites of one hash are on offer */
    *session = make_lane_session(ssl, channel);
    *identity = channel->ticket;
    *size = sizeof(channel->ticket);
    return *session != NULL;
}

static int check_ticket(SSL *ssl, const unsigned char *identity, size_t size, SSL_SESSION **session)
{
    struct tls_channel *channel = SSL_get_app_data(ssl);

    *session = NULL;
    channel->ticket_unknown =
        size != sizeof(channel->ticket) ||
        CRYPTO_memcmp(identity, channel->ticket, sizeof(channel->ticket)) != 0;
    if (channel->ticket_unknown) {
        return 1; /* OpenSSL goes on without a PSK, and without a certificate that ends it */
    }
    *session = make_lane_session(ssl, channel);
    return *session != NULL;
}

/* --- setting up --- */

/* Everything is set here, whatever /etc/ssl/openssl.cnf says. */
static bool set_common(SSL_CTX *context, struct tls_channel *channel)
{
    const char *alpn = alpn_of(channel);

    SSL_CTX_clear_options(context, SSL_OP_NO_TLSv1_3 | SSL_OP_ALLOW_NO_DHE_KEX |
                                       SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_options(context,
                        SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    /* Not SSL_MODE_RELEASE_BUFFERS: it would save some 35 KB on an idle channel, of which a process
     * has a few dozen, and lanes are never idle. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_AUTO_RETRY | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_clear_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_max_cert_list(context, CERTIFICATES_SIZE_MAX);
    SSL_CTX_set_client_hello_cb(context, require_alpn, channel);
    SSL_CTX_set_alpn_select_cb(context, select_alpn, channel);
    SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(context, "X25519") == 1 &&
           SSL_CTX_set1_sigalgs_list(context, "ed25519") == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1 &&
           SSL_CTX_set_max_early_data(context, 0) == 1 &&
           SSL_CTX_set_recv_max_early_data(context, 0) == 1 &&
           SSL_CTX_set_alpn_protos(context, (const unsigned char *)alpn, (unsigned)strlen(alpn)) ==
               0; /* unlike all others, 0 is success here */
}

static bool set_control(SSL_CTX *context, struct tls_channel *channel,
                        const struct tls_identity *identity)
{
    /* The control connection carries the lanes' keys: no copy of them stays in OpenSSL's buffers.
     */
    SSL_CTX_set_options(context, SSL_OP_CLEANSE_PLAINTEXT);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(context, judge_certificate, channel);
    return SSL_CTX_set_ciphersuites(context, CONTROL_CIPHERSUITES) == 1 &&
           SSL_CTX_use_certificate(context, identity->certificate) == 1 &&
           SSL_CTX_use_PrivateKey(context, identity->key) == 1;
}

static bool set_lane(SSL_CTX *context, struct tls_channel *channel, bool server)
{
    if (server) {
        /* ChaCha20 when either side is better at it. */
        SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
        SSL_CTX_set_psk_find_session_callback(context, check_ticket);
    } else {
        SSL_CTX_set_psk_use_session_callback(context, show_ticket);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_cert_verify_callback(context, refuse_certificate, channel);
    }
    return SSL_CTX_set_ciphersuites(context, tls_cpu_has_aes() ? LANE_CIPHERSUITES_AES
                                                               : LANE_CIPHERSUITES_NO_AES) == 1;
}

static bool attach(struct tls_channel *channel, SSL_CTX *context, int fd, bool server)
{
    channel->ssl = SSL_new(context);
    if (channel->ssl == NULL || SSL_set_app_data(channel->ssl, channel) != 1 ||
        SSL_set_fd(channel->ssl, fd) != 1) {
        return false;
    }
    if (server) {
        SSL_set_accept_state(channel->ssl);
    } else {
        SSL_set_connect_state(channel->ssl);
    }
    return true;
}

/* CHANNEL's kind is set, and what belongs to it; takes CHANNEL (NULL: there was no memory) and
 * frees it on failure. */
static struct tls_channel *open_channel(struct tls_channel *channel, int fd, bool server,
                                        const struct tls_identity *identity, char *error,
                                        size_t error_size)
{
    SSL_CTX *context = NULL;

    assert((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    if (channel == NULL) {
        tls_error(error, error_size, -ENOMEM, "cannot set up TLS: out of memory");
        return NULL;
    }
    tls_channel_renew_after(channel, TLS_KEY_BYTES_MAX);
    forget_errors();
    context = SSL_CTX_new(TLS_method());
    if (context == NULL || !set_common(context, channel)) {
        goto fail;
    }
    if (channel->lane ? !set_lane(context, channel, server)
                      : !set_control(context, channel, identity)) {
        goto fail;
    }
    if (!attach(channel, context, fd, server)) {
        goto fail;
    }
    SSL_CTX_free(context); /* the SSL holds it now */
    return channel;
fail:
    tls_error(error, error_size, -EIO, "cannot set up TLS: %s", tls_openssl_reason());
    ERR_clear_error();
    SSL_CTX_free(context);
    tls_channel_free(channel);
    return NULL;
}

struct tls_channel *tls_channel_new_control(int fd, bool server,
                                            const struct tls_identity *identity, tls_judge judge,
                                            void *judge_context, char *error, size_t error_size)
{
    struct tls_channel *channel = calloc(1, sizeof(*channel));

    assert(identity != NULL && judge != NULL);
    if (channel != NULL) {
        channel->judge = judge;
        channel->judge_context = judge_context;
    }
    return open_channel(channel, fd, server, identity, error, error_size);
}

struct tls_channel *tls_channel_new_lane(int fd, bool server, const uint8_t ticket[TLS_TICKET_SIZE],
                                         const uint8_t key[TLS_LANE_KEY_SIZE], char *error,
                                         size_t error_size)
{
    struct tls_channel *channel = calloc(1, sizeof(*channel));

    if (channel != NULL) {
        channel->lane = true;
        memcpy(channel->ticket, ticket, TLS_TICKET_SIZE);
        memcpy(channel->key, key, TLS_LANE_KEY_SIZE);
    }
    return open_channel(channel, fd, server, NULL, error, error_size);
}

void tls_channel_free(struct tls_channel *channel)
{
    if (channel == NULL) {
        return;
    }
    wipe_lane_secrets(channel);
    SSL_free(channel->ssl); /* leaves the descriptor open */
    free(channel);
}

/* --- stepping --- */

/* What OpenSSL does not insist on by itself. */
static bool check_established(struct tls_channel *channel)
{
    const char *alpn = alpn_of(channel);
    const unsigned char *selected = NULL;
    unsigned size = 0;

    SSL_get0_alpn_selected(channel->ssl, &selected, &size);
    if (size != strlen(alpn) - 1 || memcmp(selected, alpn + 1, size) != 0) {
        set_failure(channel, TLS_FAILURE_PROTOCOL, "the peer does not speak %s (ALPN)", alpn + 1);
        return false;
    }
    if (channel->lane ? SSL_session_reused(channel->ssl) != 1
                      : channel->peer_fingerprint[0] == '\0') {
        set_failure(channel, TLS_FAILURE_PROTOCOL, "the peer did not prove who it is");
        return false;
    }
    return true;
}

enum tls_step tls_channel_handshake(struct tls_channel *channel)
{
    enum tls_step step;

    if (channel->failure != TLS_FAILURE_NONE) {
        return TLS_FAILED;
    }
    if (channel->established) {
        return TLS_OK;
    }
    forget_errors();
    step = step_of(channel, SSL_do_handshake(channel->ssl), "shaking hands");
    if (step == TLS_WANT_READ || step == TLS_WANT_WRITE) {
        return step;
    }
    if (channel->ticket_unknown && step == TLS_FAILED && channel->failure == TLS_FAILURE_PROTOCOL) {
        snprintf(channel->error, sizeof(channel->error), "the peer showed another lane's ticket");
    }
    if (step == TLS_CLOSED) {
        set_failure(channel, TLS_FAILURE_LOST,
                    "the peer closed the connection while shaking hands");
    }
    if (step != TLS_OK || !check_established(channel)) {
        return break_off(channel);
    }
    wipe_lane_secrets(channel);
    channel->established = true;
    return TLS_OK;
}

enum tls_step tls_channel_read(struct tls_channel *channel, void *buffer, size_t size, size_t *done)
{
    enum tls_step step;

    *done = 0;
    if (channel->read_over) {
        return TLS_FAILED;
    }
    assert(channel->established && size > 0);
    forget_errors();
    step = step_of(channel, SSL_read_ex(channel->ssl, buffer, size, done), "reading");
    channel->read_starved = step == TLS_WANT_READ;
    return step == TLS_FAILED ? break_off(channel) : step;
}

/*
 * A peer that refuses us sends an alert and leaves; our next write finds only that it left, but the
 * alert has arrived before that and can be read. So can what it said in earnest: that stays for
 * tls_channel_read().
 */
static void explain_lost_write(struct tls_channel *channel)
{
    const enum tls_failure write_failure = channel->failure;
    char write_error[ERROR_SIZE];
    char byte;
    size_t size;
    enum tls_step step;

    memcpy(write_error, channel->error, sizeof(write_error));
    channel->failure = TLS_FAILURE_NONE;
    forget_errors();
    step = step_of(channel, SSL_peek_ex(channel->ssl, &byte, 1, &size), "reading");
    if (step == TLS_FAILED) {
        channel->read_over = true;
    }
    if (channel->failure == TLS_FAILURE_NONE || channel->failure == TLS_FAILURE_LOST) {
        channel->failure = write_failure;
        memcpy(channel->error, write_error, sizeof(write_error));
    }
}

void tls_channel_renew_after(struct tls_channel *channel, uint64_t bytes)
{
    assert(bytes >= RECORD_SIZE && bytes <= TLS_KEY_BYTES_MAX);
    channel->key_records_max = bytes / RECORD_SIZE;
}

uint64_t tls_channel_renewals(const struct tls_channel *channel)
{
    return channel->renewals;
}

/* A KeyUpdate (RFC 8446 §4.6.3) goes before the next record. Not while one waits to be repeated: that
 * one is protected already. */
static bool renew_key(struct tls_channel *channel)
{
    if (channel->record_waits || channel->key_records < channel->key_records_max) {
        return true;
    }
    if (SSL_key_update(channel->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1) {
        set_failure(channel, TLS_FAILURE_PROTOCOL, "the sending key could not be renewed");
        return false;
    }
    channel->key_records = 0;
    channel->renewals++;
    return true;
}

enum tls_step tls_channel_write(struct tls_channel *channel, const void *buffer, size_t size,
                                size_t *done)
{
    enum tls_step step;

    *done = 0;
    if (channel->write_over) {
        return TLS_FAILED;
    }
    assert(channel->established && size > 0);
    forget_errors();
    if (!renew_key(channel)) {
        return break_off(channel);
    }
    step = step_of(channel, SSL_write_ex(channel->ssl, buffer, size, done), "writing");
    channel->record_waits = step == TLS_WANT_READ || step == TLS_WANT_WRITE;
    channel->key_records += (*done + RECORD_SIZE - 1) / RECORD_SIZE;
    if (step != TLS_FAILED) {
        return step;
    }
    if (channel->failure != TLS_FAILURE_LOST) {
        return break_off(channel);
    }
    channel->write_over = true;
    if (!channel->read_over) {
        explain_lost_write(channel);
    }
    return TLS_FAILED;
}

enum tls_step tls_channel_shutdown(struct tls_channel *channel)
{
    enum tls_step step;
    int result;

    if (channel->write_over) {
        return TLS_FAILED;
    }
    if (!channel->established || channel->close_sent) {
        return TLS_OK;
    }
    if (channel->record_waits) {
        return TLS_WANT_WRITE; /* nothing fits into the middle of a record */
    }
    forget_errors();
    result = SSL_shutdown(channel->ssl);
    step = result >= 0 ? TLS_OK : step_of(channel, result, "closing");
    channel->close_sent = step == TLS_OK;
    channel->write_over = step == TLS_FAILED;
    return step;
}

bool tls_channel_has_pending(const struct tls_channel *channel)
{
    /* SSL_has_pending() also counts part of a record, which no read can deliver before more has
     * come. */
    return channel->established && !channel->read_over && !channel->read_starved &&
           SSL_has_pending(channel->ssl) == 1;
}

enum tls_failure tls_channel_failure(const struct tls_channel *channel)
{
    return channel->failure;
}

const char *tls_channel_error(const struct tls_channel *channel)
{
    return channel->error;
}

const char *tls_channel_peer_fingerprint(const struct tls_channel *channel)
{
    return channel->peer_fingerprint;
}

const char *tls_channel_cipher(const struct tls_channel *channel)
{
    return channel->established ? SSL_get_cipher_name(channel->ssl) : "";
}

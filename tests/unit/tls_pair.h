/*
 * Two ends of a connection for the tests of secure channels: channels, or peers of OpenSSL's making
 * that are not watari, and what to assert of them. For one test program; everything is static.
 */
#ifndef WATARI_TESTS_TLS_PAIR_H
#define WATARI_TESTS_TLS_PAIR_H

#include "tls/channel.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define ERROR_SIZE 512
#define CLIENT 0
#define SERVER 1

static const uint8_t ticket[TLS_TICKET_SIZE] = "0123456789abcdef";
static const uint8_t other_ticket[TLS_TICKET_SIZE] = "0123456789abcdeF";
static const uint8_t key[TLS_LANE_KEY_SIZE] = {1, 2, 3};
static const uint8_t other_key[TLS_LANE_KEY_SIZE] = {1, 2, 4};

/* Both ends of a connection. A raw end (SSL of our own making, no channel) plays a peer that is not
 * watari. */
struct pair {
    int fds[2];
    struct tls_channel *channels[2];
    SSL *raw[2];
    bool trusts[2]; /* what each side's judge says */
    char judged[2][TLS_FINGERPRINT_SIZE];
    struct side {
        struct pair *pair;
        int role;
    } sides[2];
};

static struct tls_identity *identities[2];
static char directories[2][64];

static int make_identities(void **state)
{
    char error[ERROR_SIZE];

    (void)state;
    for (int i = 0; i < 2; i++) {
        strcpy(directories[i], "/tmp/test-tls-channel.XXXXXX");
        assert_non_null(mkdtemp(directories[i]));
        assert_int_equal(
            tls_identity_load_or_create(directories[i], &identities[i], error, sizeof(error)), 0);
    }
    return 0;
}

static int remove_identities(void **state)
{
    char path[200];

    (void)state;
    for (int i = 0; i < 2; i++) {
        tls_identity_free(identities[i]);
        snprintf(path, sizeof(path), "%s/host.key", directories[i]);
        unlink(path);
        snprintf(path, sizeof(path), "%s/host.crt", directories[i]);
        unlink(path);
        assert_int_equal(rmdir(directories[i]), 0);
    }
    return 0;
}

static int make_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof(*pair));

    assert_non_null(pair);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair->fds),
                     0);
    for (int i = 0; i < 2; i++) {
        pair->sides[i] = (struct side){pair, i};
        pair->trusts[i] = true;
    }
    *state = pair;
    return 0;
}

static void drop_end(struct pair *pair, int role)
{
    tls_channel_free(pair->channels[role]);
    SSL_free(pair->raw[role]);
    pair->channels[role] = NULL;
    pair->raw[role] = NULL;
    if (pair->fds[role] >= 0) {
        close(pair->fds[role]);
    }
    pair->fds[role] = -1;
}

static int free_pair(void **state)
{
    struct pair *pair = *state;

    drop_end(pair, CLIENT);
    drop_end(pair, SERVER);
    free(pair);
    return 0;
}

/* For a test with several connections. */
static struct pair *renew_pair(void **state)
{
    free_pair(state);
    make_pair(state);
    return *state;
}

static bool judge(const char *fingerprint, void *context)
{
    const struct side *side = context;

    strcpy(side->pair->judged[side->role], fingerprint);
    return side->pair->trusts[side->role];
}

static void open_control(struct pair *pair, int role)
{
    char error[ERROR_SIZE] = "";

    pair->channels[role] =
        tls_channel_new_control(pair->fds[role], role == SERVER, identities[role], judge,
                                &pair->sides[role], error, sizeof(error));
    assert_string_equal(error, "");
    assert_non_null(pair->channels[role]);
}

static void open_lane(struct pair *pair, int role, const uint8_t *its_ticket,
                      const uint8_t *its_key)
{
    char error[ERROR_SIZE] = "";

    pair->channels[role] = tls_channel_new_lane(pair->fds[role], role == SERVER, its_ticket,
                                                its_key, error, sizeof(error));
    assert_string_equal(error, "");
    assert_non_null(pair->channels[role]);
}

static void open_kind(struct pair *pair, bool lane)
{
    for (int role = CLIENT; role <= SERVER; role++) {
        if (lane) {
            open_lane(pair, role, ticket, key);
        } else {
            open_control(pair, role);
        }
    }
}

/* A peer of OpenSSL's making that takes whatever it is shown; the caller sets it up further before
 * the handshake. */
static SSL *open_raw(struct pair *pair, int role, SSL_CTX *context)
{
    SSL *ssl = SSL_new(context);

    assert_non_null(ssl);
    assert_int_equal(SSL_set_fd(ssl, pair->fds[role]), 1);
    if (role == SERVER) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set_connect_state(ssl);
    }
    pair->raw[role] = ssl;
    SSL_CTX_free(context);
    return ssl;
}

/* With a certificate around KIND of key ("ED25519", "P-256"), which it needs not be trusted for;
 * NULL: without. */
static SSL_CTX *new_raw_context(const char *kind)
{
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    EVP_PKEY *raw_key;
    X509 *certificate;

    assert_non_null(context);
    if (kind == NULL) {
        return context;
    }
    raw_key = strcmp(kind, "P-256") == 0 ? EVP_EC_gen(kind) : EVP_PKEY_Q_keygen(NULL, NULL, kind);
    certificate = X509_new();
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), 0));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 60));
    assert_int_equal(X509_set_pubkey(certificate, raw_key), 1);
    assert_int_not_equal(
        X509_sign(certificate, raw_key, strcmp(kind, "P-256") == 0 ? EVP_sha256() : NULL), 0);
    assert_int_equal(SSL_CTX_use_certificate(context, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, raw_key), 1);
    X509_free(certificate);
    EVP_PKEY_free(raw_key);
    return context;
}

static void set_raw_alpn(SSL *ssl, const char *alpn)
{
    unsigned char wire[64];

    wire[0] = (unsigned char)strlen(alpn);
    memcpy(wire + 1, alpn, strlen(alpn));
    assert_int_equal(SSL_set_alpn_protos(ssl, wire, 1u + wire[0]), 0);
}

static enum tls_step step_handshake(struct pair *pair, int role)
{
    if (pair->channels[role] != NULL) {
        return tls_channel_handshake(pair->channels[role]);
    }
    if (pair->raw[role] != NULL) {
        int result = SSL_do_handshake(pair->raw[role]);
        int error = SSL_get_error(pair->raw[role], result);
        return result == 1                     ? TLS_OK
               : error == SSL_ERROR_WANT_READ  ? TLS_WANT_READ
               : error == SSL_ERROR_WANT_WRITE ? TLS_WANT_WRITE
                                               : TLS_FAILED;
    }
    return TLS_FAILED;
}

static bool wants(enum tls_step step)
{
    return step == TLS_WANT_READ || step == TLS_WANT_WRITE;
}

/* Steps both ends until each is done or failed, or nothing more happens. */
static void shake_hands(struct pair *pair, enum tls_step steps[2])
{
    steps[CLIENT] = steps[SERVER] = TLS_WANT_READ;
    for (int turn = 0; turn < 20 && (wants(steps[CLIENT]) || wants(steps[SERVER])); turn++) {
        for (int role = CLIENT; role <= SERVER; role++) {
            if (wants(steps[role])) {
                steps[role] = step_handshake(pair, role);
            }
        }
    }
}

static void assert_shaken(struct pair *pair)
{
    enum tls_step steps[2];

    shake_hands(pair, steps);
    for (int role = CLIENT; role <= SERVER; role++) {
        if (steps[role] != TLS_OK) {
            fail_msg("role %d: step %d: %s", role, steps[role],
                     pair->channels[role] != NULL ? tls_channel_error(pair->channels[role])
                                                  : "raw");
        }
    }
}

static void assert_failure(const struct tls_channel *channel, enum tls_failure failure,
                           const char *words)
{
    if (tls_channel_failure(channel) != failure ||
        strstr(tls_channel_error(channel), words) == NULL) {
        fail_msg("failure %d: \"%s\" instead of %d: \"%s\"", tls_channel_failure(channel),
                 tls_channel_error(channel), failure, words);
    }
}

static enum tls_step read_some(struct tls_channel *channel, void *buffer, size_t size, size_t *done)
{
    enum tls_step step = tls_channel_read(channel, buffer, size, done);

    assert_int_equal(*done > 0, step == TLS_OK);
    return step;
}

static void assert_read_fails(struct tls_channel *channel, enum tls_failure failure,
                              const char *words)
{
    char buffer[100];
    size_t done;

    assert_int_equal(read_some(channel, buffer, sizeof(buffer), &done), TLS_FAILED);
    assert_failure(channel, failure, words);
    assert_int_equal(read_some(channel, buffer, sizeof(buffer), &done), TLS_FAILED);
    assert_false(tls_channel_has_pending(channel));
}

static void send_text(struct tls_channel *channel, const char *text)
{
    size_t done = 0;

    assert_int_equal(tls_channel_write(channel, text, strlen(text), &done), TLS_OK);
    assert_int_equal(done, strlen(text));
}

static void assert_text_comes(struct tls_channel *channel, const char *text)
{
    char buffer[100];
    size_t done = 0;

    assert_int_equal(read_some(channel, buffer, sizeof(buffer), &done), TLS_OK);
    assert_int_equal(done, strlen(text));
    assert_memory_equal(buffer, text, done);
}

static void assert_talks(struct pair *pair)
{
    send_text(pair->channels[CLIENT], "hello");
    send_text(pair->channels[SERVER], "good day");
    assert_text_comes(pair->channels[SERVER], "hello");
    assert_text_comes(pair->channels[CLIENT], "good day");
}

/* A connection over loopback in the place of the socket pair. */
static void replace_by_tcp(struct pair *pair)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    drop_end(pair, CLIENT);
    drop_end(pair, SERVER);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    pair->fds[CLIENT] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(pair->fds[CLIENT], (struct sockaddr *)&address, size), 0);
    pair->fds[SERVER] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(pair->fds[SERVER] >= 0);
    assert_int_equal(fcntl(pair->fds[CLIENT], F_SETFL, O_NONBLOCK), 0);
    close(listener);
}

static void await_input(int fd)
{
    assert_int_equal(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 5000), 1);
}

static void assert_both_fail(struct pair *pair, const char *client_words, const char *server_words)
{
    enum tls_step steps[2];

    shake_hands(pair, steps);
    assert_int_equal(steps[CLIENT], TLS_FAILED);
    assert_int_equal(steps[SERVER], TLS_FAILED);
    if (client_words != NULL) {
        assert_failure(pair->channels[CLIENT], TLS_FAILURE_PROTOCOL, client_words);
    }
    if (server_words != NULL) {
        assert_failure(pair->channels[SERVER], TLS_FAILURE_PROTOCOL, server_words);
    }
}

/* A raw lane client's psk_use_session callback. */
static int use_ticket(SSL *ssl, const EVP_MD *hash, const unsigned char **identity, size_t *size,
                      SSL_SESSION **session)
{
    (void)hash;
    *session = SSL_SESSION_new();
    assert_int_equal(SSL_SESSION_set1_master_key(*session, key, sizeof(key)), 1);
    assert_int_equal(
        SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, (const unsigned char *)"\x13\x01")),
        1);
    assert_int_equal(SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION), 1);
    *identity = ticket;
    *size = sizeof(ticket);
    return 1;
}

#endif

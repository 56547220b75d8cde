/*
 * Secure channels over socket pairs: both kinds, everything that may go wrong in a handshake and
 * after it, and whose fault each side calls it.
 */
#include "tls_pair.h"
#include "tls/cpu.h"

#include <signal.h>

#define RECORD_SIZE 16384
/* Data through tiny socket buffers takes some thousand turns of both sides. */
#define TURNS_MAX 100000

/* --- it works --- */

static void control_shows_each_side_the_others_key(void **state)
{
    struct pair *pair = *state;

    open_kind(pair, false);
    assert_string_equal(tls_channel_peer_fingerprint(pair->channels[SERVER]), "");
    assert_shaken(pair);
    for (int role = CLIENT; role <= SERVER; role++) {
        const char *other = tls_identity_fingerprint(identities[1 - role]);
        assert_string_equal(pair->judged[role], other);
        assert_string_equal(tls_channel_peer_fingerprint(pair->channels[role]), other);
        assert_failure(pair->channels[role], TLS_FAILURE_NONE, "");
        assert_string_equal(tls_channel_error(pair->channels[role]), "");
        assert_int_equal(tls_channel_handshake(pair->channels[role]), TLS_OK);
    }
    assert_talks(pair);
}

static void lane_needs_no_certificate(void **state)
{
    struct pair *pair = *state;

    open_kind(pair, true);
    assert_shaken(pair);
    assert_talks(pair);
    assert_string_equal(tls_channel_peer_fingerprint(pair->channels[CLIENT]), "");
    assert_string_equal(tls_channel_peer_fingerprint(pair->channels[SERVER]), "");
}

/* --- the peer's key, the lane's ticket --- */

static void server_that_refuses_the_client(void **state)
{
    struct pair *pair = *state;
    enum tls_step steps[2];

    pair->trusts[SERVER] = false;
    open_kind(pair, false);
    shake_hands(pair, steps);
    /* The client's handshake is done before the server has judged it: only a read tells. */
    assert_int_equal(steps[CLIENT], TLS_OK);
    assert_int_equal(steps[SERVER], TLS_FAILED);
    assert_failure(pair->channels[SERVER], TLS_FAILURE_PEER_UNTRUSTED,
                   tls_identity_fingerprint(identities[CLIENT]));
    assert_string_equal(tls_channel_peer_fingerprint(pair->channels[SERVER]),
                        tls_identity_fingerprint(identities[CLIENT]));
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_FAILED);
    assert_read_fails(pair->channels[CLIENT], TLS_FAILURE_WE_ARE_UNTRUSTED, "does not trust");
    assert_int_equal(tls_channel_shutdown(pair->channels[CLIENT]), TLS_FAILED);
}

static void refused_client_that_writes_learns_why(void **state)
{
    struct pair *pair = *state;
    enum tls_step steps[2];
    size_t done;

    pair->trusts[SERVER] = false;
    open_kind(pair, false);
    shake_hands(pair, steps);
    drop_end(pair, SERVER);
    assert_int_equal(tls_channel_write(pair->channels[CLIENT], "hello", 5, &done), TLS_FAILED);
    assert_failure(pair->channels[CLIENT], TLS_FAILURE_WE_ARE_UNTRUSTED, "does not trust");
    assert_read_fails(pair->channels[CLIENT], TLS_FAILURE_WE_ARE_UNTRUSTED, "does not trust");
}

/* As over a real network: the server leaves with bytes unread, and a reset follows its alert. */
static void refused_client_learns_why_over_tcp(void **state)
{
    struct pair *pair = *state;
    enum tls_step steps[2];
    enum tls_step step;
    size_t done;

    replace_by_tcp(pair);
    pair->trusts[SERVER] = false;
    open_kind(pair, false);
    assert_int_equal(tls_channel_handshake(pair->channels[CLIENT]), TLS_WANT_READ);
    await_input(pair->fds[SERVER]);
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_WANT_READ);
    await_input(pair->fds[CLIENT]);
    assert_int_equal(tls_channel_handshake(pair->channels[CLIENT]), TLS_OK);
    await_input(pair->fds[SERVER]);
    shake_hands(pair, steps);
    assert_int_equal(steps[SERVER], TLS_FAILED);
    send_text(pair->channels[CLIENT], "hello");
    drop_end(pair, SERVER);
    do {
        step = tls_channel_write(pair->channels[CLIENT], "hello", 5, &done);
    } while (step == TLS_OK);
    assert_int_equal(step, TLS_FAILED);
    assert_failure(pair->channels[CLIENT], TLS_FAILURE_WE_ARE_UNTRUSTED, "does not trust");
}

static void client_that_refuses_the_server(void **state)
{
    struct pair *pair = *state;
    enum tls_step steps[2];

    pair->trusts[CLIENT] = false;
    open_kind(pair, false);
    shake_hands(pair, steps);
    assert_int_equal(steps[CLIENT], TLS_FAILED);
    assert_int_equal(steps[SERVER], TLS_FAILED);
    assert_failure(pair->channels[CLIENT], TLS_FAILURE_PEER_UNTRUSTED,
                   tls_identity_fingerprint(identities[SERVER]));
    assert_failure(pair->channels[SERVER], TLS_FAILURE_WE_ARE_UNTRUSTED, "does not trust");
    assert_string_equal(pair->judged[SERVER], "");
}

static void lane_with_another_key_fails(void **state)
{
    struct pair *pair = *state;

    open_lane(pair, CLIENT, ticket, other_key);
    open_lane(pair, SERVER, ticket, key);
    assert_both_fail(pair, "lane's key", "lane's key");
}

static void lane_with_another_ticket_fails(void **state)
{
    struct pair *pair = *state;

    open_lane(pair, CLIENT, other_ticket, key);
    open_lane(pair, SERVER, ticket, key);
    assert_both_fail(pair, "ticket", "another lane's ticket");
}

static void lane_and_control_do_not_mix(void **state)
{
    struct pair *pair = *state;

    open_lane(pair, CLIENT, ticket, key);
    open_control(pair, SERVER);
    assert_both_fail(pair, "(ALPN)", "(ALPN)");
    pair = renew_pair(state);
    open_control(pair, CLIENT);
    open_lane(pair, SERVER, ticket, key);
    assert_both_fail(pair, "(ALPN)", "(ALPN)");
}

/* --- peers that are not watari --- */

static void clients_without_a_fit_key_are_refused(void **state)
{
    static const char *const kinds[] = {NULL, "P-256"};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct pair *pair = *state;
        enum tls_step steps[2];

        set_raw_alpn(open_raw(pair, CLIENT, new_raw_context(kinds[i])), "watari/1");
        open_control(pair, SERVER);
        shake_hands(pair, steps);
        assert_int_equal(steps[SERVER], TLS_FAILED);
        assert_failure(pair->channels[SERVER], TLS_FAILURE_PROTOCOL, "no host key");
        renew_pair(state);
    }
}

static void server_without_a_fit_key_is_refused(void **state)
{
    struct pair *pair = *state;

    open_control(pair, CLIENT);
    open_raw(pair, SERVER, new_raw_context("P-256"));
    assert_both_fail(pair, "", NULL);
}

static void client_without_the_protocol_is_refused(void **state)
{
    struct pair *pair = *state;

    open_raw(pair, CLIENT, new_raw_context("ED25519"));
    open_control(pair, SERVER);
    assert_both_fail(pair, NULL, "names no protocol");
    pair = renew_pair(state);
    set_raw_alpn(open_raw(pair, CLIENT, new_raw_context("ED25519")), "watari/2");
    open_control(pair, SERVER);
    assert_both_fail(pair, NULL, "another protocol than watari/1");
}

static void server_without_the_protocol_is_refused(void **state)
{
    struct pair *pair = *state;
    enum tls_step steps[2];

    /* A server that ignores ALPN: the handshake itself passes. */
    open_control(pair, CLIENT);
    open_raw(pair, SERVER, new_raw_context("ED25519"));
    shake_hands(pair, steps);
    assert_int_equal(steps[CLIENT], TLS_FAILED);
    assert_failure(pair->channels[CLIENT], TLS_FAILURE_PROTOCOL, "does not speak watari/1");
}

static void lane_does_not_take_a_certificate(void **state)
{
    struct pair *pair = *state;

    open_lane(pair, CLIENT, ticket, key);
    open_raw(pair, SERVER, new_raw_context("ED25519"));
    assert_both_fail(pair, "certificate instead of a ticket", NULL);
}

static void lane_client_without_a_ticket_is_refused(void **state)
{
    struct pair *pair = *state;

    set_raw_alpn(open_raw(pair, CLIENT, new_raw_context(NULL)), "watari-lane/1");
    open_lane(pair, SERVER, ticket, key);
    assert_both_fail(pair, NULL, "no lane ticket");
}

static void lane_keeps_forward_secrecy(void **state)
{
    struct pair *pair = *state;
    SSL *ssl = open_raw(pair, CLIENT, new_raw_context(NULL));

    /* A client that would do without ECDHE (psk_ke) gets it nevertheless, and no session tickets.
     */
    SSL_set_options(ssl, SSL_OP_ALLOW_NO_DHE_KEX);
    SSL_set_psk_use_session_callback(ssl, use_ticket);
    set_raw_alpn(ssl, "watari-lane/1");
    open_lane(pair, SERVER, ticket, key);
    assert_shaken(pair);
    assert_int_equal(SSL_session_reused(ssl), 1);
    assert_int_equal(SSL_get_negotiated_group(ssl), NID_X25519);
    assert_string_equal(SSL_get_cipher(ssl), tls_cpu_has_aes() ? "TLS_AES_128_GCM_SHA256"
                                                               : "TLS_CHACHA20_POLY1305_SHA256");
    assert_string_equal(tls_channel_cipher(pair->channels[SERVER]), SSL_get_cipher(ssl));
    assert_int_equal(poll(&(struct pollfd){pair->fds[CLIENT], POLLIN, 0}, 1, 0), 0);
}

/* Whatever this CPU is good at, it is no worse at what the other is. */
static void lane_takes_chacha20_for_a_client_that_prefers_it(void **state)
{
    struct pair *pair = *state;
    SSL *ssl = open_raw(pair, CLIENT, new_raw_context(NULL));

    assert_int_equal(
        SSL_set_ciphersuites(ssl, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"), 1);
    SSL_set_psk_use_session_callback(ssl, use_ticket);
    set_raw_alpn(ssl, "watari-lane/1");
    open_lane(pair, SERVER, ticket, key);
    assert_shaken(pair);
    assert_int_equal(SSL_session_reused(ssl), 1);
    assert_string_equal(SSL_get_cipher(ssl), "TLS_CHACHA20_POLY1305_SHA256");
}

static void a_cpu_says_what_it_is_fast_at(void **state)
{
    (void)state;
    assert_true(tls_cpu_settings_have_aes("OPENSSL_ia32cap=0xfffa3203078bffff:0x405fc6f1bf07ab"));
    assert_false(
        tls_cpu_settings_have_aes("OPENSSL_ia32cap=0xfdfa3201078bffff:0x0 env:~0x200000200000000"));
    /* Either without the other is slow. */
    assert_false(tls_cpu_settings_have_aes("OPENSSL_ia32cap=0xfffa3201078bffff:0x0"));
    assert_false(tls_cpu_settings_have_aes("OPENSSL_ia32cap=0xfdfa3203078bffff:0x0"));
    assert_true(tls_cpu_settings_have_aes("OPENSSL_armcap=0x7d"));
    assert_false(tls_cpu_settings_have_aes("OPENSSL_armcap=0x1"));
    assert_true(tls_cpu_settings_have_aes("OPENSSL_s390xcap=facility:0x1"));
    assert_true(tls_cpu_settings_have_aes(NULL));
}

static void older_tls_is_refused(void **state)
{
    struct pair *pair = *state;
    SSL *ssl = open_raw(pair, CLIENT, new_raw_context("ED25519"));

    assert_int_equal(SSL_set_max_proto_version(ssl, TLS1_2_VERSION), 1);
    set_raw_alpn(ssl, "watari/1");
    open_control(pair, SERVER);
    assert_both_fail(pair, NULL, "TLS 1.3");
    pair = renew_pair(state);
    open_control(pair, CLIENT);
    ssl = open_raw(pair, SERVER, new_raw_context("ED25519"));
    assert_int_equal(SSL_set_max_proto_version(ssl, TLS1_2_VERSION), 1);
    assert_both_fail(pair, "TLS 1.3", NULL);
}

static void garbage_is_refused(void **state)
{
    static const char *const garbage[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        "\x16\x03\x01\x60\x01 a record that is longer than records may be",
        "\x16\x03\x01\x01\x05\x01\x01\x01\x01 a hello that is none"};

    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        struct pair *pair = *state;
        ssize_t size = (ssize_t)strlen(garbage[i]);

        open_kind(pair, i % 2 == 1);
        assert_int_equal(write(pair->fds[CLIENT], garbage[i], (size_t)size), size);
        assert_int_equal(shutdown(pair->fds[CLIENT], SHUT_WR), 0);
        assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_FAILED);
        assert_failure(pair->channels[SERVER], i < 3 ? TLS_FAILURE_PROTOCOL : TLS_FAILURE_LOST, "");
        renew_pair(state);
    }
}

/* --- the connection breaks --- */

static void eof_in_the_handshake_is_a_lost_connection(void **state)
{
    struct pair *pair = *state;

    open_kind(pair, false);
    assert_int_equal(tls_channel_handshake(pair->channels[CLIENT]), TLS_WANT_READ);
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_WANT_READ);
    drop_end(pair, CLIENT);
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_FAILED);
    assert_failure(pair->channels[SERVER], TLS_FAILURE_LOST, "lost while shaking hands");
}

static void eof_without_a_word_is_a_lost_connection(void **state)
{
    struct pair *pair = *state;

    open_kind(pair, true);
    assert_shaken(pair);
    send_text(pair->channels[CLIENT], "hello");
    drop_end(pair, CLIENT);
    assert_text_comes(pair->channels[SERVER], "hello");
    assert_read_fails(pair->channels[SERVER], TLS_FAILURE_LOST, "lost while reading");
}

static void eof_inside_a_record_is_a_lost_connection(void **state)
{
    struct pair *pair = *state;
    char record[200];
    ssize_t size;

    open_kind(pair, true);
    assert_shaken(pair);
    send_text(pair->channels[CLIENT], "hello");
    size = read(pair->fds[SERVER], record, sizeof(record));
    assert_true(size > 5);
    assert_int_equal(write(pair->fds[CLIENT], record, (size_t)size - 3), size - 3);
    drop_end(pair, CLIENT);
    assert_read_fails(pair->channels[SERVER], TLS_FAILURE_LOST, "lost while reading");
}

static void damaged_record_is_told_from_a_lost_connection(void **state)
{
    struct pair *pair = *state;
    char record[200];
    ssize_t size;

    open_kind(pair, true);
    assert_shaken(pair);
    send_text(pair->channels[CLIENT], "hello");
    size = read(pair->fds[SERVER], record, sizeof(record));
    assert_true(size > 10);
    record[size - 1] ^= 1;
    assert_int_equal(write(pair->fds[CLIENT], record, (size_t)size), size);
    assert_read_fails(pair->channels[SERVER], TLS_FAILURE_PROTOCOL, "damaged");
    assert_read_fails(pair->channels[CLIENT], TLS_FAILURE_PROTOCOL, "damaged");
}

static void last_words_can_be_read_after_a_lost_write(void **state)
{
    struct pair *pair = *state;
    size_t done;

    open_kind(pair, false);
    assert_shaken(pair);
    send_text(pair->channels[SERVER], "go away");
    assert_int_equal(tls_channel_shutdown(pair->channels[SERVER]), TLS_OK);
    drop_end(pair, SERVER);
    assert_int_equal(tls_channel_write(pair->channels[CLIENT], "hello", 5, &done), TLS_FAILED);
    assert_failure(pair->channels[CLIENT], TLS_FAILURE_LOST, "lost while writing");
    assert_int_equal(tls_channel_write(pair->channels[CLIENT], "hello", 5, &done), TLS_FAILED);
    assert_text_comes(pair->channels[CLIENT], "go away");
    assert_int_equal(tls_channel_read(pair->channels[CLIENT], &(char){0}, 1, &done), TLS_CLOSED);
}

static void shutdown_is_an_end_in_order(void **state)
{
    struct pair *pair = *state;
    char byte;
    size_t done;

    open_kind(pair, true);
    assert_int_equal(tls_channel_shutdown(pair->channels[CLIENT]), TLS_OK);
    assert_shaken(pair);
    send_text(pair->channels[CLIENT], "hello");
    assert_int_equal(tls_channel_shutdown(pair->channels[CLIENT]), TLS_OK);
    assert_int_equal(tls_channel_shutdown(pair->channels[CLIENT]), TLS_OK);
    assert_text_comes(pair->channels[SERVER], "hello");
    assert_int_equal(read_some(pair->channels[SERVER], &byte, 1, &done), TLS_CLOSED);
    assert_int_equal(read_some(pair->channels[SERVER], &byte, 1, &done), TLS_CLOSED);
    assert_failure(pair->channels[SERVER], TLS_FAILURE_NONE, "");
    /* The other direction is still open. */
    send_text(pair->channels[SERVER], "good bye");
    assert_text_comes(pair->channels[CLIENT], "good bye");
}

static void channel_that_ends_in_the_handshake_failed(void **state)
{
    struct pair *pair = *state;

    open_kind(pair, true);
    /* A close_notify (RFC 8446 §6.1) in clear where the ClientHello should be. */
    assert_int_equal(write(pair->fds[CLIENT], "\x15\x03\x03\x00\x02\x01\x00", 7), 7);
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_FAILED);
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_FAILED);
    assert_string_not_equal(tls_channel_error(pair->channels[SERVER]), "");
}

/* --- bytes --- */

static void pending_bytes_are_told(void **state)
{
    struct pair *pair = *state;
    struct tls_channel *server;
    char bytes[10];
    size_t done;

    open_kind(pair, false);
    server = pair->channels[SERVER];
    assert_shaken(pair);
    assert_false(tls_channel_has_pending(server));
    send_text(pair->channels[CLIENT], "0123456789");
    send_text(pair->channels[CLIENT], "abc");
    assert_int_equal(read_some(server, bytes, 4, &done), TLS_OK);
    assert_true(tls_channel_has_pending(server)); /* the rest of the record */
    assert_int_equal(read_some(server, bytes, 10, &done), TLS_OK);
    assert_int_equal(done, 6);
    assert_true(tls_channel_has_pending(server)); /* read ahead: the socket is empty */
    assert_int_equal(poll(&(struct pollfd){pair->fds[SERVER], POLLIN, 0}, 1, 0), 0);
    assert_int_equal(read_some(server, bytes, 10, &done), TLS_OK);
    assert_memory_equal(bytes, "abc", 3);
    assert_false(tls_channel_has_pending(server));
}

static void part_of_a_record_is_not_pending(void **state)
{
    struct pair *pair = *state;
    struct tls_channel *server;
    char record[200];
    char byte;
    size_t done;
    ssize_t size;

    open_kind(pair, true);
    server = pair->channels[SERVER];
    assert_shaken(pair);
    send_text(pair->channels[CLIENT], "x");
    size = read(pair->fds[SERVER], record, sizeof(record));
    assert_true(size > 10);
    assert_int_equal(write(pair->fds[CLIENT], record, 10), 10);
    assert_int_equal(read_some(server, &byte, 1, &done), TLS_WANT_READ);
    assert_false(tls_channel_has_pending(server)); /* or the owner would spin */
    assert_int_equal(write(pair->fds[CLIENT], record + 10, (size_t)size - 10), size - 10);
    assert_int_equal(read_some(server, &byte, 1, &done), TLS_OK);
    assert_int_equal(byte, 'x');
}

static void bytes_behind_the_handshake_are_pending(void **state)
{
    struct pair *pair = *state;

    open_kind(pair, false);
    /* The client's last flight and its first words arrive together, and the server reads ahead. */
    assert_int_equal(tls_channel_handshake(pair->channels[CLIENT]), TLS_WANT_READ);
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_WANT_READ);
    assert_int_equal(tls_channel_handshake(pair->channels[CLIENT]), TLS_OK);
    send_text(pair->channels[CLIENT], "hello");
    assert_int_equal(tls_channel_handshake(pair->channels[SERVER]), TLS_OK);
    assert_true(tls_channel_has_pending(pair->channels[SERVER]));
    assert_text_comes(pair->channels[SERVER], "hello");
}

static void record_that_waits_holds_the_shutdown_back(void **state)
{
    struct pair *pair = *state;
    struct tls_channel *client;
    char *block = calloc(1, RECORD_SIZE);
    char *moved = calloc(1, RECORD_SIZE);
    size_t done;
    enum tls_step step;

    assert_non_null(block);
    assert_non_null(moved);
    open_kind(pair, true);
    client = pair->channels[CLIENT];
    assert_shaken(pair);
    do {
        step = tls_channel_write(client, block, RECORD_SIZE, &done);
    } while (step == TLS_OK);
    assert_int_equal(step, TLS_WANT_WRITE);
    assert_int_equal(tls_channel_shutdown(client), TLS_WANT_WRITE);
    do {
        step = tls_channel_read(pair->channels[SERVER], block, RECORD_SIZE, &done);
    } while (step == TLS_OK);
    assert_int_equal(step, TLS_WANT_READ);
    assert_int_equal(tls_channel_write(client, moved, RECORD_SIZE, &done), TLS_OK);
    assert_int_equal(tls_channel_shutdown(client), TLS_OK);
    free(block);
    free(moved);
}

/* A sender whose buffer moves between attempts, a reader with odd sizes, sockets that take a few KB
 * at a time. */
static void assert_megabytes_pass(struct pair *pair, int from)
{
    const size_t total = 5u << 20;
    struct tls_channel *sender = pair->channels[from];
    struct tls_channel *receiver = pair->channels[1 - from];
    uint8_t *sent = malloc(total);
    uint8_t *received = calloc(1, total);
    size_t out = 0;
    size_t in = 0;
    unsigned random = 1;

    assert_non_null(sent);
    assert_non_null(received);
    for (size_t i = 0; i < total; i++) {
        random = random * 1103515245u + 12345u;
        sent[i] = (uint8_t)(random >> 16);
    }
    for (int turn = 0; turn < TURNS_MAX && in < total; turn++) {
        size_t done = 0;
        size_t size = total - out;
        enum tls_step step;

        random = random * 1103515245u + 12345u;
        if (size > 0) {
            uint8_t *copy;
            size = size < 50000 ? size : 50000;
            copy = malloc(size);
            assert_non_null(copy);
            memcpy(copy, sent + out, size);
            step = tls_channel_write(sender, copy, size, &done);
            assert_true(step == TLS_OK || step == TLS_WANT_WRITE);
            free(copy);
            out += done;
        }
        do {
            size = 1 + (random >> 16) % 30000;
            size = size < total - in ? size : total - in;
            step = size > 0 ? read_some(receiver, received + in, size, &done) : TLS_WANT_READ;
            assert_true(step == TLS_OK || step == TLS_WANT_READ);
            in += step == TLS_OK ? done : 0;
        } while (tls_channel_has_pending(receiver) && in < total);
    }
    assert_int_equal(in, total);
    assert_memory_equal(sent, received, total);
    free(sent);
    free(received);
}

static void assert_kind_carries_megabytes(struct pair *pair, bool lane)
{
    const int small = 5000;

    for (int role = CLIENT; role <= SERVER; role++) {
        assert_int_equal(setsockopt(pair->fds[role], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
                         0);
    }
    open_kind(pair, lane);
    assert_shaken(pair);
    assert_megabytes_pass(pair, CLIENT);
    assert_megabytes_pass(pair, SERVER);
}

static void control_carries_megabytes(void **state)
{
    assert_kind_carries_megabytes(*state, false);
}

static void lane_carries_megabytes(void **state)
{
    assert_kind_carries_megabytes(*state, true);
}

/* Through buffers that are too small for a record, so that a KeyUpdate has to wait for room as well. */
static void keys_are_renewed_under_way(void **state)
{
    const int small = 5000;
    struct pair *pair = *state;

    for (int role = CLIENT; role <= SERVER; role++) {
        assert_int_equal(setsockopt(pair->fds[role], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
                         0);
    }
    open_kind(pair, true);
    tls_channel_renew_after(pair->channels[CLIENT], RECORD_SIZE);
    tls_channel_renew_after(pair->channels[SERVER], 256 * 1024);
    assert_shaken(pair);
    assert_megabytes_pass(pair, CLIENT);
    assert_megabytes_pass(pair, SERVER);
    /* 5 MiB in some 105 writes of four records: a key for each write, and one for each 16 records. */
    assert_in_range(tls_channel_renewals(pair->channels[CLIENT]), 100, 110);
    assert_in_range(tls_channel_renewals(pair->channels[SERVER]), 20, 27);
    assert_talks(pair);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_pair, free_pair)
    const struct CMUnitTest tests[] = {
        TEST(control_shows_each_side_the_others_key),
        TEST(lane_needs_no_certificate),
        TEST(server_that_refuses_the_client),
        TEST(refused_client_that_writes_learns_why),
        TEST(refused_client_learns_why_over_tcp),
        TEST(client_that_refuses_the_server),
        TEST(lane_with_another_key_fails),
        TEST(lane_with_another_ticket_fails),
        TEST(lane_and_control_do_not_mix),
        TEST(clients_without_a_fit_key_are_refused),
        TEST(server_without_a_fit_key_is_refused),
        TEST(client_without_the_protocol_is_refused),
        TEST(server_without_the_protocol_is_refused),
        TEST(lane_does_not_take_a_certificate),
        TEST(lane_client_without_a_ticket_is_refused),
        TEST(lane_keeps_forward_secrecy),
        TEST(lane_takes_chacha20_for_a_client_that_prefers_it),
        TEST(a_cpu_says_what_it_is_fast_at),
        TEST(older_tls_is_refused),
        TEST(garbage_is_refused),
        TEST(eof_in_the_handshake_is_a_lost_connection),
        TEST(eof_without_a_word_is_a_lost_connection),
        TEST(eof_inside_a_record_is_a_lost_connection),
        TEST(damaged_record_is_told_from_a_lost_connection),
        TEST(last_words_can_be_read_after_a_lost_write),
        TEST(shutdown_is_an_end_in_order),
        TEST(channel_that_ends_in_the_handshake_failed),
        TEST(pending_bytes_are_told),
        TEST(part_of_a_record_is_not_pending),
        TEST(bytes_behind_the_handshake_are_pending),
        TEST(record_that_waits_holds_the_shutdown_back),
        TEST(control_carries_megabytes),
        TEST(lane_carries_megabytes),
        TEST(keys_are_renewed_under_way),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, make_identities, remove_identities);
}

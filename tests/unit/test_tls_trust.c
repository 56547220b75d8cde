/*
 * The trust store: what is added is there after a restart, what is malformed is refused with file
 * and line, and a save that fails changes nothing.
 */
#include "tls/trust.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PATH_SIZE 256
#define ERROR_SIZE 1024

#define FINGERPRINT_A "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define FINGERPRINT_B "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0"
#define FINGERPRINT_C "SHA256:////////////////////////////////////////8gw"

struct place {
    char dir[PATH_SIZE];
    char path[PATH_SIZE];
    char error[ERROR_SIZE];
};

static int make_place(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    assert_non_null(place);
    strcpy(place->dir, "/tmp/test-tls-trust.XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    snprintf(place->path, PATH_SIZE, "%.200s/trust.json", place->dir);
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;

    unlink(place->path);
    /* Fails, and with it the test, when a temporary file was left behind. */
    assert_int_equal(rmdir(place->dir), 0);
    free(place);
    return 0;
}

static struct tls_trust *load(struct place *place)
{
    struct tls_trust *trust = NULL;
    int code = tls_trust_load(place->path, &trust, place->error, ERROR_SIZE);

    if (code < 0) {
        print_error("%s\n", place->error);
    }
    assert_int_equal(code, 0);
    assert_string_equal(place->error, "");
    return trust;
}

static struct tls_peer peer_of(const char *name, const char *address, const char *fingerprint,
                               unsigned allow)
{
    struct tls_peer peer = {.allow = allow};

    snprintf(peer.name, sizeof(peer.name), "%s", name);
    snprintf(peer.address, sizeof(peer.address), "%s", address);
    snprintf(peer.fingerprint, sizeof(peer.fingerprint), "%s", fingerprint);
    return peer;
}

static int add(struct place *place, struct tls_trust *trust, struct tls_peer peer)
{
    return tls_trust_add(trust, &peer, place->error, ERROR_SIZE);
}

static struct tls_trust *load_with_two(struct place *place)
{
    struct tls_trust *trust = load(place);

    assert_int_equal(add(place, trust, peer_of("a", "a.example:7788", FINGERPRINT_A, 3)), 0);
    assert_int_equal(add(place, trust, peer_of("b", "-", FINGERPRINT_B, TLS_ALLOW_SEND)), 0);
    return trust;
}

static void write_file(const struct place *place, const char *text)
{
    FILE *file = fopen(place->path, "w");

    assert_non_null(file);
    assert_int_equal(fputs(text, file) >= 0, 1);
    assert_int_equal(fclose(file), 0);
}

static void assert_says(const struct place *place, const char *words)
{
    if (strstr(place->error, words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", place->error, words);
    }
}

static void assert_malformed(struct place *place, const char *text, unsigned line,
                             const char *words)
{
    struct tls_trust *trust = NULL;
    char where[PATH_SIZE + 20];

    write_file(place, text);
    assert_int_equal(tls_trust_load(place->path, &trust, place->error, ERROR_SIZE), -EINVAL);
    assert_null(trust);
    snprintf(where, sizeof(where), "%s:%u: ", place->path, line);
    assert_says(place, where);
    assert_says(place, words);
}

static void missing_file_is_an_empty_store(void **state)
{
    struct place *place = *state;
    struct tls_trust *trust = load(place);

    assert_int_equal(tls_trust_count(trust), 0);
    assert_null(tls_trust_at(trust, 0));
    assert_null(tls_trust_by_name(trust, "a"));
    assert_null(tls_trust_by_fingerprint(trust, FINGERPRINT_A));
    assert_int_equal(access(place->path, F_OK), -1);
    tls_trust_free(trust);
}

static void added_peers_are_there_after_a_reload(void **state)
{
    struct place *place = *state;
    struct stat status;
    struct tls_trust *trust = load_with_two(place);
    const struct tls_peer *peer;

    tls_trust_free(trust);
    assert_int_equal(stat(place->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    trust = load(place);
    assert_int_equal(tls_trust_count(trust), 2);
    peer = tls_trust_by_name(trust, "a");
    assert_ptr_equal(peer, tls_trust_at(trust, 0));
    assert_string_equal(peer->address, "a.example:7788");
    assert_string_equal(peer->fingerprint, FINGERPRINT_A);
    assert_int_equal(peer->allow, TLS_ALLOW_SEND | TLS_ALLOW_RECEIVE);
    peer = tls_trust_by_fingerprint(trust, FINGERPRINT_B);
    assert_ptr_equal(peer, tls_trust_at(trust, 1));
    assert_string_equal(peer->name, "b");
    assert_string_equal(peer->address, "-");
    assert_int_equal(peer->allow, TLS_ALLOW_SEND);
    tls_trust_free(trust);
}

static void removed_peers_are_gone_at_once_and_after_a_reload(void **state)
{
    struct place *place = *state;
    struct tls_trust *trust = load_with_two(place);

    assert_int_equal(tls_trust_remove(trust, "c", place->error, ERROR_SIZE), -ENOENT);
    assert_says(place, "c");
    assert_int_equal(tls_trust_remove(trust, "a", place->error, ERROR_SIZE), 0);
    assert_null(tls_trust_by_fingerprint(trust, FINGERPRINT_A));
    assert_int_equal(tls_trust_count(trust), 1);
    assert_string_equal(tls_trust_at(trust, 0)->name, "b");
    tls_trust_free(trust);
    trust = load(place);
    assert_int_equal(tls_trust_count(trust), 1);
    assert_int_equal(tls_trust_remove(trust, "b", place->error, ERROR_SIZE), 0);
    tls_trust_free(trust);
    trust = load(place);
    assert_int_equal(tls_trust_count(trust), 0);
    assert_int_equal(add(place, trust, peer_of("a", "a", FINGERPRINT_A, 0)), 0);
    tls_trust_free(trust);
}

static void duplicates_are_refused(void **state)
{
    struct place *place = *state;
    struct tls_trust *trust = load_with_two(place);

    assert_int_equal(add(place, trust, peer_of("a", "x", FINGERPRINT_C, 3)), -EEXIST);
    assert_says(place, "a peer named a");
    assert_int_equal(add(place, trust, peer_of("c", "x", FINGERPRINT_A, 3)), -EEXIST);
    assert_says(place, "fingerprint of the peer a");
    assert_int_equal(tls_trust_count(trust), 2);
    tls_trust_free(trust);
}

static void assert_bad_field(struct place *place, struct tls_trust *trust, struct tls_peer peer,
                             const char *words)
{
    assert_int_equal(add(place, trust, peer), -EINVAL);
    assert_says(place, words);
    assert_int_equal(tls_trust_count(trust), 0);
}

static void fields_must_have_their_form(void **state)
{
    struct place *place = *state;
    struct tls_trust *trust = load(place);
    static const char *const names[] = {"", "-a", ".a", "a b", "a/b", "\xc3\xa4", "a\n"};
    static const char *const fingerprints[] = {
        "",
        "SHA256:",
        "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
        "SHA256:AAAAAAAAAAAAAAAAAAAA AAAAAAAAAAAAAAAAAAAAAA",
        "SHA256: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA--",
    };
    struct tls_peer endless = peer_of("a", "a", FINGERPRINT_A, 3);

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_bad_field(place, trust, peer_of(names[i], "a", FINGERPRINT_A, 3), "name");
    }
    for (size_t i = 0; i < sizeof(fingerprints) / sizeof(fingerprints[0]); i++) {
        assert_bad_field(place, trust, peer_of("a", "a", fingerprints[i], 3), "fingerprint");
    }
    assert_bad_field(place, trust, peer_of("a", "a:b", FINGERPRINT_A, 3), "address");
    assert_bad_field(place, trust, peer_of("a", "a", FINGERPRINT_A, 4), "send");
    memset(endless.name, 'a', sizeof(endless.name));
    assert_bad_field(place, trust, endless, "name");
    assert_int_equal(access(place->path, F_OK), -1);
    tls_trust_free(trust);
}

static void failing_save_changes_nothing(void **state)
{
    struct place *place = *state;
    char moved[PATH_SIZE + 10];
    struct tls_trust *trust = load_with_two(place);

    /* Taking the directory away binds root too, unlike a mode. */
    snprintf(moved, sizeof(moved), "%s.moved", place->dir);
    assert_int_equal(rename(place->dir, moved), 0);
    assert_int_equal(add(place, trust, peer_of("c", "c", FINGERPRINT_C, 3)), -ENOENT);
    assert_says(place, place->path);
    assert_int_equal(tls_trust_count(trust), 2);
    assert_null(tls_trust_by_name(trust, "c"));
    assert_int_equal(tls_trust_remove(trust, "a", place->error, ERROR_SIZE), -ENOENT);
    assert_non_null(tls_trust_by_name(trust, "a"));
    assert_int_equal(tls_trust_count(trust), 2);
    assert_int_equal(rename(moved, place->dir), 0);
    tls_trust_free(trust);
    trust = load(place);
    assert_int_equal(tls_trust_count(trust), 2);
    assert_int_equal(add(place, trust, peer_of("c", "c", FINGERPRINT_C, 3)), 0);
    tls_trust_free(trust);
}

static void failing_rename_leaves_no_file_behind(void **state)
{
    struct place *place = *state;
    struct tls_trust *trust = load(place);

    assert_int_equal(mkdir(place->path, 0700), 0);
    assert_int_equal(add(place, trust, peer_of("a", "a", FINGERPRINT_A, 3)), -EISDIR);
    assert_int_equal(tls_trust_count(trust), 0);
    assert_int_equal(rmdir(place->path), 0);
    tls_trust_free(trust);
}

#define PEER(name, fingerprint) \
    "{\"name\":\"" name "\",\"address\":\"-\",\"fingerprint\":\"" fingerprint "\",\"allow\":[]}"
#define FILE_OF(peers) "{\"schema\":1,\n\"peers\":[\n" peers "]}\n"

static void malformed_files_are_refused_with_the_line(void **state)
{
    struct place *place = *state;

    assert_malformed(place, "", 1, "");
    assert_malformed(place, "{\n\"schema\": 1,\n\"peers\": [}\n", 3, "near '}'");
    assert_malformed(place, "[]", 1, "not an object");
    assert_malformed(place, "{\"schema\":1}", 1, "\"peers\" is missing");
    assert_malformed(place, "{\"peers\":[]}", 1, "\"schema\" is missing");
    assert_malformed(place, "{\n\"peers\":[],\n\"schema\":2}", 3, "\"schema\" is not 1");
    assert_malformed(place, "{\"schema\":1,\n\"peers\":{}}", 2, "not an array");
    assert_malformed(place, "{\"schema\":1,\"peers\":[],\n\n\"more\":0}", 3, "member \"more\"");
    assert_malformed(place, "{\"schema\":1,\"schema\":1,\"peers\":[]}", 1, "duplicate");
    assert_malformed(place, "{\"schema\":1,\"peers\":[]}\n\n x", 3, "end of file");
    assert_malformed(place, FILE_OF(PEER("a", FINGERPRINT_A) ",\n 7"), 4, "not an object");
    assert_malformed(place, FILE_OF("{}"), 3, "\"name\" is missing");
    assert_malformed(place,
                     FILE_OF(PEER("a", FINGERPRINT_A) ",\n" PEER("b", FINGERPRINT_B) ",\n" PEER(
                         "a", FINGERPRINT_C)),
                     5, "a is there twice");
    assert_malformed(place, FILE_OF(PEER("a", FINGERPRINT_A) ",\n" PEER("b", FINGERPRINT_A)), 4,
                     "b has the fingerprint of a");
    assert_malformed(place, FILE_OF(PEER("a/b", FINGERPRINT_A)), 3, "a peer's name");
    assert_malformed(place, FILE_OF(PEER("a", "SHA256:x")), 3, "a fingerprint is");
    assert_malformed(place, FILE_OF(PEER("a\\u0000b", FINGERPRINT_A)), 3, "");
}

static void malformed_members_are_told_by_their_own_line(void **state)
{
    struct place *place = *state;

    assert_malformed(place,
                     FILE_OF("{\"name\":\"[},\\\"\",\n\"address\":5,\n"
                             "\"fingerprint\":\"" FINGERPRINT_A "\",\n\"allow\":[]}"),
                     4, "\"address\" is not a string");
    assert_malformed(place,
                     FILE_OF("{\"name\":\"a\",\n\"address\":\"allow\",\n"
                             "\"fingerprint\":\"" FINGERPRINT_A "\",\n\"allow\":\n[\"sned\"]}"),
                     6, "each at most once");
    assert_malformed(place,
                     FILE_OF("{\"name\":\"a\",\n\"address\":\"-\",\n"
                             "\"fingerprint\":\"" FINGERPRINT_A "\",\n"
                             "\"allow\":[\"send\",\"send\"]}"),
                     6, "each at most once");
    assert_malformed(place,
                     FILE_OF("{\"name\":\"a\",\n\"address\":\"-\",\n"
                             "\"fingerprint\":\"" FINGERPRINT_A "\",\n\"allow\":\"send\"}"),
                     6, "not an array");
    assert_malformed(place,
                     FILE_OF("{\"name\":\"a\",\"address\":\"-\",\n\"admin\":true,\n"
                             "\"fingerprint\":\"" FINGERPRINT_A "\",\"allow\":[]}"),
                     4, "unknown member \"admin\"");
    assert_malformed(
        place,
        FILE_OF("{\"name\":\"a\",\n\"address\":\"-\",\n\"fingerprint\":\"" FINGERPRINT_A
                "AAAA\",\n\"allow\":[]}"),
        5, "longer than");
}

static void file_that_others_may_write_is_refused(void **state)
{
    struct place *place = *state;
    struct tls_trust *trust = load_with_two(place);

    tls_trust_free(trust);
    assert_int_equal(chmod(place->path, 0664), 0);
    assert_int_equal(tls_trust_load(place->path, &trust, place->error, ERROR_SIZE), -EPERM);
    assert_says(place, "0664");
}

static void assert_splits(const char *address, const char *host, unsigned port)
{
    char buffer[64] = "?";
    uint16_t got = 1;

    assert_int_equal(tls_address_split(address, buffer, sizeof(buffer), &got), 0);
    assert_string_equal(buffer, host);
    assert_int_equal(got, port);
}

static void addresses_are_split(void **state)
{
    static const char *const wrong[] = {
        "",    ":",   "a:",      "a:0",    "a:65536", "a:99999999999", "a:+1", "a:1x",
        ":1",  "a b", "-",       "-a",     "[::1",    "[::1]x",        "[]",   "[::1]:",
        "[a]", "::1", "fe80::1", "[::1%]", "a/b",     "[1.2.3.4]",     "a:1:2"};
    char host[8];
    uint16_t port;

    (void)state;
    assert_splits("a", "a", 0);
    assert_splits("host-1.example.:7788", "host-1.example.", 7788);
    assert_splits("10.0.0.1:1", "10.0.0.1", 1);
    assert_splits("[::1]", "::1", 0);
    assert_splits("[fe80::1%eth0.5]:65535", "fe80::1%eth0.5", 65535);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (tls_address_split(wrong[i], host, sizeof(host), &port) != -EINVAL) {
            fail_msg("\"%s\" was taken for an address", wrong[i]);
        }
    }
    assert_int_equal(tls_address_split("1234567", host, sizeof(host), &port), 0);
    assert_int_equal(tls_address_split("12345678", host, sizeof(host), &port), -EINVAL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)
    const struct CMUnitTest tests[] = {
        TEST(missing_file_is_an_empty_store),
        TEST(added_peers_are_there_after_a_reload),
        TEST(removed_peers_are_gone_at_once_and_after_a_reload),
        TEST(duplicates_are_refused),
        TEST(fields_must_have_their_form),
        TEST(failing_save_changes_nothing),
        TEST(failing_rename_leaves_no_file_behind),
        TEST(malformed_files_are_refused_with_the_line),
        TEST(malformed_members_are_told_by_their_own_line),
        TEST(file_that_others_may_write_is_refused),
        cmocka_unit_test(addresses_are_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The host's key: made once, found again, never replaced, and its fingerprint the one that other
 * tools compute.
 */
#include "tls/identity.h"
#include "tls/identity_private.h"

#include <openssl/pem.h>

#include <errno.h>
#include <fcntl.h>
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
#define TEXT_SIZE 4096
#define ERROR_SIZE 1024

struct place {
    char parent[PATH_SIZE];
    char dir[PATH_SIZE];
    char key[PATH_SIZE];
    char certificate[PATH_SIZE];
    char error[ERROR_SIZE];
};

static int make_place(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    assert_non_null(place);
    strcpy(place->parent, "/tmp/test-tls-identity.XXXXXX");
    assert_non_null(mkdtemp(place->parent));
    snprintf(place->dir, PATH_SIZE, "%.200s/tls", place->parent);
    snprintf(place->key, PATH_SIZE, "%.200s/tls/host.key", place->parent);
    snprintf(place->certificate, PATH_SIZE, "%.200s/tls/host.crt", place->parent);
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;

    unlink(place->key);
    unlink(place->certificate);
    rmdir(place->dir);
    /* Fails, and with it the test, when a temporary file was left behind. */
    assert_int_equal(rmdir(place->parent), 0);
    free(place);
    return 0;
}

static struct tls_identity *load(struct place *place)
{
    struct tls_identity *identity = NULL;
    int code = tls_identity_load_or_create(place->dir, &identity, place->error, ERROR_SIZE);

    if (code < 0) {
        print_error("%s\n", place->error);
    }
    assert_int_equal(code, 0);
    assert_non_null(identity);
    return identity;
}

static void make(struct place *place)
{
    tls_identity_free(load(place));
}

static void assert_refused(struct place *place, int code, const char *word)
{
    struct tls_identity *identity = NULL;

    assert_int_equal(tls_identity_load_or_create(place->dir, &identity, place->error, ERROR_SIZE),
                     code);
    assert_null(identity);
    if (strstr(place->error, word) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", place->error, word);
    }
}

static size_t read_text(const char *path, char text[TEXT_SIZE])
{
    FILE *file = fopen(path, "r");
    size_t size;

    assert_non_null(file);
    size = fread(text, 1, TEXT_SIZE - 1, file);
    text[size] = '\0';
    fclose(file);
    return size;
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w"); /* an existing file keeps its mode */

    assert_non_null(file);
    assert_int_equal(fputs(text, file) >= 0, 1);
    assert_int_equal(fclose(file), 0);
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & 07777;
}

static void made_once_and_found_again(void **state)
{
    struct place *place = *state;
    char key[TEXT_SIZE];
    char again[TEXT_SIZE];
    struct tls_identity *first = load(place);
    struct tls_identity *second;

    assert_int_equal(mode_of(place->dir), 0700);
    assert_int_equal(mode_of(place->key), 0600);
    assert_int_equal(mode_of(place->certificate), 0644);
    assert_int_equal(strlen(tls_identity_fingerprint(first)), TLS_FINGERPRINT_SIZE - 1);
    read_text(place->key, key);
    second = load(place);
    assert_string_equal(tls_identity_fingerprint(first), tls_identity_fingerprint(second));
    read_text(place->key, again);
    assert_string_equal(key, again);
    tls_identity_free(first);
    tls_identity_free(second);
}

static void two_hosts_have_two_keys(void **state)
{
    struct place *place = *state;
    struct tls_identity *first = load(place);
    struct tls_identity *second;

    unlink(place->key);
    unlink(place->certificate);
    second = load(place);
    assert_string_not_equal(tls_identity_fingerprint(first), tls_identity_fingerprint(second));
    assert_int_not_equal(ASN1_INTEGER_cmp(X509_get0_serialNumber(first->certificate),
                                          X509_get0_serialNumber(second->certificate)),
                         0);
    tls_identity_free(first);
    tls_identity_free(second);
}

static void fingerprint_is_what_openssl_prints(void **state)
{
    struct place *place = *state;
    struct tls_identity *identity;
    char command[PATH_SIZE + 200];
    char expected[100] = "SHA256:";
    FILE *pipe;

    if (system("openssl version >/dev/null 2>&1") != 0) {
        print_message("skipped: no openssl command\n");
        skip();
    }
    identity = load(place);
    snprintf(command, sizeof(command),
             "openssl pkey -in %s -pubout -outform DER | openssl dgst -sha256 -binary | base64 | "
             "tr -d '=\\n'",
             place->key);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(expected + strlen(expected), 90, pipe));
    assert_int_equal(pclose(pipe), 0);
    assert_string_equal(tls_identity_fingerprint(identity), expected);
    tls_identity_free(identity);
}

static void certificate_is_as_promised(void **state)
{
    struct place *place = *state;
    struct tls_identity *identity = load(place);
    const X509 *certificate = identity->certificate;
    char name[100];
    time_t soon = time(NULL) + 60;

    assert_int_equal(X509_get_version(certificate), X509_VERSION_3);
    X509_NAME_oneline(X509_get_subject_name(certificate), name, sizeof(name));
    assert_string_equal(name, "/CN=watari host key");
    assert_int_equal(X509_cmp_time(X509_get0_notBefore(certificate), &soon), -1);
    assert_int_equal(X509_cmp_time(X509_get0_notAfter(certificate), &soon), 1);
    assert_int_equal(EVP_PKEY_get_id(identity->key), EVP_PKEY_ED25519);
    tls_identity_free(identity);
}

static void key_without_certificate_is_refused(void **state)
{
    struct place *place = *state;
    char key[TEXT_SIZE];
    char again[TEXT_SIZE];

    make(place);
    read_text(place->key, key);
    assert_int_equal(unlink(place->certificate), 0);
    assert_refused(place, -ENOENT, "host.crt is missing");
    read_text(place->key, again);
    assert_string_equal(key, again);
    assert_int_equal(access(place->certificate, F_OK), -1);
}

static void certificate_without_key_is_refused(void **state)
{
    struct place *place = *state;

    make(place);
    assert_int_equal(unlink(place->key), 0);
    assert_refused(place, -ENOENT, "host.key is missing");
    assert_int_equal(access(place->key, F_OK), -1);
}

static void damaged_key_is_refused_and_untouched(void **state)
{
    struct place *place = *state;
    char key[TEXT_SIZE];
    char again[TEXT_SIZE];

    make(place);
    read_text(place->key, key);
    key[strlen(key) / 2] = '!';
    write_text(place->key, key);
    assert_refused(place, -EINVAL, "host.key");
    read_text(place->key, again);
    assert_string_equal(key, again);
    write_text(place->key, "");
    assert_refused(place, -EINVAL, "host.key");
}

static void damaged_certificate_is_refused(void **state)
{
    struct place *place = *state;
    char text[TEXT_SIZE];
    char *at;

    make(place);
    read_text(place->certificate, text);
    /* A bit inside the signature: it still parses. */
    at = strstr(text, "\n-----END");
    assert_non_null(at);
    at[-20] = at[-20] == 'A' ? 'B' : 'A';
    write_text(place->certificate, text);
    assert_refused(place, -EINVAL, "host.crt");
    write_text(place->certificate, "not a certificate\n");
    assert_refused(place, -EINVAL, "host.crt");
}

static void certificate_of_another_key_is_refused(void **state)
{
    struct place *place = *state;
    char text[TEXT_SIZE];

    make(place);
    read_text(place->certificate, text);
    unlink(place->key);
    unlink(place->certificate);
    make(place);
    write_text(place->certificate, text);
    assert_refused(place, -EINVAL, "not made for the key");
}

static void write_key(const char *path, EVP_PKEY *key, const char *pass_phrase)
{
    FILE *file = fopen(path, "w");

    assert_non_null(key);
    assert_non_null(file);
    assert_int_equal(PEM_write_PKCS8PrivateKey(
                         file, key, pass_phrase != NULL ? EVP_aes_256_cbc() : NULL, pass_phrase,
                         pass_phrase != NULL ? (int)strlen(pass_phrase) : 0, NULL, NULL),
                     1);
    fclose(file);
    EVP_PKEY_free(key);
}

static void keys_of_other_kinds_are_refused(void **state)
{
    struct place *place = *state;

    make(place);
    write_key(place->key, EVP_EC_gen("P-256"), NULL);
    assert_refused(place, -EINVAL, "not an Ed25519 key");
    /* Must not ask at the terminal. */
    write_key(place->key, EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), "secret");
    assert_refused(place, -EINVAL, "host.key");
}

static void key_that_others_may_read_is_refused(void **state)
{
    struct place *place = *state;
    static const mode_t modes[] = {0640, 0604, 0660, 0644, 0610};

    make(place);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        assert_int_equal(chmod(place->key, modes[i]), 0);
        assert_refused(place, -EPERM, "host.key");
    }
    assert_int_equal(chmod(place->key, 0400), 0);
    make(place);
}

static void directory_that_others_may_write_is_refused(void **state)
{
    struct place *place = *state;

    assert_int_equal(mkdir(place->dir, 0700), 0);
    assert_int_equal(chmod(place->dir, 0770), 0);
    assert_refused(place, -EPERM, "may be written by other users");
    assert_int_equal(access(place->key, F_OK), -1);
    assert_int_equal(chmod(place->dir, 0755), 0);
    make(place);
}

static void odd_things_in_place_are_refused(void **state)
{
    struct place *place = *state;
    char long_dir[5000];
    struct tls_identity *identity;

    make(place);
    unlink(place->key);
    assert_int_equal(mkdir(place->key, 0700), 0);
    assert_refused(place, -EINVAL, "not a regular file");
    rmdir(place->key);
    assert_int_equal(mkfifo(place->key, 0600), 0);
    assert_refused(place, -EINVAL, "not a regular file");
    memset(long_dir, 'a', sizeof(long_dir) - 1);
    long_dir[sizeof(long_dir) - 1] = '\0';
    assert_int_equal(
        tls_identity_load_or_create(long_dir, &identity, place->error, sizeof(place->error)),
        -ENAMETOOLONG);
    assert_null(identity);
}

static void missing_parent_is_an_error(void **state)
{
    struct place *place = *state;

    snprintf(place->dir, PATH_SIZE, "%.100s/no/such", place->parent);
    assert_refused(place, -ENOENT, "No such file");
    snprintf(place->dir, PATH_SIZE, "%.100s/tls", place->parent);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)
    const struct CMUnitTest tests[] = {
        TEST(made_once_and_found_again),
        TEST(two_hosts_have_two_keys),
        TEST(fingerprint_is_what_openssl_prints),
        TEST(certificate_is_as_promised),
        TEST(key_without_certificate_is_refused),
        TEST(certificate_without_key_is_refused),
        TEST(damaged_key_is_refused_and_untouched),
        TEST(damaged_certificate_is_refused),
        TEST(certificate_of_another_key_is_refused),
        TEST(keys_of_other_kinds_are_refused),
        TEST(key_that_others_may_read_is_refused),
        TEST(directory_that_others_may_write_is_refused),
        TEST(odd_things_in_place_are_refused),
        TEST(missing_parent_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

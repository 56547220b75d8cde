/*
 * The host's key: made once, loaded with care. See identity.h.
 */
#include "identity.h"
#include "identity_private.h"
#include "error.h"
#include "file.h"
#include "fingerprint.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE "host.key"
#define CERTIFICATE_FILE "host.crt"
/* An Ed25519 key or certificate in PEM is below 1 KiB; what is far above is not one. */
#define PEM_SIZE_MAX (64u << 10)
/* Positive in DER, and within the 20 bytes that RFC 5280 §4.1.2.2 allows. */
#define SERIAL_BITS 159
/* The peer's clock may be behind ours; nobody of ours looks at the dates, other people's tools do.
 */
#define BACKDATED_SECONDS (24 * 60 * 60)
/* "No well-defined expiration date", RFC 5280 §4.1.2.5. */
#define NEVER_EXPIRES "99991231235959Z"

struct paths {
    char key[PATH_MAX];
    char certificate[PATH_MAX];
};

static int make_paths(const char *dir, struct paths *paths, char *error, size_t error_size)
{
    int key = snprintf(paths->key, PATH_MAX, "%s/" KEY_FILE, dir);
    int certificate = snprintf(paths->certificate, PATH_MAX, "%s/" CERTIFICATE_FILE, dir);

    if (key < 0 || key >= PATH_MAX || certificate < 0 || certificate >= PATH_MAX) {
        return tls_error(error, error_size, -ENAMETOOLONG, "the path %s is too long", dir);
    }
    return 0;
}

/* The directory exists when this returns 0; new ones are for us alone. */
static int prepare_directory(const char *dir, char *error, size_t error_size)
{
    struct stat status;

    if (mkdir(dir, 0700) == 0) {
        return tls_file_sync_directory(dir, error, error_size);
    }
    if (errno != EEXIST || stat(dir, &status) < 0) {
        int code = -errno;
        return tls_error(error, error_size, code, "cannot make %s: %s", dir, strerror(-code));
    }
    if (!S_ISDIR(status.st_mode)) {
        return tls_error(error, error_size, -ENOTDIR, "%s is not a directory", dir);
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return tls_error(error, error_size, -EPERM,
                         "%s may be written by other users (mode %04o), who could exchange the "
                         "host's key: chmod 0700 it",
                         dir, (unsigned)status.st_mode & 07777u);
    }
    return 0;
}

static int file_exists(const char *path, bool *exists, char *error, size_t error_size)
{
    struct stat status;

    *exists = lstat(path, &status) == 0;
    if (!*exists && errno != ENOENT) {
        int code = -errno;
        return tls_error(error, error_size, code, "%s: %s", path, strerror(-code));
    }
    return 0;
}

static bool set_serial(X509 *certificate)
{
    BIGNUM *serial = BN_new();
    bool done = serial != NULL &&
                BN_rand(serial, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
                BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(certificate)) != NULL;

    BN_free(serial);
    return done;
}

static bool set_names(X509 *certificate)
{
    X509_NAME *name = X509_get_subject_name(certificate);

    return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                      (const unsigned char *)"watari host key", -1, -1, 0) == 1 &&
           X509_set_issuer_name(certificate, name) == 1;
}

static bool set_dates(X509 *certificate)
{
    return X509_gmtime_adj(X509_getm_notBefore(certificate), -BACKDATED_SECONDS) != NULL &&
           ASN1_TIME_set_string_X509(X509_getm_notAfter(certificate), NEVER_EXPIRES) == 1;
}

static bool add_extension(X509 *certificate, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    bool done = extension != NULL && X509_add_ext(certificate, extension, -1) == 1;

    X509_EXTENSION_free(extension);
    return done;
}

/* The caller's to free; NULL when OpenSSL fails. */
static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *certificate = X509_new();

    if (certificate == NULL || X509_set_version(certificate, X509_VERSION_3) != 1 ||
        !set_serial(certificate) || !set_names(certificate) || !set_dates(certificate) ||
        X509_set_pubkey(certificate, key) != 1 ||
        !add_extension(certificate, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(certificate, NID_key_usage, "critical,digitalSignature") ||
        X509_sign(certificate, key, NULL) == 0) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

/* Gives both files their names, or neither: link() never replaces a key that another process made
 * meanwhile. */
static int link_pair(const struct paths *paths, const char *new_key, const char *new_certificate,
                     char *error, size_t error_size)
{
    int code;

    if (link(new_key, paths->key) < 0) {
        code = -errno;
        return tls_error(error, error_size, code, "cannot make %s: %s", paths->key,
                         strerror(-code));
    }
    if (link(new_certificate, paths->certificate) < 0) {
        code = -errno;
        unlink(paths->key);
        return tls_error(error, error_size, code, "cannot make %s: %s", paths->certificate,
                         strerror(-code));
    }
    return tls_file_sync_directory(paths->key, error, error_size);
}

static int write_pair(const struct paths *paths, BIO *key, BIO *certificate, char *error,
                      size_t error_size)
{
    char *new_key = NULL;
    char *new_certificate = NULL;
    char *bytes = NULL;
    long size = BIO_get_mem_data(key, &bytes);
    int code =
        tls_file_write_beside(paths->key, bytes, (size_t)size, 0600, &new_key, error, error_size);

    if (code < 0) {
        return code;
    }
    size = BIO_get_mem_data(certificate, &bytes);
    code = tls_file_write_beside(paths->certificate, bytes, (size_t)size, 0644, &new_certificate,
                                 error, error_size);
    if (code == 0) {
        code = link_pair(paths, new_key, new_certificate, error, error_size);
    }
    unlink(new_key);
    if (new_certificate != NULL) {
        unlink(new_certificate);
    }
    free(new_key);
    free(new_certificate);
    return code;
}

static int create_files(const struct paths *paths, char *error, size_t error_size)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    X509 *certificate = key != NULL ? make_certificate(key) : NULL;
    BIO *key_text = BIO_new(BIO_s_secmem()); /* wiped when freed */
    BIO *certificate_text = BIO_new(BIO_s_mem());
    int code;

    if (certificate == NULL || key_text == NULL || certificate_text == NULL ||
        PEM_write_bio_PKCS8PrivateKey(key_text, key, NULL, NULL, 0, NULL, NULL) != 1 ||
        PEM_write_bio_X509(certificate_text, certificate) != 1) {
        code = tls_error(error, error_size, -EIO, "cannot make the host's key: %s",
                         tls_openssl_reason());
    } else {
        code = write_pair(paths, key_text, certificate_text, error, error_size);
    }
    BIO_free(certificate_text);
    BIO_free(key_text);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return code;
}

/* Without it OpenSSL would ask at the terminal for the pass phrase of an encrypted key. */
static int no_pass_phrase(char *buffer, int size, int writing, void *context)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)context;
    return -1;
}

static int load_key(const char *path, EVP_PKEY **out, char *error, size_t error_size)
{
    char *text = NULL;
    size_t size = 0;
    BIO *bio;
    EVP_PKEY *key = NULL;
    int code =
        tls_file_read(path, PEM_SIZE_MAX, S_IRWXG | S_IRWXO, &text, &size, error, error_size);

    if (code < 0) {
        return code;
    }
    bio = BIO_new_mem_buf(text, (int)size);
    if (bio != NULL) {
        key = PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, NULL);
    }
    BIO_free(bio);
    OPENSSL_cleanse(text, size);
    free(text);
    if (key == NULL) {
        return tls_error(error, error_size, -EINVAL,
                         "%s holds no private key that can be read (%s): put it back from a copy",
                         path, tls_openssl_reason());
    }
    if (EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(key);
        return tls_error(error, error_size, -EINVAL, "%s is not an Ed25519 key", path);
    }
    *out = key;
    return 0;
}

static int load_certificate(const char *path, EVP_PKEY *key, X509 **out, char *error,
                            size_t error_size)
{
    char *text = NULL;
    size_t size = 0;
    BIO *bio;
    X509 *certificate = NULL;
    int code =
        tls_file_read(path, PEM_SIZE_MAX, S_IWGRP | S_IWOTH, &text, &size, error, error_size);

    if (code < 0) {
        return code;
    }
    bio = BIO_new_mem_buf(text, (int)size);
    if (bio != NULL) {
        certificate = PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL);
    }
    BIO_free(bio);
    free(text);
    if (certificate == NULL) {
        return tls_error(error, error_size, -EINVAL,
                         "%s holds no certificate that can be read (%s): put it back from a copy",
                         path, tls_openssl_reason());
    }
    /* The signature is checked to find damage; that the certificate is ours the key itself proves.
     */
    if (X509_check_private_key(certificate, key) != 1 || X509_verify(certificate, key) != 1) {
        X509_free(certificate);
        return tls_error(error, error_size, -EINVAL,
                         "%s is damaged or was not made for the key beside it", path);
    }
    *out = certificate;
    return 0;
}

static int load_files(const struct paths *paths, struct tls_identity *identity, char *error,
                      size_t error_size)
{
    int code = load_key(paths->key, &identity->key, error, error_size);

    if (code < 0) {
        return code;
    }
    code = load_certificate(paths->certificate, identity->key, &identity->certificate, error,
                            error_size);
    if (code < 0) {
        return code;
    }
    if (!tls_fingerprint_of(identity->key, identity->fingerprint)) {
        return tls_error(error, error_size, -EIO, "cannot hash %s: %s", paths->key,
                         tls_openssl_reason());
    }
    return 0;
}

/* Makes the two files when neither is there; one alone is an error. */
static int ensure_files(const struct paths *paths, char *error, size_t error_size)
{
    bool has_key = false;
    bool has_certificate = false;
    int code = file_exists(paths->key, &has_key, error, error_size);

    if (code == 0) {
        code = file_exists(paths->certificate, &has_certificate, error, error_size);
    }
    if (code < 0) {
        return code;
    }
    if (has_key != has_certificate) {
        return tls_error(error, error_size, -ENOENT,
                         "%s is there but %s is missing: put it back from a copy, or remove both "
                         "to get a new key, which every peer must be told to trust",
                         has_key ? paths->key : paths->certificate,
                         has_key ? paths->certificate : paths->key);
    }
    return has_key ? 0 : create_files(paths, error, error_size);
}

int tls_identity_load_or_create(const char *dir, struct tls_identity **out, char *error,
                                size_t error_size)
{
    struct tls_identity *identity = NULL;
    struct paths *paths = malloc(sizeof(*paths));
    int code;

    *out = NULL;
    if (paths == NULL) {
        return tls_error(error, error_size, -ENOMEM, "out of memory");
    }
    ERR_clear_error();
    code = make_paths(dir, paths, error, error_size);
    if (code == 0) {
        code = prepare_directory(dir, error, error_size);
    }
    if (code == 0) {
        code = ensure_files(paths, error, error_size);
    }
    if (code < 0) {
        goto fail;
    }
    identity = calloc(1, sizeof(*identity));
    if (identity == NULL) {
        code = tls_error(error, error_size, -ENOMEM, "out of memory");
        goto fail;
    }
    /* Loaded even when just made: what the disk gave back is what the next start will find. */
    code = load_files(paths, identity, error, error_size);
    if (code < 0) {
        goto fail;
    }
    free(paths);
    *out = identity;
    return 0;
fail:
    ERR_clear_error();
    tls_identity_free(identity);
    free(paths);
    return code;
}

void tls_identity_free(struct tls_identity *identity)
{
    if (identity == NULL) {
        return;
    }
    X509_free(identity->certificate);
    EVP_PKEY_free(identity->key); /* OpenSSL wipes private keys when it frees them */
    free(identity);
}

const char *tls_identity_fingerprint(const struct tls_identity *identity)
{
    return identity->fingerprint;
}

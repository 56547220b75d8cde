/*
 * Fingerprints of public keys. See fingerprint.h.
 */
#include "fingerprint.h"

#include <openssl/crypto.h>
#include <openssl/x509.h>

#include <stdio.h>
#include <string.h>

#define PREFIX "SHA256:"
#define PREFIX_LENGTH (sizeof(PREFIX) - 1)
#define DIGEST_SIZE 32
/* Base64 of 32 bytes: 43 characters and one '=', which a fingerprint leaves out. */
#define BASE64_LENGTH 44

static void print_fingerprint(const unsigned char digest[DIGEST_SIZE],
                              char out[TLS_FINGERPRINT_SIZE])
{
    unsigned char base64[BASE64_LENGTH + 1];

    EVP_EncodeBlock(base64, digest, DIGEST_SIZE);
    snprintf(out, TLS_FINGERPRINT_SIZE, PREFIX "%.*s", BASE64_LENGTH - 1, (const char *)base64);
}

bool tls_fingerprint_of(const EVP_PKEY *key, char out[TLS_FINGERPRINT_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned char *der = NULL;
    int size = i2d_PUBKEY(key, &der);
    bool hashed;

    out[0] = '\0';
    if (size <= 0) {
        return false;
    }
    hashed = EVP_Digest(der, (size_t)size, digest, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    if (!hashed) {
        return false;
    }
    print_fingerprint(digest, out);
    return true;
}

bool tls_fingerprint_is_well_formed(const char *text)
{
    unsigned char base64[BASE64_LENGTH + 1];
    unsigned char bytes[BASE64_LENGTH / 4 * 3];
    char again[TLS_FINGERPRINT_SIZE];

    if (strlen(text) != TLS_FINGERPRINT_SIZE - 1 || strncmp(text, PREFIX, PREFIX_LENGTH) != 0) {
        return false;
    }
    snprintf((char *)base64, sizeof(base64), "%s=", text + PREFIX_LENGTH);
    if (EVP_DecodeBlock(bytes, base64, BASE64_LENGTH) != (int)sizeof(bytes)) {
        return false;
    }
    /* The decoder is lenient (blanks, stray bits in the last character); printing it again is not.
     */
    print_fingerprint(bytes, again);
    return strcmp(again, text) == 0;
}

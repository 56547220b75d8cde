/*
 * Fingerprints of public keys, as identity.h defines them. Private to tls/. Pure; any thread.
 */
#ifndef WATARI_TLS_FINGERPRINT_H
#define WATARI_TLS_FINGERPRINT_H

#include "identity.h"

#include <openssl/evp.h>

#include <stdbool.h>

/* The fingerprint of KEY's public half. The DER is made from the key, not taken from a certificate,
 * so that one key has one fingerprint however somebody encoded it. False when OpenSSL fails (no
 * memory); OUT is "" then. */
bool tls_fingerprint_of(const EVP_PKEY *key, char out[TLS_FINGERPRINT_SIZE]);
/* Whether TEXT is one that tls_fingerprint_of() can give. */
bool tls_fingerprint_is_well_formed(const char *text);

#endif

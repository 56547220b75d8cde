/*
 * The inside of an identity, for channel.c, which shows the certificate and signs with the key.
 * Private to tls/.
 */
#ifndef WATARI_TLS_IDENTITY_PRIVATE_H
#define WATARI_TLS_IDENTITY_PRIVATE_H

#include "identity.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

struct tls_identity {
    EVP_PKEY *key;     /* Ed25519 */
    X509 *certificate; /* self-signed, around KEY */
    char fingerprint[TLS_FINGERPRINT_SIZE];
};

#endif

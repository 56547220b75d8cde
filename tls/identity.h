/*
 * The host's long-lived key: an Ed25519 key pair with a self-signed certificate around it, made on
 * first start and kept in a directory of mode 0700. Its fingerprint is what operators compare:
 * "SHA256:" and the unpadded base64 of the SHA-256 of the DER SubjectPublicKeyInfo (RFC 5280
 * §4.1.2.7), so that a renewed certificate around the same key keeps it.
 *
 * Used by the daemon only; a mover never sees it. Not thread-safe; one owner.
 */
#ifndef WATARI_TLS_IDENTITY_H
#define WATARI_TLS_IDENTITY_H

#include <stddef.h>

/* "SHA256:" + 43 characters + NUL. */
#define TLS_FINGERPRINT_SIZE 51

struct tls_identity;

/*
 * Loads DIR/host.key and DIR/host.crt, or makes them (both written to a temporary name, fsynced,
 * linked to their own; the directory fsynced; key mode 0600). DIR is made with mode 0700 when it is
 * missing. A key without its certificate, or one that does not parse, is an error, never replaced:
 * a host that silently changes its key locks out all its peers. So is a key file that others may
 * read or a directory that others may write (-EPERM). Returns 0 and *out (owned by the caller), or
 * a negative errno with a sentence in ERROR.
 */
int tls_identity_load_or_create(const char *dir, struct tls_identity **out, char *error,
                                size_t error_size);
void tls_identity_free(struct tls_identity *identity);

/* "SHA256:..." of our own key; lives as long as the identity. */
const char *tls_identity_fingerprint(const struct tls_identity *identity);

#endif

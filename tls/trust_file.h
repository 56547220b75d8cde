/*
 * The form of the trust store: what a peer's fields may hold, and the JSON they are kept in:
 *
 *   {"schema": 1, "peers": [{"name": "b", "address": "b.example:7788", "fingerprint": "SHA256:...",
 *                            "allow": ["send", "receive"]}]}
 *
 * Every member is required and no other is known: a misspelt permission must not
 * pass for none. Private to tls/. Pure.
 */
#ifndef WATARI_TLS_TRUST_FILE_H
#define WATARI_TLS_TRUST_FILE_H

#include "trust.h"

/* Far above any set of hosts that dial one another; bounds memory and the file. */
#define TLS_PEERS_MAX 4096
#define TLS_TRUST_FILE_SIZE_MAX (4u << 20)

/* The member of PEER that is not of its form, with a sentence in FLAW that says which form is
 * wanted; NULL when all are. */
const char *tls_peer_flaw(const struct tls_peer *peer, char *flaw, size_t flaw_size);

/* Parses SIZE bytes at TEXT. *peers is an array of *count, the caller's to free (NULL when empty).
 * 0, or -EINVAL with a sentence that begins "PATH:LINE: ", or -ENOMEM. */
int tls_trust_parse(const char *path, const char *text, size_t size, struct tls_peer **peers,
                    size_t *count, char *error, size_t error_size);

/* The file's text for these peers without the one at SKIP (COUNT leaves out none), ending in a
 * newline; *size is its length. The caller's to free; NULL without memory. */
char *tls_trust_print(const struct tls_peer *peers, size_t count, size_t skip, size_t *size);

#endif

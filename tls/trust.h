/*
 * The trust store: which peers this host knows, by name, address and key fingerprint, and what each
 * may do. One JSON file, rewritten whole (temporary name, fsync, rename, fsync of the directory) at
 * every change; changes take effect at once.
 *
 * Used by the daemon only, from its loop thread. Knows nothing of VMs.
 */
#ifndef WATARI_TLS_TRUST_H
#define WATARI_TLS_TRUST_H

#include "identity.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Letters, digits, '.', '_', '-'; begins with a letter or digit. */
#define TLS_PEER_NAME_SIZE 64
/* HOST[:PORT] or [V6][:PORT], or "-": this peer dials us, we never dial it. */
#define TLS_PEER_ADDRESS_SIZE 280

/* What a peer may do with this host. */
enum tls_allow {
    TLS_ALLOW_SEND = 1,    /* send VMs to us */
    TLS_ALLOW_RECEIVE = 2, /* be sent VMs by us */
};

struct tls_peer {
    char name[TLS_PEER_NAME_SIZE];
    char address[TLS_PEER_ADDRESS_SIZE];
    char fingerprint[TLS_FINGERPRINT_SIZE];
    unsigned allow; /* enum tls_allow, or-ed */
};

struct tls_trust;

/* A missing file is an empty store; an unreadable or malformed one (or one that others may write)
 * is an error that names file and line. 0, or a negative errno with a sentence in ERROR. */
int tls_trust_load(const char *path, struct tls_trust **out, char *error, size_t error_size);
void tls_trust_free(struct tls_trust *trust);

/* Adds and saves. -EEXIST when the name is taken, or the fingerprint is known under another name;
 * -EINVAL when a field is not of its form (ERROR says which and what form is wanted); -ENOSPC at
 * 4096 peers. On failure the store is as it was. */
int tls_trust_add(struct tls_trust *trust, const struct tls_peer *peer, char *error,
                  size_t error_size);
/* -ENOENT when there is no such peer. */
int tls_trust_remove(struct tls_trust *trust, const char *name, char *error, size_t error_size);

size_t tls_trust_count(const struct tls_trust *trust);
/* Borrowed; valid until the next add or remove. NULL when there is none. */
const struct tls_peer *tls_trust_at(const struct tls_trust *trust, size_t index);
const struct tls_peer *tls_trust_by_name(const struct tls_trust *trust, const char *name);
const struct tls_peer *tls_trust_by_fingerprint(const struct tls_trust *trust,
                                                const char *fingerprint);

/* Splits HOST[:PORT] / [V6][:PORT], brackets left out; *port is 0 when absent. 0, or -EINVAL when
 * ADDRESS is not of that form or HOST_SIZE bytes at HOST are too few. */
int tls_address_split(const char *address, char *host, size_t host_size, uint16_t *port);

#endif

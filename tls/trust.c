/*
 * The trust store: a list of peers in memory and its file. See trust.h; the file's form is
 * trust_file.c's.
 */
#include "trust.h"
#include "error.h"
#include "file.h"
#include "trust_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FLAW_SIZE 256

struct tls_trust {
    char *path;
    struct tls_peer *peers;
    size_t count;
};

static int read_peers(struct tls_trust *trust, char *error, size_t error_size)
{
    char *text = NULL;
    size_t size = 0;
    int code = tls_file_read(trust->path, TLS_TRUST_FILE_SIZE_MAX, S_IWGRP | S_IWOTH, &text, &size,
                             error, error_size);

    if (code == -ENOENT) {
        return 0;
    }
    if (code < 0) {
        return code;
    }
    code =
        tls_trust_parse(trust->path, text, size, &trust->peers, &trust->count, error, error_size);
    free(text);
    return code;
}

int tls_trust_load(const char *path, struct tls_trust **out, char *error, size_t error_size)
{
    struct tls_trust *trust = calloc(1, sizeof(*trust));
    int code;

    *out = NULL;
    if (trust == NULL) {
        return tls_error(error, error_size, -ENOMEM, "%s: out of memory", path);
    }
    trust->path = strdup(path);
    if (trust->path == NULL) {
        code = tls_error(error, error_size, -ENOMEM, "%s: out of memory", path);
        goto fail;
    }
    code = read_peers(trust, error, error_size);
    if (code < 0) {
        goto fail;
    }
    if (error_size > 0) {
        error[0] = '\0'; /* a missing file left its sentence there, and is no error */
    }
    *out = trust;
    return 0;
fail:
    tls_trust_free(trust);
    return code;
}

void tls_trust_free(struct tls_trust *trust)
{
    if (trust == NULL) {
        return;
    }
    free(trust->peers);
    free(trust->path);
    free(trust);
}

/* Writes the file for the first COUNT peers without the one at SKIP (COUNT: without none). */
static int save(const struct tls_trust *trust, size_t count, size_t skip, char *error,
                size_t error_size)
{
    size_t size = 0;
    char *text = tls_trust_print(trust->peers, count, skip, &size);
    int code;

    if (text == NULL) {
        return tls_error(error, error_size, -ENOMEM, "%s: out of memory", trust->path);
    }
    code = tls_file_replace(trust->path, text, size, 0600, error, error_size);
    free(text);
    return code;
}

static int check_new_peer(const struct tls_trust *trust, const struct tls_peer *peer, char *error,
                          size_t error_size)
{
    char flaw[FLAW_SIZE];
    const struct tls_peer *other;

    if (tls_peer_flaw(peer, flaw, sizeof(flaw)) != NULL) {
        return tls_error(error, error_size, -EINVAL, "%s", flaw);
    }
    if (tls_trust_by_name(trust, peer->name) != NULL) {
        return tls_error(error, error_size, -EEXIST,
                         "a peer named %s is trusted already: remove it first to change it",
                         peer->name);
    }
    other = tls_trust_by_fingerprint(trust, peer->fingerprint);
    if (other != NULL) {
        return tls_error(error, error_size, -EEXIST, "%s is the fingerprint of the peer %s",
                         peer->fingerprint, other->name);
    }
    if (trust->count >= TLS_PEERS_MAX) {
        return tls_error(error, error_size, -ENOSPC, "%s holds %d peers, which is the most",
                         trust->path, TLS_PEERS_MAX);
    }
    return 0;
}

int tls_trust_add(struct tls_trust *trust, const struct tls_peer *peer, char *error,
                  size_t error_size)
{
    struct tls_peer *larger;
    int code = check_new_peer(trust, peer, error, error_size);

    if (code < 0) {
        return code;
    }
    larger = reallocarray(trust->peers, trust->count + 1, sizeof(*larger));
    if (larger == NULL) {
        return tls_error(error, error_size, -ENOMEM, "%s: out of memory", trust->path);
    }
    trust->peers = larger;
    trust->peers[trust->count] = *peer;
    code = save(trust, trust->count + 1, trust->count + 1, error, error_size);
    if (code < 0) {
        return code; /* what lies behind the last peer is not in the store */
    }
    trust->count++;
    return 0;
}

int tls_trust_remove(struct tls_trust *trust, const char *name, char *error, size_t error_size)
{
    const struct tls_peer *peer = tls_trust_by_name(trust, name);
    size_t index;
    int code;

    if (peer == NULL) {
        return tls_error(error, error_size, -ENOENT, "no peer named %s is trusted", name);
    }
    index = (size_t)(peer - trust->peers);
    code = save(trust, trust->count, index, error, error_size);
    if (code < 0) {
        return code;
    }
    trust->count--;
    memmove(&trust->peers[index], &trust->peers[index + 1],
            (trust->count - index) * sizeof(*trust->peers));
    return 0;
}

size_t tls_trust_count(const struct tls_trust *trust)
{
    return trust->count;
}

const struct tls_peer *tls_trust_at(const struct tls_trust *trust, size_t index)
{
    return index < trust->count ? &trust->peers[index] : NULL;
}

const struct tls_peer *tls_trust_by_name(const struct tls_trust *trust, const char *name)
{
    for (size_t i = 0; i < trust->count; i++) {
        if (strcmp(trust->peers[i].name, name) == 0) {
            return &trust->peers[i];
        }
    }
    return NULL;
}

const struct tls_peer *tls_trust_by_fingerprint(const struct tls_trust *trust,
                                                const char *fingerprint)
{
    for (size_t i = 0; i < trust->count; i++) {
        if (strcmp(trust->peers[i].fingerprint, fingerprint) == 0) {
            return &trust->peers[i];
        }
    }
    return NULL;
}

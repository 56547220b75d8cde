/*
 * The trust store's file: forms, parsing, printing. See trust_file.h.
 */
#include "trust_file.h"
#include "error.h"
#include "fingerprint.h"
#include "json_line.h"

#include <jansson.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA 1
#define FLAW_SIZE 256
#define LETTERS_AND_DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

struct permission {
    unsigned bit;
    const char *word;
};

static const struct permission permissions[] = {
    {TLS_ALLOW_SEND, "send"},
    {TLS_ALLOW_RECEIVE, "receive"},
};
#define PERMISSION_COUNT (sizeof(permissions) / sizeof(permissions[0]))

/* --- what a field may hold --- */

static bool is_terminated(const char *field, size_t size)
{
    return memchr(field, '\0', size) != NULL;
}

static bool is_peer_name(const char *name)
{
    return name[0] != '\0' && strchr(LETTERS_AND_DIGITS, name[0]) != NULL &&
           name[strspn(name, LETTERS_AND_DIGITS "._-")] == '\0';
}

static bool is_peer_address(const char *address)
{
    char host[TLS_PEER_ADDRESS_SIZE];
    uint16_t port;

    return strcmp(address, "-") == 0 || tls_address_split(address, host, sizeof(host), &port) == 0;
}

static bool is_permission_set(unsigned allow)
{
    for (size_t i = 0; i < PERMISSION_COUNT; i++) {
        allow &= ~permissions[i].bit;
    }
    return allow == 0;
}

const char *tls_peer_flaw(const struct tls_peer *peer, char *flaw, size_t flaw_size)
{
    if (!is_terminated(peer->name, sizeof(peer->name)) || !is_peer_name(peer->name)) {
        snprintf(flaw, flaw_size,
                 "a peer's name has at most %d letters, digits, '.', '_' or '-', and begins with a "
                 "letter or digit",
                 TLS_PEER_NAME_SIZE - 1);
        return "name";
    }
    if (!is_terminated(peer->address, sizeof(peer->address)) || !is_peer_address(peer->address)) {
        snprintf(flaw, flaw_size,
                 "a peer's address is HOST, HOST:PORT, [IPV6], [IPV6]:PORT, or - for a peer that "
                 "is never dialled");
        return "address";
    }
    if (!is_terminated(peer->fingerprint, sizeof(peer->fingerprint)) ||
        !tls_fingerprint_is_well_formed(peer->fingerprint)) {
        snprintf(
            flaw, flaw_size,
            "a fingerprint is SHA256: and 43 characters, as `watari id` prints it at the peer");
        return "fingerprint";
    }
    if (!is_permission_set(peer->allow)) {
        snprintf(flaw, flaw_size, "a peer may be allowed \"send\" and \"receive\", nothing else");
        return "allow";
    }
    return NULL;
}

/* --- parsing --- */

/* A file while it is parsed. */
struct source {
    const char *path;
    const char *text;
    size_t size;
    char *error;
    size_t error_size;
};

/* Reports an error at member KEY of peer INDEX, see tls_json_line(). Returns -EINVAL. */
static int error_at(const struct source *source, size_t index, const char *key, const char *text,
                    ...) __attribute__((format(printf, 4, 5)));

static int error_at(const struct source *source, size_t index, const char *key, const char *text,
                    ...)
{
    char sentence[FLAW_SIZE];
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(sentence, sizeof(sentence), text, arguments);
    va_end(arguments);
    return tls_error(source->error, source->error_size, -EINVAL, "%s:%zu: %s", source->path,
                     tls_json_line(source->text, source->size, index, key), sentence);
}

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strcmp(word, *words) == 0) {
            return true;
        }
    }
    return false;
}

/* OBJECT has exactly the members NAMES, which a NULL ends. */
static int check_members(const struct source *source, size_t index, json_t *object,
                         const char *const *names)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        if (!is_one_of(key, names)) {
            return error_at(source, index, key, "unknown member \"%s\"", key);
        }
    }
    for (; *names != NULL; names++) {
        if (json_object_get(object, *names) == NULL) {
            return error_at(source, index, NULL, "\"%s\" is missing", *names);
        }
    }
    return 0;
}

static int parse_string(const struct source *source, size_t index, json_t *object, const char *key,
                        char *field, size_t field_size)
{
    json_t *value = json_object_get(object, key);

    if (!json_is_string(value)) {
        return error_at(source, index, key, "\"%s\" is not a string", key);
    }
    if (json_string_length(value) >= field_size) {
        return error_at(source, index, key, "\"%s\" is longer than %zu characters", key,
                        field_size - 1);
    }
    memcpy(field, json_string_value(value), json_string_length(value) + 1);
    return 0;
}

static unsigned permission_of(const char *word)
{
    for (size_t i = 0; word != NULL && i < PERMISSION_COUNT; i++) {
        if (strcmp(word, permissions[i].word) == 0) {
            return permissions[i].bit;
        }
    }
    return 0;
}

static int parse_allow(const struct source *source, size_t index, json_t *object, unsigned *allow)
{
    json_t *words = json_object_get(object, "allow");
    json_t *word;
    size_t i;

    *allow = 0;
    if (!json_is_array(words)) {
        return error_at(source, index, "allow", "\"allow\" is not an array");
    }
    json_array_foreach(words, i, word)
    {
        unsigned bit = permission_of(json_string_value(word));
        if (bit == 0 || (*allow & bit) != 0) {
            return error_at(source, index, "allow",
                            "\"allow\" holds \"send\" and \"receive\", each at most once");
        }
        *allow |= bit;
    }
    return 0;
}

static int parse_peer(const struct source *source, size_t index, json_t *object,
                      struct tls_peer *peer)
{
    static const char *const members[] = {"name", "address", "fingerprint", "allow", NULL};
    char flaw[FLAW_SIZE];
    const char *flawed;

    if (!json_is_object(object)) {
        return error_at(source, index, NULL, "a peer is not an object");
    }
    if (check_members(source, index, object, members) < 0 ||
        parse_string(source, index, object, "name", peer->name, sizeof(peer->name)) < 0 ||
        parse_string(source, index, object, "address", peer->address, sizeof(peer->address)) < 0 ||
        parse_string(source, index, object, "fingerprint", peer->fingerprint,
                     sizeof(peer->fingerprint)) < 0 ||
        parse_allow(source, index, object, &peer->allow) < 0) {
        return -EINVAL;
    }
    flawed = tls_peer_flaw(peer, flaw, sizeof(flaw));
    return flawed == NULL ? 0 : error_at(source, index, flawed, "%s", flaw);
}

/* Two peers of one name, or two names for one key, would make an order in the file decide who may
 * do what. */
static int check_unique(const struct source *source, const struct tls_peer *peers, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (strcmp(peers[i].name, peers[index].name) == 0) {
            return error_at(source, index, "name", "the peer %s is there twice", peers[i].name);
        }
        if (strcmp(peers[i].fingerprint, peers[index].fingerprint) == 0) {
            return error_at(source, index, "fingerprint", "%s has the fingerprint of %s",
                            peers[index].name, peers[i].name);
        }
    }
    return 0;
}

static int parse_peers(const struct source *source, json_t *array, struct tls_peer **peers,
                       size_t *count)
{
    const size_t size = json_array_size(array);
    struct tls_peer *list = NULL;

    if (size > TLS_PEERS_MAX) {
        return error_at(source, TLS_JSON_OUTSIDE, "peers", "more than %d peers", TLS_PEERS_MAX);
    }
    if (size == 0) {
        return 0;
    }
    list = calloc(size, sizeof(*list));
    if (list == NULL) {
        return tls_error(source->error, source->error_size, -ENOMEM, "%s: out of memory",
                         source->path);
    }
    for (size_t i = 0; i < size; i++) {
        if (parse_peer(source, i, json_array_get(array, i), &list[i]) < 0 ||
            check_unique(source, list, i) < 0) {
            free(list);
            return -EINVAL;
        }
    }
    *peers = list;
    *count = size;
    return 0;
}

static int parse_root(const struct source *source, json_t *file, struct tls_peer **peers,
                      size_t *count)
{
    static const char *const members[] = {"schema", "peers", NULL};
    json_t *schema = json_object_get(file, "schema");
    json_t *array = json_object_get(file, "peers");

    if (!json_is_object(file)) {
        return error_at(source, TLS_JSON_OUTSIDE, NULL, "not an object");
    }
    /* First: a later schema may have other members, and its number is what to tell of it. */
    if (schema != NULL && (!json_is_integer(schema) || json_integer_value(schema) != SCHEMA)) {
        return error_at(source, TLS_JSON_OUTSIDE, "schema",
                        "\"schema\" is not %d, the only one that this version knows", SCHEMA);
    }
    if (check_members(source, TLS_JSON_OUTSIDE, file, members) < 0) {
        return -EINVAL;
    }
    if (!json_is_array(array)) {
        return error_at(source, TLS_JSON_OUTSIDE, "peers", "\"peers\" is not an array");
    }
    return parse_peers(source, array, peers, count);
}

int tls_trust_parse(const char *path, const char *text, size_t size, struct tls_peer **peers,
                    size_t *count, char *error, size_t error_size)
{
    const struct source source = {path, text, size, error, error_size};
    json_error_t flaw;
    json_t *file;
    int code;

    *peers = NULL;
    *count = 0;
    file = json_loadb(text, size, JSON_REJECT_DUPLICATES, &flaw);
    if (file == NULL) {
        return tls_error(error, error_size, -EINVAL, "%s:%d: %s", path,
                         flaw.line > 0 ? flaw.line : 1, flaw.text);
    }
    code = parse_root(&source, file, peers, count);
    json_decref(file);
    return code;
}

/* --- printing --- */

static json_t *allow_to_json(unsigned allow)
{
    json_t *words = json_array();

    for (size_t i = 0; words != NULL && i < PERMISSION_COUNT; i++) {
        if ((allow & permissions[i].bit) != 0 &&
            json_array_append_new(words, json_string(permissions[i].word)) < 0) {
            json_decref(words);
            return NULL;
        }
    }
    return words;
}

static json_t *peers_to_json(const struct tls_peer *peers, size_t count, size_t skip)
{
    json_t *array = json_array();

    for (size_t i = 0; array != NULL && i < count; i++) {
        json_t *peer;

        if (i == skip) {
            continue;
        }
        peer =
            json_pack("{s:s, s:s, s:s, s:o}", "name", peers[i].name, "address", peers[i].address,
                      "fingerprint", peers[i].fingerprint, "allow", allow_to_json(peers[i].allow));
        if (json_array_append_new(array, peer) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

char *tls_trust_print(const struct tls_peer *peers, size_t count, size_t skip, size_t *size)
{
    json_t *file =
        json_pack("{s:i, s:o}", "schema", SCHEMA, "peers", peers_to_json(peers, count, skip));
    char *json = file != NULL ? json_dumps(file, JSON_INDENT(2)) : NULL;
    char *text = NULL;
    int length = json != NULL ? asprintf(&text, "%s\n", json) : -1;

    json_decref(file);
    free(json);
    if (length < 0) {
        return NULL;
    }
    *size = (size_t)length;
    return text;
}

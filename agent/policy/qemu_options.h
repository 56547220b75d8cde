/*
 * Values of QEMU command-line options: "key=value,key=value" with ",," for a comma, short flags
 * ("server", "nowait"), an implied first key, or a JSON object. Read into pairs, changed, and
 * written again in one canonical spelling, so that QEMU's two parsers (QemuOpts and keyval,
 * util/qemu-option.c and util/keyval.c there) and this one cannot come to different readings.
 *
 * Pure; any thread. A qemu_options is owned by whoever parsed it.
 */
#ifndef WATARI_POLICY_QEMU_OPTIONS_H
#define WATARI_POLICY_QEMU_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct qemu_pair {
    char *key;   /* dotted: "file.filename"; members of JSON lists by number: "hostfwd.0.str" */
    char *value; /* JSON true and false are "on" and "off"; NULL is JSON null */
};

struct qemu_options {
    struct qemu_pair *pairs; /* in the order they came; a key may come twice */
    size_t count;
    json_t *json; /* the object, when it was JSON; kept equal to the pairs */
};

/* Reads TEXT. IMPLIED (may be NULL) is the key of a first value that has none. NULL on success,
 * else why not; OUT is to be cleared in both cases. Keys that hold anything but letters, digits,
 * '_', '-' and dots are refused. */
const char *qemu_options_parse(struct qemu_options *out, const char *text, const char *implied);
void qemu_options_clear(struct qemu_options *options);

/* The value of KEY (the last one, as QEMU takes it); NULL when there is none. */
const char *qemu_options_get(const struct qemu_options *options, const char *key);
/* "on", "yes", "true" or "y". */
bool qemu_options_is_on(const struct qemu_options *options, const char *key);
/* A key that comes twice, or NULL. */
const char *qemu_options_repeated(const struct qemu_options *options);

/* Replaces the value of KEY, or adds the pair at the end. False: no memory (or a JSON path that
 * leads through something else than objects). */
bool qemu_options_set(struct qemu_options *options, const char *key, const char *value);
/* The same with the value on (JSON: true) or off. */
bool qemu_options_set_flag(struct qemu_options *options, const char *key, bool value);

/* The canonical text; free() it. The first key is left out when it is IMPLIED and may be. NULL: no
 * memory. */
char *qemu_options_text(const struct qemu_options *options, const char *implied);

#endif

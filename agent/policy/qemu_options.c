/*
 * Option values in and out. See qemu_options.h.
 */
#include "qemu_options.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU's own limit of a fragment (keyval.c) and of a whole key (qemu-option.c). */
#define KEY_LENGTH_MAX 127
/* No option nests deeper; a hostile one must not use up the stack. */
#define JSON_DEPTH_MAX 16

static const char no_memory[] = "out of memory";

static bool is_key_character(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-';
}

/* Fragments of at least one character, joined by single dots. */
static bool is_key(const char *key, size_t length)
{
    bool in_fragment = false;

    if (length > KEY_LENGTH_MAX) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (key[i] == '.' ? !in_fragment : !is_key_character(key[i])) {
            return false;
        }
        in_fragment = key[i] != '.';
    }
    return in_fragment;
}

/* Takes over VALUE. */
static const char *add_pair(struct qemu_options *options, const char *key, size_t key_length,
                            char *value)
{
    struct qemu_pair *pairs;

    pairs = reallocarray(options->pairs, options->count + 1, sizeof *pairs);
    if (!pairs) {
        free(value);
        return no_memory;
    }
    options->pairs = pairs;
    pairs[options->count].key = strndup(key, key_length);
    if (!pairs[options->count].key) {
        free(value);
        return no_memory;
    }
    pairs[options->count++].value = value;
    return NULL;
}

/* Reads up to a single comma, or the end, and goes past it. NULL: no memory. */
static char *take_value(const char **at)
{
    char *value = malloc(strlen(*at) + 1), *out = value;
    const char *in = *at;

    if (!value) {
        return NULL;
    }
    while (*in && (*in != ',' || in[1] == ',')) {
        in += *in == ',';
        *out++ = *in++;
    }
    *out = '\0';
    *at = *in == ',' ? in + 1 : in;
    return value;
}

/* "server" is server=on and "nowait" is wait=off, as in QemuOpts. */
static const char *parse_flag(struct qemu_options *options, const char *name, size_t length)
{
    bool negative = length > 2 && strncmp(name, "no", 2) == 0 && is_key_character(name[2]);
    char *value = strdup(negative ? "off" : "on");

    if (!value) {
        return no_memory;
    }
    return add_pair(options, name + (negative ? 2 : 0), length - (negative ? 2 : 0), value);
}

static const char *parse_piece(struct qemu_options *options, const char **at, const char *implied)
{
    const char *key = *at;
    size_t length = strcspn(key, "=,");
    char *value;

    if (implied && length > 0 && key[length] != '=') {
        value = take_value(at);
        return value ? add_pair(options, implied, strlen(implied), value) : no_memory;
    }
    if (!is_key(key, length)) {
        return "it does not read as key=value";
    }
    if (key[length] != '=') {
        *at += length + (key[length] == ',');
        return parse_flag(options, key, length);
    }
    *at += length + 1;
    value = take_value(at);
    return value ? add_pair(options, key, length, value) : no_memory;
}

static const char *parse_pairs(struct qemu_options *options, const char *text, const char *implied)
{
    const char *at = text, *why;

    while (*at) {
        why = parse_piece(options, &at, at == text ? implied : NULL);
        if (why) {
            return why;
        }
    }
    return NULL;
}

static char *leaf_text(const json_t *leaf)
{
    if (json_is_string(leaf)) {
        return strdup(json_string_value(leaf));
    }
    if (json_is_boolean(leaf)) {
        return strdup(json_is_true(leaf) ? "on" : "off");
    }
    return json_dumps(leaf, JSON_ENCODE_ANY | JSON_COMPACT);
}

static const char *flatten(struct qemu_options *options, const char *key, json_t *value, int depth);

static const char *flatten_member(struct qemu_options *options, const char *key, const char *name,
                                  json_t *value, int depth)
{
    char path[KEY_LENGTH_MAX + 1];
    int length = snprintf(path, sizeof path, "%s%s%s", key, *key ? "." : "", name);

    if (strchr(name, '.') || length < 0 || (size_t)length >= sizeof path ||
        !is_key(path, (size_t)length)) {
        return "a member of its JSON object has no valid name";
    }
    return flatten(options, path, value, depth + 1);
}

static const char *flatten_object(struct qemu_options *options, const char *key, json_t *object,
                                  int depth)
{
    const char *name, *why;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        why = flatten_member(options, key, name, value, depth);
        if (why) {
            return why;
        }
    }
    return NULL;
}

static const char *flatten_array(struct qemu_options *options, const char *key, json_t *array,
                                 int depth)
{
    char number[24];
    const char *why;
    json_t *value;
    size_t i;

    json_array_foreach(array, i, value)
    {
        snprintf(number, sizeof number, "%zu", i);
        why = flatten_member(options, key, number, value, depth);
        if (why) {
            return why;
        }
    }
    return NULL;
}

static const char *flatten(struct qemu_options *options, const char *key, json_t *value, int depth)
{
    char *text = NULL;

    if (depth > JSON_DEPTH_MAX) {
        return "its JSON object is nested too deeply";
    }
    if (json_is_object(value)) {
        return flatten_object(options, key, value, depth);
    }
    if (json_is_array(value)) {
        return flatten_array(options, key, value, depth);
    }
    if (!json_is_null(value)) {
        text = leaf_text(value);
        if (!text) {
            return no_memory;
        }
    }
    return add_pair(options, key, strlen(key), text);
}

const char *qemu_options_parse(struct qemu_options *out, const char *text, const char *implied)
{
    memset(out, 0, sizeof *out);
    if (*text != '{') {
        return parse_pairs(out, text, implied);
    }
    out->json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    return out->json ? flatten(out, "", out->json, 0) : "it is not a valid JSON object";
}

void qemu_options_clear(struct qemu_options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        free(options->pairs[i].key);
        free(options->pairs[i].value);
    }
    free(options->pairs);
    json_decref(options->json);
    memset(options, 0, sizeof *options);
}

static struct qemu_pair *find(const struct qemu_options *options, const char *key)
{
    for (size_t i = options->count; i > 0; i--) {
        if (strcmp(options->pairs[i - 1].key, key) == 0) {
            return &options->pairs[i - 1];
        }
    }
    return NULL;
}

const char *qemu_options_get(const struct qemu_options *options, const char *key)
{
    const struct qemu_pair *pair = find(options, key);

    return pair ? pair->value : NULL;
}

bool qemu_options_is_on(const struct qemu_options *options, const char *key)
{
    const char *value = qemu_options_get(options, key);

    return value && (strcmp(value, "on") == 0 || strcmp(value, "yes") == 0 ||
                     strcmp(value, "true") == 0 || strcmp(value, "y") == 0);
}

const char *qemu_options_repeated(const struct qemu_options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        if (find(options, options->pairs[i].key) != &options->pairs[i]) {
            return options->pairs[i].key;
        }
    }
    return NULL;
}

/* Puts VALUE (stolen) at the dotted KEY, whose parents are there already. */
static bool set_json(json_t *object, const char *key, json_t *value)
{
    const char *dot;
    char name[KEY_LENGTH_MAX + 1];

    while ((dot = strchr(key, '.'))) {
        snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
        object = json_object_get(object, name);
        key = dot + 1;
    }
    return json_object_set_new(object, key, value) == 0;
}

static bool set_pair(struct qemu_options *options, const char *key, const char *value)
{
    struct qemu_pair *pair = find(options, key);
    char *copy = strdup(value);

    if (!copy) {
        return false;
    }
    if (!pair) {
        return add_pair(options, key, strlen(key), copy) == NULL;
    }
    free(pair->value);
    pair->value = copy;
    return true;
}

bool qemu_options_set(struct qemu_options *options, const char *key, const char *value)
{
    return (!options->json || set_json(options->json, key, json_string(value))) &&
           set_pair(options, key, value);
}

bool qemu_options_set_flag(struct qemu_options *options, const char *key, bool value)
{
    return (!options->json || set_json(options->json, key, json_boolean(value))) &&
           set_pair(options, key, value ? "on" : "off");
}

static void write_value(FILE *out, const char *value)
{
    for (; *value; value++) {
        if (*value == ',') {
            fputc(',', out);
        }
        fputc(*value, out);
    }
}

static void write_pairs(FILE *out, const struct qemu_options *options, const char *implied)
{
    for (size_t i = 0; i < options->count; i++) {
        const struct qemu_pair *pair = &options->pairs[i];
        bool bare = i == 0 && implied && strcmp(pair->key, implied) == 0 && *pair->value &&
                    *pair->value != '{' && !strpbrk(pair->value, "=,");

        if (!bare) {
            fprintf(out, "%s%s=", i > 0 ? "," : "", pair->key);
        }
        write_value(out, pair->value);
    }
}

char *qemu_options_text(const struct qemu_options *options, const char *implied)
{
    char *text = NULL;
    size_t size;
    FILE *out;
    bool good;

    if (options->json) {
        return json_dumps(options->json, JSON_COMPACT);
    }
    out = open_memstream(&text, &size);
    if (!out) {
        return NULL;
    }
    write_pairs(out, options, implied);
    good = !ferror(out);
    if (fclose(out) == 0 && good) {
        return text;
    }
    free(text);
    return NULL;
}

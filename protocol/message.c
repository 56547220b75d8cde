/*
 * The table of messages and fields, and the check it drives. See message.h and SPEC.md §4;
 * tests/unit/test_message.c keeps the table and SPEC.md equal, through message_describe(). Owns
 * nothing; any thread of the daemon (a mover never sees a message).
 */
#include "message.h"

#include "frame.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum field_kind {
    KIND_ID,        /* 16 lower-case hexadecimal digits */
    KIND_HEX,       /* MAX lower-case hexadecimal digits */
    KIND_STRING,    /* a name or path: UTF-8 without control characters, MIN .. MAX bytes */
    KIND_TEXT,      /* a sentence for people: as a string, but line ends and tabs are allowed */
    KIND_MODE,      /* "live" or "quick" */
    KIND_INTEGER,   /* MIN .. MAX */
    KIND_BOOLEAN,   /* true or false */
    KIND_ARGUMENTS, /* MIN .. MAX strings, each at most ARGUMENT_MAX bytes, any character but NUL */
    KIND_OBJECTS,   /* MIN .. MAX objects with the fields ITEMS */
};

struct field {
    const char *name;
    const char *path; /* as SPEC.md writes it: "disks[].name" */
    enum field_kind kind;
    const char *kind_text; /* as SPEC.md writes it: "string 1..255" */
    bool required;
    uint64_t min, max;
    const struct field *items;
    size_t item_count;
};

struct message_rule {
    const char *name;
    const struct field *fields;
    size_t field_count;
};

#define REQUIRED true
#define OPTIONAL false
/* PREFIX is "" or the array an object's field stands in, as "disks[].". Limits are literals: they
 * become the kind's text, so that what is checked and what is described cannot differ. */
#define FIELD(prefix, key, what, what_text, need, least, most)                               \
    .name = key, .path = prefix key, .kind = what, .kind_text = what_text, .required = need, \
    .min = least, .max = most
#define ID(key)                                         \
    {                                                   \
        FIELD("", key, KIND_ID, "id", REQUIRED, 16, 16) \
    }
#define HEX(prefix, key, digits)                                               \
    {                                                                          \
        FIELD(prefix, key, KIND_HEX, "hex " #digits, REQUIRED, digits, digits) \
    }
#define STRING(prefix, key, most, need)                                    \
    {                                                                      \
        FIELD(prefix, key, KIND_STRING, "string 1.." #most, need, 1, most) \
    }
#define TEXT_MAX 4096
#define TEXT_IN(prefix, key)                                             \
    {                                                                    \
        FIELD(prefix, key, KIND_TEXT, "text 0..4096", REQUIRED, 0, 4096) \
    }
#define TEXT(key) TEXT_IN("", key)
#define MODE(key)                                                  \
    {                                                              \
        FIELD("", key, KIND_MODE, "live or quick", REQUIRED, 0, 0) \
    }
#define INTEGER(prefix, key, least, most, need)                                           \
    {                                                                                     \
        FIELD(prefix, key, KIND_INTEGER, "integer " #least ".." #most, need, least, most) \
    }
#define NUMBER(prefix, key, need)                                                           \
    {                                                                                       \
        FIELD(prefix, key, KIND_INTEGER, "integer 0..2^63-1", need, 0, (uint64_t)INT64_MAX) \
    }
#define BOOLEAN_IF(prefix, key, need)                           \
    {                                                           \
        FIELD(prefix, key, KIND_BOOLEAN, "boolean", need, 0, 1) \
    }
#define BOOLEAN(prefix, key) BOOLEAN_IF(prefix, key, REQUIRED)
#define ARGUMENTS(key, least, most)                                                           \
    {                                                                                         \
        FIELD("", key, KIND_ARGUMENTS, #least ".." #most " arguments", REQUIRED, least, most) \
    }
#define OBJECTS(key, least, most, table)                                                   \
    {                                                                                      \
        FIELD("", key, KIND_OBJECTS, #least ".." #most " objects", REQUIRED, least, most), \
            .items = table, .item_count = sizeof table / sizeof table[0]                   \
    }

/* Linux takes no longer one (MAX_ARG_STRLEN, its NUL included). */
#define ARGUMENT_MAX 131071u

static_assert(MESSAGE_ID_LENGTH == 16 && TEXT_MAX == 4096, "ID() and TEXT() in the table");

static const struct field hello_fields[] = {
    HEX("", "greeting", 64),
    INTEGER("", "version", 1, 255, REQUIRED),
    STRING("", "host", 255, REQUIRED),
    STRING("", "software", 64, REQUIRED),
};
static const struct field ping_fields[] = {
    NUMBER("", "sent", REQUIRED),
};
static const struct field pong_fields[] = {
    NUMBER("", "sent", REQUIRED),
    NUMBER("", "received", REQUIRED),
};
static const struct field offer_disk_fields[] = {
    STRING("disks[].", "name", 255, REQUIRED),
    STRING("disks[].", "node", 255, REQUIRED),
    STRING("disks[].", "path", 4096, REQUIRED),
    STRING("disks[].", "format", 64, REQUIRED),
    NUMBER("disks[].", "size", REQUIRED),
    NUMBER("disks[].", "allocated", REQUIRED),
    NUMBER("disks[].", "cluster_size", OPTIONAL),
    STRING("disks[].", "target", 4096, OPTIONAL),
    BOOLEAN("disks[].", "read_only"),
};
static const struct field offer_fields[] = {
    ID("migration"),
    STRING("", "vm", 255, REQUIRED),
    STRING("", "uuid", 36, OPTIONAL),
    MODE("mode"),
    STRING("", "machine", 255, REQUIRED),
    STRING("", "qemu_version", 255, REQUIRED),
    NUMBER("", "ram_bytes", REQUIRED),
    NUMBER("", "page_cache_bytes", REQUIRED),
    ARGUMENTS("launch", 1, 4096),
    INTEGER("", "lanes", 1, 64, REQUIRED),
    NUMBER("", "paused_limit_ms", REQUIRED),
    NUMBER("", "reconnect_timeout_ms", REQUIRED),
    BOOLEAN_IF("", "trial", OPTIONAL),
    OBJECTS("disks", 0, 64, offer_disk_fields),
};
static const struct field finding_fields[] = {
    STRING("findings[].", "level", 16, REQUIRED),
    STRING("findings[].", "id", 40, REQUIRED),
    TEXT_IN("findings[].", "text"),
};
static const struct field findings_fields[] = {
    ID("migration"),
    OBJECTS("findings", 0, 64, finding_fields),
};
static const struct field accept_ticket_fields[] = {
    HEX("tickets[].", "ticket", 32),
    HEX("tickets[].", "key", 64),
};
static const struct field limit_fields[] = {
    ID("migration"),
    NUMBER("", "bandwidth", REQUIRED),
};
static const struct field mover_lost_fields[] = {
    ID("migration"),
    INTEGER("", "movers", 0, 4294967295, REQUIRED),
    TEXT("text"),
};
static const struct field resume_fields[] = {
    ID("migration"),
    INTEGER("", "epoch", 1, 4294967295, REQUIRED),
    INTEGER("", "movers", 0, 4294967295, REQUIRED),
};
static const struct field resumed_fields[] = {
    ID("migration"),
    INTEGER("", "epoch", 1, 4294967295, REQUIRED),
    NUMBER("", "pid", REQUIRED),
    OBJECTS("tickets", 1, 64, accept_ticket_fields),
};
static const struct field accept_disk_fields[] = {
    STRING("disks[].", "path", 4096, REQUIRED),
    BOOLEAN("disks[].", "reads_as_zero"),
};
static const struct field accept_fields[] = {
    ID("migration"),
    OBJECTS("tickets", 1, 64, accept_ticket_fields),
    OBJECTS("disks", 0, 64, accept_disk_fields),
    NUMBER("", "page_cache_bytes", REQUIRED),
    NUMBER("", "pid", REQUIRED),
    STRING("", "qmp", 4096, REQUIRED),
    STRING("", "launch", 4096, REQUIRED),
    STRING("", "log", 4096, REQUIRED),
    STRING("", "host", 255, REQUIRED),
};
static const struct field refuse_fields[] = {
    ID("migration"),
    STRING("", "error", 40, REQUIRED),
    TEXT("text"),
};
static const struct field migration_fields[] = {
    ID("migration"),
};
static const struct field query_fields[] = {
    ID("migration"),
    BOOLEAN("", "sending"),
};
static const struct field text_fields[] = {
    ID("migration"),
    TEXT("text"),
};
static const struct field sent_fields[] = {
    ID("migration"),
    NUMBER("", "bytes", REQUIRED),
    HEX("", "hash", 32),
};
static const struct field loaded_fields[] = {
    ID("migration"),
    HEX("", "nonce", 32),
    NUMBER("", "bytes", REQUIRED),
    HEX("", "hash", 32),
};
static const struct field commit_fields[] = {
    ID("migration"),
    HEX("", "nonce", 32),
};
static const struct field refused_fields[] = {
    ID("migration"),
    INTEGER("", "refusal", 1, 4294967295, REQUIRED),
    BOOLEAN("", "copy"),
    TEXT("text"),
};
static const struct field try_again_fields[] = {
    ID("migration"),
    INTEGER("", "refusal", 1, 4294967295, REQUIRED),
};
static const struct field owned_fields[] = {
    ID("migration"),
    BOOLEAN("", "running"),
    NUMBER("", "resumed_at", REQUIRED),
};

#define RULE(key, table)                           \
    {                                              \
        key, table, sizeof table / sizeof table[0] \
    }
static const struct message_rule message_rules[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_HELLO] = RULE("hello", hello_fields),
    [MESSAGE_PING] = RULE("ping", ping_fields),
    [MESSAGE_PONG] = RULE("pong", pong_fields),
    [MESSAGE_PREFLIGHT] = RULE("preflight", offer_fields),
    [MESSAGE_FINDINGS] = RULE("findings", findings_fields),
    [MESSAGE_OFFER] = RULE("offer", offer_fields),
    [MESSAGE_ACCEPT] = RULE("accept", accept_fields),
    [MESSAGE_REFUSE] = RULE("refuse", refuse_fields),
    [MESSAGE_LIMIT] = RULE("limit", limit_fields),
    [MESSAGE_MOVER_LOST] = RULE("mover-lost", mover_lost_fields),
    [MESSAGE_RESUME] = RULE("resume", resume_fields),
    [MESSAGE_RESUMED] = RULE("resumed", resumed_fields),
    [MESSAGE_MEMORY] = RULE("memory", migration_fields),
    [MESSAGE_MEMORY_READY] = RULE("memory-ready", migration_fields),
    [MESSAGE_SENT] = RULE("sent", sent_fields),
    [MESSAGE_LOADED] = RULE("loaded", loaded_fields),
    [MESSAGE_COMMIT] = RULE("commit", commit_fields),
    [MESSAGE_OWNED] = RULE("owned", owned_fields),
    [MESSAGE_REFUSED] = RULE("refused", refused_fields),
    [MESSAGE_TAKEN_BACK] = RULE("taken-back", migration_fields),
    [MESSAGE_TRY_AGAIN] = RULE("try-again", try_again_fields),
    [MESSAGE_DONE] = RULE("done", migration_fields),
    [MESSAGE_DONE_ACK] = RULE("done-ack", migration_fields),
    [MESSAGE_ABORT] = RULE("abort", refuse_fields),
    [MESSAGE_ABORTED] = RULE("aborted", text_fields),
    [MESSAGE_CONFLICT] = RULE("conflict", text_fields),
    [MESSAGE_QUERY] = RULE("query", query_fields),
    [MESSAGE_UNKNOWN] = RULE("unknown", migration_fields),
};

/* Where a check stands, for the sentence it may have to write. */
struct place {
    const char *message;
    size_t index; /* of the object in its array */
    char *error;
    size_t error_size;
};

__attribute__((format(printf, 3, 4))) static bool say(char *error, size_t error_size,
                                                      const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(error, error_size, format, arguments);
    va_end(arguments);
    return false;
}

static bool field_is_wrong(const struct place *place, const struct field *field, bool missing)
{
    const char *complaint = missing ? "is missing: " : "is not of its kind: ";
    const char *brackets = strstr(field->path, "[]");
    if (brackets == NULL) {
        return say(place->error, place->error_size, "message \"%s\": field \"%s\" %s%s",
                   place->message, field->path, complaint, field->kind_text);
    }
    return say(place->error, place->error_size, "message \"%s\": field \"%.*s[%zu]%s\" %s%s",
               place->message, (int)(brackets - field->path), field->path, place->index,
               brackets + 2, complaint, field->kind_text);
}

static bool is_hex(const json_t *value, uint64_t digits)
{
    const char *text = json_string_value(value);
    return text != NULL && json_string_length(value) == digits &&
           strspn(text, "0123456789abcdef") == digits;
}

/* Names, paths and sentences of a peer end up in logs and on terminals, where control characters
 * (C0, DEL, and C1, which is C2 80 .. C2 9F in UTF-8) can forge lines or drive the terminal. */
static bool has_control_character(const char *text, size_t length, bool lines_allowed)
{
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (lines_allowed && (byte == '\n' || byte == '\t')) {
            continue;
        }
        if (byte < 0x20 || byte == 0x7f) {
            return true;
        }
        if (byte == 0xc2 && i + 1 < length && (uint8_t)text[i + 1] < 0xa0) {
            return true;
        }
    }
    return false;
}

static bool is_string(const json_t *value, uint64_t min, uint64_t max, bool lines_allowed)
{
    const char *text = json_string_value(value);
    if (text == NULL) {
        return false;
    }
    size_t length = json_string_length(value);
    return length >= min && length <= max && !has_control_character(text, length, lines_allowed);
}

static bool is_mode(const json_t *value)
{
    const char *text = json_string_value(value);
    return text != NULL && (strcmp(text, "live") == 0 || strcmp(text, "quick") == 0) &&
           strlen(text) == json_string_length(value);
}

static bool is_integer(const json_t *value, uint64_t min, uint64_t max)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    uint64_t number = (uint64_t)json_integer_value(value);
    return number >= min && number <= max;
}

static bool is_arguments(const json_t *value, uint64_t min, uint64_t max)
{
    if (!json_is_array(value) || json_array_size(value) < min || json_array_size(value) > max) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *argument = json_array_get(value, i);
        const char *text = json_string_value(argument);
        if (text == NULL || json_string_length(argument) > ARGUMENT_MAX ||
            strlen(text) != json_string_length(argument)) {
            return false;
        }
    }
    return true;
}

/* All kinds but KIND_OBJECTS. */
static bool value_is_of_kind(const json_t *value, const struct field *field)
{
    switch (field->kind) {
    case KIND_ID:
    case KIND_HEX:
        return is_hex(value, field->max);
    case KIND_STRING:
        return is_string(value, field->min, field->max, false);
    case KIND_TEXT:
        return is_string(value, field->min, field->max, true);
    case KIND_MODE:
        return is_mode(value);
    case KIND_INTEGER:
        return is_integer(value, field->min, field->max);
    case KIND_BOOLEAN:
        return json_is_boolean(value);
    case KIND_ARGUMENTS:
        return is_arguments(value, field->min, field->max);
    case KIND_OBJECTS:
        break;
    }
    return false;
}

/* A field of an object that itself is an item of an array; arrays of objects do not nest. */
static bool item_check(const json_t *item, const struct field *array, const struct place *place)
{
    if (!json_is_object(item)) {
        return say(place->error, place->error_size, "message \"%s\": \"%s[%zu]\" is not an object",
                   place->message, array->path, place->index);
    }
    for (size_t i = 0; i < array->item_count; i++) {
        const struct field *field = &array->items[i];
        const json_t *value = json_object_get(item, field->name);
        if (value == NULL && field->required) {
            return field_is_wrong(place, field, true);
        }
        if (value != NULL && !value_is_of_kind(value, field)) {
            return field_is_wrong(place, field, false);
        }
    }
    return true;
}

static bool objects_check(const json_t *value, const struct field *field, struct place *place)
{
    if (!json_is_array(value) || json_array_size(value) < field->min ||
        json_array_size(value) > field->max) {
        return field_is_wrong(place, field, false);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        place->index = i;
        if (!item_check(json_array_get(value, i), field, place)) {
            return false;
        }
    }
    return true;
}

static bool field_check(const json_t *object, const struct field *field, struct place *place)
{
    const json_t *value = json_object_get(object, field->name);
    if (value == NULL) {
        return field->required ? field_is_wrong(place, field, true) : true;
    }
    if (field->kind == KIND_OBJECTS) {
        return objects_check(value, field, place);
    }
    return value_is_of_kind(value, field) ? true : field_is_wrong(place, field, false);
}

const char *message_type_name(enum message_type type)
{
    size_t index = (size_t)type;
    return index < MESSAGE_TYPE_COUNT ? message_rules[index].name : "invalid";
}

static bool type_find(const char *name, enum message_type *type)
{
    for (size_t i = 0; i < MESSAGE_TYPE_COUNT; i++) {
        if (strcmp(name, message_rules[i].name) == 0) {
            *type = (enum message_type)i;
            return true;
        }
    }
    return false;
}

bool message_check(const json_t *object, enum message_type *type, char *error, size_t error_size)
{
    if (!json_is_object(object)) {
        return say(error, error_size, "a message is not a JSON object");
    }
    const json_t *name = json_object_get(object, "type");
    if (!is_string(name, 1, 40, false)) {
        return say(error, error_size, "a message has no \"type\" of kind string 1..40");
    }
    if (!type_find(json_string_value(name), type)) {
        return say(error, error_size, "message \"%s\" is not known", json_string_value(name));
    }
    const struct message_rule *rule = &message_rules[*type];
    struct place place = {.message = rule->name, .error = error, .error_size = error_size};
    for (size_t i = 0; i < rule->field_count; i++) {
        if (!field_check(object, &rule->fields[i], &place)) {
            return false;
        }
    }
    return true;
}

json_t *message_parse(const uint8_t *body, size_t length, enum message_type *type, char *error,
                      size_t error_size)
{
    if (length > FRAME_CONTROL_BODY_MAX) {
        (void)say(error, error_size, "a message of %zu bytes is longer than %u", length,
                  FRAME_CONTROL_BODY_MAX);
        return NULL;
    }
    json_error_t fault;
    json_t *object = json_loadb((const char *)body, length, JSON_REJECT_DUPLICATES, &fault);
    if (object == NULL) {
        /* jansson's own sentence quotes the peer's bytes, which may be anything. */
        (void)say(error, error_size, "a message is not valid JSON (at byte %d of %zu)",
                  fault.position, length);
        return NULL;
    }
    if (!message_check(object, type, error, error_size)) {
        json_decref(object);
        return NULL;
    }
    return object;
}

/* Replaces what value_is_of_kind() would not let pass in a text, but for bytes that are no UTF-8. */
static void controls_replace(char *text)
{
    for (; *text != '\0'; text++) {
        uint8_t byte = (uint8_t)text[0];
        if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) {
            text[0] = '?';
        } else if (byte == 0xc2 && (uint8_t)text[1] >= 0x80 && (uint8_t)text[1] < 0xa0) {
            text[0] = '?';
            text[1] = '?';
        }
    }
}

json_t *message_text(const char *bytes)
{
    char text[TEXT_MAX + 1];
    size_t length = strnlen(bytes, TEXT_MAX);
    if (bytes[length] != '\0') {
        /* Cut before a character's first byte, not within it. */
        while (length > 0 && ((uint8_t)bytes[length] & 0xc0) == 0x80) {
            length--;
        }
    }
    memcpy(text, bytes, length);
    text[length] = '\0';
    controls_replace(text);
    json_t *string = json_string(text);
    if (string != NULL) {
        return string;
    }
    for (size_t i = 0; i < length; i++) {
        if ((uint8_t)text[i] >= 0x80) {
            text[i] = '?';
        }
    }
    return json_string(text);
}

/* The INDEXth line of FIELDS, counting those of arrays of objects after the array; NULL past the
 * end, with *index less what was passed. */
static const struct field *line_find(const struct field *fields, size_t count, size_t *index)
{
    for (size_t i = 0; i < count; i++) {
        if (*index == 0) {
            return &fields[i];
        }
        (*index)--;
        if (*index < fields[i].item_count) {
            return &fields[i].items[*index];
        }
        *index -= fields[i].item_count;
    }
    return NULL;
}

bool message_describe(size_t index, const char **type, const char **field, const char **kind,
                      bool *required)
{
    for (size_t i = 0; i < MESSAGE_TYPE_COUNT; i++) {
        const struct field *line =
            line_find(message_rules[i].fields, message_rules[i].field_count, &index);
        if (line != NULL) {
            *type = message_rules[i].name;
            *field = line->path;
            *kind = line->kind_text;
            *required = line->required;
            return true;
        }
    }
    return false;
}

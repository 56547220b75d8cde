#include "json_line.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_line {
    char *bytes;
    size_t capacity;
    size_t start;   /* the first byte not given out yet */
    size_t end;     /* behind the last byte fed */
    size_t scanned; /* no newline before this: a long line is searched once, not at every feed */
    size_t max_length;
    bool too_long;
};

struct json_line *json_line_new(size_t max_length)
{
    struct json_line *splitter = calloc(1, sizeof *splitter);

    if (splitter) {
        splitter->max_length = max_length;
    }
    return splitter;
}

void json_line_free(struct json_line *splitter)
{
    if (splitter) {
        free(splitter->bytes);
        free(splitter);
    }
}

static void move_to_front(struct json_line *splitter)
{
    if (splitter->start == 0) {
        return;
    }
    memmove(splitter->bytes, splitter->bytes + splitter->start, splitter->end - splitter->start);
    splitter->end -= splitter->start;
    splitter->scanned -= splitter->start;
    splitter->start = 0;
}

static bool make_room(struct json_line *splitter, size_t size)
{
    size_t needed, capacity = splitter->capacity ? splitter->capacity : 4096;
    char *larger;

    move_to_front(splitter);
    if (__builtin_add_overflow(splitter->end, size, &needed) || needed > SIZE_MAX / 2) {
        return false;
    }
    if (needed <= splitter->capacity) {
        return true;
    }
    while (capacity < needed) {
        capacity *= 2;
    }
    larger = realloc(splitter->bytes, capacity);
    if (!larger) {
        return false;
    }
    splitter->bytes = larger;
    splitter->capacity = capacity;
    return true;
}

bool json_line_feed(struct json_line *splitter, const void *bytes, size_t size)
{
    if (size == 0 || splitter->too_long) {
        return true;
    }
    if (!make_room(splitter, size)) {
        return false;
    }
    memcpy(splitter->bytes + splitter->end, bytes, size);
    splitter->end += size;
    return true;
}

static bool is_blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
            return false;
        }
    }
    return true;
}

static enum json_line_step refuse_length(struct json_line *splitter,
                                         char error[JSON_LINE_ERROR_SIZE])
{
    splitter->too_long = true;
    splitter->start = splitter->end = splitter->scanned = 0;
    snprintf(error, JSON_LINE_ERROR_SIZE, "a line is longer than %zu bytes", splitter->max_length);
    return JSON_LINE_TOO_LONG;
}

static enum json_line_step parse(const char *line, size_t length, json_t **object,
                                 char error[JSON_LINE_ERROR_SIZE])
{
    json_error_t reason;
    json_t *value = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &reason);

    if (!value) {
        snprintf(error, JSON_LINE_ERROR_SIZE, "not JSON: %s (column %d)", reason.text,
                 reason.column);
        return JSON_LINE_BAD;
    }
    if (!json_is_object(value)) {
        json_decref(value);
        snprintf(error, JSON_LINE_ERROR_SIZE, "not a JSON object");
        return JSON_LINE_BAD;
    }
    *object = value;
    return JSON_LINE_OBJECT;
}

enum json_line_step json_line_next(struct json_line *splitter, json_t **object,
                                   char error[JSON_LINE_ERROR_SIZE])
{
    *object = NULL;
    if (splitter->too_long) {
        return refuse_length(splitter, error);
    }
    while (splitter->scanned < splitter->end) {
        char *newline =
            memchr(splitter->bytes + splitter->scanned, '\n', splitter->end - splitter->scanned);
        const char *line = splitter->bytes + splitter->start;
        size_t length;

        if (!newline) {
            splitter->scanned = splitter->end;
            break;
        }
        length = (size_t)(newline - line);
        if (length > splitter->max_length) {
            return refuse_length(splitter, error);
        }
        splitter->start = splitter->scanned = (size_t)(newline - splitter->bytes) + 1;
        if (!is_blank(line, length)) {
            return parse(line, length, object, error);
        }
    }
    if (splitter->end - splitter->start > splitter->max_length) {
        return refuse_length(splitter, error);
    }
    return JSON_LINE_MORE;
}

json_t *json_line_string(const char *text)
{
    json_t *value = json_string(text);
    char *ascii;

    if (value || !(ascii = strdup(text))) {
        return value;
    }
    /* Which bytes of it are at fault is not worth knowing. */
    for (char *c = ascii; *c; c++) {
        if ((unsigned char)*c >= 0x80) {
            *c = '?';
        }
    }
    value = json_string(ascii);
    free(ascii);
    return value;
}

char *json_line_text(const json_t *object, size_t *length)
{
    /* 15 digits: 0.4 stays 0.4. With all 17 it would read 0.40000000000000002. */
    const size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(15);
    size_t size = json_dumpb(object, NULL, 0, flags);
    char *text;

    if (size == 0 || !(text = malloc(size + 2))) {
        return NULL;
    }
    if (json_dumpb(object, text, size, flags) != size) {
        free(text);
        return NULL;
    }
    text[size] = '\n';
    text[size + 1] = '\0';
    if (length) {
        *length = size + 1;
    }
    return text;
}

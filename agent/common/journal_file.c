#include "journal_file.h"

#include "must.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define SUM_DIGITS 16
/* A begin record carries a QEMU argument vector: well below this. */
#define FILE_MAX_BYTES (64u << 20)

static void put_sum(size_t number, const char *text, size_t length, char out[SUM_DIGITS + 1])
{
    snprintf(out, SUM_DIGITS + 1, "%016llx",
             (unsigned long long)XXH3_64bits_withSeed(text, length, (XXH64_hash_t)number));
}

char *journal_file_line(size_t number, const json_t *record)
{
    char sum[SUM_DIGITS + 1];
    char *text = json_dumps(record, JSON_COMPACT);
    char *line;

    if (!text) {
        must_json(NULL);
    }
    put_sum(number, text, strlen(text), sum);
    line = must_format("%s %s\n", sum, text);
    free(text);
    return line;
}

/* NULL when the line is not a record. */
static json_t *parse_line(size_t number, const char *line, size_t length)
{
    char sum[SUM_DIGITS + 1];
    json_t *record;

    if (length <= SUM_DIGITS + 1 || line[SUM_DIGITS] != ' ') {
        return NULL;
    }
    put_sum(number, line + SUM_DIGITS + 1, length - SUM_DIGITS - 1, sum);
    if (memcmp(sum, line, SUM_DIGITS) != 0) {
        return NULL;
    }
    record =
        json_loadb(line + SUM_DIGITS + 1, length - SUM_DIGITS - 1, JSON_REJECT_DUPLICATES, NULL);
    if (record && !json_is_string(json_object_get(record, "record"))) {
        json_decref(record);
        record = NULL;
    }
    return record;
}

/* The whole file, NUL-terminated; NULL with errno. */
static char *read_whole(const char *path, size_t *length)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t room = 0, used = 0, got;

    if (!file) {
        return NULL;
    }
    do {
        if (room - used < 65536) {
            char *grown = room < FILE_MAX_BYTES ? realloc(text, room + 262144) : NULL;

            if (!grown) {
                errno = EFBIG;
                goto fail;
            }
            text = grown;
            room += 262144;
        }
        got = fread(text + used, 1, room - used - 1, file);
        used += got;
    } while (got > 0);
    if (ferror(file)) {
        errno = EIO;
        goto fail;
    }
    fclose(file);
    text[used] = '\0';
    *length = used;
    return text;

fail:
    free(text);
    fclose(file);
    return NULL;
}

/* A whole record and more behind it, without a newline between: the newline was there once. */
static bool hides_record(size_t number, const char *line, size_t length)
{
    json_error_t end;
    json_t *object;
    json_t *record = NULL;

    if (length <= SUM_DIGITS + 1) {
        return false;
    }
    object =
        json_loadb(line + SUM_DIGITS + 1, length - SUM_DIGITS - 1, JSON_DISABLE_EOF_CHECK, &end);
    if (object && SUM_DIGITS + 1 + (size_t)end.position < length) {
        record = parse_line(number, line, SUM_DIGITS + 1 + (size_t)end.position);
    }
    json_decref(object);
    json_decref(record);
    return record != NULL;
}

/*
 * What a crash leaves of the last record: a line cut short, newline and all, or one of whose blocks only some reached the disk (zeroes). What
 * is not that was whole once, and is damaged if it is not now.
 */
static bool is_torn(size_t number, const char *line, size_t length, bool newline)
{
    return memchr(line, '\0', length) || (!newline && !hides_record(number, line, length));
}

static bool parse_all(const char *path, const char *text, size_t length,
                      struct journal_content *out, struct error *error)
{
    size_t at = 0;

    while (at < length) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t line = newline ? (size_t)(newline - (text + at)) : length - at;
        size_t next = newline ? at + line + 1 : length;
        json_t *record =
            newline ? parse_line(json_array_size(out->records), text + at, line) : NULL;

        if (!record) {
            if (next < length ||
                !is_torn(json_array_size(out->records), text + at, line, newline)) {
                return error_set(
                    error, "journal-damaged",
                    "journal %s is damaged at record %zu (byte %zu); nothing was "
                    "changed. Keep a copy, find out why (disk?), and decide with `watari status` at the other host",
                    path, json_array_size(out->records), at);
            }
            out->torn = true;
            return true;
        }
        json_array_append_new(out->records, record);
        at = next;
        out->good_length = at;
    }
    return true;
}

bool journal_file_read(const char *path, struct journal_content *out, struct error *error)
{
    size_t length = 0;
    char *text = read_whole(path, &length);
    bool good;

    memset(out, 0, sizeof *out);
    if (!text) {
        return error_set(error, "journal-unreadable", "journal %s cannot be read: %s", path,
                         strerror(errno));
    }
    out->records = must_json(json_array());
    good = parse_all(path, text, length, out, error);
    free(text);
    if (!good) {
        journal_content_clear(out);
    }
    return good;
}

void journal_content_clear(struct journal_content *content)
{
    json_decref(content->records);
    memset(content, 0, sizeof *content);
}

const json_t *journal_content_last(const struct journal_content *content, const char *record)
{
    for (size_t i = json_array_size(content->records); i-- > 0;) {
        const json_t *at = json_array_get(content->records, i);

        if (strcmp(json_string_value(json_object_get(at, "record")), record) == 0) {
            return at;
        }
    }
    return NULL;
}

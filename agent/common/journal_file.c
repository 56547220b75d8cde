#include "journal_file.h"

#include "must.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
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

int journal_file_write(int fd, const char *text, size_t length, size_t offset)
{
    while (length > 0) {
        ssize_t written = pwrite(fd, text, length, (off_t)offset);

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return written < 0 ? errno : ENOSPC;
        }
        text += written;
        offset += (size_t)written;
        length -= (size_t)written;
    }
    return 0;
}

int journal_file_read_start(int fd, char *text, size_t length)
{
    size_t used = 0;

    while (used < length) {
        ssize_t got = pread(fd, text + used, length - used, (off_t)used);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? errno : ENODATA;
        }
        used += (size_t)got;
    }
    return 0;
}

/* The whole file, NUL-terminated; NULL with errno. */
static char *read_whole(const char *path, size_t *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    char *text = NULL;
    size_t used = 0;
    ssize_t got = 1;

    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &status) < 0) {
        goto fail;
    }
    if (!S_ISREG(status.st_mode) || status.st_size > FILE_MAX_BYTES) {
        errno = S_ISREG(status.st_mode) ? EFBIG : EISDIR;
        goto fail;
    }
    text = must_alloc((size_t)status.st_size + 1);
    while (used < (size_t)status.st_size && got > 0) {
        got = read(fd, text + used, (size_t)status.st_size - used);
        used += got > 0 ? (size_t)got : 0;
    }
    if (got < 0) {
        goto fail;
    }
    close(fd);
    text[used] = '\0';
    *length = used;
    return text;

fail:
    free(text);
    close(fd);
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

static bool read_and_parse(const char *path, struct journal_content *out, struct error *error)
{
    size_t length = 0;
    char *text = read_whole(path, &length);
    bool good;

    memset(out, 0, sizeof *out);
    out->records = must_json(json_array());
    if (!text) {
        return error_set(error, "journal-unreadable", "journal %s cannot be read: %s", path,
                         strerror(errno));
    }
    good = parse_all(path, text, length, out, error);
    free(text);
    return good;
}

bool journal_file_read(const char *path, struct journal_content *out, struct error *error)
{
    bool good = read_and_parse(path, out, error);

    if (!good) {
        journal_content_clear(out);
    }
    return good;
}

void journal_file_read_some(const char *path, struct journal_content *out)
{
    struct error error;

    (void)read_and_parse(path, out, &error);
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

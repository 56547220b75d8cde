#include "timeline_file.h"

#include "json_line.h"
#include "must.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* No line that watarid writes is longer: a request names at most some dozens of disks. */
#define LINE_MAX_BYTES ((size_t)1 << 20)
#define CHUNK_BYTES ((size_t)64 << 10)
#define ID_LENGTH (TIMELINE_ID_SIZE - 1)
#define HEX_DIGITS "0123456789abcdef"

/* --- one file --- */

static bool unreadable(struct error *error, const char *path)
{
    return error_set(error, "timeline-unreadable", "%s: %s%s", path, strerror(errno),
                     errno == EACCES ? " (it is root's alone)" : "");
}

/* Appends the lines that are whole to LINES; false when no further one can be told. */
static bool take_lines(struct json_line *splitter, json_t *lines, size_t *bad)
{
    char text[JSON_LINE_ERROR_SIZE];
    json_t *line;

    for (;;) {
        switch (json_line_next(splitter, &line, text)) {
        case JSON_LINE_OBJECT:
            json_array_append_new(lines, line);
            break;
        case JSON_LINE_BAD:
            (*bad)++;
            break;
        case JSON_LINE_TOO_LONG:
            (*bad)++;
            return false;
        case JSON_LINE_MORE:
            return true;
        }
    }
}

/* Up to MOST lines of FD; false when it cannot be read. */
static bool read_lines(int fd, size_t most, json_t *lines, size_t *bad)
{
    struct json_line *splitter = json_line_new(LINE_MAX_BYTES);
    char *chunk = must_alloc(CHUNK_BYTES), last = '\n';
    ssize_t got = -1;

    while (splitter && json_array_size(lines) < most && (got = read(fd, chunk, CHUNK_BYTES)) > 0) {
        last = chunk[got - 1];
        if (!json_line_feed(splitter, chunk, (size_t)got)) {
            errno = ENOMEM;
            got = -1;
            break;
        }
        if (!take_lines(splitter, lines, bad)) {
            break;
        }
    }
    *bad += got == 0 && last != '\n';
    json_line_free(splitter);
    free(chunk);
    return got >= 0;
}

static json_t *read_file(const char *path, size_t most, size_t *bad, struct error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    json_t *lines;

    *bad = 0;
    if (fd < 0) {
        unreadable(error, path);
        return NULL;
    }
    lines = must_json(json_array());
    if (!read_lines(fd, most, lines, bad)) {
        unreadable(error, path);
        json_decref(lines);
        lines = NULL;
    }
    close(fd);
    return lines;
}

json_t *timeline_file_read(const char *path, size_t *bad, struct error *error)
{
    return read_file(path, SIZE_MAX, bad, error);
}

bool timeline_file_is_name(const char *name, char id[TIMELINE_ID_SIZE])
{
    if (strspn(name, HEX_DIGITS) != ID_LENGTH || (strcmp(name + ID_LENGTH, ".source") != 0 &&
                                                  strcmp(name + ID_LENGTH, ".destination") != 0)) {
        return false;
    }
    memcpy(id, name, ID_LENGTH);
    id[ID_LENGTH] = '\0';
    return true;
}

/* --- all of them --- */

/* False when there is no such file any more. */
static bool read_entry(struct timeline_entry *entry, struct error *error)
{
    size_t bad;
    json_t *lines = read_file(entry->path, 1, &bad, error);
    const json_t *begin = json_array_get(lines, 0);
    const char *vm = json_string_value(json_object_get(begin, "vm"));

    if (!lines) {
        return false;
    }
    entry->vm = must_copy(vm ? vm : "");
    entry->began_s = (int64_t)json_integer_value(json_object_get(begin, "began_s"));
    json_decref(lines);
    return true;
}

static void add(struct timeline_list *list, const char *directory, const char *name)
{
    struct timeline_entry entry = {0};
    struct error error;

    if (!timeline_file_is_name(name, entry.id)) {
        return;
    }
    entry.path = must_format("%s/%s", directory, name);
    if (!read_entry(&entry, &error)) {
        entry.vm =
            must_copy(""); /* by its id it is found all the same, and says why it cannot be read */
    }
    list->entries = must_resize(list->entries, (list->count + 1) * sizeof *list->entries);
    list->entries[list->count++] = entry;
}

bool timeline_list_read(const char *state_dir, struct timeline_list *out, struct error *error)
{
    char *directory = must_format("%s/" TIMELINE_DIRECTORY, state_dir);
    DIR *names = opendir(directory);
    bool good = names || unreadable(error, directory);
    struct dirent *name;

    *out = (struct timeline_list){0};
    while (names && (name = readdir(names))) {
        add(out, directory, name->d_name);
    }
    if (names) {
        closedir(names);
    }
    free(directory);
    return good;
}

void timeline_list_clear(struct timeline_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->entries[i].path);
        free(list->entries[i].vm);
    }
    free(list->entries);
    *list = (struct timeline_list){0};
}

static const struct timeline_entry *last_of_vm(const struct timeline_list *list, const char *vm)
{
    const struct timeline_entry *last = NULL;

    for (size_t i = 0; i < list->count; i++) {
        const struct timeline_entry *entry = &list->entries[i];

        if (strcmp(entry->vm, vm) == 0 && (!last || entry->began_s > last->began_s)) {
            last = entry;
        }
    }
    return last;
}

const struct timeline_entry *timeline_list_find(const struct timeline_list *list, const char *what,
                                                struct error *error)
{
    const struct timeline_entry *found = last_of_vm(list, what);
    size_t length = strlen(what), fitting = 0;

    if (found && length > 0) {
        return found;
    }
    for (size_t i = 0; length > 0 && i < list->count; i++) {
        if (strncmp(list->entries[i].id, what, length) == 0) {
            found = &list->entries[i];
            fitting++;
        }
    }
    if (fitting == 1) {
        return found;
    }
    if (fitting > 1) {
        error_set(error, "timeline-unknown", "%zu migrations have an id that begins with %s",
                  fitting, what);
    } else {
        error_set(error, "timeline-unknown", "no migration has that id, and no VM that name: %s",
                  what);
    }
    return NULL;
}

/*
 * The configuration file, read with inih. Its handler is not told the line, and what it does after
 * an error depends on how it was built; so the lines go through a reader of ours, which counts them
 * and ends the file at the first error.
 */
#include "config_set.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

struct reader {
    FILE *file;
    const char *path;
    int line;
    int error_line; /* 0: none so far */
    struct config *config;
    bool seen[CONFIG_MAX_SETTINGS];
    struct error *error;
};

static void fail_here(struct reader *reader)
{
    reader->error_line = reader->line;
}

/* inih would take the rest of a long line for a line of its own. */
static bool is_whole_line(struct reader *reader, const char *text)
{
    size_t length = strlen(text);
    int next;

    if (length > 0 && text[length - 1] == '\n') {
        return true;
    }
    next = getc(reader->file);
    if (next == EOF) {
        return true;
    }
    ungetc(next, reader->file);
    error_set(reader->error, "config", "the line is too long, or holds a NUL");
    fail_here(reader);
    return false;
}

/* A section without keys never reaches the handler. */
static bool check_section(struct reader *reader, const char *text)
{
    const char *start = text + strspn(text, " \t");
    char name[64];
    size_t length;

    if (*start != '[') {
        return true;
    }
    start++;
    length = strcspn(start, "]\n");
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1),
             start);
    if (config_has_section(name)) {
        return true;
    }
    error_set(reader->error, "config", "unknown section [%s]", name);
    fail_here(reader);
    return false;
}

static char *read_line(char *text, int size, void *context)
{
    struct reader *reader = context;

    if (reader->error_line || !fgets(text, size, reader->file)) {
        return NULL;
    }
    reader->line++;
    if (!is_whole_line(reader, text) || !check_section(reader, text)) {
        return NULL;
    }
    return text;
}

static int take_setting(void *context, const char *section, const char *key, const char *value)
{
    struct reader *reader = context;
    int index = config_setting_index(section, key);

    if (reader->error_line) {
        return 0;
    }
    if (index >= 0 && reader->seen[index]) {
        error_set(reader->error, "config", "%s is given twice", key);
        fail_here(reader);
        return 0;
    }
    if (!config_set(reader->config, section, key, value, reader->error)) {
        fail_here(reader);
        return 0;
    }
    if (index >= 0) {
        reader->seen[index] = true;
    }
    return 1;
}

static bool parse(struct reader *reader)
{
    int line = ini_parse_stream(read_line, reader, take_setting, reader);

    if (line < 0) {
        return error_set(reader->error, "config", "%s: out of memory", reader->path);
    }
    /* A line that inih itself cannot read is only known by its number. */
    if (line > 0 && (reader->error_line == 0 || line < reader->error_line)) {
        return error_set(reader->error, "config", "%s:%d: neither KEY = VALUE nor [SECTION]",
                         reader->path, line);
    }
    if (reader->error_line) {
        return error_prefix(reader->error, "%s:%d: ", reader->path, reader->error_line);
    }
    if (ferror(reader->file)) {
        return error_set(reader->error, "config", "%s: cannot be read: %s", reader->path,
                         strerror(errno));
    }
    return true;
}

bool config_read_file(struct config *config, const char *path, bool must_exist, struct error *error)
{
    struct reader reader = {.path = path, .config = config, .error = error};
    bool good;

    reader.file = fopen(path, "re");
    if (!reader.file) {
        if (errno == ENOENT && !must_exist) {
            return true;
        }
        return error_set(error, "config", "%s: %s", path, strerror(errno));
    }
    good = parse(&reader);
    fclose(reader.file);
    return good;
}

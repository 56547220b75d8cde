/*
 * What all launch rules stand on: the vectors, messages, key specifications, paths. See
 * launch_builder.h.
 */
#include "launch_builder.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool launch_fail(struct launch_builder *builder, const char *text, ...)
{
    va_list arguments;
    int used = 0;

    if (builder->option) {
        used = snprintf(builder->error, LAUNCH_ERROR_SIZE, "QEMU option %.80s: ", builder->option);
    }
    va_start(arguments, text);
    vsnprintf(builder->error + used, LAUNCH_ERROR_SIZE - (size_t)used, text, arguments);
    va_end(arguments);
    return false;
}

bool launch_no_memory(struct launch_builder *builder)
{
    builder->option = NULL;
    return launch_fail(builder, "out of memory");
}

bool launch_format(struct launch_builder *builder, char **out, const char *text, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, text);
    length = vasprintf(out, text, arguments);
    va_end(arguments);
    if (length < 0) {
        *out = NULL;
        return launch_no_memory(builder);
    }
    return true;
}

bool launch_strings_add(struct launch_strings *strings, const char *text)
{
    char **items = reallocarray(strings->items, strings->count + 2, sizeof *items);

    if (!items) {
        return false;
    }
    strings->items = items;
    items[strings->count + 1] = NULL;
    items[strings->count] = strdup(text);
    if (!items[strings->count]) {
        return false;
    }
    strings->count++;
    return true;
}

bool launch_strings_have(const struct launch_strings *strings, const char *text)
{
    for (size_t i = 0; i < strings->count; i++) {
        if (strcmp(strings->items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

void launch_strings_clear(struct launch_strings *strings)
{
    for (size_t i = 0; i < strings->count; i++) {
        free(strings->items[i]);
    }
    free(strings->items);
    memset(strings, 0, sizeof *strings);
}

bool launch_emit_two(struct launch_builder *builder, const char *incoming, const char *boot)
{
    return (launch_strings_add(&builder->argv, incoming) &&
            launch_strings_add(&builder->boot_argv, boot)) ||
           launch_no_memory(builder);
}

bool launch_emit(struct launch_builder *builder, const char *word)
{
    return launch_emit_two(builder, word, word);
}

bool launch_emit_options(struct launch_builder *builder, const char *option,
                         const struct qemu_options *options, const char *implied)
{
    char *text = qemu_options_text(options, implied);
    bool good = text ? launch_emit(builder, option) && launch_emit(builder, text)
                     : launch_no_memory(builder);

    free(text);
    return good;
}

static bool takes_json(const struct launch_builder *builder, const char *argument)
{
    static const char *const names[] = {"blockdev", "device",  "netdev",
                                        "object",   "display", "audiodev"};
    const struct launch_option *option = builder->option && argument == builder->argument
                                             ? launch_option_find(builder->option)
                                             : NULL;

    for (size_t i = 0; option && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(option->name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool launch_parse(struct launch_builder *builder, const char *argument, const char *implied,
                  struct qemu_options *options)
{
    const char *why;

    if (*argument == '{' && !takes_json(builder, argument)) {
        memset(options, 0, sizeof *options);
        return launch_fail(builder, "it takes no JSON");
    }
    why = qemu_options_parse(options, argument, implied);
    return !why || launch_fail(builder, "\"%.200s\": %s", argument, why);
}

bool launch_set(struct launch_builder *builder, struct qemu_options *options, const char *key,
                const char *value)
{
    return qemu_options_set(options, key, value) || launch_no_memory(builder);
}

void launch_plain_key(const char *key, char *out)
{
    char *end = out;

    while (*key) {
        size_t length = strcspn(key, ".");

        if (strspn(key, "0123456789") < length && !(end > out && strcmp(key, "str") == 0)) {
            end += snprintf(end, length + 2, "%s%.*s", end > out ? "." : "", (int)length, key);
        }
        key += length + (key[length] == '.');
    }
    *end = '\0';
}

static bool same_key(const char *key, const char *word, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (key[i] == '\0' || (key[i] == '_' ? '-' : key[i]) != (word[i] == '_' ? '-' : word[i])) {
            return false;
        }
    }
    return true;
}

/* The mark behind KEY in the specification (' ' for none), or '\0' when KEY is not in it. */
static char find_key(const char *specification, const char *key)
{
    for (const char *word = specification; *word; word += strspn(word, " ")) {
        size_t length = strcspn(word, " *+@/%");
        char mark = word[length];

        if (same_key(key, word, length) && (mark == '*' || key[length] == '\0')) {
            return mark ? mark : ' ';
        }
        word += strcspn(word, " ");
    }
    return '\0';
}

static bool is_repeated(const struct qemu_options *options, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        const char *key = options->pairs[i].key, *other = options->pairs[index].key;

        if (strlen(key) == strlen(other) && same_key(key, other, strlen(other))) {
            return true;
        }
    }
    return false;
}

static bool check_value(struct launch_builder *builder, struct qemu_options *options, size_t index,
                        char mark)
{
    const char *key = options->pairs[index].key, *value = options->pairs[index].value;
    char path[LAUNCH_PATH_SIZE];
    bool good = true;

    if (!strchr("@/%", mark)) {
        return true;
    }
    if (!value) {
        return launch_fail(builder, "%s: null is no file", key);
    }
    if (mark == '@') {
        good = launch_file(builder, value, path);
    } else if (mark == '/') {
        good = launch_allowed_path(builder, value, path);
    } else {
        good = launch_firmware(builder, value, path);
    }
    return good && launch_set(builder, options, key, path);
}

bool launch_check(struct launch_builder *builder, struct qemu_options *options,
                  const char *specification)
{
    for (size_t i = 0; i < options->count; i++) {
        char plain[LAUNCH_PATH_SIZE], mark;

        launch_plain_key(options->pairs[i].key, plain);
        mark = find_key(specification, plain);
        if (mark == '\0') {
            return launch_fail(builder, "\"%s\" is not known to the launch rules",
                               options->pairs[i].key);
        }
        if (mark != '+' && is_repeated(options, i)) {
            return launch_fail(builder, "\"%s\" comes twice", options->pairs[i].key);
        }
        if (!check_value(builder, options, i, mark)) {
            return false;
        }
    }
    return true;
}

bool launch_keys(struct launch_builder *builder, const char *option, const char *argument,
                 const char *implied, const char *specification)
{
    struct qemu_options options;
    bool good = launch_parse(builder, argument, implied, &options) &&
                launch_check(builder, &options, specification) &&
                launch_emit_options(builder, option, &options, implied);

    qemu_options_clear(&options);
    return good;
}

bool launch_is_word(const char *text)
{
    for (const char *c = text; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("._+-", *c)) {
            return false;
        }
    }
    return *text != '\0';
}

bool launch_normal_path(const char *path, char out[LAUNCH_PATH_SIZE])
{
    size_t used = 0;

    if (*path != '/') {
        return false;
    }
    while (*(path += strspn(path, "/"))) {
        size_t length = strcspn(path, "/");

        if (length == 2 && path[0] == '.' && path[1] == '.') {
            return false;
        }
        if (length != 1 || path[0] != '.') {
            /* Room for the slash here, and for another at the end with its NUL. */
            if (length > LAUNCH_PATH_SIZE - 3 - used) {
                return false;
            }
            out[used++] = '/';
            memcpy(out + used, path, length);
            used += length;
        }
        path += length;
    }
    if (used == 0) {
        out[used++] = '/';
    }
    out[used] = '\0';
    return true;
}

bool launch_is_allowed(const struct launch_builder *builder, const char *path)
{
    for (size_t i = 0; i < builder->rules->allowed_path_count; i++) {
        char allowed[LAUNCH_PATH_SIZE];
        size_t length;

        if (!launch_normal_path(builder->rules->allowed_paths[i], allowed)) {
            continue;
        }
        length = strcmp(allowed, "/") == 0 ? 0 : strlen(allowed);
        if (strncmp(path, allowed, length) == 0 && (path[length] == '/' || path[length] == '\0')) {
            return true;
        }
    }
    return false;
}

bool launch_allowed_path(struct launch_builder *builder, const char *path,
                         char out[LAUNCH_PATH_SIZE])
{
    if (!launch_normal_path(path, out)) {
        return launch_fail(builder, "\"%.200s\" is not an absolute path without \"..\"", path);
    }
    if (strncmp(out, "/dev/fdset/", strlen("/dev/fdset/")) == 0) {
        return launch_fail(builder, "\"%.200s\": descriptors cannot travel", out);
    }
    if (!launch_is_allowed(builder, out)) {
        return launch_fail(builder, "\"%.200s\" is not under a path that this host allows", out);
    }
    return true;
}

bool launch_file(struct launch_builder *builder, const char *path, char out[LAUNCH_PATH_SIZE])
{
    if (!launch_allowed_path(builder, path, out)) {
        return false;
    }
    /* QEMU takes some arguments apart at commas and blanks (the modules of a multiboot kernel), and
     * what it then opens was not judged. */
    if (strpbrk(out, ", ")) {
        return launch_fail(builder, "\"%.200s\" holds a comma or a blank", out);
    }
    return launch_strings_have(&builder->required_files, out) ||
           launch_strings_add(&builder->required_files, out) || launch_no_memory(builder);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

bool launch_firmware(struct launch_builder *builder, const char *name, char out[LAUNCH_PATH_SIZE])
{
    bool plain = launch_is_word(name) &&
                 (ends_with(name, ".bin") || ends_with(name, ".rom") || ends_with(name, ".fd"));

    if ((plain || *name == '\0') && strlen(name) < LAUNCH_PATH_SIZE) {
        strcpy(out, name);
        return true;
    }
    return launch_file(builder, name, out);
}

bool launch_memory_directory(struct launch_builder *builder, const char *path,
                             char out[LAUNCH_PATH_SIZE])
{
    if (!launch_allowed_path(builder, path, out)) {
        return false;
    }
    for (size_t i = 0; i < builder->rules->allowed_path_count; i++) {
        char allowed[LAUNCH_PATH_SIZE];

        if (launch_normal_path(builder->rules->allowed_paths[i], allowed) &&
            strcmp(out, allowed) == 0) {
            strcat(out, "/");
            return true;
        }
    }
    return launch_fail(builder, "\"%.200s\" is not itself one of the paths that this host allows",
                       out);
}

/* "name", or "name.2", "name.3", ... when it is taken: the same input gives the same names, and
 * unique names stay as they are. */
static bool take_name(struct launch_builder *builder, const char *wanted, char *out, size_t size)
{
    int length = snprintf(out, size, "%s", wanted);

    for (size_t number = 2; launch_strings_have(&builder->local_names, out); number++) {
        length = snprintf(out, size, "%s.%zu", wanted, number);
        if (length < 0 || (size_t)length >= size) {
            break;
        }
    }
    if (length < 0 || (size_t)length >= size) {
        return launch_fail(builder, "\"%.200s\" is too long a file name", wanted);
    }
    return launch_strings_add(&builder->local_names, out) || launch_no_memory(builder);
}

bool launch_local_path(struct launch_builder *builder, const char *path, char **private_path,
                       char **public_path)
{
    const char *slash = strrchr(path, '/'), *wanted = slash ? slash + 1 : path;
    const char *directory = builder->rules->vm_directory;
    char name[256];

    if (*wanted == '\0' || strcmp(wanted, ".") == 0 || strcmp(wanted, "..") == 0) {
        return launch_fail(builder, "\"%.200s\" names no file", path);
    }
    return take_name(builder, wanted, name, sizeof name) &&
           (!private_path ||
            launch_format(builder, private_path, "%s/private/%s", directory, name)) &&
           (!public_path || launch_format(builder, public_path, "%s/%s", directory, name));
}

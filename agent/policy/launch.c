/*
 * From the source's argument vector to the destination's. See launch.h; the rules of single options
 * are in launch_*.c, their table in launch_options.c.
 */
#include "launch_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU's own vectors have some hundred words; Linux allows 128 KiB for one (MAX_ARG_STRLEN). */
#define ARGUMENTS_MAX 4096
#define ARGUMENT_LENGTH_MAX (128u << 10)

/* Names in vm_directory that are watari's own. */
static const char *const reserved_names[] = {"private", LAUNCH_OWN_MONITOR ".sock", "qemu.log"};

static bool check_sizes(struct launch_builder *builder, const char *const *argv, size_t argc)
{
    if (argc == 0 || argc > ARGUMENTS_MAX) {
        return launch_fail(builder, "a vector of %zu arguments", argc);
    }
    for (size_t i = 0; i < argc; i++) {
        if (!argv[i]) {
            return launch_fail(builder, "argument %zu is no text", i);
        }
        if (strnlen(argv[i], ARGUMENT_LENGTH_MAX) == ARGUMENT_LENGTH_MAX) {
            return launch_fail(builder, "argument %zu is too long", i);
        }
    }
    return true;
}

static bool is_qemu_name(const char *name)
{
    return strncmp(name, "qemu-system-", strlen("qemu-system-")) == 0 && launch_is_word(name);
}

/* What ENTRY of the list makes of the binary WANTED: its path in *OUT, NULL when it is another. */
static bool match_binary(struct launch_builder *builder, const char *entry, const char *wanted,
                         char **out)
{
    const char *slash = strrchr(wanted, '/'), *name = slash ? slash + 1 : wanted;
    size_t length = strlen(entry);

    if (*entry != '/') {
        return true;
    }
    if (entry[length - 1] == '/') {
        bool same =
            !slash || ((size_t)(name - wanted) == length && strncmp(wanted, entry, length) == 0);

        return !same || !is_qemu_name(name) || launch_format(builder, out, "%s%s", entry, name);
    }
    if (strcmp(entry, wanted) == 0 || (!slash && strcmp(strrchr(entry, '/') + 1, wanted) == 0)) {
        return launch_format(builder, out, "%s", entry);
    }
    return true;
}

static bool add_binary(struct launch_builder *builder, const char *wanted)
{
    char *path = NULL;
    bool good = true;

    for (size_t i = 0; good && !path && i < builder->rules->binary_count; i++) {
        good = match_binary(builder, builder->rules->binaries[i], wanted, &path);
    }
    if (good) {
        good = path
                   ? launch_emit(builder, path)
                   : launch_fail(builder, "\"%.200s\" is not a QEMU that this host allows", wanted);
    }
    free(path);
    return good;
}

/* "q35" means another machine in each version of QEMU: the source's concrete type takes its
 * place. */
bool launch_apply_machine(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument)
{
    struct qemu_options options;
    bool good = launch_parse(builder, argument, option->implied, &options);

    if (good && qemu_options_get(&options, "type")) {
        builder->has_machine_type = true;
        good = !builder->rules->machine ||
               launch_set(builder, &options, "type", builder->rules->machine);
    }
    good = good && launch_check(builder, &options, option->text) &&
           launch_emit_options(builder, "-machine", &options, option->implied);
    qemu_options_clear(&options);
    return good;
}

bool launch_apply_memory_path(struct launch_builder *builder, const struct launch_option *option,
                              const char *argument)
{
    char path[LAUNCH_PATH_SIZE];

    (void)option;
    return launch_memory_directory(builder, argument, path) && launch_emit(builder, "-mem-path") &&
           launch_emit(builder, path);
}

bool launch_apply_log(struct launch_builder *builder, const struct launch_option *option,
                      const char *argument)
{
    char *path = NULL;
    bool good = launch_local_path(builder, argument, NULL, &path) && launch_emit(builder, "-D") &&
                launch_emit(builder, path);

    (void)option;
    free(path);
    return good;
}

bool launch_apply_firmware(struct launch_builder *builder, const struct launch_option *option,
                           const char *argument)
{
    char path[LAUNCH_PATH_SIZE];

    (void)option;
    return launch_firmware(builder, argument, path) && launch_emit(builder, "-bios") &&
           launch_emit(builder, path);
}

bool launch_apply_firmware_directory(struct launch_builder *builder,
                                     const struct launch_option *option, const char *argument)
{
    char path[LAUNCH_PATH_SIZE];

    (void)option;
    return launch_allowed_path(builder, argument, path) && launch_emit(builder, "-L") &&
           launch_emit(builder, path);
}

static bool keep(struct launch_builder *builder, const struct launch_option *option,
                 const char *argument)
{
    char word[32];

    snprintf(word, sizeof word, "-%s", option->name);
    return launch_emit(builder, word) && (!argument || launch_emit(builder, argument));
}

static bool add_file(struct launch_builder *builder, const struct launch_option *option,
                     const char *argument)
{
    char path[LAUNCH_PATH_SIZE];

    return launch_file(builder, argument, path) && keep(builder, option, path);
}

static bool add_keys(struct launch_builder *builder, const struct launch_option *option,
                     const char *argument)
{
    char word[32];

    snprintf(word, sizeof word, "-%s", option->name);
    return launch_keys(builder, word, argument, option->implied, option->text);
}

static bool add_option(struct launch_builder *builder, const struct launch_option *option,
                       const char *argument)
{
    switch (option->verdict) {
    case LAUNCH_KEEP:
        return keep(builder, option, argument);
    case LAUNCH_WORD:
        return launch_is_word(argument) ? keep(builder, option, argument)
                                        : launch_fail(builder, "\"%.200s\" is no word", argument);
    case LAUNCH_DROP:
        return true;
    case LAUNCH_REFUSE:
        return launch_fail(builder, "%s", option->text);
    case LAUNCH_FILE:
        return add_file(builder, option, argument);
    case LAUNCH_KEYS:
        return add_keys(builder, option, argument);
    case LAUNCH_APPLY:
        return option->apply(builder, option, argument);
    }
    return launch_fail(builder, "no rule");
}

static bool add_argument(struct launch_builder *builder, const struct launch_argument *step)
{
    builder->option = step->word;
    builder->argument = step->argument;
    if (step->word[0] != '-') {
        /* A disk image by itself is the first hard disk. */
        return launch_apply_image(builder, launch_option_find("-hda"), step->word);
    }
    if (!step->option) {
        builder->option = NULL;
        return launch_fail(builder, "QEMU option %.200s is not known to the launch rules",
                           step->word);
    }
    if (step->option->argument && !step->argument) {
        return launch_fail(builder, "its argument is missing");
    }
    return add_option(builder, step->option, step->argument);
}

static bool add_arguments(struct launch_builder *builder, const char *const *argv, size_t argc)
{
    for (size_t i = 1; i < argc;) {
        struct launch_argument step = launch_argument_next(argv, argc, &i);

        if (!add_argument(builder, &step)) {
            return false;
        }
    }
    builder->option = NULL;
    return true;
}

/* What QEMU would choose by itself, differently from host to host. */
static bool add_defaults(struct launch_builder *builder)
{
    struct qemu_options machine = {0};
    bool good = true;

    if (!builder->has_machine_type && builder->rules->machine) {
        good = launch_set(builder, &machine, "type", builder->rules->machine) &&
               launch_emit_options(builder, "-machine", &machine, "type");
        qemu_options_clear(&machine);
    }
    /* Without a word about it QEMU opens a window, or a VNC server without a password. */
    if (good && !builder->has_display) {
        good = launch_emit(builder, "-display") && launch_emit(builder, "none");
    }
    return good;
}

static bool add_incoming(struct launch_builder *builder)
{
    struct qemu_options chardev = {0};
    char *path = NULL, *text = NULL;
    bool good = launch_format(builder, &path, "%s/private/" LAUNCH_OWN_MONITOR ".sock",
                              builder->rules->vm_directory);

    if (good && strlen(path) >= LAUNCH_SOCKET_PATH_SIZE) {
        good = launch_fail(builder, "\"%.200s\" would be too long a path for a socket", path);
    }
    good = good && launch_set(builder, &chardev, "backend", "socket") &&
           launch_set(builder, &chardev, "id", LAUNCH_OWN_MONITOR) &&
           launch_set(builder, &chardev, "path", path) &&
           launch_set(builder, &chardev, "server", "on") &&
           launch_set(builder, &chardev, "wait", "off");
    if (good) {
        const char *words[] = {"-chardev", text = qemu_options_text(&chardev, "backend"),
                               "-mon",     "chardev=" LAUNCH_OWN_MONITOR ",mode=control",
                               "-S",       "-incoming",
                               "defer"};

        for (size_t i = 0; good && i < sizeof words / sizeof words[0]; i++) {
            good = (words[i] && launch_strings_add(&builder->argv, words[i])) ||
                   launch_no_memory(builder);
        }
    }
    qemu_options_clear(&chardev);
    free(path);
    free(text);
    return good;
}

static bool check_disks(struct launch_builder *builder)
{
    for (size_t i = 0; i < builder->rules->disk_count; i++) {
        if (!builder->disk_used[i]) {
            return launch_fail(builder,
                               "no option names the image \"%.200s\": was it plugged in "
                               "while the VM ran?",
                               builder->rules->disks[i].source_path);
        }
    }
    return true;
}

static bool build(struct launch_builder *builder, const char *const *argv, size_t argc)
{
    builder->disk_used = calloc(builder->rules->disk_count + 1, sizeof *builder->disk_used);
    if (!builder->disk_used) {
        return launch_no_memory(builder);
    }
    for (size_t i = 0; i < sizeof reserved_names / sizeof reserved_names[0]; i++) {
        if (!launch_strings_add(&builder->local_names, reserved_names[i])) {
            return launch_no_memory(builder);
        }
    }
    return check_sizes(builder, argv, argc) && add_binary(builder, argv[0]) &&
           launch_find_monitors(builder, argv, argc) && add_arguments(builder, argv, argc) &&
           check_disks(builder) && add_defaults(builder) && add_incoming(builder);
}

static void give_out(struct launch_builder *builder)
{
    struct launch *out = builder->out;

    out->argv = builder->argv.items;
    out->argc = builder->argv.count;
    out->boot_argv = builder->boot_argv.items;
    out->boot_argc = builder->boot_argv.count;
    out->required_files = builder->required_files.items;
    out->required_file_count = builder->required_files.count;
}

static void clear_work(struct launch_builder *builder)
{
    launch_strings_clear(&builder->local_names);
    launch_strings_clear(&builder->media_nodes);
    for (size_t i = 0; i < builder->monitor_count; i++) {
        free(builder->monitors[i].id);
    }
    free(builder->monitors);
    free(builder->disk_used);
}

bool launch_build(const char *const *source_argv, size_t source_argc,
                  const struct launch_rules *rules, struct launch *out,
                  char error[LAUNCH_ERROR_SIZE])
{
    struct launch_builder builder = {.rules = rules, .out = out, .error = error};
    bool good;

    memset(out, 0, sizeof *out);
    good = build(&builder, source_argv, source_argc);
    give_out(&builder);
    clear_work(&builder);
    if (!good) {
        launch_clear(out);
    }
    return good;
}

static void clear_list(char **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i]);
    }
    free(list);
}

void launch_clear(struct launch *launch)
{
    clear_list(launch->argv, launch->argc);
    clear_list(launch->boot_argv, launch->boot_argc);
    clear_list(launch->required_files, launch->required_file_count);
    for (size_t i = 0; i < launch->socket_count; i++) {
        free(launch->sockets[i].private_path);
        free(launch->sockets[i].public_path);
    }
    free(launch->sockets);
    free(launch->qmp_path);
    memset(launch, 0, sizeof *launch);
}

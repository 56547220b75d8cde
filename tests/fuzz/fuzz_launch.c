/*
 * Fuzz target: an argument vector as a peer sends it (words separated by NULs) through the launch
 * rules. What comes out waits for a migration exactly once, names no image and no required file
 * outside what the rules allow, and stays the same when it goes through the rules again, as it does
 * when the VM moves on.
 */
#include "agent/policy/launch.h"
#include "agent/policy/launch_options.h"
#include "agent/policy/qemu_options.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 256
#define REQUIRE(condition)  \
    do {                    \
        if (!(condition)) { \
            abort();        \
        }                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const binaries[] = {"/usr/bin/"};
static const char *const allowed[] = {"/srv", "/dev/hugepages"};
static const struct launch_disk disk_here[] = {{"/old/a", "/pool/a", "qcow2"}};
static const struct launch_disk disk_there[] = {{"/pool/a", "/pool/a", "qcow2"}};

static struct launch_rules make_rules(const struct launch_disk *disks, size_t count)
{
    return (struct launch_rules){.binaries = binaries,
                                 .binary_count = 1,
                                 .allowed_paths = allowed,
                                 .allowed_path_count = 2,
                                 .vm_directory = "/run/vm",
                                 .disks = disks,
                                 .disk_count = count,
                                 .machine = "pc-q35-7.2"};
}

static bool lies_under(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0') &&
           !strstr(path, "/../");
}

static void check_image(const char *path)
{
    REQUIRE(*path == '\0' || strcmp(path, "/pool/a") == 0 || lies_under(path, "/srv") ||
            lies_under(path, "/dev/hugepages"));
}

static void check_images(const struct launch_argument *step)
{
    bool drive = strcmp(step->option->name, "drive") == 0;
    struct qemu_options options;

    if (!drive && strcmp(step->option->name, "blockdev") != 0) {
        return;
    }
    REQUIRE(!qemu_options_parse(&options, step->argument, drive ? NULL : "driver"));
    for (size_t i = 0; i < options.count; i++) {
        const char *key = options.pairs[i].key, *dot = strrchr(key, '.');

        if (strcmp(dot ? dot + 1 : key, "filename") == 0 || (drive && strcmp(key, "file") == 0)) {
            check_image(options.pairs[i].value);
        }
    }
    qemu_options_clear(&options);
}

/* How often the vector waits for a migration. */
static size_t walk(char *const *argv, size_t argc)
{
    size_t incoming = 0;

    for (size_t i = 1; i < argc;) {
        struct launch_argument step = launch_argument_next((const char *const *)argv, argc, &i);

        REQUIRE(step.option && (step.argument || !step.option->argument));
        REQUIRE(step.option->verdict != LAUNCH_REFUSE);
        if (strcmp(step.option->name, "incoming") == 0) {
            REQUIRE(strcmp(step.argument, "defer") == 0);
            incoming++;
        } else if (step.argument) {
            check_images(&step);
        }
    }
    return incoming;
}

static void check(const struct launch *launch, size_t disk_count)
{
    struct launch_rules rules = make_rules(disk_there, disk_count);
    char error[LAUNCH_ERROR_SIZE];
    struct launch again;

    REQUIRE(walk(launch->argv, launch->argc) == 1);
    REQUIRE(walk(launch->boot_argv, launch->boot_argc) == 0);
    for (size_t i = 0; i < launch->required_file_count; i++) {
        check_image(launch->required_files[i]);
    }
    for (size_t i = 0; i < launch->socket_count; i++) {
        REQUIRE(lies_under(launch->sockets[i].private_path, "/run/vm/private"));
        REQUIRE(lies_under(launch->sockets[i].public_path, "/run/vm"));
    }
    REQUIRE(launch_build((const char *const *)launch->argv, launch->argc, &rules, &again, error));
    REQUIRE(again.argc == launch->argc && again.socket_count == launch->socket_count);
    for (size_t i = 0; i < launch->argc; i++) {
        REQUIRE(strcmp(again.argv[i], launch->argv[i]) == 0);
    }
    launch_clear(&again);
}

/* The first byte chooses whether the VM has a disk; QEMU's name is given. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t disk_count = size > 0 ? data[0] & 1u : 0, argc = 1;
    struct launch_rules rules = make_rules(disk_here, disk_count);
    const char *argv[WORDS_MAX] = {"qemu-system-x86_64"};
    char *text = malloc(size + 1), error[LAUNCH_ERROR_SIZE];
    struct launch launch;

    if (!text) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    for (size_t at = 1; at < size && argc < WORDS_MAX; at += strlen(text + at) + 1) {
        argv[argc++] = text + at;
    }
    if (launch_build(argv, argc, &rules, &launch, error)) {
        check(&launch, disk_count);
        launch_clear(&launch);
    } else {
        REQUIRE(memchr(error, '\0', sizeof error) && *error && !launch.argv);
    }
    free(text);
    return 0;
}

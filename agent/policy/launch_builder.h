/*
 * Private to launch*.c: the vector while it is being built, and what all rules need of it. Every
 * function that can fail sets the builder's error, with the option's name in front, and returns
 * false.
 */
#ifndef WATARI_POLICY_LAUNCH_BUILDER_H
#define WATARI_POLICY_LAUNCH_BUILDER_H

#include "launch.h"
#include "launch_options.h"
#include "qemu_options.h"

/* The chardev of our own monitor: taken away when a VM comes that watari launched before, added
 * anew at the end. */
#define LAUNCH_OWN_MONITOR "watari-qmp"
#define LAUNCH_PATH_SIZE 4096
/* sun_path of struct sockaddr_un, with its NUL. */
#define LAUNCH_SOCKET_PATH_SIZE 108

struct launch_strings {
    char **items; /* NULL-terminated when not NULL */
    size_t count;
};

/* A chardev that a monitor uses, by id; gathered before the vector is walked, as -mon may come
 * after its -chardev. */
struct launch_monitor {
    char *id;
    bool control; /* QMP */
};

struct launch_builder {
    const struct launch_rules *rules;
    struct launch *out;
    char *error;          /* LAUNCH_ERROR_SIZE */
    const char *option;   /* the word being judged, for messages; NULL: none */
    const char *argument; /* its argument as it came */
    struct launch_strings argv, boot_argv, required_files;
    struct launch_strings local_names; /* names in vm_directory that are taken */
    struct launch_strings media_nodes; /* block nodes of read-only media */
    struct launch_monitor *monitors;
    size_t monitor_count;
    bool *disk_used; /* one a disk of the rules */
    bool has_display;
    bool has_machine_type;
};

bool launch_fail(struct launch_builder *builder, const char *text, ...)
    __attribute__((format(printf, 2, 3)));
bool launch_no_memory(struct launch_builder *builder);

/* printf into fresh memory; *OUT is NULL on failure. */
bool launch_format(struct launch_builder *builder, char **out, const char *text, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends a copy; false without a message when there is no memory. */
bool launch_strings_add(struct launch_strings *strings, const char *text);
bool launch_strings_have(const struct launch_strings *strings, const char *text);
void launch_strings_clear(struct launch_strings *strings);

/* One word for both vectors, or one for each. */
bool launch_emit(struct launch_builder *builder, const char *word);
bool launch_emit_two(struct launch_builder *builder, const char *incoming, const char *boot);
/* OPTION and OPTIONS' canonical text, to both. */
bool launch_emit_options(struct launch_builder *builder, const char *option,
                         const struct qemu_options *options, const char *implied);

/* Parses ARGUMENT, or says that it does not parse. OPTIONS is to be cleared in both cases. JSON is
 * taken only where QEMU takes it: elsewhere QEMU would read the same bytes as key=value pairs, and
 * find others in them. */
bool launch_parse(struct launch_builder *builder, const char *argument, const char *implied,
                  struct qemu_options *options);
bool launch_set(struct launch_builder *builder, struct qemu_options *options, const char *key,
                const char *value);

/*
 * Judges OPTIONS by SPECIFICATION: words with the keys it may have; any other is refused, and so is
 * a key that comes twice. '-' and '_' are the same. What follows a key: "*" any key that begins so,
 * "+" may come twice, "@" a file, "/" a directory, "%" a firmware name. The index of a JSON list
 * does not count ("hostfwd.0.str" is hostfwd). Values of files are replaced by their normal form.
 */
bool launch_check(struct launch_builder *builder, struct qemu_options *options,
                  const char *specification);
/* Parse, check, emit. */
bool launch_keys(struct launch_builder *builder, const char *option, const char *argument,
                 const char *implied, const char *specification);
/* KEY without the indexes of lists, into OUT (of LAUNCH_PATH_SIZE). */
void launch_plain_key(const char *key, char *out);

/* PATH absolute, without "//", "/./" and a slash at the end; false when it is relative, has "..",
 * or is too long. */
bool launch_normal_path(const char *path, char out[LAUNCH_PATH_SIZE]);
/* A normal path that is one of the allowed ones or lies under one. */
bool launch_is_allowed(const struct launch_builder *builder, const char *path);
/* Judges a path by both and puts its normal form into OUT. */
bool launch_allowed_path(struct launch_builder *builder, const char *path,
                         char out[LAUNCH_PATH_SIZE]);
/* The same, and it is added to the required files. */
bool launch_file(struct launch_builder *builder, const char *path, char out[LAUNCH_PATH_SIZE]);
/* Nothing, a file name of QEMU's own data directory ("vgabios.bin"), or a file as above. */
bool launch_firmware(struct launch_builder *builder, const char *name, char out[LAUNCH_PATH_SIZE]);
/* A directory for guest memory: one of the allowed paths itself; OUT ends in a slash, so that QEMU
 * cannot take a file for it. */
bool launch_memory_directory(struct launch_builder *builder, const char *path,
                             char out[LAUNCH_PATH_SIZE]);

/* Letters, digits and "._+-" only. */
bool launch_is_word(const char *text);

/* The place of PATH's file in vm_directory, under a name nobody else has: at once (PRIVATE false),
 * or until the VM is owned, in private/. Either out pointer may be NULL; free() them. */
bool launch_local_path(struct launch_builder *builder, const char *path, char **private_path,
                       char **public_path);

/* The rules that are functions, as launch_option.apply. */
bool launch_apply_machine(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument);
bool launch_apply_memory_path(struct launch_builder *builder, const struct launch_option *option,
                              const char *argument);
bool launch_apply_log(struct launch_builder *builder, const struct launch_option *option,
                      const char *argument);
bool launch_apply_firmware(struct launch_builder *builder, const struct launch_option *option,
                           const char *argument);
bool launch_apply_firmware_directory(struct launch_builder *builder,
                                     const struct launch_option *option, const char *argument);
bool launch_apply_drive(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument);
bool launch_apply_blockdev(struct launch_builder *builder, const struct launch_option *option,
                           const char *argument);
bool launch_apply_image(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument);
bool launch_apply_chardev(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument);
bool launch_apply_console(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument);
bool launch_apply_monitor(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument);
bool launch_apply_mon(struct launch_builder *builder, const struct launch_option *option,
                      const char *argument);
bool launch_apply_device(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument);
bool launch_apply_global(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument);
bool launch_apply_object(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument);
bool launch_apply_netdev(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument);
bool launch_apply_display(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument);
bool launch_apply_vnc(struct launch_builder *builder, const struct launch_option *option,
                      const char *argument);
bool launch_apply_spice(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument);
bool launch_apply_audio(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument);
/* Gathers builder->monitors from the whole vector. */
bool launch_find_monitors(struct launch_builder *builder, const char *const *argv, size_t argc);

#endif

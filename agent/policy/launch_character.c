/*
 * Launch rules of character devices: -chardev, and the older spellings of -serial, -parallel,
 * -debugcon, -monitor and -qmp. Server sockets and files move into the VM's directory; monitors
 * into its private/ until the VM is owned here, because a `cont` on one would start the guest
 * before that. Whatever dials out, is the host's device or a terminal is refused.
 */
#include "launch_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
#define HOST_CHARACTERS PORT_CHARACTERS "."
#define COMMON_KEYS "backend id mux logfile logappend"

static const struct {
    const char *name;
    const char *keys; /* specification, see launch_check() */
    bool monitor;     /* may carry a monitor */
} backends[] = {
    {"null", COMMON_KEYS, true},
    {"vc", COMMON_KEYS " width height cols rows", true},
    {"pty", COMMON_KEYS, false},
    {"ringbuf", COMMON_KEYS " size", false},
    {"memory", COMMON_KEYS " size", false},
    {"msmouse", COMMON_KEYS, false},
    {"wctablet", COMMON_KEYS, false},
    {"spicevmc", COMMON_KEYS " name debug", false},
    {"spiceport", COMMON_KEYS " name", false},
    {"file", COMMON_KEYS " path append", false},
};
static const char unix_keys[] =
    COMMON_KEYS " path abstract tight server wait telnet tn3270 websocket tls-creds tls-authz";
static const char inet_keys[] = COMMON_KEYS " host port to ipv4 ipv6 nodelay delay server wait "
                                            "telnet tn3270 websocket tls-creds tls-authz";

/* One chardev while it is judged. */
struct character {
    struct launch_builder *builder;
    struct qemu_options options;
    bool monitor;
    bool control;       /* QMP */
    char *private_path; /* where its socket goes; NULL when it has none */
    char *public_path;
};

static void clear(struct character *character)
{
    qemu_options_clear(&character->options);
    free(character->private_path);
    free(character->public_path);
}

static bool add_socket(struct character *character)
{
    struct launch *out = character->builder->out;
    struct launch_socket *sockets =
        reallocarray(out->sockets, out->socket_count + 1, sizeof *sockets);

    if (!sockets) {
        return launch_no_memory(character->builder);
    }
    out->sockets = sockets;
    sockets[out->socket_count].private_path = strdup(character->private_path);
    sockets[out->socket_count].public_path = strdup(character->public_path);
    out->socket_count++;
    if (!sockets[out->socket_count - 1].private_path ||
        !sockets[out->socket_count - 1].public_path) {
        return launch_no_memory(character->builder);
    }
    if (character->control && !out->qmp_path) {
        out->qmp_path = strdup(character->public_path);
        return out->qmp_path || launch_no_memory(character->builder);
    }
    return true;
}

/* KEY's file moves into the VM's directory. */
static bool move_file(struct character *character, const char *key)
{
    const char *path = qemu_options_get(&character->options, key);
    char *local = NULL;
    bool good = launch_local_path(character->builder, path, NULL, &local) &&
                launch_set(character->builder, &character->options, key, local);

    free(local);
    return good;
}

static bool judge_unix_socket(struct character *character)
{
    struct launch_builder *builder = character->builder;
    const char *path = qemu_options_get(&character->options, "path");

    if (!launch_check(builder, &character->options, unix_keys) ||
        !launch_local_path(builder, path, &character->private_path, &character->public_path)) {
        return false;
    }
    if (strlen(character->private_path) >= LAUNCH_SOCKET_PATH_SIZE) {
        return launch_fail(builder, "\"%.200s\" would be too long a path for a socket",
                           character->private_path);
    }
    if (!launch_set(builder, &character->options, "path",
                    character->monitor ? character->private_path : character->public_path)) {
        return false;
    }
    return !character->monitor || add_socket(character);
}

/* With wait=on QEMU would stand still until somebody connects. */
static bool judge_server(struct character *character)
{
    const struct qemu_options *options = &character->options;

    if (!qemu_options_is_on(options, "server")) {
        return launch_fail(character->builder, "a socket that dials out is not allowed, only "
                                               "server=on");
    }
    return qemu_options_set_flag(&character->options, "wait", false) ||
           launch_no_memory(character->builder);
}

static bool judge_socket(struct character *character)
{
    struct launch_builder *builder = character->builder;

    if (qemu_options_get(&character->options, "fd")) {
        return launch_fail(builder, "fd: descriptors cannot travel");
    }
    if (qemu_options_is_on(&character->options, "abstract")) {
        return launch_fail(builder, "abstract sockets are not allowed");
    }
    if (!judge_server(character)) {
        return false;
    }
    if (qemu_options_get(&character->options, "path")) {
        return judge_unix_socket(character);
    }
    if (character->monitor) {
        return launch_fail(builder, "a monitor on TCP could be reached before the VM is owned "
                                    "here; use a unix socket");
    }
    return launch_check(builder, &character->options, inet_keys);
}

static bool judge_plain(struct character *character, const char *backend)
{
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        if (strcmp(backends[i].name, backend) != 0) {
            continue;
        }
        if (character->monitor && !backends[i].monitor) {
            break;
        }
        return launch_check(character->builder, &character->options, backends[i].keys);
    }
    return launch_fail(character->builder, "%s \"%.60s\" is not allowed",
                       character->monitor ? "a monitor on" : "character device", backend);
}

static bool judge(struct character *character, const char *backend)
{
    if (strcmp(backend, "socket") == 0) {
        if (!judge_socket(character)) {
            return false;
        }
    } else if (!judge_plain(character, backend)) {
        return false;
    } else if (strcmp(backend, "file") == 0) {
        if (!qemu_options_get(&character->options, "path")) {
            return launch_fail(character->builder, "a file without a path");
        }
        if (!move_file(character, "path")) {
            return false;
        }
    }
    return !qemu_options_get(&character->options, "logfile") || move_file(character, "logfile");
}

static bool with_prefix(struct character *character, const char *prefix, const char *implied,
                        char **out)
{
    char *text = qemu_options_text(&character->options, implied);
    bool good = text ? launch_format(character->builder, out, "%s%s", prefix, text)
                     : launch_no_memory(character->builder);

    free(text);
    return good;
}

/* PREFIX and the options; in the boot vector a monitor is at its public place. */
static bool emit(struct character *character, const char *option, const char *prefix,
                 const char *implied)
{
    struct launch_builder *builder = character->builder;
    char *incoming = NULL, *boot = NULL;
    bool good = with_prefix(character, prefix, implied, &incoming) &&
                (!character->public_path ||
                 launch_set(builder, &character->options, "path", character->public_path)) &&
                with_prefix(character, prefix, implied, &boot) && launch_emit(builder, option) &&
                launch_emit_two(builder, incoming, boot);

    free(incoming);
    free(boot);
    return good;
}

static const struct launch_monitor *find_monitor(const struct launch_builder *builder,
                                                 const char *id)
{
    for (size_t i = 0; id && i < builder->monitor_count; i++) {
        if (strcmp(builder->monitors[i].id, id) == 0) {
            return &builder->monitors[i];
        }
    }
    return NULL;
}

static bool apply_parsed_chardev(struct character *character)
{
    struct launch_builder *builder = character->builder;
    const char *backend = qemu_options_get(&character->options, "backend");
    const char *id = qemu_options_get(&character->options, "id");
    const struct launch_monitor *monitor = find_monitor(builder, id);

    if (id && strcmp(id, LAUNCH_OWN_MONITOR) == 0) {
        return true;
    }
    character->monitor = monitor != NULL;
    character->control = monitor && monitor->control;
    if (!backend) {
        return launch_fail(builder, "no backend is named");
    }
    return judge(character, backend) && emit(character, "-chardev", "", "backend");
}

bool launch_apply_chardev(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument)
{
    struct character character = {.builder = builder};
    bool good = launch_parse(builder, argument, "backend", &character.options) &&
                apply_parsed_chardev(&character);

    (void)option;
    clear(&character);
    return good;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* unix:PATH,option,... */
static bool apply_unix(struct character *character, const char *option, const char *argument,
                       const char *prefix)
{
    const char *rest = strstr(argument, "unix:") + strlen("unix:");

    return launch_parse(character->builder, rest, "path", &character->options) &&
           (qemu_options_get(&character->options, "path") ||
            launch_fail(character->builder, "a unix socket without a path")) &&
           judge(character, "socket") && emit(character, option, prefix, "path");
}

/* HOST:PORT as QEMU's sscanf() takes it; of a longer port it would leave the rest, and the options
 * behind it, unread. */
static bool is_address(const char *text, size_t length)
{
    size_t host = strspn(text, HOST_CHARACTERS), port;

    if (host > 64 || text[host] != ':') {
        return false;
    }
    port = strspn(text + host + 1, PORT_CHARACTERS);
    return port > 0 && port <= 32 && host + 1 + port == length;
}

/* tcp:HOST:PORT,option,... and telnet:, websocket: alike */
static bool apply_tcp(struct character *character, const char *option, const char *argument)
{
    struct launch_builder *builder = character->builder;
    size_t head = strcspn(argument, ","), scheme = strcspn(argument, ":") + 1;
    char prefix[256];

    if (!is_address(argument + scheme, head - scheme)) {
        return launch_fail(builder, "\"%.200s\" is not HOST:PORT", argument);
    }
    snprintf(prefix, sizeof prefix, "%.*s,", (int)head, argument);
    if (!launch_parse(builder, argument[head] ? argument + head + 1 : "", NULL,
                      &character->options)) {
        return false;
    }
    if (qemu_options_get(&character->options, "path")) {
        return launch_fail(builder, "both an address and a path");
    }
    return judge(character, "socket") && emit(character, option, prefix, NULL);
}

static bool apply_file(struct launch_builder *builder, const char *option, const char *argument)
{
    char *path = NULL, *word = NULL;
    bool good = launch_local_path(builder, argument + strlen("file:"), NULL, &path) &&
                launch_format(builder, &word, "file:%s", path) && launch_emit(builder, option) &&
                launch_emit(builder, word);

    free(path);
    free(word);
    return good;
}

static bool is_virtual_console(const char *argument)
{
    return strcmp(argument, "vc") == 0 ||
           (starts_with(argument, "vc:") &&
            strspn(argument + 3, "0123456789xC") == strlen(argument + 3));
}

/* What -serial and -monitor write alike. CHARACTER says whether it is a monitor. */
static bool apply_old_spelling(struct character *character, const char *option,
                               const char *argument)
{
    struct launch_builder *builder = character->builder;

    if (strcmp(argument, "none") == 0 || strcmp(argument, "null") == 0 ||
        is_virtual_console(argument) || starts_with(argument, "chardev:")) {
        return launch_emit(builder, option) && launch_emit(builder, argument);
    }
    if (starts_with(argument, "unix:")) {
        return apply_unix(character, option, argument, "unix:");
    }
    if (starts_with(argument, "tcp:") || starts_with(argument, "telnet:") ||
        starts_with(argument, "websocket:")) {
        return apply_tcp(character, option, argument);
    }
    if (!character->monitor && strcmp(argument, "pty") == 0) {
        return launch_emit(builder, option) && launch_emit(builder, argument);
    }
    if (!character->monitor && starts_with(argument, "file:")) {
        return apply_file(builder, option, argument);
    }
    return launch_fail(builder, "\"%.200s\" is not allowed", argument);
}

bool launch_apply_console(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument)
{
    struct character character = {.builder = builder};
    bool with_monitor = starts_with(argument, "mon:unix:"), good;
    char word[32];

    snprintf(word, sizeof word, "-%s", option->name);
    character.monitor = with_monitor;
    good = with_monitor ? apply_unix(&character, word, argument, "mon:unix:")
                        : apply_old_spelling(&character, word, argument);
    clear(&character);
    return good;
}

bool launch_apply_monitor(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument)
{
    struct character character = {.builder = builder, .monitor = true};
    char word[32];
    bool good;

    snprintf(word, sizeof word, "-%s", option->name);
    character.control = starts_with(option->name, "qmp");
    good = apply_old_spelling(&character, word, argument);
    clear(&character);
    return good;
}

bool launch_apply_mon(struct launch_builder *builder, const struct launch_option *option,
                      const char *argument)
{
    struct qemu_options options;
    const char *chardev;
    bool good = launch_parse(builder, argument, "chardev", &options);

    (void)option;
    chardev = good ? qemu_options_get(&options, "chardev") : NULL;
    if (good && (!chardev || strcmp(chardev, LAUNCH_OWN_MONITOR) != 0)) {
        good = launch_check(builder, &options, "chardev mode pretty id") &&
               launch_emit_options(builder, "-mon", &options, "chardev");
    }
    qemu_options_clear(&options);
    return good;
}

static bool add_monitor(struct launch_builder *builder, const char *id, bool control)
{
    struct launch_monitor *monitors =
        reallocarray(builder->monitors, builder->monitor_count + 1, sizeof *monitors);

    if (!monitors) {
        return launch_no_memory(builder);
    }
    builder->monitors = monitors;
    monitors[builder->monitor_count].id = strdup(id);
    if (!monitors[builder->monitor_count].id) {
        return launch_no_memory(builder);
    }
    monitors[builder->monitor_count++].control = control;
    return true;
}

static bool note_mon(struct launch_builder *builder, const char *argument)
{
    struct qemu_options options;
    const char *chardev, *mode;
    bool good = launch_parse(builder, argument, "chardev", &options);

    if (good) {
        chardev = qemu_options_get(&options, "chardev");
        mode = qemu_options_get(&options, "mode");
        good = !chardev || add_monitor(builder, chardev, mode && strcmp(mode, "control") == 0);
    }
    qemu_options_clear(&options);
    return good;
}

bool launch_find_monitors(struct launch_builder *builder, const char *const *argv, size_t argc)
{
    for (size_t i = 1; i < argc;) {
        struct launch_argument step = launch_argument_next(argv, argc, &i);
        bool good = true;

        if (!step.option || !step.argument) {
            continue;
        }
        builder->option = step.word;
        if (step.option->apply == launch_apply_mon) {
            good = note_mon(builder, step.argument);
        } else if (step.option->apply == launch_apply_monitor &&
                   starts_with(step.argument, "chardev:")) {
            good = add_monitor(builder, step.argument + strlen("chardev:"),
                               starts_with(step.option->name, "qmp"));
        }
        if (!good) {
            return false;
        }
    }
    return true;
}

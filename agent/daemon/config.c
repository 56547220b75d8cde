/*
 * Defaults, file and command line in their order. The settings themselves are config_set.c's.
 */
#include "config.h"

#include "config_set.h"
#include "agent/common/must.h"
#include "agent/policy/page_budget.h"
#include "tls/channel.h"

#include <ctype.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Enough for the mover to find out that a link has more room, little beside the shortest downtimes. */
#define DEFAULT_IN_FLIGHT_MS 30
#define DEFAULT_PATIENCE_MS 5000

enum { OPTION_CONFIG = 256, OPTION_SETTING, OPTION_POOL, OPTION_HELP, OPTION_VERSION };

/* OPTION_SETTING: the option has the name of the key in [watarid]. */
static const struct option options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"listen", required_argument, NULL, OPTION_SETTING},
    {"state-dir", required_argument, NULL, OPTION_SETTING},
    {"run-dir", required_argument, NULL, OPTION_SETTING},
    {"control", required_argument, NULL, OPTION_SETTING},
    {"pool", required_argument, NULL, OPTION_POOL},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static const char help[] =
    "usage: watarid [OPTION]...\n"
    "Moves running QEMU virtual machines between this host and those it trusts.\n"
    "\n"
    "  --config FILE        read FILE instead of " CONFIG_DEFAULT_FILE "\n"
    "  --listen ADDR:PORT   numeric address and TCP port for the peers (default 0.0.0.0:7788)\n"
    "  --state-dir DIR      keys, trust and journals (default /var/lib/watari)\n"
    "  --run-dir DIR        sockets (default /run/watari)\n"
    "  --control PATH       the control socket (default RUN-DIR/control.sock)\n"
    "  --pool NAME=DIR      a directory in which disks of incoming VMs may be made; may repeat\n"
    "  --help, --version\n"
    "\n"
    "Options override the file; pools are added to its pools. The first pool is the default.\n"
    "The log goes to stderr.\n";

static void print_and_exit(const char *text)
{
    bool good = fputs(text, stdout) >= 0 && fflush(stdout) == 0;

    exit(good ? 0 : 1);
}

static bool option_error(int result, char **argv, struct error *error)
{
    const char *word = argv[optind - 1];

    if (result == ':') {
        return error_set(error, "usage", "%s needs a value", word);
    }
    if (optopt > 0 && optopt < OPTION_CONFIG) {
        return error_set(error, "usage", "unknown option -%c", optopt);
    }
    return error_set(error, "usage", optopt ? "%s takes no value" : "unknown option %s", word);
}

static bool add_pool_option(struct config *config, const char *value, struct error *error)
{
    const char *equals = strchr(value, '=');
    char *name;
    bool good;

    if (!equals) {
        return error_set(error, "usage", "\"%s\" is not NAME=DIR", value);
    }
    name = must_format("%.*s", (int)(equals - value), value);
    good = config_set(config, "pools", name, equals + 1, error);
    free(name);
    return good;
}

/* What needs no file: --help, --version, and which file it is. */
static bool scan_options(int argc, char **argv, const char **file, struct error *error)
{
    int result;

    optind = 0;
    while ((result = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (result) {
        case OPTION_CONFIG:
            *file = optarg;
            break;
        case OPTION_HELP:
            print_and_exit(help);
            break;
        case OPTION_VERSION:
            print_and_exit("watarid " WATARI_VERSION "\n");
            break;
        case OPTION_SETTING:
        case OPTION_POOL:
            break;
        default:
            return option_error(result, argv, error);
        }
    }
    if (optind < argc) {
        return error_set(error, "usage", "\"%s\": watarid takes options only", argv[optind]);
    }
    return true;
}

static bool apply_options(struct config *config, int argc, char **argv, struct error *error)
{
    int result, index = 0;

    optind = 0;
    while ((result = getopt_long(argc, argv, ":", options, &index)) != -1) {
        if (result == OPTION_SETTING &&
            !config_set(config, "watarid", options[index].name, optarg, error)) {
            return error_prefix(error, "--");
        }
        if (result == OPTION_POOL && !add_pool_option(config, optarg, error)) {
            return error_prefix(error, "--pool: ");
        }
    }
    return true;
}

/* A user of the local file only: a directory service must not be able to hold up the daemon's first
 * act (recover.h). */
static bool is_local_user(const char *name)
{
    FILE *file = fopen("/etc/passwd", "re");
    const struct passwd *entry;
    bool found = false;

    if (!file) {
        return false;
    }
    while (!found && (entry = fgetpwent(file))) {
        found = strcmp(entry->pw_name, name) == 0;
    }
    fclose(file);
    return found;
}

/* The system's name may hold what host-name must not. */
static char *system_host_name(void)
{
    char name[HOST_NAME_MAX + 1] = "";

    if (gethostname(name, sizeof name - 1) < 0 || name[0] == '\0') {
        strcpy(name, "localhost");
    }
    for (char *c = name; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c)) {
            *c = '-';
        }
    }
    return must_copy(name);
}

/* Beside watarid, as in a build directory; else where it is installed. */
static char *find_mover(void)
{
    char self[PATH_MAX] = "";
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    char *path;

    if (length > 0) {
        self[length] = '\0';
        path = must_format("%s/watari-mover", dirname(self));
        if (access(path, X_OK) == 0) {
            return path;
        }
        free(path);
    }
    return must_copy(WATARI_LIBEXECDIR "/watari-mover");
}

static bool fill_in_defaults(struct config *config, struct error *error)
{
    if (!config->listen_address) {
        config->listen_address = must_copy("0.0.0.0");
        config->listen_port = CONFIG_DEFAULT_PORT;
    }
    if (!config->state_dir) {
        config->state_dir = must_copy("/var/lib/watari");
    }
    if (!config->run_dir) {
        config->run_dir = must_copy("/run/watari");
    }
    if (!config->host_name) {
        config->host_name = system_host_name();
    }
    if (!config->mover_user) {
        config->mover_user = must_copy(is_local_user("watari") ? "watari" : "nobody");
    }
    if (config->binary_count == 0 &&
        !(config_set(config, "launch", "binary", "/usr/bin/", error) &&
          config_set(config, "launch", "binary", "/usr/libexec/", error))) {
        return false;
    }
    if (config->key_bytes == 0) {
        config->key_bytes = TLS_KEY_BYTES_MAX;
    }
    if (config->in_flight_ms == 0) {
        config->in_flight_ms = DEFAULT_IN_FLIGHT_MS;
    }
    if (config->patience_ms == 0) {
        config->patience_ms = DEFAULT_PATIENCE_MS;
    }
    if (!config->control_path) {
        char *path = must_format("%s/control.sock", config->run_dir);
        bool good = config_set(config, "watarid", "control", path, error);

        free(path);
        if (!good) {
            return false;
        }
    }
    config->mover_path = find_mover();
    return true;
}

bool config_load(struct config *config, int argc, char **argv, struct error *error)
{
    const char *file = NULL;

    memset(config, 0, sizeof *config);
    config->page_cache = PAGE_BUDGET_AUTO;
    if (scan_options(argc, argv, &file, error) &&
        config_read_file(config, file ? file : CONFIG_DEFAULT_FILE, file != NULL, error) &&
        apply_options(config, argc, argv, error) && fill_in_defaults(config, error)) {
        return true;
    }
    config_clear(config);
    return false;
}

static void clear_list(char **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i]);
    }
    free(list);
}

void config_clear(struct config *config)
{
    for (size_t i = 0; i < config->pool_count; i++) {
        free(config->pools[i].name);
        free(config->pools[i].directory);
    }
    free(config->pools);
    clear_list(config->binaries, config->binary_count);
    clear_list(config->allowed_paths, config->allowed_path_count);
    free(config->listen_address);
    free(config->state_dir);
    free(config->run_dir);
    free(config->control_path);
    free(config->host_name);
    free(config->mover_user);
    free(config->mover_path);
    memset(config, 0, sizeof *config);
}

const struct config_pool *config_pool(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->pool_count; i++) {
        if (strcmp(config->pools[i].name, name) == 0) {
            return &config->pools[i];
        }
    }
    return NULL;
}

/*
 * The settings: what each may be. See config.h for their meaning.
 */
#include "config_set.h"

#include "agent/common/must.h"
#include "agent/common/units.h"
#include "agent/mover/orders.h"
#include "agent/policy/bandwidth.h"
#include "agent/policy/page_budget.h"
#include "tls/channel.h"
#include "tls/trust.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* As many as a name has in a path component and in a message; DNS's own limit. */
#define HOST_NAME_MAX_LENGTH 253
#define POOL_NAME_MAX_LENGTH 63
/* Each side says something once a second: two may be late. */
#define PATIENCE_MIN_MS 3000

struct setting {
    const char *section;
    const char *key;
    bool repeats;
    bool (*set)(struct config *config, const char *value, struct error *error);
};

static void replace(char **field, const char *value)
{
    free(*field);
    *field = must_copy(value);
}

static void append(char ***list, size_t *count, const char *value)
{
    char **longer = must_alloc((*count + 1) * sizeof *longer);

    if (*count) {
        memcpy(longer, *list, *count * sizeof *longer);
    }
    longer[(*count)++] = must_copy(value);
    free(*list);
    *list = longer;
}

static bool is_name(const char *text, size_t max_length)
{
    size_t length = strlen(text);

    if (length == 0 || length > max_length || !isalnum((unsigned char)text[0])) {
        return false;
    }
    return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
           length;
}

/* Paths are compared by their text when a launch is judged, so there must be one way only to write
 * each. */
static bool is_plain_path(const char *path)
{
    if (path[0] != '/') {
        return false;
    }
    for (const char *part = path; (part = strchr(part, '/')); part++) {
        size_t length = strcspn(part + 1, "/");

        if ((length == 0 && part[1] == '/') || (length == 1 && part[1] == '.') ||
            (length == 2 && strncmp(part + 1, "..", 2) == 0)) {
            return false;
        }
    }
    return true;
}

static bool check_path(const char *path, struct error *error)
{
    if (!is_plain_path(path)) {
        return error_set(error, "config",
                         "\"%s\" is not an absolute path without \".\", \"..\" and \"//\"", path);
    }
    return true;
}

static bool set_path(char **field, const char *value, struct error *error)
{
    size_t length;

    if (!check_path(value, error)) {
        return false;
    }
    replace(field, value);
    length = strlen(*field);
    if (length > 1 && (*field)[length - 1] == '/') {
        (*field)[length - 1] = '\0';
    }
    return true;
}

static bool set_listen(struct config *config, const char *value, struct error *error)
{
    char host[TLS_PEER_ADDRESS_SIZE];
    unsigned char binary[sizeof(struct in6_addr)];
    uint16_t port;

    if (tls_address_split(value, host, sizeof host, &port) < 0) {
        return error_set(error, "config",
                         "\"%s\" is not ADDRESS:PORT or [IPV6-ADDRESS]:PORT, with a port from 1 to "
                         "65535",
                         value);
    }
    if (inet_pton(AF_INET, host, binary) != 1 && inet_pton(AF_INET6, host, binary) != 1) {
        return error_set(
            error, "config",
            "\"%s\" is not a numeric address to listen on (0.0.0.0 and [::] are all of "
            "them)",
            host);
    }
    replace(&config->listen_address, host);
    config->listen_port = port ? port : CONFIG_DEFAULT_PORT;
    return true;
}

static bool set_state_dir(struct config *config, const char *value, struct error *error)
{
    return set_path(&config->state_dir, value, error);
}

static bool set_run_dir(struct config *config, const char *value, struct error *error)
{
    return set_path(&config->run_dir, value, error);
}

static bool set_control(struct config *config, const char *value, struct error *error)
{
    if (strlen(value) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        return error_set(error, "config", "\"%s\" is too long for the path of a unix socket",
                         value);
    }
    return set_path(&config->control_path, value, error);
}

static bool set_host_name(struct config *config, const char *value, struct error *error)
{
    if (!is_name(value, HOST_NAME_MAX_LENGTH)) {
        return error_set(error, "config",
                         "\"%s\" is not a host name of letters, digits, \".\", \"_\" and \"-\"",
                         value);
    }
    replace(&config->host_name, value);
    return true;
}

static bool set_mover_user(struct config *config, const char *value, struct error *error)
{
    if (*value == '\0' || strcmp(value, "root") == 0) {
        return error_set(error, "config",
                         "\"%s\" cannot be the mover's user: it must be one without rights of its "
                         "own",
                         value);
    }
    replace(&config->mover_user, value);
    return true;
}

static bool add_binary(struct config *config, const char *value, struct error *error)
{
    if (!check_path(value, error)) {
        return false;
    }
    append(&config->binaries, &config->binary_count, value);
    return true;
}

static bool add_allowed_path(struct config *config, const char *value, struct error *error)
{
    if (!check_path(value, error)) {
        return false;
    }
    append(&config->allowed_paths, &config->allowed_path_count, value);
    return true;
}

static bool set_in_flight(struct config *config, const char *value, struct error *error)
{
    uint64_t milliseconds;

    if (!units_parse_time(value, &milliseconds, error)) {
        return false;
    }
    if (milliseconds < 1 || milliseconds > ORDERS_MAX_IN_FLIGHT_MS) {
        return error_set(error, "config", "\"%s\" is not from 1ms to %ds", value,
                         ORDERS_MAX_IN_FLIGHT_MS / 1000);
    }
    config->in_flight_ms = (uint32_t)milliseconds;
    return true;
}

static bool set_patience(struct config *config, const char *value, struct error *error)
{
    uint64_t milliseconds;

    if (!units_parse_time(value, &milliseconds, error)) {
        return false;
    }
    if (milliseconds < PATIENCE_MIN_MS || milliseconds > ORDERS_MAX_PATIENCE_MS) {
        return error_set(error, "config", "\"%s\" is not from %ds to %ds", value,
                         PATIENCE_MIN_MS / 1000, ORDERS_MAX_PATIENCE_MS / 1000);
    }
    config->patience_ms = (uint32_t)milliseconds;
    return true;
}

static bool set_renew_keys(struct config *config, const char *value, struct error *error)
{
    uint64_t bytes;

    if (!units_parse_size(value, &bytes, error)) {
        return false;
    }
    if (bytes < ORDERS_MIN_KEY_BYTES || bytes > TLS_KEY_BYTES_MAX) {
        return error_set(error, "config", "\"%s\" is not from %uM to %lluG", value,
                         ORDERS_MIN_KEY_BYTES >> 20, TLS_KEY_BYTES_MAX >> 30);
    }
    config->key_bytes = bytes;
    return true;
}

static bool set_max_bandwidth(struct config *config, const char *value, struct error *error)
{
    uint64_t rate;

    if (!units_parse_rate(value, &rate, error)) {
        return false;
    }
    if (!bandwidth_is_limit(rate)) {
        return error_set(error, "config", "\"%s\" is not from 1mbit to 8tbit", value);
    }
    config->max_bandwidth = rate;
    return true;
}

static bool set_page_cache(struct config *config, const char *value, struct error *error)
{
    if (strcmp(value, "auto") == 0) {
        config->page_cache = PAGE_BUDGET_AUTO;
        return true;
    }
    return units_parse_size(value, &config->page_cache, error);
}

static const struct setting settings[] = {
    {"watarid", "listen", false, set_listen},
    {"watarid", "state-dir", false, set_state_dir},
    {"watarid", "run-dir", false, set_run_dir},
    {"watarid", "control", false, set_control},
    {"watarid", "host-name", false, set_host_name},
    {"watarid", "mover-user", false, set_mover_user},
    {"launch", "binary", true, add_binary},
    {"launch", "allow-path", true, add_allowed_path},
    {"link", "patience", false, set_patience},
    {"link", "renew-keys", false, set_renew_keys},
    {"link", "max-bandwidth", false, set_max_bandwidth},
    {"memory", "in-flight", false, set_in_flight},
    {"memory", "page-cache", false, set_page_cache},
};
#define SETTING_COUNT ((int)(sizeof settings / sizeof settings[0]))
_Static_assert(sizeof settings / sizeof settings[0] <= CONFIG_MAX_SETTINGS,
               "raise CONFIG_MAX_SETTINGS");

static int find(const char *section, const char *key)
{
    for (int i = 0; i < SETTING_COUNT; i++) {
        if (strcmp(settings[i].section, section) == 0 && strcmp(settings[i].key, key) == 0) {
            return i;
        }
    }
    return -1;
}

int config_setting_index(const char *section, const char *key)
{
    int index = find(section, key);

    return index >= 0 && !settings[index].repeats ? index : -1;
}

bool config_has_section(const char *section)
{
    if (strcmp(section, "pools") == 0) {
        return true;
    }
    for (int i = 0; i < SETTING_COUNT; i++) {
        if (strcmp(settings[i].section, section) == 0) {
            return true;
        }
    }
    return false;
}

static bool add_pool(struct config *config, const char *name, const char *directory,
                     struct error *error)
{
    struct config_pool pool = {0}, *longer;

    if (!is_name(name, POOL_NAME_MAX_LENGTH)) {
        return error_set(error, "config",
                         "\"%s\" is not a pool name: letters, digits, \".\", \"_\" and \"-\", the "
                         "first a letter or digit, at most %d",
                         name, POOL_NAME_MAX_LENGTH);
    }
    if (config_pool(config, name)) {
        return error_set(error, "config", "pool %s is given twice", name);
    }
    if (strcmp(directory, "/") == 0) {
        return error_set(error, "config", "pool %s: the root directory cannot be a pool", name);
    }
    if (!set_path(&pool.directory, directory, error)) {
        return error_prefix(error, "pool %s: ", name);
    }
    pool.name = must_copy(name);
    longer = must_alloc((config->pool_count + 1) * sizeof *longer);
    if (config->pool_count) {
        memcpy(longer, config->pools, config->pool_count * sizeof *longer);
    }
    longer[config->pool_count++] = pool;
    free(config->pools);
    config->pools = longer;
    return true;
}

bool config_set(struct config *config, const char *section, const char *key, const char *value,
                struct error *error)
{
    int index;

    if (strcmp(section, "pools") == 0) {
        return add_pool(config, key, value, error);
    }
    index = find(section, key);
    if (index < 0) {
        return *section ? error_set(error, "config", "unknown key \"%s\" in [%s]", key, section)
                        : error_set(error, "config", "\"%s\" stands before any [section]", key);
    }
    if (!settings[index].set(config, value, error)) {
        return error_prefix(error, "%s: ", key);
    }
    return true;
}

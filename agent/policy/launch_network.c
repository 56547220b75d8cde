/*
 * Launch rules of -netdev and -nic: what the destination can make anew. A tap or a bridge of the
 * same name; user-mode networking without doors to the host. Sockets to elsewhere, programs and
 * descriptors are refused.
 */
#include "launch_builder.h"

#include <stdio.h>
#include <string.h>

static const char user_keys[] =
    "type id ipv4 ipv6 net host ipv6-net ipv6-host ipv6-prefix ipv6-prefixlen restrict hostname "
    "dhcpstart dns ipv6-dns dnssearch+ domainname tftp-server-name bootfile hostfwd+ guestfwd+";
static const char tap_keys[] = "type id ifname script downscript br helper sndbuf vnet_hdr vhost "
                               "vhostforce queues poll-us";
static const char bridge_keys[] = "type id br helper";
static const char nic_keys[] = " model mac macaddr addr vectors name";

/* What QEMU runs when nothing is said. */
#define DEFAULT_UP_SCRIPT "/etc/qemu-ifup"
#define DEFAULT_DOWN_SCRIPT "/etc/qemu-ifdown"

static bool refuse_keys(struct launch_builder *builder, const struct qemu_options *options,
                        const char *const *keys, size_t count, const char *why)
{
    for (size_t i = 0; i < count; i++) {
        if (qemu_options_get(options, keys[i])) {
            return launch_fail(builder, "%s: %s", keys[i], why);
        }
    }
    return true;
}

static bool is_at(const char *plain_key, const char *key)
{
    return strcmp(plain_key, key) == 0;
}

static bool judge_forward(struct launch_builder *builder, const char *key, const char *value)
{
    const char *target;

    if (!value) {
        return true;
    }
    if (is_at(key, "hostfwd")) {
        return strncmp(value, "tcp:", 4) == 0 || strncmp(value, "udp:", 4) == 0 || *value == ':' ||
               launch_fail(builder, "hostfwd=%.100s forwards neither TCP nor UDP", value);
    }
    if (is_at(key, "guestfwd")) {
        /* tcp:ADDRESS:PORT-TARGET: a target may be a program, or an address of this host. */
        target = value + strspn(value, "tcp:0123456789.");
        return strncmp(target, "-chardev:", strlen("-chardev:")) == 0 ||
               launch_fail(builder,
                           "guestfwd=%.100s leads to something else than a chardev of the VM",
                           value);
    }
    return true;
}

static bool judge_user(struct launch_builder *builder, const struct qemu_options *options)
{
    static const char *const host[] = {"smb", "smbserver", "tftp"};

    if (!refuse_keys(builder, options, host, 3, "it would show a directory of this host")) {
        return false;
    }
    for (size_t i = 0; i < options->count; i++) {
        char plain[LAUNCH_PATH_SIZE];

        launch_plain_key(options->pairs[i].key, plain);
        if (!judge_forward(builder, plain, options->pairs[i].value)) {
            return false;
        }
    }
    return true;
}

/* An interface's or a bridge's name. */
static bool judge_interface(struct launch_builder *builder, const struct qemu_options *options,
                            const char *key)
{
    const char *name = qemu_options_get(options, key);

    return !name || (launch_is_word(name) && strlen(name) < 16) ||
           launch_fail(builder, "%s=%.60s is no name of an interface", key, name);
}

static bool judge_script(struct launch_builder *builder, struct qemu_options *options,
                         const char *key, const char *without)
{
    const char *script = qemu_options_get(options, key);
    char path[LAUNCH_PATH_SIZE];

    if (script && strcmp(script, "no") == 0) {
        return true;
    }
    if (launch_file(builder, script ? script : without, path)) {
        return !script || launch_set(builder, options, key, path);
    }
    if (!script) {
        launch_fail(builder,
                    "without %s= QEMU runs %s, which is not under a path that this host allows; "
                    "%s=no runs nothing",
                    key, without, key);
    }
    return false;
}

/* The bridge helper that is used when none is named is the destination's own, with an ACL of its
 * own. */
static bool judge_helper(struct launch_builder *builder, struct qemu_options *options)
{
    const char *helper = qemu_options_get(options, "helper");
    char path[LAUNCH_PATH_SIZE];

    return !helper ||
           (launch_file(builder, helper, path) && launch_set(builder, options, "helper", path));
}

static bool judge_tap(struct launch_builder *builder, struct qemu_options *options)
{
    static const char *const descriptors[] = {"fd", "fds", "vhostfd", "vhostfds"};

    if (!refuse_keys(builder, options, descriptors, 4,
                     "descriptors cannot travel; name the "
                     "interface") ||
        !judge_interface(builder, options, "ifname") || !judge_interface(builder, options, "br") ||
        !judge_helper(builder, options)) {
        return false;
    }
    if (qemu_options_get(options, "helper")) {
        return true;
    }
    return judge_script(builder, options, "script", DEFAULT_UP_SCRIPT) &&
           judge_script(builder, options, "downscript", DEFAULT_DOWN_SCRIPT);
}

static bool judge_network(struct launch_builder *builder, struct qemu_options *options,
                          const char *more_keys)
{
    const char *type = qemu_options_get(options, "type"), *keys = NULL;
    char all[512];
    bool good = true;

    if (!type) {
        return launch_fail(builder, "no type is named");
    }
    if (strcmp(type, "user") == 0) {
        keys = user_keys;
        good = judge_user(builder, options);
    } else if (strcmp(type, "tap") == 0) {
        keys = tap_keys;
        good = judge_tap(builder, options);
    } else if (strcmp(type, "bridge") == 0) {
        keys = bridge_keys;
        good = judge_interface(builder, options, "br") && judge_helper(builder, options);
    } else if (*more_keys && strcmp(type, "none") == 0) {
        keys = "type";
    }
    if (!keys) {
        return launch_fail(builder, "network type \"%.60s\" is not allowed", type);
    }
    snprintf(all, sizeof all, "%s%s", keys, more_keys);
    return good && launch_check(builder, options, all);
}

bool launch_apply_netdev(struct launch_builder *builder, const struct launch_option *option,
                         const char *argument)
{
    bool nic = strcmp(option->name, "nic") == 0;
    struct qemu_options options;
    bool good = launch_parse(builder, argument, "type", &options) &&
                judge_network(builder, &options, nic ? nic_keys : "") &&
                launch_emit_options(builder, nic ? "-nic" : "-netdev", &options, "type");

    qemu_options_clear(&options);
    return good;
}

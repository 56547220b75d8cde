/*
 * Launch rules of screens and sound: -display, -vnc, -spice, -audiodev, -audio. What needs a
 * desktop, dials out or plays on the host's sound card is refused.
 */
#include "launch_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char vnc_keys[] =
    "vnc id to ipv4 ipv6 share power-control lossy non-adaptive password password-secret "
    "tls-creds tls-authz sasl sasl-authz websocket key-delay-ms audiodev";
static const char spice_keys[] =
    "port tls-port addr ipv4 ipv6 unix tls-ciphers tls-channel+ plaintext-channel+ sasl "
    "disable-ticketing password password-secret image-compression jpeg-wan-compression "
    "zlib-glz-wan-compression streaming-video disable-copy-paste disable-agent-file-xfer "
    "agent-mouse playback-compression seamless-migration gl rendernode@ x509-dir/ x509-key-file@ "
    "x509-key-password x509-cert-file@ x509-cacert-file@ x509-dh-key-file@";

/* KEY is PREFIX and a socket's path: it moves into the VM's directory. */
static bool move_socket(struct launch_builder *builder, struct qemu_options *options,
                        const char *key, const char *prefix)
{
    char *path = NULL, *value = NULL;
    bool good =
        launch_local_path(builder, qemu_options_get(options, key) + strlen(prefix), NULL, &path) &&
        launch_format(builder, &value, "%s%s", prefix, path) &&
        launch_set(builder, options, key, value);

    free(path);
    free(value);
    return good;
}

static bool judge_vnc(struct launch_builder *builder, struct qemu_options *options)
{
    const char *address = qemu_options_get(options, "vnc");

    if (!address) {
        return launch_fail(builder, "no display is named");
    }
    if (qemu_options_get(options, "reverse")) {
        return launch_fail(builder, "reverse: a display that dials out is not allowed");
    }
    if (!launch_check(builder, options, vnc_keys)) {
        return false;
    }
    if (strncmp(address, "unix:", 5) == 0) {
        return move_socket(builder, options, "vnc", "unix:");
    }
    return !strchr(address, '/') ||
           launch_fail(builder, "\"%.200s\" is no address of a display", address);
}

/* PREFIX is "" for -vnc and "vnc=" for -display. */
static bool apply_vnc(struct launch_builder *builder, const char *option, const char *prefix,
                      const char *argument)
{
    struct qemu_options options;
    char *text = NULL, *word = NULL;
    bool good = launch_parse(builder, argument, "vnc", &options) && judge_vnc(builder, &options);

    builder->has_display = true;
    if (good) {
        text = qemu_options_text(&options, "vnc");
        good =
            text ? launch_format(builder, &word, "%s%s", prefix, text) : launch_no_memory(builder);
        good = good && launch_emit(builder, option) && launch_emit(builder, word);
    }
    free(text);
    free(word);
    qemu_options_clear(&options);
    return good;
}

bool launch_apply_vnc(struct launch_builder *builder, const struct launch_option *option,
                      const char *argument)
{
    (void)option;
    return apply_vnc(builder, "-vnc", "", argument);
}

static bool judge_display(struct launch_builder *builder, struct qemu_options *options)
{
    const char *type = qemu_options_get(options, "type");

    if (type && strcmp(type, "none") == 0) {
        return launch_check(builder, options, "type");
    }
    if (type && strcmp(type, "egl-headless") == 0) {
        return launch_check(builder, options, "type gl rendernode@");
    }
    return launch_fail(builder, "\"%.60s\" needs a desktop at the destination", type ? type : "");
}

bool launch_apply_display(struct launch_builder *builder, const struct launch_option *option,
                          const char *argument)
{
    struct qemu_options options;
    bool good;

    (void)option;
    if (strncmp(argument, "vnc=", 4) == 0) {
        return apply_vnc(builder, "-display", "vnc=", argument + 4);
    }
    builder->has_display = true;
    good = launch_parse(builder, argument, "type", &options) && judge_display(builder, &options) &&
           launch_emit_options(builder, "-display", &options, "type");
    qemu_options_clear(&options);
    return good;
}

static bool judge_spice(struct launch_builder *builder, struct qemu_options *options)
{
    return launch_check(builder, options, spice_keys) &&
           (!qemu_options_is_on(options, "unix") || !qemu_options_get(options, "addr") ||
            move_socket(builder, options, "addr", ""));
}

bool launch_apply_spice(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument)
{
    struct qemu_options options;
    bool good = launch_parse(builder, argument, NULL, &options) && judge_spice(builder, &options) &&
                launch_emit_options(builder, "-spice", &options, NULL);

    (void)option;
    builder->has_display = true;
    qemu_options_clear(&options);
    return good;
}

bool launch_apply_audio(struct launch_builder *builder, const struct launch_option *option,
                        const char *argument)
{
    struct qemu_options options;
    const char *driver;
    char word[32];
    bool good = launch_parse(builder, argument, "driver", &options);

    snprintf(word, sizeof word, "-%s", option->name);
    if (good) {
        driver = qemu_options_get(&options, "driver");
        good = (driver && (strcmp(driver, "none") == 0 || strcmp(driver, "spice") == 0)) ||
               launch_fail(builder, "sound through \"%.60s\" of the host is not allowed",
                           driver ? driver : "");
        good = good && launch_check(builder, &options, "driver id model timer-period in.* out.*") &&
               launch_emit_options(builder, word, &options, "driver");
    }
    qemu_options_clear(&options);
    return good;
}

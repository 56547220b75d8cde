#include "control_migrate.h"

#include "bandwidth.h"
#include "control_arguments.h"
#include "agent/common/must.h"
#include "agent/mover/orders.h"
#include "tls/trust.h"

#include <limits.h>
#include <string.h>

/* Beyond these zstd gains nothing worth its time (below), or needs hundreds of MiB (above). */
#define LEVEL_MIN (-50)
#define LEVEL_MAX 19
#define MAX_THROTTLE_MAX 99
/* QEMU's ids of devices and nodes are far shorter. */
#define DEVICE_SIZE 256

static bool parse_mode(json_t *arguments, enum migration_mode *mode, struct error *error)
{
    static const char *const names[] = {
        [MIGRATION_AUTO] = "auto", [MIGRATION_LIVE] = "live", [MIGRATION_QUICK] = "quick"};
    const char *text;

    if (!control_argument_string(arguments, "mode", false, 16, &text, error)) {
        return false;
    }
    for (size_t i = 0; text && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], text) == 0) {
            *mode = (enum migration_mode)i;
            return true;
        }
    }
    return !text ||
           error_set(error, "invalid-argument", "\"mode\" must be \"auto\", \"live\" or \"quick\"");
}

static bool parse_compress(json_t *arguments, struct migrate_request *out, struct error *error)
{
    const json_t *value = json_object_get(arguments, "compress");
    const char *text = json_string_value(value);
    int64_t level = 0;

    if (!value || (text && strcmp(text, "auto") == 0)) {
        out->compress_auto = true;
        return true;
    }
    if (text && strcmp(text, "off") == 0) {
        out->level = ORDER_LEVEL_OFF;
        return true;
    }
    if (!control_argument_integer(arguments, "compress", LEVEL_MIN, LEVEL_MAX, &level, error)) {
        return error_set(error, "invalid-argument",
                         "\"compress\" must be \"auto\", \"off\" or a zstd level from %d to %d",
                         LEVEL_MIN, LEVEL_MAX);
    }
    out->level = (int32_t)level;
    return true;
}

static bool parse_number(json_t *arguments, const char *name, uint32_t low, uint32_t high,
                         uint32_t *out, struct error *error)
{
    int64_t value = *out;

    if (!control_argument_integer(arguments, name, low, high, &value, error)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool parse_verify(json_t *arguments, bool *verify, struct error *error)
{
    const json_t *value = json_object_get(arguments, "verify");

    if (value && !json_is_boolean(value)) {
        return error_set(error, "invalid-argument", "\"verify\" must be true or false");
    }
    *verify = json_is_true(value);
    return true;
}

static bool is_target(const char *text)
{
    return text[0] == '/' || !strchr(text, '/');
}

static bool parse_disk(json_t *entry, struct migrate_request *out, struct error *error)
{
    static const char *const names[] = {"device", "target", NULL};
    const char *device, *target;

    if (!json_is_object(entry)) {
        return error_set(error, "invalid-argument", "an entry of \"disks\" must be an object");
    }
    if (!control_arguments_known(entry, names, error) ||
        !control_argument_string(entry, "device", true, DEVICE_SIZE, &device, error) ||
        !control_argument_string(entry, "target", true, PATH_MAX, &target, error)) {
        return error_prefix(error, "in \"disks\": ");
    }
    if (!is_target(target)) {
        return error_set(error, "invalid-argument",
                         "in \"disks\": \"%s\" must be a pool's name or an absolute path", target);
    }
    for (size_t i = 0; i < out->disk_count; i++) {
        if (strcmp(out->disks[i].device, device) == 0) {
            return error_set(error, "invalid-argument", "in \"disks\": %s is given twice", device);
        }
    }
    out->disks[out->disk_count].device = must_copy(device);
    out->disks[out->disk_count].target = must_copy(target);
    out->disk_count++;
    return true;
}

static bool parse_disks(json_t *arguments, struct migrate_request *out, struct error *error)
{
    const json_t *disks = json_object_get(arguments, "disks");
    json_t *entry;
    size_t index;

    if (!disks) {
        return true;
    }
    if (!json_is_array(disks) || json_array_size(disks) > ORDERS_MAX_DISKS) {
        return error_set(error, "invalid-argument", "\"disks\" must be an array of at most %d",
                         ORDERS_MAX_DISKS);
    }
    out->disks = must_alloc((json_array_size(disks) + 1) * sizeof *out->disks);
    json_array_foreach(disks, index, entry)
    {
        if (!parse_disk(entry, out, error)) {
            return false;
        }
    }
    return true;
}

static bool parse(json_t *arguments, struct migrate_request *out, struct error *error)
{
    static const char *const names[] = {"vm",
                                        "peer",
                                        "mode",
                                        "max_downtime_ms",
                                        "max_quick_downtime_ms",
                                        "reconnect_timeout_ms",
                                        "deadline_ms",
                                        "max_throttle",
                                        "max_bandwidth",
                                        "switchover_bandwidth",
                                        "compress",
                                        "lanes",
                                        "verify",
                                        "disks",
                                        NULL};
    const char *vm, *peer;

    if (!control_arguments_known(arguments, names, error) ||
        !control_argument_string(arguments, "vm", true, PATH_MAX, &vm, error) ||
        !control_argument_string(arguments, "peer", true, TLS_PEER_NAME_SIZE, &peer, error)) {
        return false;
    }
    out->vm = must_copy(vm);
    out->peer = must_copy(peer);
    return parse_mode(arguments, &out->mode, error) &&
           parse_number(arguments, "max_downtime_ms", 1, UINT32_MAX, &out->max_downtime_ms,
                        error) &&
           parse_number(arguments, "max_quick_downtime_ms", 1, UINT32_MAX,
                        &out->max_quick_downtime_ms, error) &&
           parse_number(arguments, "reconnect_timeout_ms", 0, UINT32_MAX,
                        &out->reconnect_timeout_ms, error) &&
           parse_number(arguments, "deadline_ms", 1, UINT32_MAX, &out->deadline_ms, error) &&
           parse_number(arguments, "max_throttle", 0, MAX_THROTTLE_MAX, &out->max_throttle,
                        error) &&
           bandwidth_argument(arguments, "max_bandwidth", &out->max_bandwidth, error) &&
           bandwidth_argument(arguments, "switchover_bandwidth", &out->switchover_bandwidth,
                              error) &&
           parse_compress(arguments, out, error) &&
           parse_number(arguments, "lanes", 0, ORDERS_MAX_LANES, &out->lanes, error) &&
           parse_verify(arguments, &out->verify, error) && parse_disks(arguments, out, error);
}

bool control_migrate_parse(json_t *arguments, struct migrate_request *out, struct error *error)
{
    *out = (struct migrate_request){
        .mode = MIGRATION_AUTO,
        .max_downtime_ms = MIGRATE_MAX_DOWNTIME_MS,
        .max_quick_downtime_ms = MIGRATE_MAX_QUICK_DOWNTIME_MS,
        .reconnect_timeout_ms = MIGRATE_RECONNECT_TIMEOUT_MS,
        .max_throttle = MIGRATE_MAX_THROTTLE,
        .switchover_bandwidth = SWITCHOVER_AS_EVER,
    };
    if (!parse(arguments, out, error)) {
        migrate_request_clear(out);
        *out = (struct migrate_request){0};
        return false;
    }
    return true;
}

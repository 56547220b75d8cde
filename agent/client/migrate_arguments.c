#include "migrate_arguments.h"

#include "set_arguments.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

#include <getopt.h>
#include <string.h>

enum {
    OPTION_TO = 256,
    OPTION_MODE,
    OPTION_MAX_DOWNTIME,
    OPTION_MAX_QUICK_DOWNTIME,
    OPTION_RECONNECT_TIMEOUT,
    OPTION_DEADLINE,
    OPTION_MAX_THROTTLE,
    OPTION_MAX_BANDWIDTH,
    OPTION_SWITCHOVER_BANDWIDTH,
    OPTION_COMPRESS,
    OPTION_LANES,
    OPTION_DISK,
    OPTION_VERIFY,
    OPTION_DETACH,
    OPTION_HELP,
};

static const struct option options[] = {
    {"to", required_argument, NULL, OPTION_TO},
    {"mode", required_argument, NULL, OPTION_MODE},
    {"max-downtime", required_argument, NULL, OPTION_MAX_DOWNTIME},
    {"max-quick-downtime", required_argument, NULL, OPTION_MAX_QUICK_DOWNTIME},
    {"reconnect-timeout", required_argument, NULL, OPTION_RECONNECT_TIMEOUT},
    {"deadline", required_argument, NULL, OPTION_DEADLINE},
    {"max-throttle", required_argument, NULL, OPTION_MAX_THROTTLE},
    {"max-bandwidth", required_argument, NULL, OPTION_MAX_BANDWIDTH},
    {"switchover-bandwidth", required_argument, NULL, OPTION_SWITCHOVER_BANDWIDTH},
    {"compress", required_argument, NULL, OPTION_COMPRESS},
    {"lanes", required_argument, NULL, OPTION_LANES},
    {"disk", required_argument, NULL, OPTION_DISK},
    {"verify", no_argument, NULL, OPTION_VERIFY},
    {"detach", no_argument, NULL, OPTION_DETACH},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* Far beyond what the daemon takes; it knows its limit. */
#define NUMBER_LIMIT 1000000

static void set_text(json_t *request, const char *name, const char *text)
{
    json_object_set_new(request, name, must_json(json_line_string(text)));
}

static bool set_mode(json_t *request, const char *text, struct error *error)
{
    if (strcmp(text, "auto") != 0 && strcmp(text, "live") != 0 && strcmp(text, "quick") != 0) {
        return error_set(error, "usage", "--mode: \"%s\" is not auto, live or quick", text);
    }
    set_text(request, "mode", text);
    return true;
}

static bool set_time(json_t *request, const char *option, const char *name, const char *text,
                     struct error *error)
{
    uint64_t milliseconds;

    if (!units_parse_time(text, &milliseconds, error)) {
        return error_prefix(error, "%s: ", option);
    }
    if (milliseconds > UINT32_MAX) {
        return error_set(error, "usage", "%s: %s is too long a time", option, text);
    }
    json_object_set_new(request, name, must_json(json_integer((json_int_t)milliseconds)));
    return true;
}

static bool set_number(json_t *request, const char *option, const char *name, const char *text,
                       long low, struct error *error)
{
    long value;

    if (!arguments_parse_integer(option, text, low, NUMBER_LIMIT, &value, error)) {
        return false;
    }
    json_object_set_new(request, name, must_json(json_integer(value)));
    return true;
}

static bool set_compress(json_t *request, const char *text, struct error *error)
{
    if (strcmp(text, "auto") == 0 || strcmp(text, "off") == 0) {
        set_text(request, "compress", text);
        return true;
    }
    if (!set_number(request, "--compress", "compress", text, -NUMBER_LIMIT, error)) {
        return error_set(error, "usage",
                         "--compress: \"%s\" is not auto, off or a level as 3 or -5", text);
    }
    return true;
}

static bool add_disk(json_t *request, const char *text, struct error *error)
{
    const char *equals = strchr(text, '=');
    json_t *disks = json_object_get(request, "disks");
    char *device;

    if (!equals || equals == text || equals[1] == '\0') {
        return error_set(error, "usage", "--disk: \"%s\" is not DEV=POOL or DEV=PATH", text);
    }
    if (!disks) {
        disks = must_json(json_array());
        json_object_set_new(request, "disks", disks);
    }
    device = must_format("%.*s", (int)(equals - text), text);
    json_array_append_new(
        disks, must_json(json_pack("{s:o,s:o}", "device", must_json(json_line_string(device)),
                                   "target", must_json(json_line_string(equals + 1)))));
    free(device);
    return true;
}

/* One option with its value. */
static bool take(json_t *request, int option, const char *value, struct error *error)
{
    switch (option) {
    case OPTION_TO:
        set_text(request, "peer", value);
        return true;
    case OPTION_MODE:
        return set_mode(request, value, error);
    case OPTION_MAX_DOWNTIME:
        return set_time(request, "--max-downtime", "max_downtime_ms", value, error);
    case OPTION_MAX_QUICK_DOWNTIME:
        return set_time(request, "--max-quick-downtime", "max_quick_downtime_ms", value, error);
    case OPTION_RECONNECT_TIMEOUT:
        return set_time(request, "--reconnect-timeout", "reconnect_timeout_ms", value, error);
    case OPTION_DEADLINE:
        return set_time(request, "--deadline", "deadline_ms", value, error);
    case OPTION_MAX_THROTTLE:
        return set_number(request, "--max-throttle", "max_throttle", value, 0, error);
    case OPTION_MAX_BANDWIDTH:
        return set_arguments_bandwidth(request, "--max-bandwidth", "max_bandwidth", value, error);
    case OPTION_SWITCHOVER_BANDWIDTH:
        return set_arguments_bandwidth(request, "--switchover-bandwidth", "switchover_bandwidth",
                                       value, error);
    case OPTION_COMPRESS:
        return set_compress(request, value, error);
    case OPTION_LANES:
        return set_number(request, "--lanes", "lanes", value, 1, error);
    case OPTION_VERIFY:
        json_object_set_new(request, "verify", json_true());
        return true;
    default:
        return add_disk(request, value, error);
    }
}

static enum arguments_outcome parse(int argc, char **argv, struct migrate_arguments *out,
                                    struct error *error)
{
    int result;

    optind = 0;
    while ((result = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (result == OPTION_HELP) {
            return ARGUMENTS_HELP;
        }
        if (result == OPTION_DETACH) {
            out->detach = true;
        } else if (result == ':' || result == '?') {
            arguments_option_error(result, argv, error);
            return ARGUMENTS_WRONG;
        } else if (!take(out->request, result, optarg, error)) {
            return ARGUMENTS_WRONG;
        }
    }
    if (!arguments_check_words(argv + optind, argc - optind, 0, 1, error)) {
        return ARGUMENTS_WRONG;
    }
    if (optind == argc) {
        error_set(error, "usage", "which VM? Its name, pid or QMP socket is missing");
        return ARGUMENTS_WRONG;
    }
    if (!json_object_get(out->request, "peer")) {
        error_set(error, "usage", "where to? --to PEER is missing");
        return ARGUMENTS_WRONG;
    }
    set_text(out->request, "vm", argv[optind]);
    return ARGUMENTS_GOOD;
}

enum arguments_outcome migrate_arguments_parse(int argc, char **argv, struct migrate_arguments *out,
                                               struct error *error)
{
    enum arguments_outcome outcome;

    *out = (struct migrate_arguments){.request = must_json(json_object())};
    outcome = parse(argc, argv, out, error);
    if (outcome != ARGUMENTS_GOOD) {
        json_decref(out->request);
        out->request = NULL;
    }
    return outcome;
}

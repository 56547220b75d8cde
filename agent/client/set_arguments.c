#include "set_arguments.h"

#include "agent/common/json_line.h"
#include "agent/common/must.h"
#include "agent/common/units.h"
#include "agent/policy/bandwidth.h"

#include <getopt.h>
#include <string.h>

enum { OPTION_HOST = 256, OPTION_HELP };

static const struct option options[] = {
    {"host", no_argument, NULL, OPTION_HOST},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

bool set_arguments_bandwidth(json_t *request, const char *option, const char *name,
                             const char *text, struct error *error)
{
    uint64_t rate = BANDWIDTH_NO_LIMIT;

    if (strcmp(text, "none") != 0) {
        if (!units_parse_rate(text, &rate, error)) {
            return error_prefix(error, "%s: ", option);
        }
        if (!bandwidth_is_limit(rate)) {
            return error_set(error, "usage", "%s: %s is not from 1mbit to 8tbit (or none)", option,
                             text);
        }
    }
    json_object_set_new(request, name, must_json(json_integer((json_int_t)rate)));
    return true;
}

/* KEY=VALUE, which is cut up. */
static bool set(json_t *request, bool of_host, char *word, struct error *error)
{
    char *value = strchr(word, '=');

    if (!value) {
        return error_set(error, "usage", "\"%s\" is not KEY=VALUE", word);
    }
    *value++ = '\0';
    if (strcmp(word, "max-bandwidth") == 0) {
        return set_arguments_bandwidth(request, word, "max_bandwidth", value, error);
    }
    if (strcmp(word, "switchover-bandwidth") == 0 && !of_host) {
        return set_arguments_bandwidth(request, word, "switchover_bandwidth", value, error);
    }
    return error_set(error, "usage", "there is no \"%s\" to set; max-bandwidth%s", word,
                     of_host ? " is" : " and switchover-bandwidth are");
}

static bool take_words(json_t *request, bool of_host, char **words, int count, struct error *error)
{
    if (!of_host) {
        if (count == 0) {
            return error_set(error, "usage", "which migration? Its id is missing, or --host");
        }
        json_object_set_new(request, "migration", must_json(json_line_string(words[0])));
        words++;
        count--;
    }
    if (count == 0) {
        return error_set(error, "usage", "set what? KEY=VALUE is missing");
    }
    for (int i = 0; i < count; i++) {
        if (!set(request, of_host, words[i], error)) {
            return false;
        }
    }
    return true;
}

enum arguments_outcome set_arguments_parse(int argc, char **argv, json_t **request,
                                           struct error *error)
{
    bool of_host = false;
    int result;

    *request = NULL;
    optind = 0;
    while ((result = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (result == OPTION_HELP) {
            return ARGUMENTS_HELP;
        }
        if (result != OPTION_HOST) {
            arguments_option_error(result, argv, error);
            return ARGUMENTS_WRONG;
        }
        of_host = true;
    }
    *request = must_json(json_object());
    if (!take_words(*request, of_host, argv + optind, argc - optind, error)) {
        json_decref(*request);
        *request = NULL;
        return ARGUMENTS_WRONG;
    }
    return ARGUMENTS_GOOD;
}

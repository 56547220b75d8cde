#include "arguments.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_STATE_DIR "/var/lib/watari"

enum { OPTION_CONTROL = 256, OPTION_JSON, OPTION_HELP, OPTION_VERSION };

static const struct option global_options[] = {
    {"control", required_argument, NULL, OPTION_CONTROL},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static const struct option only_help[] = {
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static bool is_global(const char *word)
{
    size_t length = strcspn(word, "=");

    return (length == 6 && strncmp(word, "--json", length) == 0) ||
           (length == 9 && strncmp(word, "--control", length) == 0);
}

bool arguments_option_error(int result, char **argv, struct error *error)
{
    const char *word = argv[optind - 1];

    if (result == ':') {
        return error_set(error, "usage", "%s needs a value", word);
    }
    if (optopt > 0 && optopt < 256) {
        return error_set(error, "usage", "unknown option -%c", optopt);
    }
    if (optopt) {
        return error_set(error, "usage", "%s: this option takes no value", word);
    }
    if (is_global(word)) {
        return error_set(error, "usage", "%s goes before the command", word);
    }
    return error_set(error, "usage", "unknown option %s", word);
}

enum arguments_outcome arguments_parse_global(struct client *client, int argc, char **argv,
                                              int *index, struct error *error)
{
    const char *from_environment = getenv(CLIENT_CONTROL_VARIABLE);
    int result;

    client->json = false;
    client->control_path =
        from_environment && *from_environment ? from_environment : CLIENT_DEFAULT_CONTROL;
    optind = 0;
    while ((result = getopt_long(argc, argv, "+:", global_options, NULL)) != -1) {
        switch (result) {
        case OPTION_CONTROL:
            client->control_path = optarg;
            break;
        case OPTION_JSON:
            client->json = true;
            break;
        case OPTION_HELP:
            return ARGUMENTS_HELP;
        case OPTION_VERSION:
            return ARGUMENTS_VERSION;
        default:
            arguments_option_error(result, argv, error);
            return ARGUMENTS_WRONG;
        }
    }
    *index = optind;
    return ARGUMENTS_GOOD;
}

bool arguments_check_words(char **words, int count, int low, int high, struct error *error)
{
    if (count > high) {
        return error_set(error, "usage", "\"%s\" is one word too many", words[high]);
    }
    if (count < low) {
        return error_set(error, "usage",
                         count ? "a word is missing after \"%s\"" : "%sa word is missing",
                         count ? words[count - 1] : "");
    }
    return true;
}

enum arguments_outcome arguments_parse_words(int argc, char **argv, int low, int high,
                                             char ***words, int *count, struct error *error)
{
    int result;

    optind = 0;
    while ((result = getopt_long(argc, argv, ":", only_help, NULL)) != -1) {
        if (result == OPTION_HELP) {
            return ARGUMENTS_HELP;
        }
        arguments_option_error(result, argv, error);
        return ARGUMENTS_WRONG;
    }
    *words = argv + optind;
    *count = argc - optind;
    return arguments_check_words(*words, *count, low, high, error) ? ARGUMENTS_GOOD
                                                                   : ARGUMENTS_WRONG;
}

bool arguments_parse_integer(const char *option, const char *text, long low, long high, long *out,
                             struct error *error)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno || end == text || *end || *text == ' ' || value < low || value > high) {
        return error_set(error, "usage", "%s: \"%s\" is not a whole number from %ld to %ld", option,
                         text, low, high);
    }
    *out = value;
    return true;
}

enum arguments_outcome arguments_parse_state_dir(int argc, char **argv, const char *wanted,
                                                 const char **state_dir, const char **word,
                                                 struct error *error)
{
    static const struct option options[] = {{"state-dir", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int option;

    *state_dir = DEFAULT_STATE_DIR;
    optind = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            return ARGUMENTS_HELP;
        }
        if (option != 's') {
            error_set(error, "invalid-argument", "unknown option, or one without its value");
            return ARGUMENTS_WRONG;
        }
        *state_dir = optarg;
    }
    if (argc - optind != 1) {
        error_set(error, "invalid-argument", "%s is wanted", wanted);
        return ARGUMENTS_WRONG;
    }
    *word = argv[optind];
    return ARGUMENTS_GOOD;
}

bool arguments_good(const struct command *self, enum arguments_outcome outcome,
                    const struct error *error, int *code)
{
    if (outcome == ARGUMENTS_GOOD) {
        return true;
    }
    *code = outcome == ARGUMENTS_HELP ? command_help(self) : command_usage_error(self, error);
    return false;
}

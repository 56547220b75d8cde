#include "resolve_arguments.h"

#include <getopt.h>

enum { OPTION_RUN_HERE = 256, OPTION_GIVE_UP, OPTION_SOURCE_IS_OFF, OPTION_YES, OPTION_HELP };

static const struct option options[] = {
    {"run-here", no_argument, NULL, OPTION_RUN_HERE},
    {"give-up", no_argument, NULL, OPTION_GIVE_UP},
    {"source-is-off", no_argument, NULL, OPTION_SOURCE_IS_OFF},
    {"yes", no_argument, NULL, OPTION_YES},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

const char *resolve_choice_name(enum resolve_choice choice)
{
    return choice == RESOLVE_CHOICE_RUN_HERE ? "run-here" : "give-up";
}

static bool check(char **words, int count, bool run_here, bool give_up,
                  struct resolve_arguments *out, struct error *error)
{
    if (count == 0) {
        return error_set(error, "usage", "which migration? Name its id (watari status), or the VM");
    }
    if (!arguments_check_words(words, count, 1, 1, error)) {
        return false;
    }
    if (run_here && give_up) {
        return error_set(error, "usage",
                         "--run-here and --give-up are opposites: choose one of them");
    }
    if (!run_here && !give_up) {
        return error_set(error, "usage",
                         "what is decided? --run-here: the VM is to run on this host; --give-up: "
                         "this host gives up its copy. `watari status %s` shows how it stands",
                         words[0]);
    }
    if (out->source_is_off && give_up) {
        return error_set(error, "usage", "--source-is-off goes with --run-here");
    }
    out->migration = words[0];
    out->choice = run_here ? RESOLVE_CHOICE_RUN_HERE : RESOLVE_CHOICE_GIVE_UP;
    return true;
}

enum arguments_outcome resolve_arguments_parse(int argc, char **argv, struct resolve_arguments *out,
                                               struct error *error)
{
    bool run_here = false, give_up = false;
    int result;

    *out = (struct resolve_arguments){0};
    optind = 0;
    while ((result = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (result) {
        case OPTION_RUN_HERE:
            run_here = true;
            break;
        case OPTION_GIVE_UP:
            give_up = true;
            break;
        case OPTION_SOURCE_IS_OFF:
            out->source_is_off = true;
            break;
        case OPTION_YES:
            out->yes = true;
            break;
        case OPTION_HELP:
            return ARGUMENTS_HELP;
        default:
            arguments_option_error(result, argv, error);
            return ARGUMENTS_WRONG;
        }
    }
    return check(argv + optind, argc - optind, run_here, give_up, out, error) ? ARGUMENTS_GOOD
                                                                              : ARGUMENTS_WRONG;
}

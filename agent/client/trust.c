#include "arguments.h"
#include "terminal.h"
#include "agent/common/json_line.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_ALLOW = 256, OPTION_HELP };

static const struct option options[] = {
    {"allow", required_argument, NULL, OPTION_ALLOW},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* The words of one `watari trust ...`. */
struct request {
    char **words; /* after the action's name */
    int count;
    json_t *allow; /* NULL: not said */
};

struct action {
    const char *name;
    int words;
    bool takes_allow;
    int (*run)(const struct client *client, const struct request *request);
};

static const char *word(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "?";
}

/* "send, receive"; free() it. */
static char *allow_text(const json_t *peer)
{
    char *text = must_copy("");
    const json_t *entry;
    size_t index;

    json_array_foreach(json_object_get(peer, "allow"), index, entry)
    {
        const char *one = json_string_value(entry);
        char *longer = must_format("%s%s%s", text, index ? ", " : "", one ? one : "?");

        free(text);
        text = longer;
    }
    return text;
}

static json_t *text_value(const char *text)
{
    return must_json(json_line_string(text));
}

static json_t *name_argument(const struct request *request)
{
    return must_json(json_pack("{s:o}", "name", text_value(request->words[0])));
}

static int run_add(const struct client *client, const struct request *request)
{
    json_t *arguments = must_json(json_pack("{s:o,s:o,s:o}", "name", text_value(request->words[0]),
                                            "address", text_value(request->words[1]), "fingerprint",
                                            text_value(request->words[2])));
    json_t *answer;
    bool dials_us;
    char *allow;
    int code;

    if (request->allow) {
        json_object_set(arguments, "allow", request->allow);
    }
    answer = command_ask(client, "trust-add", arguments, &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json_new(answer);
        return CLIENT_DONE;
    }
    dials_us = strcmp(word(answer, "address"), "-") == 0;
    allow = allow_text(answer);
    terminal_line(stdout, "%s at %s is trusted with key %s; it may: %s", word(answer, "name"),
                  dials_us ? "no address (it dials us)" : word(answer, "address"),
                  word(answer, "fingerprint"), allow);
    terminal_line(stdout,
                  "Let it trust this host, too (`watari id` here, `watari trust add` there), then "
                  "try `watari trust check` %s.",
                  dials_us ? "there" : "here");
    free(allow);
    json_decref(answer);
    return CLIENT_DONE;
}

static void print_peers(const json_t *peers)
{
    static const char *const headings[] = {"NAME", "ADDRESS", "MAY", "FINGERPRINT"};
    struct terminal_table *table =
        terminal_table_new(sizeof headings / sizeof headings[0], headings);
    const json_t *peer;
    size_t index;

    json_array_foreach(peers, index, peer)
    {
        char *allow = allow_text(peer);

        terminal_table_cell(table, "%s", word(peer, "name"));
        terminal_table_cell(table, "%s", word(peer, "address"));
        terminal_table_cell(table, "%s", allow);
        terminal_table_cell(table, "%s", word(peer, "fingerprint"));
        free(allow);
    }
    terminal_table_print(table, stdout);
}

static int run_list(const struct client *client, const struct request *request)
{
    json_t *answer;
    int code;

    (void)request;
    answer = command_ask(client, "trust-list", NULL, &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json(answer);
    } else if (json_array_size(json_object_get(answer, "peers")) == 0) {
        terminal_line(stdout, "no peer is trusted; `watari trust add` adds one");
    } else {
        print_peers(json_object_get(answer, "peers"));
    }
    json_decref(answer);
    return CLIENT_DONE;
}

static int print_checked(const char *name, const json_t *answer)
{
    const json_t *round_trip = json_object_get(answer, "rtt_us");
    const char *why = json_string_value(json_object_get(json_object_get(answer, "error"), "text"));
    const char *host = json_string_value(json_object_get(answer, "host"));
    const char *software = json_string_value(json_object_get(answer, "software"));
    char buffer[UNITS_TEXT_SIZE];

    if (!json_is_true(json_object_get(answer, "authenticated"))) {
        bool reachable = json_is_true(json_object_get(answer, "reachable"));

        terminal_line(stderr, "%s: %s", name,
                      why         ? why
                      : reachable ? "reachable, but the two hosts do not trust each other"
                                  : "not reachable");
        return CLIENT_FAILED;
    }
    terminal_line(stdout, "%s is reachable and both sides trust each other: host %s%s%s%s", name,
                  host ? host : "?", software ? ", " : "", software ? software : "",
                  json_is_number(round_trip) ? "" : ", round trip not measured");
    if (json_is_number(round_trip)) {
        terminal_line(stdout, "round trip %s",
                      units_time(buffer, json_number_value(round_trip) / 1000));
    }
    return CLIENT_DONE;
}

static int run_check(const struct client *client, const struct request *request)
{
    json_t *answer;
    int code;

    answer = command_ask(client, "trust-check", name_argument(request), &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json(answer);
        code = json_is_true(json_object_get(answer, "authenticated")) ? CLIENT_DONE : CLIENT_FAILED;
    } else {
        code = print_checked(request->words[0], answer);
    }
    json_decref(answer);
    return code;
}

static int run_remove(const struct client *client, const struct request *request)
{
    json_t *answer;
    int code;

    answer = command_ask(client, "trust-remove", name_argument(request), &code);
    if (!answer) {
        return code;
    }
    if (client->json) {
        terminal_json(answer);
    } else {
        terminal_line(stdout, "%s is not trusted any more", request->words[0]);
    }
    json_decref(answer);
    return CLIENT_DONE;
}

static const struct action actions[] = {
    {"add", 3, true, run_add},
    {"list", 0, false, run_list},
    {"check", 1, false, run_check},
    {"remove", 1, false, run_remove},
};

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    return NULL;
}

/* "send,receive" */
static bool parse_allow(const char *text, json_t **allow, struct error *error)
{
    if (!*allow) {
        *allow = must_json(json_array());
    }
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");

        if (!(length == 4 && strncmp(at, "send", length) == 0) &&
            !(length == 7 && strncmp(at, "receive", length) == 0)) {
            return error_set(error, "usage", "--allow: \"%s\" is not send, receive or send,receive",
                             text);
        }
        json_array_append_new(*allow, must_json(json_stringn(at, length)));
        at += length;
        if (*at == '\0') {
            return true;
        }
    }
}

static enum arguments_outcome parse(int argc, char **argv, const struct action **action,
                                    struct request *request, struct error *error)
{
    int result;

    optind = 0;
    while ((result = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (result == OPTION_HELP) {
            return ARGUMENTS_HELP;
        }
        if (result != OPTION_ALLOW) {
            arguments_option_error(result, argv, error);
            return ARGUMENTS_WRONG;
        }
        if (!parse_allow(optarg, &request->allow, error)) {
            return ARGUMENTS_WRONG;
        }
    }
    if (optind == argc) {
        error_set(error, "usage", "add, list, check or remove?");
        return ARGUMENTS_WRONG;
    }
    *action = find_action(argv[optind]);
    if (!*action) {
        error_set(error, "usage", "\"%s\" is not add, list, check or remove", argv[optind]);
        return ARGUMENTS_WRONG;
    }
    request->words = argv + optind + 1;
    request->count = argc - optind - 1;
    if (request->allow && !(*action)->takes_allow) {
        error_set(error, "usage", "--allow goes with add only");
        return ARGUMENTS_WRONG;
    }
    if (request->count < (*action)->words) {
        error_set(error, "usage", "after \"%s\" a word is missing", argv[argc - 1]);
        return ARGUMENTS_WRONG;
    }
    return arguments_check_words(request->words, request->count, (*action)->words, (*action)->words,
                                 error)
               ? ARGUMENTS_GOOD
               : ARGUMENTS_WRONG;
}

int command_trust(const struct client *client, const struct command *self, int argc, char **argv)
{
    const struct action *action = NULL;
    struct request request = {0};
    struct error error;
    int code;

    if (arguments_good(self, parse(argc, argv, &action, &request, &error), &error, &code)) {
        code = action->run(client, &request);
    }
    json_decref(request.allow);
    return code;
}

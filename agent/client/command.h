/*
 * What the subcommands of watari share: how one is described, what the words before it said, and
 * how each can end. A subcommand is one function in a file of its own name; the table of them is in
 * main.c.
 */
#ifndef WATARI_CLIENT_COMMAND_H
#define WATARI_CLIENT_COMMAND_H

#include "agent/common/error.h"

#include <jansson.h>
#include <stdbool.h>

#define CLIENT_DEFAULT_CONTROL "/run/watari/control.sock"
#define CLIENT_CONTROL_VARIABLE "WATARI_CONTROL"

/* Exit codes: scripts rely on them. */
enum client_exit {
    CLIENT_DONE = 0,
    CLIENT_FAILED = 1,    /* failed or refused; the guest is at the source as before */
    CLIENT_USAGE = 2,     /* or watarid cannot be reached */
    CLIENT_UNDECIDED = 3, /* committed, and no answer yet; the daemon goes on */
    CLIENT_CANCELLED = 4,
    CLIENT_LOST = 5,   /* the guest runs nowhere */
    CLIENT_LEFT = 130, /* interrupted twice; the daemon goes on */
};

struct client {
    const char *control_path;
    bool json;
};

struct command {
    const char *name;
    /* ARGV[0] is the subcommand's name. Returns an enum client_exit. */
    int (*run)(const struct client *client, const struct command *self, int argc, char **argv);
    const char *usage;       /* what follows "watari "; more lines are indented already */
    const char *description; /* one line */
    const char *details;     /* lines for `watari NAME --help`; NULL: none */
};

int command_list(const struct client *client, const struct command *self, int argc, char **argv);
int command_id(const struct client *client, const struct command *self, int argc, char **argv);
int command_trust(const struct client *client, const struct command *self, int argc, char **argv);
int command_plan(const struct client *client, const struct command *self, int argc, char **argv);
int command_migrate(const struct client *client, const struct command *self, int argc, char **argv);
int command_status(const struct client *client, const struct command *self, int argc, char **argv);
int command_watch(const struct client *client, const struct command *self, int argc, char **argv);
int command_cancel(const struct client *client, const struct command *self, int argc, char **argv);
int command_report(const struct client *client, const struct command *self, int argc, char **argv);
int command_set(const struct client *client, const struct command *self, int argc, char **argv);
int command_resolve(const struct client *client, const struct command *self, int argc, char **argv);
int command_start(const struct client *client, const struct command *self, int argc, char **argv);
int command_may_start(const struct client *client, const struct command *self, int argc,
                      char **argv);

/* Reads the words of a subcommand without options of its own: from LOW to HIGH of them. False when
 * there is nothing to do but to return *code: --help or the mistake was answered. */
bool command_words(const struct command *self, int argc, char **argv, int low, int high,
                   char ***words, int *count, int *code);
/* One question to the daemon, over a connection of its own: the answer (the caller's reference), or
 * NULL when the error was printed and *code is to be returned. Steals ARGUMENTS (may be NULL). */
json_t *command_ask(const struct client *client, const char *request, json_t *arguments, int *code);

/* Prints what was wrong with the words and the usage; returns CLIENT_USAGE. */
int command_usage_error(const struct command *self, const struct error *error);
/* Prints usage, description and details; returns CLIENT_DONE. */
int command_help(const struct command *self);
/* Prints ERROR on stderr (with --json also {"error":{"id","text"}} on stdout) and returns the exit
 * code that is its. */
int command_failed(const struct client *client, const struct error *error);

#endif

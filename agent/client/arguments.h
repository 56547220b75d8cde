/*
 * Reading the words of a command line: the ones before the subcommand, and what all subcommands'
 * options have in common. Uses getopt_long and so its global state: one at a time, main thread.
 */
#ifndef WATARI_CLIENT_ARGUMENTS_H
#define WATARI_CLIENT_ARGUMENTS_H

#include "command.h"

#include <stddef.h>

enum arguments_outcome {
    ARGUMENTS_GOOD,
    ARGUMENTS_HELP,    /* --help: no more was looked at */
    ARGUMENTS_VERSION, /* --version */
    ARGUMENTS_WRONG,   /* the error "usage" names the word */
};

/* The words before the subcommand. *index is that of the subcommand's name in ARGV (ARGC when there
 * is none). */
enum arguments_outcome arguments_parse_global(struct client *client, int argc, char **argv,
                                              int *index, struct error *error);

/* For a subcommand without options of its own (but --help): from LOW to HIGH words, which *words
 * then points to. */
enum arguments_outcome arguments_parse_words(int argc, char **argv, int low, int high,
                                             char ***words, int *count, struct error *error);

/* For a subcommand that reads watarid's state directory by itself: --state-dir DIR, and one word, which
 * WANTED names in the error "invalid-argument" when it is missing. */
enum arguments_outcome arguments_parse_state_dir(int argc, char **argv, const char *wanted,
                                                 const char **state_dir, const char **word,
                                                 struct error *error);

/* Whether SELF may go on with what was read. Else --help or the mistake (ERROR) is answered, and *code
 * is to be returned. */
bool arguments_good(const struct command *self, enum arguments_outcome outcome,
                    const struct error *error, int *code);

/* What getopt_long's RESULT (':' or '?') means, as an error "usage". Long options' values must be
 * 256 and up. Returns false. */
bool arguments_option_error(int result, char **argv, struct error *error);
/* Whether COUNT is from LOW to HIGH; the error names the word in WORDS that is too many. */
bool arguments_check_words(char **words, int count, int low, int high, struct error *error);
/* A whole decimal number in [LOW, HIGH]; OPTION is for the message. */
bool arguments_parse_integer(const char *option, const char *text, long low, long high, long *out,
                             struct error *error);

#endif

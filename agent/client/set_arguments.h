/*
 * The words of `watari set`, and limits of bandwidth as options give them. Uses getopt_long: main
 * thread.
 */
#ifndef WATARI_CLIENT_SET_ARGUMENTS_H
#define WATARI_CLIENT_SET_ARGUMENTS_H

#include "arguments.h"

#include <jansson.h>

/* *request becomes the arguments of the daemon's command "set": the caller's when ARGUMENTS_GOOD, NULL
 * else. */
enum arguments_outcome set_arguments_parse(int argc, char **argv, json_t **request,
                                           struct error *error);
/* Sets NAME in REQUEST to the bytes a second that TEXT says, 0 for "none". OPTION is for the
 * message. */
bool set_arguments_bandwidth(json_t *request, const char *option, const char *name,
                             const char *text, struct error *error);

#endif

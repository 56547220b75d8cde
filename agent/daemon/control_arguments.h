/*
 * Private to control*.c: the edge where a client's arguments are checked. Every function gives the
 * error "invalid-argument", naming the argument and the form that is wanted. Pure.
 */
#ifndef WATARI_DAEMON_CONTROL_ARGUMENTS_H
#define WATARI_DAEMON_CONTROL_ARGUMENTS_H

#include "agent/common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Whether OBJECT has no member but those of NAMES (ended by NULL). */
bool control_arguments_known(json_t *object, const char *const names[], struct error *error);
/* A string, borrowed: not empty, shorter than SIZE bytes, no control characters. *out is NULL when
 * it is absent and not REQUIRED. */
bool control_argument_string(const json_t *object, const char *name, bool required, size_t size,
                             const char **out, struct error *error);
/* An integer from LOW to HIGH; *value stays as it is when absent. */
bool control_argument_integer(const json_t *object, const char *name, int64_t low, int64_t high,
                              int64_t *value, struct error *error);

#endif

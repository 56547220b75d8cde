/*
 * A plan (agent/daemon/control.h), as an operator reads it.
 */
#ifndef WATARI_CLIENT_PLAN_TEXT_H
#define WATARI_CLIENT_PLAN_TEXT_H

#include <jansson.h>
#include <stdio.h>

/* All of it, line by line. What others chose in it cannot steer the terminal. */
void plan_text_print(FILE *out, const json_t *plan);

#endif

/*
 * The words of `watari migrate`, made into the arguments of the daemon's "migrate"
 * (agent/daemon/control_migrate.h). Defaults are the daemon's: what was not said is not sent.
 */
#ifndef WATARI_CLIENT_MIGRATE_ARGUMENTS_H
#define WATARI_CLIENT_MIGRATE_ARGUMENTS_H

#include "arguments.h"

#include <jansson.h>
#include <stdbool.h>

struct migrate_arguments {
    json_t *request; /* the caller's reference; NULL unless good */
    bool detach;
};

enum arguments_outcome migrate_arguments_parse(int argc, char **argv, struct migrate_arguments *out,
                                               struct error *error);

#endif

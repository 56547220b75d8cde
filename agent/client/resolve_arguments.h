/*
 * The words of `watari resolve`.
 */
#ifndef WATARI_CLIENT_RESOLVE_ARGUMENTS_H
#define WATARI_CLIENT_RESOLVE_ARGUMENTS_H

#include "arguments.h"

#include <stdbool.h>

enum resolve_choice { RESOLVE_CHOICE_RUN_HERE, RESOLVE_CHOICE_GIVE_UP };

struct resolve_arguments {
    const char *migration; /* an id, or a VM's name; of ARGV */
    enum resolve_choice choice;
    bool source_is_off;
    bool yes; /* the VM's name is not asked for */
};

enum arguments_outcome resolve_arguments_parse(int argc, char **argv, struct resolve_arguments *out,
                                               struct error *error);
/* "run-here", "give-up": as it is typed, and as the daemon takes it. */
const char *resolve_choice_name(enum resolve_choice choice);

#endif

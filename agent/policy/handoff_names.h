/* The states of policy/handoff.h as words: for logs, status and tests. Pure; any thread. */
#ifndef WATARI_POLICY_HANDOFF_NAMES_H
#define WATARI_POLICY_HANDOFF_NAMES_H

#include "handoff.h"

/* "taking-back" and so on: the enumerator without its prefix. */
const char *handoff_source_state_name(enum source_state state);
const char *handoff_destination_state_name(enum destination_state state);

#endif

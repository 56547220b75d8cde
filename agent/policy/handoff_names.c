#include "handoff_names.h"

const char *handoff_source_state_name(enum source_state state)
{
    static const char *const names[] = {
        [SOURCE_OPEN] = "open",
        [SOURCE_PAUSED] = "paused",
        [SOURCE_COMMITTING] = "committing",
        [SOURCE_COMMITTED] = "committed",
        [SOURCE_RETAKING] = "retaking",
        [SOURCE_TAKING_BACK] = "taking-back",
        [SOURCE_TRYING_AGAIN] = "trying-again",
        [SOURCE_TAKEN_BACK] = "taken-back",
        [SOURCE_WITHDRAWING] = "withdrawing",
        [SOURCE_WITHDRAWN] = "withdrawn",
        [SOURCE_GIVING_UP] = "giving-up",
        [SOURCE_CONFLICT] = "conflict",
        [SOURCE_CLEANING] = "cleaning",
        [SOURCE_ROLLING_BACK] = "rolling-back",
        [SOURCE_ENDED] = "ended",
    };

    return names[state];
}

const char *handoff_destination_state_name(enum destination_state state)
{
    static const char *const names[] = {
        [DESTINATION_PREPARING] = "preparing", [DESTINATION_LOADING] = "loading",
        [DESTINATION_LOADED] = "loaded",       [DESTINATION_COMMITTING] = "committing",
        [DESTINATION_STARTING] = "starting",   [DESTINATION_OWNED] = "owned",
        [DESTINATION_REFUSING] = "refusing",   [DESTINATION_REFUSED] = "refused",
        [DESTINATION_GIVING_UP] = "giving-up", [DESTINATION_CONFLICT] = "conflict",
        [DESTINATION_ABANDONED] = "abandoned", [DESTINATION_ENDED] = "ended",
    };

    return names[state];
}

/*
 * The options of qemu-system-* that the launch rules know, with or without an argument, and what
 * becomes of each. Pure; any thread.
 */
#ifndef WATARI_POLICY_LAUNCH_OPTIONS_H
#define WATARI_POLICY_LAUNCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct launch_builder;

enum launch_verdict {
    LAUNCH_KEEP,   /* nothing in it can name a file, a program or an address */
    LAUNCH_WORD,   /* kept when it is one word without a slash: some become file names */
    LAUNCH_DROP,   /* of the source's start only */
    LAUNCH_REFUSE, /* TEXT says why */
    LAUNCH_FILE,   /* the argument is a file of the host */
    LAUNCH_KEYS,   /* key=value pairs of which TEXT is the specification (launch_builder.h) */
    LAUNCH_APPLY,  /* a function judges, rewrites and emits it */
};

struct launch_option {
    const char *name; /* without dashes */
    bool argument;
    enum launch_verdict verdict;
    const char *text;    /* REFUSE: why; KEYS (APPLY where it needs one): the specification */
    const char *implied; /* KEYS (APPLY): the first key when it is left out; NULL: it may not be */
    bool (*apply)(struct launch_builder *builder, const struct launch_option *option,
                  const char *argument);
};

/* WORD is an argument as it stands in the vector, "-name" or "--name". NULL when it is no option
 * that we know. */
const struct launch_option *launch_option_find(const char *word);

/* One step through a vector, as QEMU walks it: *index goes past the option and its argument. */
struct launch_argument {
    const char *word;                   /* as it stands in the vector */
    const struct launch_option *option; /* NULL: not known, or a bare word (a disk image) */
    const char *argument; /* NULL when it has none, or when the vector ends before it */
};
struct launch_argument launch_argument_next(const char *const *argv, size_t argc, size_t *index);

#endif

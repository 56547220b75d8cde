/*
 * What `watari resolve` says of a decision before it is taken and after. Pure.
 */
#ifndef WATARI_CLIENT_RESOLVE_TEXT_H
#define WATARI_CLIENT_RESOLVE_TEXT_H

#include "resolve_arguments.h"

#include <jansson.h>

struct resolve_effect {
    char *will;    /* what the decision does, as a sentence */
    char *safe_if; /* what must be true for it to be safe, or what it costs */
};

/* MIGRATION as the daemon's "resolve" describes it. Clear it. */
struct resolve_effect resolve_text_effect(const json_t *migration, enum resolve_choice choice);
void resolve_effect_clear(struct resolve_effect *effect);

/* Whether the decision has been carried out on this host; what is awaited then is the other one's word. NOW: the migration as it is described
 * after the decision was taken. */
bool resolve_text_carried_out(const json_t *now, enum resolve_choice choice);
/* What came of it, from the descriptions before the decision and now; free() it. */
char *resolve_text_outcome(const json_t *before, const json_t *now, enum resolve_choice choice);
/* Its exit code: CLIENT_DONE; CLIENT_UNDECIDED when it is not carried out yet; CLIENT_LOST when its QEMU ended on the way. */
int resolve_text_exit_code(const json_t *before, const json_t *now, enum resolve_choice choice);

#endif

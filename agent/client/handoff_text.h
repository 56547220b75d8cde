/*
 * How a migration's handoff stands, in lines for people: `status` and `resolve` show it. What the members mean: agent/daemon/control.h.
 * Members that are missing or null are left out. Pure but for the printing.
 */
#ifndef WATARI_CLIENT_HANDOFF_TEXT_H
#define WATARI_CLIENT_HANDOFF_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* The other side, or an operator, has to speak before this host knows where the VM belongs. */
bool handoff_text_undecided(const json_t *migration);
/* Its journal cannot be read. */
bool handoff_text_unreadable(const json_t *migration);
/* The QEMU on this host: "running", "paused", "ended"; "" when that is not said. */
const char *handoff_text_qemu(const json_t *migration);

/* A sentence as heading, then a line for each thing that is known of the handoff. */
void handoff_text_print(FILE *out, const json_t *migration);
/* A line with what can be done now, when there is something. */
void handoff_text_print_advice(FILE *out, const json_t *migration);
/* Whether the lines above tell the member NAME. */
bool handoff_text_tells(const char *name);

#endif

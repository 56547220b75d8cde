/*
 * A migration's events as people read them (what they hold: agent/daemon/control.h). Members that
 * are missing or null are left out. Pure but for the printing.
 */
#ifndef WATARI_CLIENT_EVENT_TEXT_H
#define WATARI_CLIENT_EVENT_TEXT_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

/* "web1 disk-bulk: 42.0 s to go, predicted downtime 210 ms, 95 MiB/s, disk 1.2 GiB of 4.0 GiB". */
void event_text_progress(char *out, size_t size, const json_t *event);
/* "web1 disk-bulk: copying the disks", or a warning's text. */
void event_text_notice(char *out, size_t size, const json_t *event);
/* The sentence that tells how it ended; for a failure the daemon's own. */
void event_text_outcome(char *out, size_t size, const json_t *result);
/* The figures of a migration that is done: total, downtime, bytes, ratio, what was verified. */
void event_text_figures(FILE *out, const json_t *result);

#endif

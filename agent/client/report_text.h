/*
 * A migration's timeline (agent/common/timeline_file.h) as a person reads it who was not there: what was asked for, what happened when,
 * the rounds of memory, the pause moment by moment, what was predicted and what came of it. What a line lacks is left out. Pure but for
 * the printing.
 */
#ifndef WATARI_CLIENT_REPORT_TEXT_H
#define WATARI_CLIENT_REPORT_TEXT_H

#include <jansson.h>
#include <stdio.h>

/* LINES: an array of them, oldest first. */
void report_text_print(FILE *out, const json_t *lines);

/* --- report_rounds.c --- */
/* A table with a row for each round of memory; of many the first and the last ones. Nothing when there was none. */
void report_rounds_print(FILE *out, const json_t *lines);

#endif

/*
 * Output of watari: lines in which what others chose (names, paths, messages) cannot steer the
 * terminal, aligned tables, a line that is rewritten in place, and JSON lines.
 */
#ifndef WATARI_CLIENT_TERMINAL_H
#define WATARI_CLIENT_TERMINAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Replaces control characters (C0, DEL, C1) and bytes that are not UTF-8 by '?', in place. */
void terminal_clean(char *text);
/* How many columns TEXT takes: its code points. */
size_t terminal_width(const char *text);

/* One line: formatted, cleaned as a whole, a newline added. */
void terminal_line(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* VALUE on one line of stdout, written out at once. The second one takes the reference. */
void terminal_json(const json_t *value);
void terminal_json_new(json_t *value);

/* A status line on stdout that each call replaces. Not longer than the terminal is wide, so that it
 * stays one line. */
struct terminal_status {
    bool shown;
};
void terminal_status_show(struct terminal_status *status, const char *text);
/* Before anything else is printed: leaves what is shown (KEEP) or wipes it. */
void terminal_status_end(struct terminal_status *status, bool keep);

/* A table with a heading line. Columns are as wide as their widest cell. */
struct terminal_table;
/* HEADINGS: COLUMNS of them, borrowed until the table is printed. */
struct terminal_table *terminal_table_new(size_t columns, const char *const headings[]);
/* The next cell, row by row. */
void terminal_table_cell(struct terminal_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Prints and frees it. */
void terminal_table_print(struct terminal_table *table, FILE *out);

#endif

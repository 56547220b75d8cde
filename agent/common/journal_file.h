/*
 * The file format of a migration's journal, and reading it. One file per migration and side: STATE/journal/ID.source or
 * ID.destination; written by watarid (agent/daemon/journal.c), read by it at start and by `watari may-start`, which must answer
 * without the daemon.
 *
 * A record is one line: 16 hexadecimal digits (XXH3-64 of the JSON text, seeded with the record's number from 0), a space, a JSON object,
 * a newline. The object's "record" member names it:
 *
 *   source        begin · undo/undone · those of the handoff (agent/policy/handoff_journal.h)
 *   destination   begin · undo/undone · prepared · those of the handoff
 *
 * A last line without its newline, or with zeroes in it, is what a crash leaves: it is left out (torn). Anything else that is wrong is
 * damage: the file is not believed, and nothing overwrites it.
 */
#ifndef WATARI_COMMON_JOURNAL_FILE_H
#define WATARI_COMMON_JOURNAL_FILE_H

#include "error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct journal_content {
    json_t *records;    /* array of the objects, oldest first */
    size_t good_length; /* bytes up to the end of the last whole record */
    bool torn;          /* something was cut short after it */
};

/* Reads PATH. False with "journal-unreadable" or "journal-damaged" (naming file and record, and what to do). */
bool journal_file_read(const char *path, struct journal_content *out, struct error *error);
/* What can be read before the damage, for people: nobody else may conclude anything from it. Empty when there is nothing. */
void journal_file_read_some(const char *path, struct journal_content *out);
void journal_content_clear(struct journal_content *content);

/* LENGTH bytes, and nothing less, to or from the open file FD: 0 or errno. */
int journal_file_write(int fd, const char *text, size_t length, size_t offset);
int journal_file_read_start(int fd, char *text, size_t length);

/* A whole line for record number NUMBER, newline included; free() it. */
char *journal_file_line(size_t number, const json_t *record);

/* The last record of that name, borrowed; NULL when there is none. */
const json_t *journal_content_last(const struct journal_content *content, const char *record);

#endif

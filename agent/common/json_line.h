/*
 * Newline-delimited JSON, as QMP speaks it (QEMU docs/interop/qmp-spec.txt): one object a line. A
 * splitter takes the bytes of a stream as they come and gives the objects out; json_line_text()
 * makes a line of an object. No descriptors, no loop, no clock: the daemon's event loop and the
 * blocking client use the same one.
 *
 *   json_line_feed(splitter, bytes)            what one read() gave
 *   while (json_line_next(...) != JSON_LINE_MORE) ...
 *
 * Memory is bounded: at most the limit of a line and what one feed brought. One owner, one thread
 * at a time.
 */
#ifndef WATARI_COMMON_JSON_LINE_H
#define WATARI_COMMON_JSON_LINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define JSON_LINE_ERROR_SIZE 256

enum json_line_step {
    JSON_LINE_OBJECT, /* *object is the caller's reference */
    JSON_LINE_MORE,   /* no whole line is left: feed it */
    JSON_LINE_BAD,    /* a line that is not one JSON object; it was dropped, the next may be good */
    JSON_LINE_TOO_LONG, /* the stream cannot be trusted any more: said at every call from now on */
};

struct json_line;

/* MAX_LENGTH: bytes of the longest line, newline not counted. NULL: no memory. */
struct json_line *json_line_new(size_t max_length);
void json_line_free(struct json_line *splitter);

/* Appends SIZE bytes. False: no memory; the splitter is as it was. */
bool json_line_feed(struct json_line *splitter, const void *bytes, size_t size);

/* The next object. Blank lines are skipped; a member that comes twice is an error (two readers of
 * such a line might not agree on it). ERROR is a sentence with JSON_LINE_BAD and
 * JSON_LINE_TOO_LONG. */
enum json_line_step json_line_next(struct json_line *splitter, json_t **object,
                                   char error[JSON_LINE_ERROR_SIZE]);

/* A JSON string of TEXT. Bytes that are not UTF-8 (a name off a command line, a text cut within a
 * character), which JSON cannot hold, become '?'. NULL: no memory. */
json_t *json_line_string(const char *text);

/* OBJECT on one line, newline and NUL at the end; free() it. *length (may be NULL) counts the
 * newline, not the NUL. NULL: no memory. */
char *json_line_text(const json_t *object, size_t *length);

#endif

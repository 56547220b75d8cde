/*
 * What went wrong, for an operator: a stable word scripts can match and a sentence people can act on. Passed by pointer down to
 * whoever finds the error; the layer that knows the VM adds where it runs now.
 */
#ifndef WATARI_COMMON_ERROR_H
#define WATARI_COMMON_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#define ERROR_ID_SIZE 40
#define ERROR_TEXT_SIZE 1024

struct error {
    char
        id[ERROR_ID_SIZE]; /* "" when there is none; else "vm-not-found", "peer-unreachable", ... */
    char text[ERROR_TEXT_SIZE];
};

/* Sets both; TEXT is printf-like, cut at ERROR_TEXT_SIZE. Always returns false, so that "return error_set(...)" reads well. */
bool error_set(struct error *error, const char *id, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with an argument list. */
bool error_set_list(struct error *error, const char *id, const char *text, va_list arguments)
    __attribute__((format(printf, 3, 0)));
/* Puts a clause in front of the text: "disk vd0: " + what was there. */
bool error_prefix(struct error *error, const char *text, ...) __attribute__((format(printf, 2, 3)));
static inline bool error_is_set(const struct error *error)
{
    return error->id[0] != '\0';
}

#endif

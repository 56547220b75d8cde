/*
 * Allocation for the daemon: what it asks for is small, and a daemon without memory for it can decide nothing. It says so and ends
 * by abort(); the journal makes that as safe as any other crash (recover.c), which an error path that nobody ever saw run is not.
 * Any thread.
 */
#ifndef WATARI_COMMON_MUST_H
#define WATARI_COMMON_MUST_H

#include <jansson.h>
#include <stddef.h>

/* Zeroed memory of SIZE bytes; free() it. */
void *must_alloc(size_t size) __attribute__((malloc, returns_nonnull));
/* realloc(); SIZE is not 0. What is new is not zeroed. */
void *must_resize(void *memory, size_t size) __attribute__((returns_nonnull));
/* A copy of TEXT, or NULL when TEXT is NULL; free() it. */
char *must_copy(const char *text);
/* printf into fresh memory; free() it. */
char *must_format(const char *text, ...) __attribute__((format(printf, 1, 2), returns_nonnull));
/* VALUE, unless it is NULL: then jansson had no memory, or json_pack() a wrong format. */
json_t *must_json(json_t *value) __attribute__((returns_nonnull));

#endif

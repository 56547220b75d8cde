/*
 * Where something stands in a JSON text: jansson gives the line of a syntax error, but not that of
 * a value which parses and is wrong. Private to tls/. Pure; any thread.
 */
#ifndef WATARI_TLS_JSON_LINE_H
#define WATARI_TLS_JSON_LINE_H

#include <stddef.h>

#define TLS_JSON_OUTSIDE ((size_t)-1)

/*
 * TEXT (SIZE bytes, must have been parsed without an error) is an object that holds one array.
 * Returns the line, from 1, of the member KEY of element ELEMENT of that array; of the element when
 * KEY is NULL or not found there; of the member KEY of the outer object when ELEMENT is
 * TLS_JSON_OUTSIDE; 1 when there is no such thing.
 */
size_t tls_json_line(const char *text, size_t size, size_t element, const char *key);

#endif

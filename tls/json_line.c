/*
 * Finding the line of a value in a JSON text. See json_line.h.
 */
#include "json_line.h"

#include <stdbool.h>
#include <string.h>

/* Brackets open around a token: the outer object's members, the array's elements, an element's
 * members. */
#define DEPTH_OUTER 1
#define DEPTH_ELEMENT 2
#define DEPTH_MEMBER 3

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* AT is behind an opening quote; returns the closing one. */
static const char *end_of_string(const char *at, const char *end)
{
    while (at < end && *at != '"') {
        at += *at == '\\' ? 2 : 1;
    }
    return at < end ? at : end;
}

/* Whether the string that ends with the quote at CLOSE is a member's name. */
static bool is_name(const char *close, const char *end)
{
    const char *at = close;

    while (at < end && (at == close || is_blank(*at))) {
        at++;
    }
    return at < end && *at == ':';
}

size_t tls_json_line(const char *text, size_t size, size_t element, const char *key)
{
    const char *end = text + size;
    const size_t wanted_depth = element == TLS_JSON_OUTSIDE ? DEPTH_OUTER : DEPTH_MEMBER;
    size_t depth = 0;
    size_t index = 0;
    size_t line = 1;
    size_t element_line = 0;

    for (const char *at = text; at < end; at++) {
        if (*at == '\n') {
            line++;
        } else if (*at == ',') {
            index += depth == DEPTH_ELEMENT;
        } else if (*at == '}' || *at == ']') {
            depth--;
        } else if (!is_blank(*at)) {
            if (depth == DEPTH_ELEMENT && index == element && element_line == 0) {
                element_line = line;
            }
            depth += *at == '{' || *at == '[';
        }
        if (*at == '"') {
            const char *name = at + 1;

            at = end_of_string(name, end);
            if (key != NULL && depth == wanted_depth &&
                (element == TLS_JSON_OUTSIDE || index == element) && is_name(at, end) &&
                (size_t)(at - name) == strlen(key) && memcmp(name, key, strlen(key)) == 0) {
                return line;
            }
        }
    }
    return element_line != 0 ? element_line : 1;
}

#include "error.h"

#include <stdio.h>
#include <string.h>

bool error_set_list(struct error *error, const char *id, const char *text, va_list arguments)
{
    snprintf(error->id, sizeof error->id, "%s", id);
    vsnprintf(error->text, sizeof error->text, text, arguments);
    return false;
}

bool error_set(struct error *error, const char *id, const char *text, ...)
{
    va_list arguments;

    va_start(arguments, text);
    error_set_list(error, id, text, arguments);
    va_end(arguments);
    return false;
}

bool error_prefix(struct error *error, const char *text, ...)
{
    char clause[ERROR_TEXT_SIZE];
    char whole[2 * ERROR_TEXT_SIZE];
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(clause, sizeof clause, text, arguments);
    va_end(arguments);
    snprintf(whole, sizeof whole, "%s%s", clause, error->text);
    memcpy(error->text, whole, sizeof error->text - 1);
    error->text[sizeof error->text - 1] = '\0';
    return false;
}

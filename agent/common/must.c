#include "must.h"

#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *check(void *memory)
{
    if (!memory) {
        log_error(
            "out of memory: ending; what runs goes on, and the journal puts the rest right at the next start");
        abort();
    }
    return memory;
}

void *must_alloc(size_t size)
{
    return check(calloc(1, size));
}

void *must_resize(void *memory, size_t size)
{
    return check(realloc(memory, size));
}

char *must_copy(const char *text)
{
    return text ? check(strdup(text)) : NULL;
}

char *must_format(const char *text, ...)
{
    char *out = NULL;
    va_list arguments;

    va_start(arguments, text);
    if (vasprintf(&out, text, arguments) < 0) {
        out = NULL;
    }
    va_end(arguments);
    return check(out);
}

json_t *must_json(json_t *value)
{
    return check(value);
}

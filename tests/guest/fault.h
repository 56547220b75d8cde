/*
 * The first thing that was found wrong in the guest. Later ones are mostly its consequences, so
 * only the first is kept. Owned by one load and used under its lock.
 */
#ifndef WATARI_GUEST_FAULT_H
#define WATARI_GUEST_FAULT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

struct fault {
    char text[200]; /* empty: nothing is wrong */
};

static inline bool fault_any(const struct fault *fault)
{
    return fault->text[0] != '\0';
}

__attribute__((format(printf, 2, 3))) static inline void fault_record(struct fault *fault,
                                                                      const char *format, ...)
{
    va_list arguments;

    if (fault_any(fault))
        return;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
}

#endif

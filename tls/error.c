/*
 * Error sentences. See error.h.
 */
#include "error.h"

#include <openssl/err.h>

#include <stdarg.h>
#include <stdio.h>

int tls_error(char *error, size_t error_size, int code, const char *text, ...)
{
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(error, error_size, text, arguments);
    va_end(arguments);
    return code;
}

const char *tls_openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    return reason != NULL ? reason : "no reason given";
}

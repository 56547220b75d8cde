/*
 * How the files of this folder report an error: a negative errno and a sentence in the caller's
 * buffer. Private to tls/. Any thread; nothing is kept.
 */
#ifndef WATARI_TLS_ERROR_H
#define WATARI_TLS_ERROR_H

#include <stddef.h>

/* Writes the sentence (printf-like, cut at ERROR_SIZE) and returns CODE, a negative errno, so that
 * "return tls_error(...)" reads well. */
int tls_error(char *error, size_t error_size, int code, const char *text, ...)
    __attribute__((format(printf, 4, 5)));
/* The calling thread's latest OpenSSL error in OpenSSL's words; never NULL. Borrowed, lives for
 * ever. */
const char *tls_openssl_reason(void);

#endif

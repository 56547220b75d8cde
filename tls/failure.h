/*
 * What went wrong in TLS, for an operator: OpenSSL's error queue as a class and a sentence. Private
 * to tls/. Reads and clears the calling thread's queue; keeps nothing.
 */
#ifndef WATARI_TLS_FAILURE_H
#define WATARI_TLS_FAILURE_H

#include "channel.h"

/*
 * Call right after a call of OpenSSL failed with SSL_ERROR (SSL_get_error()'s answer: SSL_ERROR_SSL
 * or SSL_ERROR_SYSCALL) and ERRNO_VALUE. DOING is what was tried ("reading", ...). LANE: an alert
 * means another thing where no certificates are.
 */
enum tls_failure tls_failure_of(int ssl_error, int errno_value, bool lane, const char *doing,
                                char *sentence, size_t sentence_size);

#endif

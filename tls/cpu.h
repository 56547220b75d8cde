/*
 * Which cipher the CPU is fast at, by what OpenSSL has found out about it. Without instructions for
 * AES and for GCM's multiplication, AES-GCM is some fifteen times slower than with them, and
 * ChaCha20-Poly1305 hardly needs any.
 *
 * Pure but for the question to OpenSSL; any thread.
 */
#ifndef WATARI_TLS_CPU_H
#define WATARI_TLS_CPU_H

#include <stdbool.h>

/* By OpenSSL's settings of this CPU: OPENSSL_info(OPENSSL_INFO_CPU_SETTINGS), which heeds the
 * variables of OPENSSL_ia32cap(3). */
bool tls_cpu_has_aes(void);
/* The same of SETTINGS, such a text. True for kinds of CPU that are not known here, and for NULL:
 * those that serve as hosts have them. */
bool tls_cpu_settings_have_aes(const char *settings);

#endif

/*
 * Outgoing TCP connections: resolve (evdns), connect, send the preamble. For control connections and lanes alike.
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_DIAL_H
#define WATARI_DAEMON_DIAL_H

#include "agent/common/error.h"
#include "protocol/preamble.h"

#include <stdint.h>
#include <sys/socket.h>

struct daemon;
struct dial;

#define DIAL_TIMEOUT_MS 5000

/* FD: a connected, non-blocking, close-on-exec socket with the preamble sent, the callee's; or -1 with ERROR ("peer-unreachable").
 * ADDRESS is what answered. The dial object is gone when this is called. */
typedef void (*dial_callback)(int fd, const struct sockaddr *address, socklen_t length,
                              const struct error *error, void *context);

/* Tries the addresses HOST resolves to, in turn. GREETING is copied. */
struct dial *dial_host(struct daemon *daemon, const char *host, uint16_t port,
                       const uint8_t greeting[PREAMBLE_SIZE], dial_callback callback,
                       void *context);
struct dial *dial_address(struct daemon *daemon, const struct sockaddr *address, socklen_t length,
                          const uint8_t greeting[PREAMBLE_SIZE], dial_callback callback,
                          void *context);
/* Gives up; no callback. NULL is fine. */
void dial_free(struct dial *dial);

#endif

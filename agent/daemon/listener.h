/*
 * The one TCP port: reads the preamble of each newcomer (exactly its bytes, so that the ClientHello stays in the socket for whoever needs
 * it), then hands a control connection to peer.c and a lane to the migration that gave out its ticket.
 *
 * Strangers are bounded: at most 64 unauthenticated connections, 8 per address (per /64 for IPv6), random early drop above 32, 10 s
 * to authenticate, 4 taken per turn of the loop. Descriptors near their limit: the listener pauses.
 *
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_LISTENER_H
#define WATARI_DAEMON_LISTENER_H

#include "agent/common/error.h"
#include "tls/channel.h"

#include <stdint.h>

struct daemon;
struct listener;
struct peer;

struct listener *listener_new(struct daemon *daemon, struct error *error);
void listener_free(struct listener *listener);

/* A ticket good for one lane: void after 10 s, or by listener_void(). FD is the receiver's. Called at most once. */
typedef void (*lane_callback)(uint32_t index, int fd, const uint8_t ticket[TLS_TICKET_SIZE],
                              const uint8_t key[TLS_LANE_KEY_SIZE], void *context);
/* Makes a random ticket and key (written to TICKET and KEY). False when the system has no random bytes. */
bool listener_ticket(struct listener *listener, uint32_t index, uint8_t ticket[TLS_TICKET_SIZE],
                     uint8_t key[TLS_LANE_KEY_SIZE], lane_callback callback, void *context);
/* All tickets of CONTEXT are void. LISTENER may be NULL: before it listens there are none. */
void listener_void(struct listener *listener, const void *context);

#endif

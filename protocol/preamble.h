/*
 * The first 32 bytes of every connection, in clear, both kinds (SPEC.md §2). The dialler sends a
 * greeting; a listener that cannot serve it answers with a refusal of the same size and closes.
 * After a served greeting TLS begins at once.
 *
 *   dialler                         listener
 *     | -- greeting (32 bytes) -------> |
 *     | -- ClientHello ---------------> |     served: TLS goes on
 *     | <------- refusal (32 bytes) --- |     not served: nothing else follows
 *
 * The first byte tells them apart: a refusal begins with 'W', a TLS record with 0x16.
 *
 * Pure; any thread.
 */
#ifndef WATARI_PROTOCOL_PREAMBLE_H
#define WATARI_PROTOCOL_PREAMBLE_H

#include <stddef.h>
#include <stdint.h>

#define PREAMBLE_SIZE 32
#define PREAMBLE_TICKET_SIZE 16
/* The one version spoken today; a later program lists a range and the listener picks the highest
 * both know. */
#define PROTOCOL_VERSION_MIN 1
#define PROTOCOL_VERSION_MAX 1

enum preamble_kind {
    PREAMBLE_CONTROL = 1,
    PREAMBLE_LANE = 2,
    PREAMBLE_REFUSAL = 255,
};

enum preamble_refusal {
    PREAMBLE_REFUSED_VERSION = 1, /* no common version; version_min/max are the listener's */
    PREAMBLE_REFUSED_TICKET = 2,  /* the lane's ticket is unknown, used or expired */
    PREAMBLE_REFUSED_BUSY = 3,    /* too many unauthenticated connections */
};

/*
 * Layout: 0 magic "WATARI\r\n" (8) · 8 kind u8 · 9 version_min u8 · 10 version_max u8 ·
 * 11 reason u8 (a refusal's, else 0) · 12 reserved (4, zero) · 16 ticket (16; zero but for lanes).
 */
struct preamble {
    enum preamble_kind kind;
    uint8_t version_min, version_max;
    uint8_t reason;
    uint8_t ticket[PREAMBLE_TICKET_SIZE];
};

enum preamble_verdict {
    PREAMBLE_OK,
    PREAMBLE_NOT_WATARI, /* wrong magic: something else is talking */
    PREAMBLE_MALFORMED,  /* our magic, but a field outside its range */
    PREAMBLE_VERSION,    /* well formed, but no common version */
};

void preamble_encode(const struct preamble *preamble, uint8_t out[PREAMBLE_SIZE]);
enum preamble_verdict preamble_decode(const uint8_t in[PREAMBLE_SIZE], struct preamble *out);
/* The version both ranges share, highest first; 0 when there is none. */
uint8_t preamble_common_version(const struct preamble *peer);

#endif

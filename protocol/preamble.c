/*
 * The preamble's 32 bytes, written and read. See preamble.h and SPEC.md §2. Owns nothing; any
 * thread of any process.
 */
#include "preamble.h"

#include "bytes.h"

#include <assert.h>

enum preamble_layout {
    AT_MAGIC = 0,
    AT_KIND = 8,
    AT_VERSION_MIN = 9,
    AT_VERSION_MAX = 10,
    AT_REASON = 11,
    AT_RESERVED = 12,
    AT_TICKET = 16,
    MAGIC_SIZE = 8,
    RESERVED_SIZE = 4,
};

static_assert(AT_TICKET + PREAMBLE_TICKET_SIZE == PREAMBLE_SIZE, "the ticket ends the preamble");

/* The line end shows, as it does in PNG, when something between the hosts treats the connection as
 * text. */
static const uint8_t magic[MAGIC_SIZE] = {'W', 'A', 'T', 'A', 'R', 'I', '\r', '\n'};

void preamble_encode(const struct preamble *preamble, uint8_t out[PREAMBLE_SIZE])
{
    memset(out, 0, PREAMBLE_SIZE);
    memcpy(out + AT_MAGIC, magic, MAGIC_SIZE);
    out[AT_KIND] = (uint8_t)preamble->kind;
    out[AT_VERSION_MIN] = preamble->version_min;
    out[AT_VERSION_MAX] = preamble->version_max;
    out[AT_REASON] = preamble->reason;
    memcpy(out + AT_TICKET, preamble->ticket, PREAMBLE_TICKET_SIZE);
}

static void fields_read(const uint8_t *in, struct preamble *out)
{
    out->kind = (enum preamble_kind)in[AT_KIND];
    out->version_min = in[AT_VERSION_MIN];
    out->version_max = in[AT_VERSION_MAX];
    out->reason = in[AT_REASON];
    memcpy(out->ticket, in + AT_TICKET, PREAMBLE_TICKET_SIZE);
}

enum preamble_verdict preamble_decode(const uint8_t in[PREAMBLE_SIZE], struct preamble *out)
{
    memset(out, 0, sizeof *out);
    if (memcmp(in + AT_MAGIC, magic, MAGIC_SIZE) != 0) {
        return PREAMBLE_NOT_WATARI;
    }
    struct preamble read;
    fields_read(in, &read);
    if (read.version_min == 0 || read.version_min > read.version_max) {
        return PREAMBLE_MALFORMED;
    }
    /* Versions come before the other fields: a later version may use what is reserved in ours, and
     * its peer is owed the clear answer "no common version". A refusal is exempt, because telling
     * of that is what it is for. */
    if (read.kind != PREAMBLE_REFUSAL && preamble_common_version(&read) == 0) {
        *out = read;
        return PREAMBLE_VERSION;
    }
    bool known_kind = read.kind == PREAMBLE_CONTROL || read.kind == PREAMBLE_LANE ||
                      read.kind == PREAMBLE_REFUSAL;
    bool has_reason = read.reason != 0;
    if (!known_kind || has_reason != (read.kind == PREAMBLE_REFUSAL) ||
        !bytes_are_zero(in + AT_RESERVED, RESERVED_SIZE)) {
        return PREAMBLE_MALFORMED;
    }
    if (read.kind != PREAMBLE_LANE && !bytes_are_zero(read.ticket, PREAMBLE_TICKET_SIZE)) {
        return PREAMBLE_MALFORMED;
    }
    *out = read;
    return PREAMBLE_OK;
}

uint8_t preamble_common_version(const struct preamble *peer)
{
    uint8_t highest = peer->version_max < PROTOCOL_VERSION_MAX ? peer->version_max
                                                               : (uint8_t)PROTOCOL_VERSION_MAX;
    uint8_t lowest = peer->version_min > PROTOCOL_VERSION_MIN ? peer->version_min
                                                              : (uint8_t)PROTOCOL_VERSION_MIN;
    return highest >= lowest ? highest : 0;
}

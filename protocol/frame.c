/*
 * Frames, written and read. See frame.h and SPEC.md §3, §5. Owns nothing; any thread of any
 * process.
 */
#include "frame.h"

#include "bytes.h"
#include "page_operation.h"

/* Sequence numbers, stream offsets and disk offsets stay below 2^63: they fit the integers of JSON,
 * off_t and NBD, and one may be added to them without a thought. */
#define FRAME_NUMBER_MAX ((uint64_t)INT64_MAX)
/* Linux' own bound for an errno (MAX_ERRNO of include/linux/err.h). */
#define FRAME_ERRNO_MAX 4095u

struct frame_rule {
    enum frame_type type;
    enum frame_connection connection;
    uint32_t body_min, body_max;
    const char *name;
};

/* The shortest JSON object is {}; the shortest payload one byte. */
static const struct frame_rule frame_rules[] = {
    {FRAME_MESSAGE, FRAME_ON_CONTROL, 2, FRAME_CONTROL_BODY_MAX, "message"},
    {FRAME_SEGMENT, FRAME_ON_LANE, FRAME_SEGMENT_FIXED + 1, FRAME_LANE_BODY_MAX, "segment"},
    {FRAME_CHECKPOINT, FRAME_ON_LANE, FRAME_MARK_FIXED, FRAME_MARK_FIXED, "checkpoint"},
    {FRAME_END, FRAME_ON_LANE, FRAME_MARK_FIXED, FRAME_MARK_FIXED, "end"},
    {FRAME_RECEIVED, FRAME_ON_LANE, FRAME_RECEIVED_FIXED, FRAME_RECEIVED_FIXED, "received"},
    {FRAME_EXTENT, FRAME_ON_LANE, FRAME_EXTENT_FIXED, FRAME_LANE_BODY_MAX, "extent"},
    {FRAME_FLUSH, FRAME_ON_LANE, FRAME_FLUSH_FIXED, FRAME_FLUSH_FIXED, "flush"},
    {FRAME_DONE, FRAME_ON_LANE, FRAME_DONE_FIXED, FRAME_DONE_FIXED, "done"},
    {FRAME_VERIFY, FRAME_ON_LANE, FRAME_VERIFY_FIXED, FRAME_VERIFY_FIXED, "verify"},
    {FRAME_DIGEST, FRAME_ON_LANE, FRAME_DIGEST_FIXED, FRAME_DIGEST_FIXED, "digest"},
    {FRAME_FAIL, FRAME_ON_LANE, 1, FRAME_FAIL_TEXT_MAX, "fail"},
};

static const struct frame_rule *rule_of(unsigned type)
{
    for (size_t i = 0; i < sizeof frame_rules / sizeof frame_rules[0]; i++) {
        if ((unsigned)frame_rules[i].type == type) {
            return &frame_rules[i];
        }
    }
    return NULL;
}

void frame_header_encode(uint32_t length, enum frame_type type, uint8_t out[FRAME_HEADER_SIZE])
{
    bytes_put32(out, length);
    out[4] = (uint8_t)type;
    memset(out + 5, 0, 3);
}

enum frame_verdict frame_header_decode(const uint8_t in[FRAME_HEADER_SIZE],
                                       enum frame_connection connection, struct frame_header *out)
{
    memset(out, 0, sizeof *out);
    const struct frame_rule *rule = rule_of(in[4]);
    if (rule == NULL || rule->connection != connection) {
        return FRAME_TYPE_UNKNOWN;
    }
    if (!bytes_are_zero(in + 5, 3)) {
        return FRAME_BAD_FIELD;
    }
    uint32_t length = bytes_get32(in);
    if (length > rule->body_max) {
        return FRAME_TOO_LONG;
    }
    if (length < rule->body_min) {
        return FRAME_TOO_SHORT;
    }
    out->length = length;
    out->type = rule->type;
    return FRAME_OK;
}

void frame_segment_encode(const struct frame_segment *segment, uint8_t out[FRAME_SEGMENT_FIXED])
{
    bytes_put64(out, segment->sequence);
    bytes_put64(out + 8, segment->offset);
    bytes_put32(out + 16, segment->raw_length);
    out[20] = (uint8_t)segment->codec;
    out[21] = 0;
    bytes_put16(out + 22, segment->operations);
}

void frame_mark_encode(const struct frame_mark *mark, uint8_t out[FRAME_MARK_FIXED])
{
    bytes_put64(out, mark->sequence);
    bytes_put64(out + 8, mark->offset);
    memcpy(out + 16, mark->hash.bytes, sizeof mark->hash.bytes);
}

void frame_received_encode(const struct frame_received *received, uint8_t out[FRAME_RECEIVED_FIXED])
{
    bytes_put64(out, received->sequence);
    bytes_put64(out + 8, received->bytes);
}

void frame_extent_encode(const struct frame_extent *extent, uint8_t out[FRAME_EXTENT_FIXED])
{
    bytes_put64(out, extent->request);
    bytes_put64(out + 8, extent->offset);
    bytes_put64(out + 16, extent->hash);
    bytes_put32(out + 24, extent->length);
    bytes_put16(out + 28, extent->disk);
    out[30] = (uint8_t)extent->kind;
    out[31] = (uint8_t)extent->codec;
}

void frame_flush_encode(const struct frame_flush *flush, uint8_t out[FRAME_FLUSH_FIXED])
{
    bytes_put64(out, flush->request);
    bytes_put16(out + 8, flush->disk);
    memset(out + 10, 0, 6);
}

void frame_done_encode(const struct frame_done *done, uint8_t out[FRAME_DONE_FIXED])
{
    bytes_put64(out, done->request);
    bytes_put32(out + 8, done->status);
    memset(out + 12, 0, 4);
}

void frame_verify_encode(const struct frame_verify *verify, uint8_t out[FRAME_VERIFY_FIXED])
{
    bytes_put64(out, verify->request);
    bytes_put64(out + 8, verify->offset);
    bytes_put32(out + 16, verify->length);
    bytes_put16(out + 20, verify->disk);
    memset(out + 22, 0, 2);
}

void frame_digest_encode(const struct frame_digest *digest, uint8_t out[FRAME_DIGEST_FIXED])
{
    bytes_put64(out, digest->request);
    bytes_put32(out + 8, digest->status);
    memset(out + 12, 0, 4);
    memcpy(out + 16, digest->hash.bytes, sizeof digest->hash.bytes);
}

static enum frame_verdict length_is(uint32_t length, uint32_t wanted)
{
    if (length < wanted) {
        return FRAME_TOO_SHORT;
    }
    return length > wanted ? FRAME_TOO_LONG : FRAME_OK;
}

/* A raw payload is exactly the data; of a compressed one only the decompressor can tell. */
static enum frame_verdict payload_check(uint8_t codec, uint32_t raw_length, uint32_t payload_length)
{
    if (raw_length == 0 || raw_length > FRAME_DATA_MAX || codec > FRAME_ZSTD) {
        return FRAME_BAD_FIELD;
    }
    if (codec == FRAME_RAW) {
        return length_is(payload_length, raw_length);
    }
    return payload_length == 0 ? FRAME_TOO_SHORT : FRAME_OK;
}

/* LENGTH bytes from OFFSET end below 2^63. */
static bool range_fits(uint64_t offset, uint32_t length)
{
    return offset <= FRAME_NUMBER_MAX - length;
}

enum frame_verdict frame_segment_decode(const uint8_t *body, uint32_t length,
                                        struct frame_segment *out)
{
    memset(out, 0, sizeof *out);
    if (length < FRAME_SEGMENT_FIXED) {
        return FRAME_TOO_SHORT;
    }
    if (length > FRAME_LANE_BODY_MAX) {
        return FRAME_TOO_LONG;
    }
    uint64_t sequence = bytes_get64(body);
    uint64_t offset = bytes_get64(body + 8);
    uint32_t raw_length = bytes_get32(body + 16);
    uint8_t codec = body[20];
    enum frame_verdict verdict = payload_check(codec, raw_length, length - FRAME_SEGMENT_FIXED);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    uint16_t operations = bytes_get16(body + 22);
    if (sequence > FRAME_NUMBER_MAX || !range_fits(offset, raw_length) || body[21] != 0 ||
        operations > PAGE_OPERATIONS_MAX || operations * PAGE_OPERATION_SIZE >= raw_length) {
        return FRAME_BAD_FIELD;
    }
    out->sequence = sequence;
    out->offset = offset;
    out->raw_length = raw_length;
    out->codec = (enum frame_codec)codec;
    out->operations = operations;
    out->payload = body + FRAME_SEGMENT_FIXED;
    out->payload_length = length - FRAME_SEGMENT_FIXED;
    return FRAME_OK;
}

enum frame_verdict frame_mark_decode(const uint8_t *body, uint32_t length, struct frame_mark *out)
{
    memset(out, 0, sizeof *out);
    enum frame_verdict verdict = length_is(length, FRAME_MARK_FIXED);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    uint64_t sequence = bytes_get64(body);
    uint64_t offset = bytes_get64(body + 8);
    if (sequence > FRAME_NUMBER_MAX || offset > FRAME_NUMBER_MAX) {
        return FRAME_BAD_FIELD;
    }
    out->sequence = sequence;
    out->offset = offset;
    memcpy(out->hash.bytes, body + 16, sizeof out->hash.bytes);
    return FRAME_OK;
}

enum frame_verdict frame_received_decode(const uint8_t *body, uint32_t length,
                                         struct frame_received *out)
{
    memset(out, 0, sizeof *out);
    enum frame_verdict verdict = length_is(length, FRAME_RECEIVED_FIXED);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    uint64_t sequence = bytes_get64(body);
    uint64_t bytes = bytes_get64(body + 8);
    if (sequence > FRAME_NUMBER_MAX || bytes > FRAME_NUMBER_MAX) {
        return FRAME_BAD_FIELD;
    }
    out->sequence = sequence;
    out->bytes = bytes;
    return FRAME_OK;
}

static enum frame_verdict zero_extent_check(const uint8_t *body, uint32_t payload_length)
{
    uint32_t length = bytes_get32(body + 24);
    if (length == 0 || length > FRAME_ZERO_MAX || body[31] != FRAME_RAW ||
        bytes_get64(body + 16) != 0) {
        return FRAME_BAD_FIELD;
    }
    return length_is(payload_length, 0);
}

enum frame_verdict frame_extent_decode(const uint8_t *body, uint32_t length,
                                       struct frame_extent *out)
{
    memset(out, 0, sizeof *out);
    if (length < FRAME_EXTENT_FIXED) {
        return FRAME_TOO_SHORT;
    }
    if (length > FRAME_LANE_BODY_MAX) {
        return FRAME_TOO_LONG;
    }
    uint32_t payload_length = length - FRAME_EXTENT_FIXED;
    uint64_t offset = bytes_get64(body + 8);
    uint32_t extent_length = bytes_get32(body + 24);
    uint8_t kind = body[30];
    uint8_t codec = body[31];
    if (kind > FRAME_EXTENT_ZERO) {
        return FRAME_BAD_FIELD;
    }
    enum frame_verdict verdict = kind == FRAME_EXTENT_ZERO
                                     ? zero_extent_check(body, payload_length)
                                     : payload_check(codec, extent_length, payload_length);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    if (!range_fits(offset, extent_length)) {
        return FRAME_BAD_FIELD;
    }
    out->request = bytes_get64(body);
    out->offset = offset;
    out->hash = bytes_get64(body + 16);
    out->length = extent_length;
    out->disk = bytes_get16(body + 28);
    out->kind = (enum frame_extent_kind)kind;
    out->codec = (enum frame_codec)codec;
    out->payload = payload_length == 0 ? NULL : body + FRAME_EXTENT_FIXED;
    out->payload_length = payload_length;
    return FRAME_OK;
}

enum frame_verdict frame_flush_decode(const uint8_t *body, uint32_t length, struct frame_flush *out)
{
    memset(out, 0, sizeof *out);
    enum frame_verdict verdict = length_is(length, FRAME_FLUSH_FIXED);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    if (!bytes_are_zero(body + 10, 6)) {
        return FRAME_BAD_FIELD;
    }
    out->request = bytes_get64(body);
    out->disk = bytes_get16(body + 8);
    return FRAME_OK;
}

enum frame_verdict frame_done_decode(const uint8_t *body, uint32_t length, struct frame_done *out)
{
    memset(out, 0, sizeof *out);
    enum frame_verdict verdict = length_is(length, FRAME_DONE_FIXED);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    uint32_t status = bytes_get32(body + 8);
    if (status > FRAME_ERRNO_MAX || !bytes_are_zero(body + 12, 4)) {
        return FRAME_BAD_FIELD;
    }
    out->request = bytes_get64(body);
    out->status = status;
    return FRAME_OK;
}

enum frame_verdict frame_verify_decode(const uint8_t *body, uint32_t length,
                                       struct frame_verify *out)
{
    memset(out, 0, sizeof *out);
    enum frame_verdict verdict = length_is(length, FRAME_VERIFY_FIXED);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    uint64_t offset = bytes_get64(body + 8);
    uint32_t run = bytes_get32(body + 16);
    if (run == 0 || run > FRAME_VERIFY_MAX || !range_fits(offset, run) ||
        !bytes_are_zero(body + 22, 2)) {
        return FRAME_BAD_FIELD;
    }
    out->request = bytes_get64(body);
    out->offset = offset;
    out->length = run;
    out->disk = bytes_get16(body + 20);
    return FRAME_OK;
}

enum frame_verdict frame_digest_decode(const uint8_t *body, uint32_t length,
                                       struct frame_digest *out)
{
    memset(out, 0, sizeof *out);
    enum frame_verdict verdict = length_is(length, FRAME_DIGEST_FIXED);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    uint32_t status = bytes_get32(body + 8);
    if (status > FRAME_ERRNO_MAX || !bytes_are_zero(body + 12, 4) ||
        (status != 0 && !bytes_are_zero(body + 16, sizeof out->hash.bytes))) {
        return FRAME_BAD_FIELD;
    }
    out->request = bytes_get64(body);
    out->status = status;
    memcpy(out->hash.bytes, body + 16, sizeof out->hash.bytes);
    return FRAME_OK;
}

const char *frame_type_name(enum frame_type type)
{
    const struct frame_rule *rule = rule_of((unsigned)type);
    return rule == NULL ? "unknown" : rule->name;
}

const char *frame_verdict_text(enum frame_verdict verdict)
{
    switch (verdict) {
    case FRAME_OK:
        return "ok";
    case FRAME_TYPE_UNKNOWN:
        return "of a type this connection does not carry";
    case FRAME_TOO_LONG:
        return "too long";
    case FRAME_TOO_SHORT:
        return "too short";
    case FRAME_BAD_FIELD:
        return "with a field outside its range";
    }
    return "invalid";
}

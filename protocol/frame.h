/*
 * Frames: everything inside TLS, on control connections and lanes, is a sequence of them. See
 * SPEC.md §3 and §5.
 *
 *   header, 8 bytes: u32 body length · u8 type · u8 flags (0) · u16 reserved (0); then the body.
 *
 * All integers are big-endian. A control connection carries MESSAGE frames only; a lane all the
 * others:
 *
 *   source mover                                 destination mover
 *     | -- EXTENT{request, disk, offset, ...} ----> |  writes it (data) or zeroes it (zero)
 *     | <------------- DONE{request, status} ------ |  the write was acknowledged by QEMU
 *     | -- FLUSH{request, disk} ------------------> |  what is acknowledged reaches stable storage
 *     | <------------- DONE{request, status} ------ |
 *     | -- VERIFY{request, disk, range} ----------> |  reads that run of its disk back (--verify)
 *     | <--- DIGEST{request, status, hash} -------- |  what it found; the source compares
 *     | -- SEGMENT{sequence, ...} ----------------> |  any lane; put in order by sequence
 *     | -- CHECKPOINT{sequence, offset, hash} ----> |  takes a sequence number of its own
 *     | <------------- RECEIVED{sequence, bytes} -- |  all below SEQUENCE was handed to QEMU
 *     | -- END{sequence, bytes, hash} ------------> |  the QEMU stream is over
 *     | <----- FAIL{text} -----> |                     either side: fatal, the connection ends
 *
 * Pure; any thread. Decoders never read beyond what they are given and believe no length before
 * checking it.
 */
#ifndef WATARI_PROTOCOL_FRAME_H
#define WATARI_PROTOCOL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADER_SIZE 8
/* Largest body on a control connection: an OFFER carries a QEMU argument vector (128 KiB by Linux'
 * own limit per argument). */
#define FRAME_CONTROL_BODY_MAX (1u << 20)
/* Largest unit of data, before compression, in a SEGMENT or EXTENT of kind data. */
#define FRAME_DATA_MAX (1u << 20)
/* Largest body on a lane: the unit as it is (an incompressible one is sent raw) and its fixed
 * fields. */
#define FRAME_LANE_BODY_MAX (FRAME_DATA_MAX + 64u)
#define FRAME_FAIL_TEXT_MAX 512u
/* Largest zero extent, in bytes: one write-zeroes request of NBD. */
#define FRAME_ZERO_MAX (1u << 30)
/* How many sequence numbers a source may be ahead of the last RECEIVED, and how many bytes of
 * segments, before compression, may lie among them; a destination refuses what is beyond. */
#define FRAME_SEGMENT_WINDOW 256u
#define FRAME_SEGMENT_WINDOW_BYTES (64u << 20)
/* A CHECKPOINT is due after so many stream bytes, where a segment ends. */
#define FRAME_CHECKPOINT_BYTES (64u << 20)
/* Largest run of a disk in one VERIFY, in bytes: a moment's reading, so that none keeps others
 * waiting for long. */
#define FRAME_VERIFY_MAX (16u << 20)
/* The digest of a DIGEST is made of pieces that end at multiples of so many bytes of the disk. */
#define FRAME_DIGEST_PIECE (64u << 10)

enum frame_type {
    FRAME_MESSAGE = 1, /* control: a JSON object in UTF-8, see message.h */
    FRAME_SEGMENT = 16,
    FRAME_CHECKPOINT = 17,
    FRAME_END = 18,
    FRAME_RECEIVED = 19,
    FRAME_EXTENT = 32,
    FRAME_FLUSH = 33,
    FRAME_DONE = 34,
    FRAME_VERIFY = 35,
    FRAME_DIGEST = 36,
    FRAME_FAIL = 48,
};

enum frame_codec {
    FRAME_RAW = 0,
    FRAME_ZSTD = 1, /* one zstd frame (RFC 8878) that states its content size: raw_length */
};

enum frame_verdict {
    FRAME_OK,
    FRAME_TYPE_UNKNOWN,
    FRAME_TOO_LONG,  /* body longer than its kind of connection or its type allows */
    FRAME_TOO_SHORT, /* body shorter than the type's fixed fields, or not exactly of a fixed size */
    FRAME_BAD_FIELD, /* a field outside its range; reserved bits set */
};

struct frame_header {
    uint32_t length; /* of the body, bytes */
    enum frame_type type;
};

/* XXH3-128 in canonical (big-endian) form. */
struct frame_hash {
    uint8_t bytes[16];
};

/* Body: u64 sequence · u64 offset · u32 raw_length · u8 codec · u8 zero · u16 operations · payload.
 * The data are bytes of the QEMU stream, at least one, and behind them the operations on its pages
 * (page_operation.h). */
struct frame_segment {
    uint64_t sequence;   /* from 0, no gaps */
    uint64_t offset;     /* of the segment's first byte in the QEMU stream */
    uint32_t raw_length; /* of the data; 1 .. FRAME_DATA_MAX */
    enum frame_codec codec;
    uint16_t operations;    /* how many; 0 .. PAGE_OPERATIONS_MAX */
    const uint8_t *payload; /* borrowed from the body */
    uint32_t payload_length;
};
#define FRAME_SEGMENT_FIXED 24u

/* CHECKPOINT and END. Body: u64 sequence · u64 offset · 16 bytes hash. For a CHECKPOINT the hash is
 * of the bytes since the last one (or the start); for END of the whole stream, and offset is its
 * length. */
struct frame_mark {
    uint64_t sequence;
    uint64_t offset;
    struct frame_hash hash;
};
#define FRAME_MARK_FIXED 32u

/* Body: u64 sequence · u64 bytes. All sequence numbers below SEQUENCE, BYTES stream bytes, have
 * been handed to QEMU. */
struct frame_received {
    uint64_t sequence;
    uint64_t bytes;
};
#define FRAME_RECEIVED_FIXED 16u

enum frame_extent_kind {
    FRAME_EXTENT_DATA = 0,
    FRAME_EXTENT_ZERO = 1, /* no payload; codec FRAME_RAW, hash 0 */
};

/* Body: u64 request · u64 offset · u64 hash · u32 length · u16 disk · u8 kind · u8 codec · payload.
 * offset and length are bytes on the guest's disk; hash is XXH3-64 of the raw bytes. */
struct frame_extent {
    uint64_t request; /* unique while unanswered, over all disks */
    uint64_t offset;
    uint64_t hash;
    uint32_t length; /* 1 .. FRAME_DATA_MAX (data) or FRAME_ZERO_MAX (zero) */
    uint16_t disk;   /* index in the OFFER's list */
    enum frame_extent_kind kind;
    enum frame_codec codec;
    const uint8_t *payload;
    uint32_t payload_length;
};
#define FRAME_EXTENT_FIXED 32u

/* Body: u64 request · u16 disk · 6 zero bytes. */
struct frame_flush {
    uint64_t request;
    uint16_t disk;
};
#define FRAME_FLUSH_FIXED 16u

/* Body: u64 request · u32 status (0, or a Linux errno) · 4 zero bytes. */
struct frame_done {
    uint64_t request;
    uint32_t status;
};
#define FRAME_DONE_FIXED 16u

/* Body: u64 request · u64 offset · u32 length · u16 disk · 2 zero bytes. */
struct frame_verify {
    uint64_t request; /* as in an EXTENT */
    uint64_t offset;
    uint32_t length; /* 1 .. FRAME_VERIFY_MAX */
    uint16_t disk;
};
#define FRAME_VERIFY_FIXED 24u

/* Body: u64 request · u32 status (0, or a Linux errno) · 4 zero bytes · 16 bytes hash, zero unless
 * the status is 0. SPEC.md §6 says of what the hash is. */
struct frame_digest {
    uint64_t request;
    uint32_t status;
    struct frame_hash hash;
};
#define FRAME_DIGEST_FIXED 32u

/* Which frames a connection may carry. */
enum frame_connection { FRAME_ON_CONTROL, FRAME_ON_LANE };

void frame_header_encode(uint32_t length, enum frame_type type, uint8_t out[FRAME_HEADER_SIZE]);
/* Also checks the length against what TYPE may carry, so that a reader can allocate before the body
 * is there. */
enum frame_verdict frame_header_decode(const uint8_t in[FRAME_HEADER_SIZE],
                                       enum frame_connection connection, struct frame_header *out);

/* Encoders write the fixed fields of the body only (payloads follow from where they are); the
 * caller writes the header with fixed + payload length. */
void frame_segment_encode(const struct frame_segment *segment, uint8_t out[FRAME_SEGMENT_FIXED]);
void frame_mark_encode(const struct frame_mark *mark, uint8_t out[FRAME_MARK_FIXED]);
void frame_received_encode(const struct frame_received *received,
                           uint8_t out[FRAME_RECEIVED_FIXED]);
void frame_extent_encode(const struct frame_extent *extent, uint8_t out[FRAME_EXTENT_FIXED]);
void frame_flush_encode(const struct frame_flush *flush, uint8_t out[FRAME_FLUSH_FIXED]);
void frame_done_encode(const struct frame_done *done, uint8_t out[FRAME_DONE_FIXED]);
void frame_verify_encode(const struct frame_verify *verify, uint8_t out[FRAME_VERIFY_FIXED]);
void frame_digest_encode(const struct frame_digest *digest, uint8_t out[FRAME_DIGEST_FIXED]);

/* Decoders take the whole body. Every field is checked against its own range; ranges that need
 * context (disk size, window) are the caller's. */
enum frame_verdict frame_segment_decode(const uint8_t *body, uint32_t length,
                                        struct frame_segment *out);
enum frame_verdict frame_mark_decode(const uint8_t *body, uint32_t length, struct frame_mark *out);
enum frame_verdict frame_received_decode(const uint8_t *body, uint32_t length,
                                         struct frame_received *out);
enum frame_verdict frame_extent_decode(const uint8_t *body, uint32_t length,
                                       struct frame_extent *out);
enum frame_verdict frame_flush_decode(const uint8_t *body, uint32_t length,
                                      struct frame_flush *out);
enum frame_verdict frame_done_decode(const uint8_t *body, uint32_t length, struct frame_done *out);
enum frame_verdict frame_verify_decode(const uint8_t *body, uint32_t length,
                                       struct frame_verify *out);
enum frame_verdict frame_digest_decode(const uint8_t *body, uint32_t length,
                                       struct frame_digest *out);

/* "segment", "too long", ...: for messages and logs. */
const char *frame_type_name(enum frame_type type);
const char *frame_verdict_text(enum frame_verdict verdict);

#endif

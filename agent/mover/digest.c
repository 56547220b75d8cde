#include "digest.h"

#include <endian.h>
#include <string.h>
#include <xxhash.h>

static uint64_t piece_start(uint64_t offset)
{
    return offset - offset % FRAME_DIGEST_PIECE;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void add_piece(struct frame_hash *hash, uint64_t offset, const uint8_t *bytes,
                      uint32_t length)
{
    struct {
        XXH128_canonical_t before;
        uint64_t offset;
        XXH128_canonical_t piece;
    } link;
    XXH128_canonical_t after;

    _Static_assert(sizeof link == 40, "the bytes that SPEC.md names");
    memcpy(&link.before, hash->bytes, sizeof link.before);
    link.offset = htobe64(offset);
    XXH128_canonicalFromHash(&link.piece, XXH3_128bits(bytes, length));
    XXH128_canonicalFromHash(&after, XXH3_128bits(&link, sizeof link));
    memcpy(hash->bytes, &after, sizeof hash->bytes);
}

void digest_add(struct frame_hash *hash, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    const uint64_t end = offset + length;

    while (offset < end) {
        uint32_t piece =
            (uint32_t)(smaller(piece_start(offset) + FRAME_DIGEST_PIECE, end) - offset);

        if (!bytes_are_zero(bytes, piece)) {
            add_piece(hash, offset, bytes, piece);
        }
        offset += piece;
        bytes += piece;
    }
}

/* From AT, or the start of the piece that holds FROM, to the end of the piece that ends at TO or
 * later. */
static void whole_pieces(uint64_t from, uint64_t to, uint64_t at, uint64_t end, uint64_t *offset,
                         uint32_t *length)
{
    uint64_t stop = piece_start(to + FRAME_DIGEST_PIECE - 1);

    *offset = larger(piece_start(from), at);
    stop = smaller(smaller(stop, piece_start(*offset) + DIGEST_READ_MAX), end);
    *length = (uint32_t)(stop - *offset);
}

enum digest_next digest_walk_next(struct digest_walk *walk, uint64_t at, uint64_t end,
                                  uint64_t *offset, uint32_t *length)
{
    const struct block_status *status = walk->status;

    if (at >= end) {
        return DIGEST_OVER;
    }
    while (walk->entry < status->count && walk->start < end) {
        uint64_t next = walk->start + status->entries[2 * walk->entry];
        bool zero = (status->entries[2 * walk->entry + 1] & BLOCK_STATUS_ZERO) != 0;

        if (next > at && !zero) {
            whole_pieces(larger(walk->start, at), smaller(next, end), at, end, offset, length);
            return DIGEST_READ;
        }
        walk->entry++;
        walk->start = next;
    }
    if (walk->start >= end) {
        return DIGEST_OVER;
    }
    if (walk->start > at && walk->start % FRAME_DIGEST_PIECE != 0) {
        /* The rest of this piece may be anything: read, it needs no status. */
        whole_pieces(walk->start, walk->start, at, end, offset, length);
        return DIGEST_READ;
    }
    *offset = larger(walk->start, at);
    return DIGEST_ASK;
}

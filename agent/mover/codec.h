/*
 * The compression of one unit (a segment or data extent), on the lanes. Each lane has its own zstd
 * contexts; nothing here knows of order, so any unit may go through any of them.
 *
 * One thread at a time per context.
 */
#ifndef WATARI_MOVER_CODEC_H
#define WATARI_MOVER_CODEC_H

#include "protocol/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

/* A context that compresses at LEVEL (zstd's own scale). NULL when there is no memory or no such
 * level. */
ZSTD_CCtx *codec_compressor_new(int level);

/*
 * Writes RAW's payload to OUT, which has room for LENGTH bytes, and returns the payload's length.
 * It is compressed when that saves at least 1/32, else copied, and *codec says which. COMPRESSOR
 * may be NULL: then it is copied.
 */
uint32_t codec_pack(ZSTD_CCtx *compressor, const uint8_t *raw, uint32_t length, uint8_t *out,
                    enum frame_codec *codec);

/* True when PAYLOAD says of itself that it is one zstd frame of LENGTH raw bytes and nothing else.
 * Asked before memory is taken for them. */
bool codec_is_honest(const uint8_t *payload, uint32_t payload_length, uint32_t length);

/*
 * Decompresses PAYLOAD into exactly LENGTH bytes at OUT. False when it is damaged or of another
 * length. All at once, with OUT as the window: a frame that asks for a huge window costs no memory.
 */
bool codec_unpack(ZSTD_DCtx *decompressor, const uint8_t *payload, uint32_t payload_length,
                  uint8_t *out, uint32_t length);

#endif

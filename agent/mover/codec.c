#include "codec.h"

#include <string.h>

ZSTD_CCtx *codec_compressor_new(int level)
{
    ZSTD_CCtx *compressor = ZSTD_createCCtx();

    if (compressor == NULL) {
        return NULL;
    }
    if (ZSTD_isError(ZSTD_CCtx_setParameter(compressor, ZSTD_c_compressionLevel, level))) {
        ZSTD_freeCCtx(compressor);
        return NULL;
    }
    return compressor;
}

uint32_t codec_pack(ZSTD_CCtx *compressor, const uint8_t *raw, uint32_t length, uint8_t *out,
                    enum frame_codec *codec)
{
    /* zstd gives up when this room does not do: the cheapest way to tell that it does not pay. */
    uint32_t room = length - length / 32;
    size_t packed;

    if (compressor != NULL) {
        packed = ZSTD_compress2(compressor, out, room, raw, length);
        if (!ZSTD_isError(packed)) {
            *codec = FRAME_ZSTD;
            return (uint32_t)packed;
        }
    }
    memcpy(out, raw, length);
    *codec = FRAME_RAW;
    return length;
}

bool codec_is_honest(const uint8_t *payload, uint32_t payload_length, uint32_t length)
{
    return ZSTD_getFrameContentSize(payload, payload_length) == length &&
           ZSTD_findFrameCompressedSize(payload, payload_length) == payload_length;
}

bool codec_unpack(ZSTD_DCtx *decompressor, const uint8_t *payload, uint32_t payload_length,
                  uint8_t *out, uint32_t length)
{
    return ZSTD_decompressDCtx(decompressor, out, length, payload, payload_length) == length;
}

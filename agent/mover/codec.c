#include "codec.h"
#include "orders.h"

#include <string.h>

/* Spread over the unit. Fewer or shorter ones miss what they should find, longer ones cost more and
 * find no more. */
#define SAMPLES 16u
#define SAMPLE_SIZE 256u
#define SAMPLE_LEVEL 1
/* Smaller units are compressed as quickly as sampled. */
#define SAMPLED_MIN (8 * SAMPLES * SAMPLE_SIZE)

bool packer_open(struct packer *packer)
{
    packer->units = ZSTD_createCCtx();
    packer->samples = ZSTD_createCCtx();
    if (packer->units != NULL && packer->samples != NULL &&
        !ZSTD_isError(
            ZSTD_CCtx_setParameter(packer->samples, ZSTD_c_compressionLevel, SAMPLE_LEVEL))) {
        return true;
    }
    packer_close(packer);
    return false;
}

void packer_close(struct packer *packer)
{
    ZSTD_freeCCtx(packer->units);
    ZSTD_freeCCtx(packer->samples);
    *packer = (struct packer){0};
}

/* 0 when it does not pay: zstd gives up when this room does not do. */
static uint32_t compress(ZSTD_CCtx *context, const uint8_t *raw, uint32_t length, uint8_t *out)
{
    size_t packed = ZSTD_compress2(context, out, length - length / 32, raw, length);

    return ZSTD_isError(packed) ? 0 : (uint32_t)packed;
}

/* OUT is room that is not used yet. */
static bool samples_shrink(struct packer *packer, const uint8_t *raw, uint32_t length, uint8_t *out)
{
    uint8_t samples[SAMPLES * SAMPLE_SIZE];
    uint32_t distance = length / SAMPLES;

    for (uint32_t i = 0; i < SAMPLES; i++) {
        memcpy(samples + i * SAMPLE_SIZE, raw + i * distance, SAMPLE_SIZE);
    }
    return compress(packer->samples, samples, sizeof samples, out) != 0;
}

uint32_t codec_pack(struct packer *packer, enum codec_kind kind, int level, const uint8_t *raw,
                    uint32_t length, uint8_t *out, enum frame_codec *codec)
{
    uint32_t packed = 0;

    if (level != ORDER_LEVEL_OFF &&
        (!packer->did_not_shrink[kind] || length < SAMPLED_MIN ||
         samples_shrink(packer, raw, length, out)) &&
        !ZSTD_isError(ZSTD_CCtx_setParameter(packer->units, ZSTD_c_compressionLevel, level))) {
        packed = compress(packer->units, raw, length, out);
        packer->did_not_shrink[kind] = packed == 0;
    }
    if (packed != 0) {
        *codec = FRAME_ZSTD;
        return packed;
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

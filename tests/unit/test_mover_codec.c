/* Compression of units: what pays is compressed, and what a peer says of its payload is checked. */
#include "agent/mover/codec.h"
#include "agent/mover/orders.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SIZE = 100000 };

struct bench {
    struct packer packer;
    ZSTD_DCtx *decompressor;
    uint8_t raw[SIZE], packed[SIZE], back[SIZE];
};

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);

    if (bench == NULL) {
        return -1;
    }
    bench->decompressor = ZSTD_createDCtx();
    *state = bench;
    return packer_open(&bench->packer) && bench->decompressor != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    packer_close(&bench->packer);
    ZSTD_freeDCtx(bench->decompressor);
    free(bench);
    return 0;
}

static void fill_noise(uint8_t *bytes, size_t size)
{
    uint64_t seed = 88172645463325252u;

    for (size_t i = 0; i < size; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes[i] = (uint8_t)seed;
    }
}

static uint32_t pack(struct bench *bench, const uint8_t *raw, uint32_t length, uint8_t *out,
                     enum frame_codec *codec)
{
    return codec_pack(&bench->packer, CODEC_DISK, 1, raw, length, out, codec);
}

static void what_shrinks_is_compressed(void **state)
{
    struct bench *bench = *state;
    enum frame_codec codec;
    uint32_t packed;

    for (size_t i = 0; i < SIZE; i++) {
        bench->raw[i] = (uint8_t)(i / 100);
    }
    packed = pack(bench, bench->raw, SIZE, bench->packed, &codec);
    assert_int_equal(codec, FRAME_ZSTD);
    assert_true(packed < SIZE / 10);
    assert_true(codec_is_honest(bench->packed, packed, SIZE));
    assert_true(codec_unpack(bench->decompressor, bench->packed, packed, bench->back, SIZE));
    assert_memory_equal(bench->raw, bench->back, SIZE);
}

static void what_does_not_shrink_is_copied(void **state)
{
    struct bench *bench = *state;
    enum frame_codec codec;

    fill_noise(bench->raw, SIZE);
    assert_int_equal(pack(bench, bench->raw, SIZE, bench->packed, &codec), SIZE);
    assert_int_equal(codec, FRAME_RAW);
    assert_memory_equal(bench->raw, bench->packed, SIZE);
    /* 2 % of zeroes are not worth it. */
    memset(bench->raw, 0, SIZE / 50);
    assert_int_equal(pack(bench, bench->raw, SIZE, bench->packed, &codec), SIZE);
    assert_int_equal(codec, FRAME_RAW);
    bench->packer.did_not_shrink[CODEC_DISK] = false;
    /* 10 % are. */
    memset(bench->raw, 0, SIZE / 10);
    assert_true(pack(bench, bench->raw, SIZE, bench->packed, &codec) < SIZE);
    assert_int_equal(codec, FRAME_ZSTD);
}

static void off_copies_and_small_units_work(void **state)
{
    struct bench *bench = *state;
    enum frame_codec codec;

    memset(bench->raw, 0, SIZE);
    assert_int_equal(codec_pack(&bench->packer, CODEC_DISK, ORDER_LEVEL_OFF, bench->raw, SIZE,
                                bench->packed, &codec),
                     SIZE);
    assert_int_equal(codec, FRAME_RAW);
    for (uint32_t size = 1; size < 20; size++) {
        assert_int_equal(pack(bench, bench->raw, size, bench->packed, &codec), size);
        assert_int_equal(codec, FRAME_RAW);
    }
}

static void lies_are_seen(void **state)
{
    struct bench *bench = *state;
    enum frame_codec codec;
    uint32_t packed;

    memset(bench->raw, 7, SIZE);
    packed = pack(bench, bench->raw, SIZE, bench->packed, &codec);
    assert_int_equal(codec, FRAME_ZSTD);
    assert_false(codec_is_honest(bench->packed, packed, SIZE - 1));
    assert_false(codec_is_honest(bench->packed, packed, 1u << 20));
    assert_false(codec_is_honest(bench->packed, packed - 1, SIZE));
    assert_false(codec_is_honest(bench->packed, packed + 1, SIZE));
    assert_false(codec_is_honest(bench->packed, 0, SIZE));
    assert_false(codec_is_honest((const uint8_t *)"not zstd at all", 15, SIZE));
    /* A frame within a frame's length: two of them, and a skippable one. */
    memcpy(bench->packed + packed, bench->packed, packed);
    assert_false(codec_is_honest(bench->packed, 2 * packed, SIZE));
    assert_false(codec_is_honest((const uint8_t *)"\x50\x2a\x4d\x18\x04\0\0\0abcd", 12, 4));
    /* Says the right length and is damaged behind it. */
    for (uint32_t place = 8; place < packed; place++) {
        uint8_t kept = bench->packed[place];

        bench->packed[place] ^= 0xff;
        if (codec_unpack(bench->decompressor, bench->packed, packed, bench->back, SIZE)) {
            assert_true(codec_is_honest(bench->packed, packed, SIZE));
        }
        bench->packed[place] = kept;
    }
    assert_false(codec_unpack(bench->decompressor, bench->packed, packed, bench->back, SIZE / 2));
}

static void every_level_works(void **state)
{
    struct bench *bench = *state;
    enum frame_codec codec;

    for (uint32_t i = 0; i < SIZE; i++) {
        bench->raw[i] = (uint8_t)(i / 100);
    }
    for (int level = -50; level <= 6; level++) {
        uint32_t packed = codec_pack(&bench->packer, CODEC_MEMORY, level, bench->raw, SIZE,
                                     bench->packed, &codec);

        assert_int_equal(codec, FRAME_ZSTD);
        assert_true(codec_unpack(bench->decompressor, bench->packed, packed, bench->back, SIZE));
        assert_memory_equal(bench->raw, bench->back, SIZE);
    }
}

/* After a unit that did not shrink the next of its kind is judged by its samples, and only that of
 * its kind. */
static void samples_are_asked_after_a_failure(void **state)
{
    struct bench *bench = *state;
    enum frame_codec codec;

    fill_noise(bench->raw, SIZE);
    assert_false(bench->packer.did_not_shrink[CODEC_DISK]);
    assert_int_equal(pack(bench, bench->raw, SIZE, bench->packed, &codec), SIZE);
    assert_true(bench->packer.did_not_shrink[CODEC_DISK]);
    assert_false(bench->packer.did_not_shrink[CODEC_MEMORY]);
    /* All of it would shrink to a half, but for the samples' places. */
    for (uint32_t i = 0; i < 16; i++) {
        memset(bench->raw + i * (SIZE / 16) + SIZE / 32, 0, SIZE / 32);
    }
    assert_int_equal(pack(bench, bench->raw, SIZE, bench->packed, &codec), SIZE);
    assert_int_equal(codec, FRAME_RAW);
    assert_true(codec_pack(&bench->packer, CODEC_MEMORY, 1, bench->raw, SIZE, bench->packed,
                           &codec) < SIZE * 2 / 3);
    assert_int_equal(codec, FRAME_ZSTD);
    /* Samples that shrink are believed, and the kind is then a good one again. */
    memset(bench->raw, 0, SIZE / 2);
    assert_true(pack(bench, bench->raw, SIZE, bench->packed, &codec) < SIZE);
    assert_false(bench->packer.did_not_shrink[CODEC_DISK]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_shrinks_is_compressed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_does_not_shrink_is_copied, set_up, tear_down),
        cmocka_unit_test_setup_teardown(off_copies_and_small_units_work, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lies_are_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_level_works, set_up, tear_down),
        cmocka_unit_test_setup_teardown(samples_are_asked_after_a_failure, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

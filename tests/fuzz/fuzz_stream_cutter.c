/*
 * A QEMU migration stream, split in two ways: both must be read alike, and be cut into the same units. The first byte says how it
 * is split and what stands in front of the rest: nothing, the configuration, or everything up to
 * the first part of RAM (which chance would hardly find).
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/stream_cutter.h"

#define PAGE_SIZE 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t configuration[] = "QEVM\0\0\0\3"
                                       "\7\0\0\0\nmachine-12";
static const uint8_t ram_setup[] = "\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"
                                   "\0\0\0\0\0\4\0\4"
                                   "\2m0\0\0\0\0\0\2\0\0"
                                   "\2m1\0\0\0\0\0\2\0\0"
                                   "\0\0\0\0\0\0\0\20\x7e\0\0\0\2"
                                   "\2\0\0\0\2";

static void head_feed(struct stream_cutter *cutter, unsigned parts)
{
    if (parts >= 1) {
        stream_cutter_feed(cutter, configuration, sizeof configuration - 1);
        assert(stream_cutter_phase(cutter) == STREAM_HEADER);
    }
    if (parts >= 2) {
        stream_cutter_feed(cutter, ram_setup, sizeof ram_setup - 1);
        assert(stream_cutter_phase(cutter) == STREAM_RAM);
    }
}

static void counts_check(const struct stream_cutter *cutter)
{
    const struct stream_counts *counts = stream_cutter_counts(cutter);
    assert(counts->zero_pages + counts->other_pages <= counts->pages);
    assert(counts->page_bytes ==
           (counts->pages - counts->zero_pages - counts->other_pages) * PAGE_SIZE);
    assert((stream_cutter_phase(cutter) == STREAM_OPAQUE) ==
           (stream_cutter_reason(cutter)[0] != '\0'));
}

/* Pages must be where the setup has room for them, and no unit longer than it may be. */
static void unit_check(const struct stream_cutter *cutter, const struct stream_unit *unit,
                       size_t size)
{
    const struct ram_blocks *blocks = stream_cutter_blocks(cutter);
    if (unit->kind != STREAM_OTHER) {
        assert(unit->block < blocks->count);
        assert(unit->page < blocks->list[unit->block].length / PAGE_SIZE);
        assert(unit->kind != STREAM_WHOLE_PAGE || size >= 8 + PAGE_SIZE);
    }
    assert(size <= STREAM_UNIT_MAX(PAGE_SIZE) || stream_cutter_phase(cutter) == STREAM_DEVICE ||
           stream_cutter_phase(cutter) == STREAM_OPAQUE);
}

/* Feeds CHUNK bytes at a time, and returns a number that depends on each unit but those that are opaque: these end
 * where the chunks do. */
static uint64_t units_feed(struct stream_cutter *cutter, const uint8_t *data, size_t size,
                           size_t chunk)
{
    uint64_t sum = 0;
    size_t unit_size = 0;
    size_t room = chunk;
    while (size > 0) {
        struct stream_unit unit;
        size_t taken = stream_cutter_take(cutter, data, size < room ? size : room, &unit);
        data += taken;
        size -= taken;
        unit_size += taken;
        room = room == taken ? chunk : room - taken;
        if (!unit.is_whole) {
            continue;
        }
        unit_check(cutter, &unit, unit_size);
        if (unit.kind != STREAM_OTHER) {
            sum = sum * 31 + unit_size + unit.page * 7 + unit.block * 5 + (uint64_t)unit.kind;
            sum += unit.names_block ? 1000 : 0;
        }
        unit_size = 0;
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    unsigned parts = data[0] & 3u;
    size_t chunk = 1u + (data[0] >> 2);
    data++;
    size--;
    struct stream_cutter *whole = stream_cutter_new(PAGE_SIZE);
    struct stream_cutter *split = stream_cutter_new(PAGE_SIZE);
    assert(whole != NULL && split != NULL);
    head_feed(whole, parts);
    head_feed(split, parts);
    uint64_t units = units_feed(whole, data, size, SIZE_MAX);
    assert(units_feed(split, data, size, chunk) == units);
    counts_check(whole);
    assert(stream_cutter_phase(whole) == stream_cutter_phase(split));
    assert(strcmp(stream_cutter_reason(whole), stream_cutter_reason(split)) == 0);
    assert(memcmp(stream_cutter_counts(whole), stream_cutter_counts(split),
                  sizeof(struct stream_counts)) == 0);
    stream_cutter_free(whole);
    stream_cutter_free(split);
    return 0;
}

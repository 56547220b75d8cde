/*
 * Loads a QEMU migration stream made by qemu_stream.h into a guest's memory, as ram_load_precopy of
 * QEMU's migration/ram.c does: a record that names no block goes to the block named last. For tests
 * only; include it after qemu_stream.h. It fails the test where QEMU would refuse the stream.
 */
#ifndef WATARI_TESTS_QEMU_LOADER_H
#define WATARI_TESTS_QEMU_LOADER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct guest {
    uint8_t ram[RAM_SIZE], bios[BIOS_SIZE];
    uint8_t *block; /* named last; NULL: none */
    size_t block_size;
    uint64_t records; /* of pages */
    bool has_ended;   /* device state has begun */
};

struct reader {
    const uint8_t *bytes;
    size_t size;
};

static inline const uint8_t *read_bytes(struct reader *reader, size_t size)
{
    const uint8_t *bytes = reader->bytes;
    assert_true(size <= reader->size);
    reader->bytes += size;
    reader->size -= size;
    return bytes;
}

static inline uint64_t read_number(struct reader *reader, size_t size)
{
    const uint8_t *bytes = read_bytes(reader, size);
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static inline void read_block(struct reader *reader, struct guest *guest)
{
    size_t length = read_number(reader, 1);
    const uint8_t *name = read_bytes(reader, length);
    if (length == strlen("pc.ram") && memcmp(name, "pc.ram", length) == 0) {
        guest->block = guest->ram;
        guest->block_size = sizeof guest->ram;
    } else {
        assert_memory_equal(name, "pc.bios", length);
        guest->block = guest->bios;
        guest->block_size = sizeof guest->bios;
    }
}

/* Stands for QEMU's own difference: what it makes depends on what was there before. */
static inline void apply_xbzrle(struct reader *reader, uint8_t *page)
{
    assert_int_equal(read_number(reader, 1), 1);
    size_t length = read_number(reader, 2);
    const uint8_t *change = read_bytes(reader, length);
    for (size_t i = 0; i < length; i++) {
        page[i] = (uint8_t)(page[i] + change[i]);
    }
}

static inline void load_record(struct reader *reader, struct guest *guest, uint64_t record)
{
    uint64_t address = record & ~(uint64_t)(PAGE - 1);
    if ((record & SAME_BLOCK) == 0) {
        read_block(reader, guest);
    }
    assert_non_null(guest->block);
    assert_true(address < guest->block_size);
    guest->records++;
    switch (record & (PAGE - 1) & ~(uint64_t)SAME_BLOCK) {
    case WHOLE:
        memcpy(guest->block + address, read_bytes(reader, PAGE), PAGE);
        return;
    case ZERO:
        assert_int_equal(read_number(reader, 1), 0);
        memset(guest->block + address, 0, PAGE);
        return;
    case XBZRLE:
        apply_xbzrle(reader, guest->block + address);
        return;
    default:
        fail_msg("a record 0x%llx", (unsigned long long)record);
    }
}

static inline void load_ram(struct reader *reader, struct guest *guest)
{
    uint64_t record;
    while ((record = read_number(reader, 8)) != BODY_END) {
        load_record(reader, guest, record);
    }
    assert_int_equal(read_number(reader, 1), 0x7e);
    assert_int_equal(read_number(reader, 4), RAM_ID);
}

/* SIZE bytes that begin with a section: up to the device state, or the end. */
static inline void load_sections(struct guest *guest, const uint8_t *bytes, size_t size)
{
    struct reader reader = {bytes, size};
    while (reader.size > 0 && !guest->has_ended) {
        uint64_t type = read_number(&reader, 1);
        if (type == SECTION_FULL) {
            guest->has_ended = true;
            return;
        }
        assert_true(type == SECTION_PART || type == SECTION_END);
        assert_int_equal(read_number(&reader, 4), RAM_ID);
        load_ram(&reader, guest);
    }
}

#endif

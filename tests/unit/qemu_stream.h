/*
 * Makes QEMU migration streams byte by byte, as QEMU 7.2 writes them: a guest with two RAM blocks,
 * pc.ram of three pages and pc.bios of two. For tests only; include it after cmocka.h.
 */
#ifndef WATARI_TESTS_QEMU_STREAM_H
#define WATARI_TESTS_QEMU_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define STREAM_MAX (64u << 10)
#define RAM_ID 2u
#define RAM_SIZE (3 * PAGE)
#define BIOS_SIZE (2 * PAGE)

enum { ZERO = 0x02, SIZES = 0x04, WHOLE = 0x08, BODY_END = 0x10, SAME_BLOCK = 0x20 };
enum { XBZRLE = 0x40, HOOK = 0x80, DEFLATE = 0x100, FLUSH = 0x200 };
enum { SECTION_START = 1, SECTION_PART = 2, SECTION_END = 3, SECTION_FULL = 4 };

/* A stream in the making. */
struct stream {
    uint8_t bytes[STREAM_MAX];
    size_t size;
};

static inline void put(struct stream *stream, const void *bytes, size_t size)
{
    assert_true(size <= STREAM_MAX - stream->size);
    memcpy(stream->bytes + stream->size, bytes, size);
    stream->size += size;
}

/* The low SIZE bytes of VALUE, big-endian. */
static inline void put_number(struct stream *stream, uint64_t value, size_t size)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    }
    put(stream, bytes, size);
}

static inline void put_string(struct stream *stream, const char *text)
{
    put_number(stream, strlen(text), 1);
    put(stream, text, strlen(text));
}

static inline void put_fill(struct stream *stream, uint8_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        put(stream, &value, 1);
    }
}

static inline void put_configuration(struct stream *stream)
{
    put_number(stream, 0x5145564d, 4);
    put_number(stream, 3, 4);
    put_number(stream, 7, 1);
    put_number(stream, strlen("pc-q35-7.2"), 4);
    put(stream, "pc-q35-7.2", strlen("pc-q35-7.2"));
}

static inline void put_subsection(struct stream *stream, const char *name)
{
    put_number(stream, 5, 1);
    put_string(stream, name);
    put_number(stream, 1, 4);
}

static inline void put_start(struct stream *stream, const char *name, uint32_t version)
{
    put_number(stream, SECTION_START, 1);
    put_number(stream, RAM_ID, 4);
    put_string(stream, name);
    put_number(stream, 0, 4);
    put_number(stream, version, 4);
}

static inline void put_footer(struct stream *stream)
{
    put_number(stream, BODY_END, 8);
    put_number(stream, 0x7e, 1);
    put_number(stream, RAM_ID, 4);
}

static inline void put_sizes(struct stream *stream)
{
    put_number(stream, (RAM_SIZE + BIOS_SIZE) | SIZES, 8);
    put_string(stream, "pc.ram");
    put_number(stream, RAM_SIZE, 8);
    put_string(stream, "pc.bios");
    put_number(stream, BIOS_SIZE, 8);
}

/* Everything up to the first part of RAM. */
static inline void put_setup(struct stream *stream)
{
    put_configuration(stream);
    put_start(stream, "ram", 4);
    put_sizes(stream);
    put_footer(stream);
}

static inline void put_part(struct stream *stream, uint8_t type)
{
    put_number(stream, type, 1);
    put_number(stream, RAM_ID, 4);
}

/* A page record's head; BLOCK is NULL for the block of the page before. */
static inline void put_page(struct stream *stream, uint64_t page, unsigned kind, const char *block)
{
    put_number(stream, page * PAGE | kind | (block == NULL ? SAME_BLOCK : 0u), 8);
    if (block != NULL) {
        put_string(stream, block);
    }
}

static inline void put_whole_page(struct stream *stream, uint64_t page, const char *block,
                                  uint8_t fill)
{
    put_page(stream, page, WHOLE, block);
    put_fill(stream, fill, PAGE);
}

static inline void put_zero_page(struct stream *stream, uint64_t page, const char *block)
{
    put_page(stream, page, ZERO, block);
    put_number(stream, 0, 1);
}

/* Five pages in the first round, one whole and one zero in the second, then device state. */
static inline void put_whole_stream(struct stream *stream)
{
    put_setup(stream);
    put_part(stream, SECTION_PART);
    put_whole_page(stream, 0, "pc.ram", 0x04); /* what looks like a section begins in a page */
    put_zero_page(stream, 1, NULL);
    put_whole_page(stream, 2, NULL, 0xff);
    put_footer(stream);
    put_part(stream, SECTION_PART);
    put_zero_page(stream, 0, "pc.bios");
    put_zero_page(stream, 1, NULL);
    put_footer(stream);
    put_part(stream, SECTION_END);
    put_whole_page(stream, 1, "pc.ram", 0x5a);
    put_zero_page(stream, 0, NULL);
    put_footer(stream);
    put_number(stream, SECTION_FULL, 1);
    put_fill(stream, 0x7e, 500);
}

static inline struct stream *stream_new(void)
{
    struct stream *stream = calloc(1, sizeof *stream);
    assert_non_null(stream);
    return stream;
}

#endif

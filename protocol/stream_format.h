/*
 * The layout of QEMU's migration stream, as far as the stream cutter reads it.
 *
 * As QEMU 2.4 to 10 write it with the capabilities that watari leaves off
 * (migration/savevm.c and ram.c there):
 *
 *   u32 magic · u32 version 3 · 0x07 configuration · sections ...
 *   configuration  u32 length · machine name · any of: 0x05 · string name · u32 version · fields
 *   0x01 start     u32 id · string name · u32 instance · u32 version · body · footer
 *   0x02 part      u32 id · body · footer               0x03 end: the same
 *   0x04 full      device state, from here on opaque
 *   0x08 command   u16 command · u16 length · data; no footer
 *   footer         0x7e · u32 id
 *
 * A body of section "ram" is records, each u64 address | flags; a string is u8 length · bytes:
 *
 *   0x004 sizes    address is the total; then until it is used up: string block · u64 length
 *   0x002 zero     [string block] · u8 0                0x008 page: [string block] · the page
 *   0x040 XBZRLE   [string block] · u8 1 · u16 length · data
 *   0x100 deflate  [string block] · u32 length · data
 *   0x200 flush    alone                                0x010 end of the body, alone
 *   0x020 goes with one of the four kinds of page: it is of the same block as the page before it,
 *         which is not named again
 */
#ifndef WATARI_PROTOCOL_STREAM_FORMAT_H
#define WATARI_PROTOCOL_STREAM_FORMAT_H

#define STREAM_MAGIC 0x5145564du
#define STREAM_VERSION 3u
#define RAM_SECTION_VERSION 4u
#define XBZRLE_ENCODING 1u

enum section_type {
    SECTION_EOF = 0x00,
    SECTION_START = 0x01,
    SECTION_PART = 0x02,
    SECTION_END = 0x03,
    SECTION_FULL = 0x04,
    SECTION_SUBSECTION = 0x05,
    SECTION_CONFIGURATION = 0x07,
    SECTION_COMMAND = 0x08,
    SECTION_FOOTER = 0x7e,
};

enum record_flag {
    RECORD_ZERO = 0x02,
    RECORD_SIZES = 0x04,
    RECORD_PAGE = 0x08,
    RECORD_BODY_END = 0x10,
    RECORD_SAME_BLOCK = 0x20,
    RECORD_XBZRLE = 0x40,
    RECORD_DEFLATE = 0x100,
    RECORD_FLUSH = 0x200,
};

#endif

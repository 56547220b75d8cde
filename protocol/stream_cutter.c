/*
 * The stream cutter: a push parser over QEMU's migration stream. See stream_cutter.h, and
 * stream_format.h for what it parses.
 *
 * Owns its list of blocks, nothing else; one thread at a time, in a mover.
 */
#include "stream_cutter.h"

#include "bytes.h"
#include "ram_blocks.h"
#include "stream_format.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_LENGTH RAM_BLOCK_NAME_MAX
/* The longest field that must be seen whole: a section's or block's name and the eight bytes after
 * it. */
#define FIELD_MAX (NAME_MAX_LENGTH + 8u)
#define REASON_SIZE 160u

/* The field that comes next. */
enum step {
    STEP_MAGIC,
    STEP_CONFIGURATION,
    STEP_MACHINE,
    STEP_TYPE,
    STEP_SUBSECTION_NAME_LENGTH,
    STEP_SUBSECTION,
    STEP_PAGE_BITS,
    STEP_START,
    STEP_START_NAME,
    STEP_PART,
    STEP_COMMAND,
    STEP_RECORD,
    STEP_BLOCK_NAME_LENGTH,
    STEP_BLOCK,
    STEP_PAGE_BLOCK_NAME_LENGTH,
    STEP_PAGE_BLOCK,
    STEP_ZERO_FILL,
    STEP_XBZRLE,
    STEP_DEFLATE,
    STEP_FOOTER,
};

struct stream_cutter {
    struct stream_counts counts;
    enum stream_phase phase;
    uint32_t page_size;

    uint64_t skip; /* bytes to pass over before the next field */
    enum step step;
    size_t wanted; /* length of the field that STEP reads */
    size_t have;   /* of it, already in FIELD */
    uint8_t field[FIELD_MAX];

    uint32_t section_id; /* of section "ram", once it has started */
    uint8_t section_type;
    bool ram_started, ram_ended;
    uint64_t record;   /* the page record whose block's name is being read */
    uint64_t ram_left; /* of the total, not yet named by the list of blocks */

    struct stream_unit unit; /* what is known of the one under way */
    bool in_record;          /* a page record's fields are not all read */

    struct ram_blocks blocks;
    const struct ram_block *page_block; /* of the last page record; the list no longer grows then */
    char reason[REASON_SIZE];
};

struct stream_cutter *stream_cutter_new(uint32_t page_size)
{
    /* The flags stand in the address's low bits. */
    assert((page_size & (page_size - 1)) == 0 && page_size > RECORD_FLUSH);
    struct stream_cutter *cutter = calloc(1, sizeof *cutter);
    if (cutter == NULL) {
        return NULL;
    }
    cutter->page_size = page_size;
    cutter->step = STEP_MAGIC;
    cutter->wanted = 8;
    return cutter;
}

void stream_cutter_free(struct stream_cutter *cutter)
{
    if (cutter == NULL) {
        return;
    }
    ram_blocks_free(&cutter->blocks);
    free(cutter);
}

/* Nothing more is read: the rest goes by as it is. */
static bool is_opaque(const struct stream_cutter *cutter)
{
    return cutter->phase == STREAM_DEVICE || cutter->phase == STREAM_OPAQUE;
}

static void expect(struct stream_cutter *cutter, enum step step, size_t wanted)
{
    assert(wanted > 0 && wanted <= FIELD_MAX);
    cutter->step = step;
    cutter->wanted = wanted;
}

__attribute__((format(printf, 2, 3))) static void lose(struct stream_cutter *cutter,
                                                       const char *format, ...)
{
    cutter->phase = STREAM_OPAQUE;
    int length =
        snprintf(cutter->reason, REASON_SIZE,
                 "before byte %llu of the stream: ", (unsigned long long)cutter->counts.bytes);
    assert(length > 0 && (size_t)length < REASON_SIZE);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(cutter->reason + length, REASON_SIZE - (size_t)length, format, arguments);
    va_end(arguments);
}

/* A name from the stream, made fit for a log. */
static const char *printable(const uint8_t *name, size_t length, char out[NAME_MAX_LENGTH + 1])
{
    for (size_t i = 0; i < length; i++) {
        out[i] = name[i] >= 0x20 && name[i] < 0x7f ? (char)name[i] : '?';
    }
    out[length] = '\0';
    return out;
}

static bool name_is(const uint8_t *name, size_t length, const char *text)
{
    return length == strlen(text) && memcmp(name, text, length) == 0;
}

static void magic_take(struct stream_cutter *cutter, const uint8_t *field)
{
    if (bytes_get32(field) != STREAM_MAGIC) {
        lose(cutter, "not QEMU's magic");
        return;
    }
    if (bytes_get32(field + 4) != STREAM_VERSION) {
        lose(cutter, "stream version %u", bytes_get32(field + 4));
        return;
    }
    expect(cutter, STEP_CONFIGURATION, 1);
}

static void configuration_take(struct stream_cutter *cutter, const uint8_t *field)
{
    /* Machine types of QEMU 2.3 and older write no configuration, nor the footers that prove our
     * place. */
    if (field[0] != SECTION_CONFIGURATION) {
        lose(cutter, "no configuration but 0x%02x", field[0]);
        return;
    }
    expect(cutter, STEP_MACHINE, 4);
}

static void machine_take(struct stream_cutter *cutter, const uint8_t *field)
{
    uint32_t length = bytes_get32(field);
    if (length == 0 || length > NAME_MAX_LENGTH) {
        lose(cutter, "machine name of %u bytes", length);
        return;
    }
    cutter->skip = length;
    expect(cutter, STEP_TYPE, 1);
}

/* FIELD is the subsection's name and its version. Capabilities are written only when one is on that
 * changes the layout of what follows (x-ignore-shared, mapped-ram), so they end the reading as
 * anything unknown does. */
static void subsection_take(struct stream_cutter *cutter, const uint8_t *field)
{
    size_t length = cutter->wanted - 4;
    uint32_t version = bytes_get32(field + length);
    if (version == 1 && name_is(field, length, "configuration/uuid")) {
        cutter->skip = 16;
        expect(cutter, STEP_TYPE, 1);
        return;
    }
    if (version == 1 && name_is(field, length, "configuration/target-page-bits")) {
        expect(cutter, STEP_PAGE_BITS, 4);
        return;
    }
    char name[NAME_MAX_LENGTH + 1];
    lose(cutter, "subsection \"%s\" version %u", printable(field, length, name), version);
}

static void page_bits_take(struct stream_cutter *cutter, const uint8_t *field)
{
    uint32_t bits = bytes_get32(field);
    if (bits > 31 || UINT32_C(1) << bits != cutter->page_size) {
        lose(cutter, "pages of 2^%u bytes, not %u", bits, cutter->page_size);
        return;
    }
    expect(cutter, STEP_TYPE, 1);
}

static void type_take(struct stream_cutter *cutter, const uint8_t *field)
{
    uint8_t type = field[0];
    cutter->section_type = type;
    if (type == SECTION_SUBSECTION && !cutter->ram_started) {
        expect(cutter, STEP_SUBSECTION_NAME_LENGTH, 1);
    } else if (type == SECTION_START && !cutter->ram_started) {
        expect(cutter, STEP_START, 5);
    } else if ((type == SECTION_PART || type == SECTION_END) && cutter->ram_started &&
               !cutter->ram_ended) {
        expect(cutter, STEP_PART, 4);
    } else if (type == SECTION_COMMAND) {
        expect(cutter, STEP_COMMAND, 4);
    } else if ((type == SECTION_FULL && cutter->ram_started) ||
               (type == SECTION_EOF && cutter->ram_ended)) {
        cutter->phase = STREAM_DEVICE;
    } else {
        lose(cutter, "a section of type 0x%02x %s", type,
             cutter->ram_started ? "beside RAM" : "before RAM");
    }
}

static void start_take(struct stream_cutter *cutter, const uint8_t *field)
{
    cutter->section_id = bytes_get32(field);
    expect(cutter, STEP_START_NAME, (size_t)field[4] + 8);
}

static void start_name_take(struct stream_cutter *cutter, const uint8_t *field)
{
    size_t length = cutter->wanted - 8;
    uint32_t instance = bytes_get32(field + length);
    uint32_t version = bytes_get32(field + length + 4);
    if (!name_is(field, length, "ram") || instance != 0 || version != RAM_SECTION_VERSION) {
        char name[NAME_MAX_LENGTH + 1];
        lose(cutter, "section \"%s\" instance %u version %u before RAM",
             printable(field, length, name), instance, version);
        return;
    }
    cutter->ram_started = true;
    cutter->phase = STREAM_RAM;
    expect(cutter, STEP_RECORD, 8);
}

static void part_take(struct stream_cutter *cutter, const uint8_t *field)
{
    uint32_t id = bytes_get32(field);
    if (id != cutter->section_id) {
        lose(cutter, "section %u among the parts of RAM, which is section %u", id,
             cutter->section_id);
        return;
    }
    expect(cutter, STEP_RECORD, 8);
}

/* Only commands after which the stream goes on as before: those of postcopy and COLO change what
 * follows. */
static void command_take(struct stream_cutter *cutter, const uint8_t *field)
{
    static const struct {
        uint16_t command, length;
    } harmless[] = {
        {1, 0},  /* open the return path */
        {2, 4},  /* ping */
        {11, 0}, /* switchover starts, from QEMU 10.0 */
    };
    uint16_t command = bytes_get16(field);
    uint16_t length = bytes_get16(field + 2);
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (command == harmless[i].command && length == harmless[i].length) {
            cutter->skip = length;
            expect(cutter, STEP_TYPE, 1);
            return;
        }
    }
    lose(cutter, "command %u of %u bytes", command, length);
}

/* All fields of a page record are read; the bytes to pass over, if any, are the last of it. */
static void record_ends(struct stream_cutter *cutter)
{
    cutter->in_record = false;
    expect(cutter, STEP_RECORD, 8);
}

/* With the block and the address known. */
static void page_take(struct stream_cutter *cutter)
{
    uint64_t mask = cutter->page_size - 1;
    uint64_t address = cutter->record & ~mask;
    if (address >= cutter->page_block->length) {
        lose(cutter, "a page at 0x%llx, behind its block's end", (unsigned long long)address);
        return;
    }
    cutter->unit = (struct stream_unit){
        .kind = STREAM_ENCODED_PAGE,
        .names_block = (cutter->record & RECORD_SAME_BLOCK) == 0,
        .block = (size_t)(cutter->page_block - cutter->blocks.list),
        .page = address / cutter->page_size,
    };
    switch (cutter->record & mask & ~(uint64_t)RECORD_SAME_BLOCK) {
    case RECORD_PAGE:
        cutter->unit.kind = STREAM_WHOLE_PAGE;
        cutter->counts.pages++;
        cutter->counts.page_bytes += cutter->page_size;
        cutter->skip = cutter->page_size;
        record_ends(cutter);
        return;
    case RECORD_ZERO:
        cutter->unit.kind = STREAM_ZERO_PAGE;
        expect(cutter, STEP_ZERO_FILL, 1);
        return;
    case RECORD_XBZRLE:
        expect(cutter, STEP_XBZRLE, 3);
        return;
    default:
        expect(cutter, STEP_DEFLATE, 4);
        return;
    }
}

static bool is_page_kind(uint64_t flags)
{
    return flags == RECORD_PAGE || flags == RECORD_ZERO || flags == RECORD_XBZRLE ||
           flags == RECORD_DEFLATE;
}

/* With the total read, and after each block. */
static void list_go_on(struct stream_cutter *cutter)
{
    if (cutter->ram_left == 0) {
        expect(cutter, STEP_RECORD, 8);
    } else {
        expect(cutter, STEP_BLOCK_NAME_LENGTH, 1);
    }
}

static void record_take(struct stream_cutter *cutter, const uint8_t *field)
{
    uint64_t mask = cutter->page_size - 1;
    uint64_t value = bytes_get64(field);
    uint64_t flags = value & mask;
    bool has_blocks = cutter->blocks.count > 0;
    if (is_page_kind(flags & ~(uint64_t)RECORD_SAME_BLOCK) && has_blocks) {
        cutter->record = value;
        cutter->in_record = true;
        if ((flags & RECORD_SAME_BLOCK) == 0) {
            expect(cutter, STEP_PAGE_BLOCK_NAME_LENGTH, 1);
        } else if (cutter->page_block != NULL) {
            page_take(cutter);
        } else {
            lose(cutter, "a page of the same block as none before");
        }
    } else if (value == RECORD_BODY_END && has_blocks) {
        expect(cutter, STEP_FOOTER, 5);
    } else if (value == RECORD_FLUSH && has_blocks) {
        expect(cutter, STEP_RECORD, 8);
    } else if (flags == RECORD_SIZES && cutter->section_type == SECTION_START && !has_blocks) {
        cutter->counts.ram_bytes = cutter->ram_left = value & ~mask;
        list_go_on(cutter);
    } else {
        lose(cutter, "a RAM record 0x%016llx", (unsigned long long)value);
    }
}

/* FIELD is the block's name and its length. */
static void block_take(struct stream_cutter *cutter, const uint8_t *field)
{
    size_t name_length = cutter->wanted - 8;
    uint64_t length = bytes_get64(field + name_length);
    /* With postcopy or ignore-shared on further fields follow the length: then this is the middle
     * of one of them. */
    bool plausible = length != 0 && length % cutter->page_size == 0 && length <= cutter->ram_left;
    int failure = plausible ? ram_blocks_add(&cutter->blocks, field, name_length, length) : -EINVAL;
    if (failure != 0) {
        char name[NAME_MAX_LENGTH + 1];
        lose(cutter, "RAM block \"%s\" of %llu bytes: %s", printable(field, name_length, name),
             (unsigned long long)length, strerrordesc_np(-failure));
        return;
    }
    cutter->ram_left -= length;
    list_go_on(cutter);
}

static void page_block_take(struct stream_cutter *cutter, const uint8_t *field)
{
    cutter->page_block = ram_blocks_find(&cutter->blocks, field, cutter->wanted);
    if (cutter->page_block == NULL) {
        char name[NAME_MAX_LENGTH + 1];
        lose(cutter, "a page of an unknown RAM block \"%s\"",
             printable(field, cutter->wanted, name));
        return;
    }
    page_take(cutter);
}

static void zero_fill_take(struct stream_cutter *cutter, const uint8_t *field)
{
    if (field[0] != 0) {
        lose(cutter, "a page filled with 0x%02x", field[0]);
        return;
    }
    cutter->counts.pages++;
    cutter->counts.zero_pages++;
    record_ends(cutter);
}

/* A page that QEMU itself has encoded in LENGTH bytes. */
static void encoded_take(struct stream_cutter *cutter, uint32_t length, uint32_t most)
{
    if (length == 0 || length > most) {
        lose(cutter, "a page encoded in %u bytes", length);
        return;
    }
    cutter->counts.pages++;
    cutter->counts.other_pages++;
    cutter->skip = length;
    record_ends(cutter);
}

static void xbzrle_take(struct stream_cutter *cutter, const uint8_t *field)
{
    if (field[0] != XBZRLE_ENCODING) {
        lose(cutter, "an XBZRLE page of encoding %u", field[0]);
        return;
    }
    encoded_take(cutter, bytes_get16(field + 1), cutter->page_size);
}

static void footer_take(struct stream_cutter *cutter, const uint8_t *field)
{
    if (field[0] != SECTION_FOOTER || bytes_get32(field + 1) != cutter->section_id) {
        lose(cutter, "no footer of RAM's section");
        return;
    }
    cutter->ram_ended = cutter->section_type == SECTION_END;
    expect(cutter, STEP_TYPE, 1);
}

/* FIELD is a string's length, and EXTRA bytes of fixed fields follow the string. */
static void name_length_take(struct stream_cutter *cutter, const uint8_t *field, enum step step,
                             size_t extra)
{
    if (field[0] == 0) {
        lose(cutter, "an empty name");
        return;
    }
    expect(cutter, step, field[0] + extra);
}

static void field_take(struct stream_cutter *cutter, const uint8_t *field)
{
    switch (cutter->step) {
    case STEP_RECORD:
        record_take(cutter, field);
        return;
    case STEP_ZERO_FILL:
        zero_fill_take(cutter, field);
        return;
    case STEP_MAGIC:
        magic_take(cutter, field);
        return;
    case STEP_CONFIGURATION:
        configuration_take(cutter, field);
        return;
    case STEP_MACHINE:
        machine_take(cutter, field);
        return;
    case STEP_TYPE:
        type_take(cutter, field);
        return;
    case STEP_SUBSECTION_NAME_LENGTH:
        name_length_take(cutter, field, STEP_SUBSECTION, 4);
        return;
    case STEP_SUBSECTION:
        subsection_take(cutter, field);
        return;
    case STEP_PAGE_BITS:
        page_bits_take(cutter, field);
        return;
    case STEP_START:
        start_take(cutter, field);
        return;
    case STEP_START_NAME:
        start_name_take(cutter, field);
        return;
    case STEP_PART:
        part_take(cutter, field);
        return;
    case STEP_COMMAND:
        command_take(cutter, field);
        return;
    case STEP_BLOCK_NAME_LENGTH:
        name_length_take(cutter, field, STEP_BLOCK, 8);
        return;
    case STEP_BLOCK:
        block_take(cutter, field);
        return;
    case STEP_PAGE_BLOCK_NAME_LENGTH:
        name_length_take(cutter, field, STEP_PAGE_BLOCK, 0);
        return;
    case STEP_PAGE_BLOCK:
        page_block_take(cutter, field);
        return;
    case STEP_XBZRLE:
        xbzrle_take(cutter, field);
        return;
    case STEP_DEFLATE:
        /* zlib's bound for one page at any level: deflate can add 5 bytes a 16 KiB block and a few
         * more. */
        encoded_take(cutter, bytes_get32(field), cutter->page_size + cutter->page_size / 1000 + 64);
        return;
    case STEP_FOOTER:
        footer_take(cutter, field);
        return;
    }
}

/* Returns how many of SIZE bytes went into the field, which is read when it is whole. */
static size_t field_feed(struct stream_cutter *cutter, const uint8_t *bytes, size_t size)
{
    size_t missing = cutter->wanted - cutter->have;
    if (size < missing) {
        memcpy(cutter->field + cutter->have, bytes, size);
        cutter->have += size;
        cutter->counts.bytes += size;
        return size;
    }
    const uint8_t *field = bytes; /* most fields come in one piece: no copy */
    if (cutter->have > 0) {
        memcpy(cutter->field + cutter->have, bytes, missing);
        field = cutter->field;
    }
    cutter->have = 0;
    cutter->counts.bytes += missing;
    field_take(cutter, field);
    return missing;
}

/* Returns how many of SIZE bytes it went on by: to the end of a field or of what is passed over. */
static size_t go_on(struct stream_cutter *cutter, const uint8_t *bytes, size_t size)
{
    size_t taken = size;
    if (!is_opaque(cutter) && cutter->skip == 0) {
        return field_feed(cutter, bytes, size);
    }
    if (!is_opaque(cutter)) {
        taken = cutter->skip < size ? (size_t)cutter->skip : size;
        cutter->skip -= taken;
    }
    cutter->counts.bytes += taken;
    return taken;
}

static bool unit_has_ended(const struct stream_cutter *cutter)
{
    return is_opaque(cutter) || (cutter->have == 0 && cutter->skip == 0 && !cutter->in_record);
}

size_t stream_cutter_take(struct stream_cutter *cutter, const uint8_t *bytes, size_t size,
                          struct stream_unit *unit)
{
    assert(size > 0);
    size_t taken = 0;
    do {
        taken += go_on(cutter, bytes + taken, size - taken);
    } while (taken < size && !unit_has_ended(cutter));
    *unit = cutter->unit;
    unit->is_whole = unit_has_ended(cutter);
    if (is_opaque(cutter)) {
        unit->kind = STREAM_OTHER;
    }
    if (unit->is_whole) {
        cutter->unit = (struct stream_unit){.kind = STREAM_OTHER};
    }
    return taken;
}

void stream_cutter_feed(struct stream_cutter *cutter, const uint8_t *bytes, size_t size)
{
    struct stream_unit unit;
    while (size > 0) {
        size_t taken = stream_cutter_take(cutter, bytes, size, &unit);
        bytes += taken;
        size -= taken;
    }
}

enum stream_phase stream_cutter_phase(const struct stream_cutter *cutter)
{
    return cutter->phase;
}

const struct stream_counts *stream_cutter_counts(const struct stream_cutter *cutter)
{
    return &cutter->counts;
}

const struct ram_blocks *stream_cutter_blocks(const struct stream_cutter *cutter)
{
    return &cutter->blocks;
}

const char *stream_cutter_reason(const struct stream_cutter *cutter)
{
    return cutter->reason;
}

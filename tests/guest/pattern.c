/*
 * The pattern in a page: see pattern.h. Everything is done in 64-bit words of the guest's own
 * byte order, for the guest runs under emulation, where bytes cost as much as words.
 */
#include "pattern.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define MAGIC UINT64_C(0x6972617461777021)
#define BODY_WORDS (PATTERN_PAGE_SIZE / sizeof(uint64_t) - 4)
#define WORDS_CHANGED_PER_WRITE 6

struct page {
    uint64_t magic;
    uint32_t owner;
    uint32_t sequence;
    uint64_t index_and_kind; /* index << 8 | kind */
    uint64_t checksum;
    uint64_t body[BODY_WORDS];
};

_Static_assert(sizeof(struct page) == PATTERN_PAGE_SIZE, "a pattern fills exactly one page");

/* Copied as eight bytes, of which the next word covers what is too much. */
struct word {
    char text[7];
    uint8_t length;
};

/* clang-format off */
#define WORD(string) {string, sizeof(string) - 1}
static const struct word dictionary[64] = {
    WORD("the "), WORD("a "), WORD("of "), WORD("and "), WORD("cross "), WORD("river "),
    WORD("bird "), WORD("flies "), WORD("host "), WORD("guest "), WORD("memory "), WORD("disk "),
    WORD("page "), WORD("block "), WORD("moves "), WORD("betwixt"), WORD("while "), WORD("runs "),
    WORD("is "), WORD("not "), WORD("north "), WORD("south "), WORD("wing "), WORD("water "),
    WORD("error "), WORD("info "), WORD("warn "), WORD("start "), WORD("stop "), WORD("from "),
    WORD("to "), WORD("with "), WORD("port "), WORD("link "), WORD("user "), WORD("root "),
    WORD("GET "), WORD("POST "), WORD("200 "), WORD("404 "), WORD("id="), WORD("time="),
    WORD("size="), WORD("name="), WORD("0x"), WORD("7788 "), WORD("ms\n"), WORD("ok\n"),
    WORD("failed\n"), WORD("done\n"), WORD("{ "), WORD("} "), WORD("; "), WORD(", "),
    WORD("if "), WORD("return "), WORD("int "), WORD("static "), WORD("const "), WORD("struct "),
    WORD("int64 "), WORD("void "), WORD("char "), WORD("for "),
};
/* clang-format on */

static uint64_t mix(uint64_t value)
{
    value ^= value >> 30;
    value *= UINT64_C(0xbf58476d1ce4e5b9);
    value ^= value >> 27;
    value *= UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* One word's share of the checksum. The shares are summed, so one word can be exchanged without
 * reading the others; each depends on its place, so two words that changed places are noticed. */
static uint64_t share(size_t at, uint64_t word)
{
    uint64_t value =
        (word ^ ((uint64_t)(at + 1) * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xff51afd7ed558ccd);

    return value ^ (value >> 32);
}

static uint64_t header_share(const struct page *page)
{
    return mix(page->magic ^
               mix(page->index_and_kind ^ mix((uint64_t)page->owner << 32 | page->sequence)));
}

static uint64_t checksum_of(const struct page *page)
{
    uint64_t sum = header_share(page);

    for (size_t i = 0; i < BODY_WORDS; i++)
        sum += share(i, page->body[i]);
    return sum;
}

static void set_header(struct page *page, struct pattern_place place, uint32_t sequence,
                       enum pattern_kind kind)
{
    page->magic = MAGIC;
    page->owner = place.owner;
    page->sequence = sequence;
    page->index_and_kind = place.index << 8 | (uint64_t)kind;
}

/* Words, not a repeated piece of text: the latter would shrink to nothing and no link would ever
 * be busy. */
static void fill_text(struct page *page, uint64_t seed)
{
    char *out = (char *)page->body;
    char *end = out + sizeof page->body - sizeof *dictionary;
    uint64_t random = seed | 1;

    while (out <= end) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        for (unsigned shift = 0; shift < 60 && out <= end; shift += 6) {
            const struct word *word = &dictionary[(random >> shift) & 63];

            memcpy(out, word, sizeof *word);
            out += word->length;
        }
    }
    memset(out, ' ', (size_t)(end + sizeof *dictionary - out));
}

static void fill_noise(struct page *page, uint64_t seed)
{
    uint64_t random = seed | 1;

    for (size_t i = 0; i < BODY_WORDS; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        page->body[i] = random;
    }
}

static bool holds_words_of(const struct page *page, struct pattern_place place)
{
    return page->magic == MAGIC && page->owner == place.owner &&
           page->index_and_kind == (place.index << 8 | PATTERN_WORDS);
}

static void change_words(struct page *page, struct pattern_place place, uint32_t sequence,
                         uint64_t seed)
{
    uint64_t sum = page->checksum - header_share(page);

    for (unsigned i = 0; i < WORDS_CHANGED_PER_WRITE; i++) {
        size_t at = (size_t)(mix(seed + i) % BODY_WORDS);

        sum -= share(at, page->body[at]);
        page->body[at] = mix(seed ^ at);
        sum += share(at, page->body[at]);
    }
    set_header(page, place, sequence, PATTERN_WORDS);
    page->checksum = sum + header_share(page);
}

bool pattern_kind_parse(const char *name, enum pattern_kind *kind)
{
    for (enum pattern_kind i = PATTERN_TEXT; i <= PATTERN_WORDS; i++) {
        if (strcmp(name, pattern_kind_name(i)) == 0) {
            *kind = i;
            return true;
        }
    }
    return false;
}

const char *pattern_kind_name(enum pattern_kind kind)
{
    switch (kind) {
    case PATTERN_TEXT:
        return "text";
    case PATTERN_NOISE:
        return "noise";
    case PATTERN_WORDS:
        return "words";
    }
    return "unknown";
}

void pattern_write(void *to, struct pattern_place place, uint32_t sequence, enum pattern_kind kind)
{
    struct page *page = to;
    uint64_t seed = mix(mix((uint64_t)place.owner << 32 | sequence) ^ place.index);

    if (kind == PATTERN_WORDS && holds_words_of(page, place)) {
        change_words(page, place, sequence, seed);
        return;
    }
    set_header(page, place, sequence, kind);
    if (kind == PATTERN_NOISE)
        fill_noise(page, seed);
    else
        fill_text(page, seed);
    page->checksum = checksum_of(page);
}

bool pattern_is_zero(const void *from)
{
    const struct page *page = from;
    uint64_t any =
        page->magic | page->owner | page->sequence | page->index_and_kind | page->checksum;

    for (size_t i = 0; i < BODY_WORDS; i++)
        any |= page->body[i];
    return any == 0;
}

struct pattern_finding pattern_check(const void *from, struct pattern_place place,
                                     uint32_t sequence)
{
    const struct page *page = from;
    struct pattern_finding finding = {.verdict = PATTERN_INTACT};

    if (page->magic != MAGIC) {
        finding.verdict = pattern_is_zero(page) ? PATTERN_ZERO : PATTERN_FOREIGN;
        return finding;
    }
    if (page->checksum != checksum_of(page)) {
        finding.verdict = PATTERN_DAMAGED;
        return finding;
    }
    finding.sequence = page->sequence;
    finding.place.owner = page->owner;
    finding.place.index = page->index_and_kind >> 8;
    if (finding.place.owner != place.owner || finding.place.index != place.index)
        finding.verdict = PATTERN_MISPLACED;
    else if (finding.sequence != sequence)
        finding.verdict = PATTERN_STALE;
    return finding;
}

void pattern_describe(const struct pattern_finding *finding, char *text, unsigned long size)
{
    switch (finding->verdict) {
    case PATTERN_INTACT:
        snprintf(text, size, "intact");
        break;
    case PATTERN_ZERO:
        snprintf(text, size, "found all zero");
        break;
    case PATTERN_FOREIGN:
        snprintf(text, size, "found no pattern");
        break;
    case PATTERN_DAMAGED:
        snprintf(text, size, "found a wrong checksum");
        break;
    case PATTERN_MISPLACED:
        if (finding->place.owner == 0)
            snprintf(text, size, "found seq %u of memory page %llu", finding->sequence,
                     (unsigned long long)finding->place.index);
        else
            snprintf(text, size, "found seq %u of block %llu of disk %u", finding->sequence,
                     (unsigned long long)finding->place.index, finding->place.owner);
        break;
    case PATTERN_STALE:
        snprintf(text, size, "found seq %u", finding->sequence);
        break;
    }
}

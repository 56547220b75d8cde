#include "page_encoder.h"
#include "hot_pages.h"
#include "sent_pages.h"
#include "protocol/page_cache.h"
#include "protocol/page_operation.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REASON_SIZE 160u

/* A page of the run that came again changed: it may be stored, or sent as a difference. */
struct candidate {
    size_t end;   /* of its bytes in the run */
    size_t index; /* in sent_pages */
};

struct page_encoder {
    struct page_encoder_settings settings;
    struct stream_cutter *cutter;
    bool has_seen_page; /* then the rest has been opened, as far as it goes: all blocks are known */
    bool has_sent;
    struct sent_pages sent;
    struct hot_pages hot;
    struct page_cache cache; /* without slots: no differences */

    unsigned candidate_count; /* of the run */
    struct candidate candidates[PAGE_OPERATIONS_MAX];

    struct page_encoder_counts counts;
    char reason[REASON_SIZE];
};

struct page_encoder *page_encoder_new(const struct page_encoder_settings *settings)
{
    struct page_encoder *encoder = calloc(1, sizeof *encoder);

    if (encoder == NULL) {
        return NULL;
    }
    encoder->settings = *settings;
    encoder->cutter = stream_cutter_new(settings->page_size);
    if (encoder->cutter == NULL) {
        free(encoder);
        return NULL;
    }
    return encoder;
}

void page_encoder_free(struct page_encoder *encoder)
{
    if (encoder == NULL) {
        return;
    }
    stream_cutter_free(encoder->cutter);
    sent_pages_close(&encoder->sent);
    hot_pages_close(&encoder->hot);
    page_cache_close(&encoder->cache);
    free(encoder);
}

/* As many slots as the destination has and BUDGET has room for. */
static void open_cache(struct page_encoder *encoder, size_t page_count, uint64_t budget)
{
    const struct page_encoder_settings *settings = &encoder->settings;
    uint32_t slots = hot_pages_slots(budget, page_count, PAGE_CACHE_PAGE_SIZE);
    uint32_t there = page_cache_slots(settings->cache_size);

    slots = slots < there ? slots : there;
    if (slots == 0 || settings->page_size != PAGE_CACHE_PAGE_SIZE) {
        return;
    }
    if (!hot_pages_open(&encoder->hot, page_count, slots) ||
        !page_cache_open(&encoder->cache, slots)) {
        snprintf(encoder->reason, REASON_SIZE,
                 "pages are not sent as differences: no memory for %u of them", slots);
    }
}

static void open_at_first_page(struct page_encoder *encoder)
{
    const struct page_encoder_settings *settings = &encoder->settings;
    const struct ram_blocks *blocks = stream_cutter_blocks(encoder->cutter);
    size_t count = sent_pages_count(blocks, settings->page_size);
    uint64_t size = sent_pages_size(count);
    int failure;

    if (encoder->has_seen_page || settings->budget == 0) {
        return;
    }
    encoder->has_seen_page = true;
    if (size > settings->budget) {
        snprintf(encoder->reason, REASON_SIZE,
                 "unchanged pages are sent again: their hashes take %llu bytes, more than the %llu "
                 "of the page cache",
                 (unsigned long long)size, (unsigned long long)settings->budget);
        return;
    }
    failure = sent_pages_open(&encoder->sent, blocks, settings->page_size);
    if (failure != 0) {
        snprintf(encoder->reason, REASON_SIZE, "unchanged pages are sent again: %s",
                 strerror(-failure));
        return;
    }
    encoder->has_sent = true;
    open_cache(encoder, count, settings->budget - size);
}

/* The last of the run's done bytes are a whole page that comes again changed. */
static void add_candidate(struct page_encoder *encoder, const struct encoded_run *run, size_t index)
{
    if (encoder->cache.slot_count > 0 && encoder->candidate_count < PAGE_OPERATIONS_MAX) {
        encoder->candidates[encoder->candidate_count++] =
            (struct candidate){.end = run->done, .index = index};
    }
}

/* What UNIT, whose bytes end at END, tells the destination. */
static enum sent_verdict note_sent(struct page_encoder *encoder, const struct stream_unit *unit,
                                   size_t index, const uint8_t *end)
{
    uint32_t page_size = encoder->settings.page_size;

    switch (unit->kind) {
    case STREAM_WHOLE_PAGE:
        return sent_pages_put(&encoder->sent, index, end - page_size, page_size);
    case STREAM_ZERO_PAGE:
        return sent_pages_put_zero(&encoder->sent, index);
    case STREAM_ENCODED_PAGE:
    case STREAM_OTHER:
        break;
    }
    sent_pages_forget(&encoder->sent, index);
    return SENT_FIRST;
}

/* Moves SIZE bytes at FROM to where RUN's done bytes end. */
static void close_gap(struct encoded_run *run, const uint8_t *from, size_t size)
{
    uint8_t *to = run->bytes + run->done;

    if (to != from) {
        memmove(to, from, size);
    }
}

/* The run's pending bytes, which end at END, are UNIT: they become done, or are left out. */
static void take_unit(struct page_encoder *encoder, struct encoded_run *run,
                      const struct stream_unit *unit, const uint8_t *end)
{
    enum sent_verdict verdict = SENT_FIRST;
    size_t index = 0;

    if (unit->kind != STREAM_OTHER) {
        open_at_first_page(encoder);
    }
    if (unit->kind != STREAM_OTHER && encoder->has_sent) {
        index = sent_pages_index(&encoder->sent, unit->block, unit->page);
        verdict = note_sent(encoder, unit, index, end);
        hot_pages_note(&encoder->hot, index);
    }
    if (verdict == SENT_SAME && !unit->names_block) {
        encoder->counts.same_pages++;
    } else {
        close_gap(run, end - run->pending, run->pending);
        run->done += run->pending;
        if (unit->kind == STREAM_WHOLE_PAGE && verdict == SENT_CHANGED) {
            add_candidate(encoder, run, index);
        }
    }
    run->pending = 0;
}

void page_encoder_take(struct page_encoder *encoder, struct encoded_run *run, size_t size)
{
    const uint8_t *next = run->bytes + run->done + run->pending;
    struct stream_unit unit;

    while (size > 0) {
        size_t taken = stream_cutter_take(encoder->cutter, next, size, &unit);

        next += taken;
        size -= taken;
        run->pending += taken;
        if (unit.is_whole) {
            take_unit(encoder, run, &unit, next);
        }
    }
    close_gap(run, next - run->pending, run->pending);
}

/* Half of the words must be as they were: text, of which less has changed, zstd makes smaller as it
 * is than as a difference from other text. */
static bool pays(const struct page_encoder *encoder, uint32_t slot, const uint8_t *page)
{
    unsigned words = PAGE_CACHE_PAGE_SIZE / sizeof(uint64_t);

    return page_cache_equal_words(&encoder->cache, slot, page) >= words / 2;
}

/* PAGE is stored, made a difference, or left as it is: then false. Sets all of OPERATION but its
 * offset. */
static bool encode_page(struct page_encoder *encoder, size_t index, uint8_t *page,
                        struct page_operation *operation)
{
    operation->slot = hot_pages_find(&encoder->hot, index);
    if (operation->slot == HOT_PAGES_NONE) {
        operation->slot = hot_pages_admit(&encoder->hot, index);
        if (operation->slot == HOT_PAGES_NONE) {
            return false;
        }
        operation->kind = PAGE_STORE;
        page_cache_store(&encoder->cache, operation->slot, page);
        return true;
    }
    if (!pays(encoder, operation->slot, page)) {
        hot_pages_bar(&encoder->hot, index);
        return false;
    }
    operation->kind = PAGE_DIFFERENCE;
    page_cache_subtract(&encoder->cache, operation->slot, page);
    encoder->counts.delta_pages++;
    return true;
}

uint16_t page_encoder_finish(struct page_encoder *encoder, struct encoded_run *run, uint8_t *list,
                             uint16_t most)
{
    uint16_t count = 0;

    for (unsigned i = 0; i < encoder->candidate_count && count < most; i++) {
        const struct candidate *candidate = &encoder->candidates[i];
        size_t offset = candidate->end - PAGE_CACHE_PAGE_SIZE;
        struct page_operation operation = {.offset = (uint32_t)offset};

        if (encode_page(encoder, candidate->index, run->bytes + offset, &operation)) {
            page_operation_encode(&operation, list + count * PAGE_OPERATION_SIZE);
            count++;
        }
    }
    encoder->candidate_count = 0;
    return count;
}

const struct stream_cutter *page_encoder_cutter(const struct page_encoder *encoder)
{
    return encoder->cutter;
}

struct page_encoder_counts page_encoder_counts(const struct page_encoder *encoder)
{
    return encoder->counts;
}

const char *page_encoder_reason(const struct page_encoder *encoder)
{
    return encoder->reason;
}

#include "page_encoder.h"
#include "sent_pages.h"

#include <stdlib.h>
#include <string.h>

struct page_encoder {
    uint32_t page_size;
    struct stream_cutter *cutter;
    struct sent_pages sent; /* opened at the first page: by then all blocks are known */
    bool has_seen_page;
    int failure; /* of opening it */
    uint64_t same_pages;
};

struct page_encoder *page_encoder_new(uint32_t page_size)
{
    struct page_encoder *encoder = calloc(1, sizeof *encoder);

    if (encoder == NULL) {
        return NULL;
    }
    encoder->page_size = page_size;
    encoder->cutter = stream_cutter_new(page_size);
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
    free(encoder);
}

static void open_at_first_page(struct page_encoder *encoder)
{
    if (encoder->has_seen_page) {
        return;
    }
    encoder->has_seen_page = true;
    encoder->failure =
        sent_pages_open(&encoder->sent, stream_cutter_blocks(encoder->cutter), encoder->page_size);
}

/* Notes what UNIT, whose bytes end at END, will have told the destination; whether that is nothing
 * new. */
static bool is_known(struct page_encoder *encoder, const struct stream_unit *unit,
                     const uint8_t *end)
{
    if (unit->kind == STREAM_OTHER) {
        return false;
    }
    open_at_first_page(encoder);
    if (encoder->failure != 0) {
        return false;
    }
    switch (unit->kind) {
    case STREAM_WHOLE_PAGE:
        return sent_pages_put(&encoder->sent, unit->block, unit->page, end - encoder->page_size,
                              encoder->page_size);
    case STREAM_ZERO_PAGE:
        return sent_pages_put_zero(&encoder->sent, unit->block, unit->page);
    case STREAM_ENCODED_PAGE:
        sent_pages_forget(&encoder->sent, unit->block, unit->page);
        break;
    case STREAM_OTHER:
        break;
    }
    return false;
}

/* Moves SIZE bytes at FROM to where RUN's done bytes end. */
static void close_gap(struct encoded_run *run, const uint8_t *from, size_t size)
{
    uint8_t *to = run->bytes + run->done;

    if (to != from) {
        memmove(to, from, size);
    }
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
        if (!unit.is_whole) {
            continue;
        }
        if (is_known(encoder, &unit, next) && !unit.names_block) {
            encoder->same_pages++;
        } else {
            close_gap(run, next - run->pending, run->pending);
            run->done += run->pending;
        }
        run->pending = 0;
    }
    close_gap(run, next - run->pending, run->pending);
}

const struct stream_cutter *page_encoder_cutter(const struct page_encoder *encoder)
{
    return encoder->cutter;
}

uint64_t page_encoder_same_pages(const struct page_encoder *encoder)
{
    return encoder->same_pages;
}

int page_encoder_failure(const struct page_encoder *encoder)
{
    return encoder->failure;
}

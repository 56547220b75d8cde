#include "sent_pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A hash, or with HIGH 0: */
#define LOW_UNKNOWN 0u
#define LOW_ZERO 1u

struct sent_page {
    uint64_t low, high;
};

static int make_secret(uint8_t *secret, size_t size)
{
    ssize_t got = getrandom(secret, size, 0);

    if (got < 0) {
        return -errno;
    }
    return (size_t)got == size ? 0 : -EIO; /* so few bytes come whole, says getrandom(2) */
}

size_t sent_pages_count(const struct ram_blocks *blocks, uint32_t page_size)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < blocks->count; i++) {
        bytes += blocks->list[i].length;
    }
    return bytes / page_size;
}

uint64_t sent_pages_size(size_t count)
{
    return count * sizeof(struct sent_page);
}

int sent_pages_open(struct sent_pages *pages, const struct ram_blocks *blocks, uint32_t page_size)
{
    size_t index = 0;
    int failure = make_secret(pages->secret, sizeof pages->secret);

    if (failure != 0) {
        return failure;
    }
    pages->first = calloc(blocks->count, sizeof *pages->first);
    pages->table = calloc(sent_pages_count(blocks, page_size), sizeof *pages->table);
    if (pages->first == NULL || pages->table == NULL) {
        sent_pages_close(pages);
        return -ENOMEM;
    }
    for (size_t i = 0; i < blocks->count; i++) {
        pages->first[i] = index;
        index += blocks->list[i].length / page_size;
    }
    return 0;
}

void sent_pages_close(struct sent_pages *pages)
{
    free(pages->table);
    free(pages->first);
    memset(pages, 0, sizeof *pages);
}

size_t sent_pages_index(const struct sent_pages *pages, size_t block, uint64_t page)
{
    return pages->first[block] + page;
}

static enum sent_verdict replace(struct sent_pages *pages, size_t index, struct sent_page now)
{
    struct sent_page before = pages->table[index];

    pages->table[index] = now;
    if (before.high == 0 && before.low == LOW_UNKNOWN) {
        return SENT_FIRST;
    }
    return before.low == now.low && before.high == now.high ? SENT_SAME : SENT_CHANGED;
}

enum sent_verdict sent_pages_put(struct sent_pages *pages, size_t index, const uint8_t *bytes,
                                 uint32_t page_size)
{
    XXH128_hash_t hash =
        XXH3_128bits_withSecret(bytes, page_size, pages->secret, sizeof pages->secret);

    /* HIGH 0 has another meaning. One hash more in 2^64 that means two contents hurts nobody. */
    return replace(pages, index,
                   (struct sent_page){hash.low64, hash.high64 == 0 ? 1 : hash.high64});
}

enum sent_verdict sent_pages_put_zero(struct sent_pages *pages, size_t index)
{
    return replace(pages, index, (struct sent_page){LOW_ZERO, 0});
}

void sent_pages_forget(struct sent_pages *pages, size_t index)
{
    (void)replace(pages, index, (struct sent_page){LOW_UNKNOWN, 0});
}

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

int sent_pages_open(struct sent_pages *pages, const struct ram_blocks *blocks, uint32_t page_size)
{
    size_t count = 0;
    int failure = make_secret(pages->secret, sizeof pages->secret);

    if (failure != 0) {
        return failure;
    }
    pages->first = calloc(blocks->count, sizeof *pages->first);
    if (pages->first == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < blocks->count; i++) {
        pages->first[i] = count;
        count += blocks->list[i].length / page_size;
    }
    pages->table = calloc(count, sizeof *pages->table);
    if (pages->table == NULL) {
        sent_pages_close(pages);
        return -ENOMEM;
    }
    return 0;
}

void sent_pages_close(struct sent_pages *pages)
{
    free(pages->table);
    free(pages->first);
    memset(pages, 0, sizeof *pages);
}

static bool replace(struct sent_pages *pages, size_t block, uint64_t page, struct sent_page now)
{
    struct sent_page *place = &pages->table[pages->first[block] + page];
    bool is_same = place->low == now.low && place->high == now.high;

    *place = now;
    return is_same;
}

bool sent_pages_put(struct sent_pages *pages, size_t block, uint64_t page, const uint8_t *bytes,
                    uint32_t page_size)
{
    XXH128_hash_t hash =
        XXH3_128bits_withSecret(bytes, page_size, pages->secret, sizeof pages->secret);

    /* HIGH 0 has another meaning. One hash more in 2^64 that means two contents hurts nobody. */
    return replace(pages, block, page,
                   (struct sent_page){hash.low64, hash.high64 == 0 ? 1 : hash.high64});
}

bool sent_pages_put_zero(struct sent_pages *pages, size_t block, uint64_t page)
{
    return replace(pages, block, page, (struct sent_page){LOW_ZERO, 0});
}

void sent_pages_forget(struct sent_pages *pages, size_t block, uint64_t page)
{
    (void)replace(pages, block, page, (struct sent_page){LOW_UNKNOWN, 0});
}

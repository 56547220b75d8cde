#include "hot_pages.h"

#include <stdlib.h>
#include <string.h>

/* So many slots are looked at for one that can be had: the hand comes round soon enough. */
#define LOOK_AT 4u
/* A page that has not come in so many rounds before this one gives up its slot. */
#define ROUNDS_KEPT 2u
/* A page that was rewritten whole gets no slot the next times that it comes: what writes it writes
 * so again. Then it is tried once more. */
#define BARRED_TIMES 8u
/* In slot_of, above all slots: barred for 1 time and more. */
#define BARRED (UINT32_MAX - BARRED_TIMES)

uint32_t hot_pages_slots(uint64_t bytes, size_t page_count, uint32_t page_size)
{
    uint64_t for_pages = page_count * sizeof(uint32_t);
    uint64_t slots =
        bytes > for_pages ? (bytes - for_pages) / (page_size + sizeof(struct hot_slot)) : 0;

    return slots < BARRED ? (uint32_t)slots : BARRED - 1;
}

bool hot_pages_open(struct hot_pages *hot, size_t page_count, uint32_t slot_count)
{
    *hot = (struct hot_pages){.slot_count = slot_count, .round = 1};
    hot->slot_of = calloc(page_count, sizeof *hot->slot_of);
    hot->slots = calloc(slot_count, sizeof *hot->slots);
    if (hot->slot_of == NULL || hot->slots == NULL) {
        hot_pages_close(hot);
        return false;
    }
    return true;
}

void hot_pages_close(struct hot_pages *hot)
{
    free(hot->slot_of);
    free(hot->slots);
    memset(hot, 0, sizeof *hot);
}

void hot_pages_note(struct hot_pages *hot, uint64_t page)
{
    if (page < hot->last_page) {
        hot->round++;
    }
    hot->last_page = page;
}

uint32_t hot_pages_find(struct hot_pages *hot, uint64_t page)
{
    uint32_t place = hot->slot_of[page];

    if (place == 0 || place > BARRED) {
        return HOT_PAGES_NONE;
    }
    hot->slots[place - 1].round = hot->round;
    return place - 1;
}

static uint32_t give(struct hot_pages *hot, uint32_t slot, uint64_t page)
{
    hot->slots[slot] = (struct hot_slot){.page = page, .round = hot->round};
    hot->slot_of[page] = slot + 1;
    return slot;
}

static bool is_given_up(const struct hot_pages *hot, const struct hot_slot *slot)
{
    return slot->round == 0 || hot->round - slot->round > ROUNDS_KEPT;
}

uint32_t hot_pages_admit(struct hot_pages *hot, uint64_t page)
{
    uint32_t *place = &hot->slot_of[page];

    if (*place > BARRED) {
        *place = *place == BARRED + 1 ? 0 : *place - 1;
        return HOT_PAGES_NONE;
    }
    if (hot->used < hot->slot_count) {
        return give(hot, hot->used++, page);
    }
    for (unsigned i = 0; i < LOOK_AT && i < hot->slot_count; i++) {
        uint32_t slot = hot->hand;

        hot->hand = (hot->hand + 1) % hot->slot_count;
        if (is_given_up(hot, &hot->slots[slot])) {
            if (hot->slots[slot].round != 0) {
                hot->slot_of[hot->slots[slot].page] = 0;
            }
            return give(hot, slot, page);
        }
    }
    return HOT_PAGES_NONE;
}

void hot_pages_bar(struct hot_pages *hot, uint64_t page)
{
    hot->slots[hot->slot_of[page] - 1].round = 0;
    hot->slot_of[page] = BARRED + BARRED_TIMES;
}

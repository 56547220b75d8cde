/*
 * Which of the guest's pages the source has put into which slot of the page caches. The caches have
 * far fewer slots than the guest has pages, and only pages that come again are worth one.
 *
 * QEMU sends memory in rounds, each in the order of addresses. So a page that is written all the
 * time comes once a round, all others in between, and to throw out what was not used for the longest
 * time (LRU), or what is oldest (FIFO), would throw out each page just before it comes again as soon
 * as there are more such pages than slots. Here a page in a slot keeps it as long as it goes on
 * coming, and one that has not come for two rounds makes room for another: with slots for a part of
 * the pages, that part is of use.
 *
 * Pure; one thread at a time. A page is known by its number among all pages of all blocks.
 */
#ifndef WATARI_MOVER_HOT_PAGES_H
#define WATARI_MOVER_HOT_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOT_PAGES_NONE UINT32_MAX

/* All zero is one without slots. */
struct hot_pages {
    uint32_t *slot_of; /* owned: of each page, a slot + 1; 0: none; or how often it is barred yet */
    struct hot_slot {
        uint64_t page;
        uint32_t round; /* in which it came last; 0: the slot is free */
    } * slots;          /* owned */
    uint32_t slot_count;
    uint32_t used; /* so many have been given away once */
    uint32_t hand; /* the slot to look at next when another is wanted */
    uint32_t round;
    uint64_t last_page; /* that came, to tell where a round begins */
};

/* For PAGE_COUNT pages and SLOT_COUNT slots. False when there is no memory; it is all zero then. */
bool hot_pages_open(struct hot_pages *hot, size_t page_count, uint32_t slot_count);
void hot_pages_close(struct hot_pages *hot);

/* How many slots, each with a page of PAGE_SIZE bytes in it, BYTES bytes do for, with the
 * bookkeeping for PAGE_COUNT pages. */
uint32_t hot_pages_slots(uint64_t bytes, size_t page_count, uint32_t page_size);

/* PAGE comes, in whatever form: call it for each, before all else. */
void hot_pages_note(struct hot_pages *hot, uint64_t page);
/* The slot that PAGE, which comes, is in; HOT_PAGES_NONE. */
uint32_t hot_pages_find(struct hot_pages *hot, uint64_t page);
/* A slot for PAGE, which has none and comes again: from now on it is there. HOT_PAGES_NONE when
 * none is to be had, or none for this page yet. */
uint32_t hot_pages_admit(struct hot_pages *hot, uint64_t page);
/* What is in PAGE's slot was of no use: it loses it, and gets none the next few times. */
void hot_pages_bar(struct hot_pages *hot, uint64_t page);

#endif

#include "page_budget.h"

/* A guest writes the same eighth of its memory again and again, or so; what is more is of use, but
 * of less. */
#define RAM_SHARE 8u
/* Other migrations, and what runs on the host besides, want some too. */
#define FREE_SHARE 4u

static uint64_t smaller(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

uint64_t page_budget(uint64_t setting, uint64_t ram, uint64_t free)
{
    if (setting == PAGE_BUDGET_AUTO) {
        return smaller(ram / RAM_SHARE, free / FREE_SHARE);
    }
    return smaller(setting, free);
}

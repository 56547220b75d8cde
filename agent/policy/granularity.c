#include "granularity.h"

uint64_t granularity_of(uint64_t total_bytes)
{
    uint64_t bytes = GRANULARITY_MIN;

    while (total_bytes / bytes > GRANULARITY_BUDGET_BYTES * 8ull) {
        bytes *= 2;
    }
    return bytes;
}

#include "bandwidth.h"

bool bandwidth_is_limit(uint64_t rate)
{
    return rate >= BANDWIDTH_MIN && rate <= BANDWIDTH_MAX;
}

uint64_t bandwidth_lower(uint64_t one, uint64_t other)
{
    if (one == BANDWIDTH_NO_LIMIT) {
        return other;
    }
    return other == BANDWIDTH_NO_LIMIT || one < other ? one : other;
}

/* What those whose own limit is below FAIR take in all; USERS becomes the number of the others. */
static uint64_t taken_below(uint64_t fair, const uint64_t *own, size_t count, size_t *users)
{
    uint64_t taken = 0;

    *users = 0;
    for (size_t i = 0; i < count; i++) {
        if (own[i] != BANDWIDTH_NO_LIMIT && own[i] < fair) {
            taken += own[i];
        } else {
            ++*users;
        }
    }
    return taken;
}

uint64_t bandwidth_share(uint64_t limit, const uint64_t *own, size_t count, size_t index)
{
    uint64_t fair = limit / count, before = 0;

    if (limit == BANDWIDTH_NO_LIMIT) {
        return own[index];
    }
    /* It only grows, and each time at least one more is below it. */
    while (fair != before) {
        size_t users;
        uint64_t taken = taken_below(fair, own, count, &users);

        before = fair;
        if (users > 0) {
            fair = (limit - taken) / users;
        }
    }
    return bandwidth_lower(fair, own[index]);
}

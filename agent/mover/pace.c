#include "pace.h"

#define US_PER_S 1000000u
/* What the bucket holds. */
#define HELD_US 10000u
/* At low rates a piece is what so much time carries: a full record would be a burst there. */
#define PIECE_US 10000u
#define PIECE_MIN 1024u

void pace_init(struct pace *pace)
{
    *pace = (struct pace){0};
    pthread_mutex_init(&pace->mutex, NULL);
}

static uint64_t rate_of(const struct pace *pace)
{
    return pace->is_paused ? pace->paused_rate : pace->rate;
}

static void note_limit(struct pace *pace)
{
    atomic_store_explicit(&pace->is_limited, rate_of(pace) != 0, memory_order_relaxed);
}

void pace_set(struct pace *pace, uint64_t rate, uint64_t paused_rate)
{
    pthread_mutex_lock(&pace->mutex);
    pace->rate = rate;
    pace->paused_rate = paused_rate;
    note_limit(pace);
    pthread_mutex_unlock(&pace->mutex);
}

void pace_pause(struct pace *pace)
{
    pthread_mutex_lock(&pace->mutex);
    pace->is_paused = true;
    note_limit(pace);
    pthread_mutex_unlock(&pace->mutex);
}

/* Millionths of a byte are what a rate in bytes a second brings in a microsecond: nothing is rounded
 * away, however often it is asked. */
static void fill(struct pace *pace, uint64_t now_us, uint64_t rate)
{
    int64_t most = (int64_t)(rate * HELD_US);
    uint64_t elapsed = now_us - pace->filled_us;

    /* Only so much could have come in since; it also keeps the product small. */
    if (elapsed > US_PER_S) {
        elapsed = US_PER_S;
    }
    pace->level += (int64_t)(rate * elapsed);
    pace->filled_us = now_us;
    if (pace->level > most) {
        pace->level = most;
    }
}

static size_t piece_of(uint64_t rate, size_t size)
{
    uint64_t piece = rate * PIECE_US / US_PER_S;

    if (piece < PIECE_MIN) {
        piece = PIECE_MIN;
    }
    if (piece > PACE_PIECE_MAX) {
        piece = PACE_PIECE_MAX;
    }
    return size < piece ? size : (size_t)piece;
}

uint64_t pace_take(struct pace *pace, uint64_t now_us, size_t size, size_t *piece)
{
    uint64_t rate, wait_us = 0;

    *piece = size;
    if (!atomic_load_explicit(&pace->is_limited, memory_order_relaxed)) {
        return 0;
    }
    pthread_mutex_lock(&pace->mutex);
    rate = rate_of(pace);
    if (rate != 0) {
        fill(pace, now_us, rate);
        if (pace->level >= 0) {
            *piece = piece_of(rate, size);
            pace->level -= (int64_t)((*piece + PACE_RECORD_EXTRA) * US_PER_S);
        } else {
            *piece = 0;
            wait_us = (uint64_t)-pace->level / rate + 1;
        }
    }
    pthread_mutex_unlock(&pace->mutex);
    return wait_us;
}

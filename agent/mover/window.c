#include "window.h"

/* A rate is taken over so long at least, so that single answers do not count for much. */
#define INTERVAL_US 50000u
/* The smallest delay is forgotten after one to two spells: paths change. Each begins with a probe,
 * since in a full window every delay has the slack in it, and taken for the path's own it would
 * grow with every spell. */
#define SPELL_US (5u * 1000000u)

uint64_t window_limit(const struct window *window)
{
    if (window->is_probing || window->limit == 0) {
        return WINDOW_BYTES_MIN;
    }
    return window->limit;
}

void window_was_full(struct window *window)
{
    window->was_full = true;
}

void window_restart(struct window *window)
{
    *window = (struct window){.limit = window->limit, .rate = window->rate};
}

static void begin_spell(struct window *window, uint64_t now)
{
    window->older_delay_us = window->delay_us;
    window->delay_us = 0;
    window->spell_us = now;
    window->is_probing = true;
}

static void note_delay(struct window *window, uint64_t now, uint64_t sent)
{
    uint64_t delay = now - sent + 1;

    if (window->spell_us == 0 || now - window->spell_us > SPELL_US) {
        begin_spell(window, now);
    }
    /* What was sent since the probe began was sent into a path with no more than the narrow window
     * in it. */
    if (sent >= window->spell_us) {
        window->is_probing = false;
    }
    if (window->delay_us == 0 || delay < window->delay_us) {
        window->delay_us = delay;
    }
}

static uint64_t smallest_delay(const struct window *window)
{
    if (window->older_delay_us != 0 && window->older_delay_us < window->delay_us) {
        return window->older_delay_us;
    }
    return window->delay_us;
}

/* The mean of what is known and what was measured, unless the reader had nothing to read and it was
 * less. */
static void note_rate(struct window *window, uint64_t rate)
{
    if (window->rate == 0) {
        window->rate = rate;
    } else if (window->was_full || rate > window->rate) {
        window->rate = (window->rate + rate) / 2;
    }
}

static void set_limit(struct window *window)
{
    uint64_t limit = window->rate * (smallest_delay(window) + WINDOW_SLACK_US) / 1000000u;

    if (limit < WINDOW_BYTES_MIN) {
        limit = WINDOW_BYTES_MIN;
    }
    if (limit > WINDOW_BYTES_MAX) {
        limit = WINDOW_BYTES_MAX;
    }
    window->limit = limit;
}

static void begin_interval(struct window *window, uint64_t now, uint64_t bytes)
{
    window->interval_us = now;
    window->interval_bytes = bytes;
    window->was_full = false;
}

void window_received(struct window *window, uint64_t now, uint64_t sent, uint64_t bytes)
{
    uint64_t elapsed = now - window->interval_us;

    note_delay(window, now, sent);
    /* A probe's own low rate says nothing. */
    if (window->interval_us == 0 || window->is_probing) {
        begin_interval(window, now, bytes);
        return;
    }
    if (elapsed < INTERVAL_US) {
        return;
    }
    note_rate(window, (bytes - window->interval_bytes) * 1000000u / elapsed);
    set_limit(window);
    begin_interval(window, now, bytes);
}

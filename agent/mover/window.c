#include "window.h"

/* A rate is taken over so long at least, and over the path's own delay: so that neither single
 * answers count for much, nor the bursts in which a far path returns what it was sent in bursts. */
#define INTERVAL_US 100000u
/* The smallest delay is forgotten after one to two spells: paths change. Each begins with a probe,
 * since in a full window every delay has the slack in it, and taken for the path's own it would
 * grow with every spell. */
#define SPELL_US (5u * 1000000u)

#define UNIT_GRAIN 4096u
/* A second at least. */
#define RECENT 10u

void window_init(struct window *window, const struct window_bounds *bounds)
{
    *window = (struct window){.bounds = *bounds};
}

static uint64_t larger(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

static uint64_t within_bounds(const struct window *window, uint64_t limit)
{
    if (limit < window->bounds.min) {
        return window->bounds.min;
    }
    return limit > window->bounds.max ? window->bounds.max : limit;
}

static uint64_t smallest_delay(const struct window *window)
{
    if (window->delay_us == 0 ||
        (window->older_delay_us != 0 && window->older_delay_us < window->delay_us)) {
        return window->older_delay_us;
    }
    return window->delay_us;
}

/* What the path carries within DELAY_US. */
static uint64_t carried(const struct window *window, uint64_t delay_us)
{
    return within_bounds(window, window->rate * delay_us / 1000000u);
}

uint64_t window_limit(const struct window *window)
{
    if (window->limit == 0) {
        return window->bounds.first;
    }
    /* A quarter of what a path without a queue needs: a queue empties, even if what was taken for the
     * path's own delay was mostly queue, and a far path does for a moment only. */
    return window->is_probing ? carried(window, smallest_delay(window) / 4) : window->limit;
}

uint32_t window_unit(const struct window *window, uint32_t unit_min, uint32_t unit_max)
{
    uint64_t unit = window_limit(window) / 4 / UNIT_GRAIN * UNIT_GRAIN;

    if (unit < unit_min) {
        return unit_min;
    }
    return unit > unit_max ? unit_max : (uint32_t)unit;
}

void window_was_full(struct window *window)
{
    window->was_full = true;
}

void window_restart(struct window *window)
{
    *window =
        (struct window){.bounds = window->bounds, .limit = window->limit, .rate = window->rate};
}

void window_rate_changes(struct window *window)
{
    window->rate = window->recent_rate = window->older_rate = 0;
    window->recent_count = 0;
    window->interval_us = 0;
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
    if (window->is_probing && sent >= window->spell_us) {
        window->is_probing = false;
        window->probed_us = now;
    }
    if (window->delay_us == 0 || delay < window->delay_us) {
        window->delay_us = delay;
    }
}

/*
 * The best that was measured lately, over one to two times RECENT intervals in which the reader was
 * held up: what it does not read says nothing of the path. A rate that followed every low
 * measurement would take the window with it: on a host whose CPUs are busy answers take longer than
 * the slack now and then, and with a link that has room a smaller window makes them no faster.
 */
static void note_rate(struct window *window, uint64_t rate)
{
    if (window->was_full) {
        if (rate > window->recent_rate) {
            window->recent_rate = rate;
        }
        if (++window->recent_count == RECENT) {
            window->rate = larger(window->recent_rate, window->older_rate);
            window->older_rate = window->recent_rate;
            window->recent_rate = 0;
            window->recent_count = 0;
        }
    }
    window->rate = larger(window->rate, rate);
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
    /* The low rate of what was sent during a probe says nothing. */
    if (window->interval_us == 0 || window->is_probing || sent < window->probed_us) {
        begin_interval(window, now, bytes);
        return;
    }
    if (elapsed < INTERVAL_US || elapsed < smallest_delay(window)) {
        return;
    }
    note_rate(window, (bytes - window->interval_bytes) * 1000000u / elapsed);
    window->limit = carried(window, smallest_delay(window) + window->bounds.slack_us);
    begin_interval(window, now, bytes);
}

#include "forecast.h"

#include <math.h>
#include <string.h>

/* A series of rounds that takes more does not end, for all that can be said. */
#define ROUNDS_MAX 100
/* Bytes a millisecond that a guest may write in a burst. */
#define BURST 2e6
/* What a pause costs besides what is measured: saving and loading device state, and the steps of the handoff, each of which some QEMU has to
 * take: they last as long as it takes to answer, so many times. */
#define DEVICE_STATE_MS 20
#define ANSWERS_IN_PAUSE 2

void forecast_init(struct forecast *forecast)
{
    memset(forecast, 0, sizeof *forecast);
}

/* Milliseconds; in floating point, where nothing wraps around and the impossible stays impossible. */
static double time_for(double bytes, uint64_t rate)
{
    if (bytes <= 0) {
        return 0;
    }
    return rate ? bytes * 1000 / (double)rate + 1 : (double)FORECAST_UNKNOWN;
}

static uint32_t known(double ms)
{
    return ms < (double)FORECAST_UNKNOWN ? (uint32_t)ms : FORECAST_UNKNOWN;
}

/* QEMU has looked: what is dirty now became so in the round that has ended. Short ones may have passed between two samples. */
static void note_round(struct forecast *forecast, const struct convergence_sample *sample)
{
    uint64_t rounds = sample->round - forecast->last.round;
    double ms = (double)(sample->now_ms - forecast->round_started_ms) / (double)rounds;
    double left = (double)sample->memory_left;

    if (forecast->round_seen_whole && ms > 0) {
        forecast->round_ms = ms;
        forecast->round_dirty = left;
        forecast->longest_ms = ms > forecast->longest_ms ? ms : forecast->longest_ms;
        forecast->most_dirty = left > forecast->most_dirty ? left : forecast->most_dirty;
    }
    /* The first sample may come in the midst of a round. */
    forecast->round_seen_whole = forecast->last.round > 0 || sample->round == 1;
    forecast->round_started_ms = sample->now_ms;
}

void forecast_note(struct forecast *forecast, const struct convergence_sample *sample)
{
    if (sample->round != forecast->last.round) {
        note_round(forecast, sample);
    }
    forecast->last = *sample;
}

double forecast_dirty_rate(const struct forecast *forecast)
{
    double counted = (double)forecast->last.memory_dirty_rate;
    double round = forecast->round_ms > 0 ? forecast->round_dirty * 1000 / forecast->round_ms : 0;

    return counted > round ? counted : round;
}

/* What MS at the rate leave. A page that is written twice is dirty once, so that a guest which goes over the same pages again and again
 * leaves no more dirty in a long round than there are of them: what is no longer than a round that was seen leaves no more than the most
 * that was seen. */
static double steady(const struct forecast *forecast, double ms)
{
    double bytes = forecast_dirty_rate(forecast) * ms / 1000;

    return ms <= forecast->longest_ms && bytes > forecast->most_dirty ? forecast->most_dirty
                                                                      : bytes;
}

double forecast_dirty_most(const struct forecast *forecast, double ms)
{
    double bytes = steady(forecast, ms);
    double burst = ms * BURST < forecast->round_dirty ? ms * BURST : forecast->round_dirty;

    return ms <= forecast->round_ms && burst > bytes ? burst : bytes;
}

double forecast_dirty(const struct forecast *forecast, double ms)
{
    return sqrt(steady(forecast, ms)) * sqrt(forecast_dirty_most(forecast, ms));
}

uint32_t forecast_fixed_ms(uint64_t sync_ns, uint64_t round_trip_ns, uint64_t answer_ns)
{
    return DEVICE_STATE_MS +
           (uint32_t)((3 * sync_ns + 3 * round_trip_ns / 2 + ANSWERS_IN_PAUSE * answer_ns) /
                      1000000);
}

static double disks_ms(const struct convergence_sample *last)
{
    return time_for((double)last->disk_left + (double)last->pass_left,
                    last->disk_rate ? last->disk_rate : last->memory_rate);
}

/* For BYTES and what is on its way. The latter takes as long as such lately took, however well it shrinks; if less of it is left, less. */
static double memory_ms(const struct convergence_sample *last, double bytes)
{
    double by_bytes = time_for(bytes + (double)last->in_flight, last->memory_rate);
    double by_time = time_for(bytes, last->memory_rate) + last->in_flight_ms;

    return last->in_flight_ms && by_time < by_bytes ? by_time : by_bytes;
}

/* The last disk pass goes beside the memory, over the same link: their data takes turns, and the pass has waits of its own to hide. */
static double pause_of(const struct forecast *forecast, double ms)
{
    const struct convergence_sample *last = &forecast->last;

    return disks_ms(last) + (ms > last->pass_ms ? ms : last->pass_ms) + last->fixed_ms;
}

uint32_t forecast_data(const struct forecast *forecast)
{
    const struct convergence_sample *last = &forecast->last;

    return known(memory_ms(last, (double)last->memory_left) + disks_ms(last));
}

static double since_look(const struct forecast *forecast)
{
    return (double)(forecast->last.now_ms - forecast->round_started_ms);
}

uint32_t forecast_pause(const struct forecast *forecast)
{
    const struct convergence_sample *last = &forecast->last;
    double dirty = forecast_dirty(forecast, since_look(forecast));

    return known(pause_of(forecast, memory_ms(last, (double)last->memory_left + dirty)));
}

uint32_t forecast_longest_pause(const struct forecast *forecast)
{
    const struct convergence_sample *last = &forecast->last;
    double dirty = forecast_dirty_most(forecast, since_look(forecast));

    return known(pause_of(
        forecast, time_for((double)last->memory_left + (double)last->in_flight + dirty,
                           last->memory_rate_least ? last->memory_rate_least : last->memory_rate)));
}

uint32_t forecast_total(const struct forecast *forecast, uint32_t limit_ms)
{
    const struct convergence_sample *last = &forecast->last;
    double left = (double)last->memory_left, total = (double)last->elapsed_ms;

    for (int round = 0; round < ROUNDS_MAX; round++) {
        double ms = time_for(left, last->memory_rate);
        double next = steady(forecast, ms);
        double pause = pause_of(forecast, time_for(next, last->memory_rate));

        total += ms;
        if (pause <= limit_ms) {
            return known(total + pause);
        }
        if (next >= left) {
            return FORECAST_UNKNOWN;
        }
        left = next;
    }
    return FORECAST_UNKNOWN;
}

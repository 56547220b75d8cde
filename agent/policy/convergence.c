#include "convergence.h"

#include <stdio.h>
#include <string.h>

void convergence_init(struct convergence *convergence, const struct convergence_limits *limits)
{
    memset(convergence, 0, sizeof *convergence);
    convergence->limits = *limits;
    convergence->smallest_left = UINT64_MAX;
    convergence->predicted_downtime_ms = UINT32_MAX;
}

/* Milliseconds; in floating point, where nothing wraps around and the impossible stays impossible. */
static double time_for(double bytes, uint64_t rate)
{
    if (bytes <= 0) {
        return 0;
    }
    return rate ? bytes * 1000 / (double)rate + 1 : (double)UINT32_MAX;
}

/* A pause begun now: what QEMU knows to be dirty and what became dirty since it last looked; disk and memory share the link. */
static uint32_t predict(const struct convergence *convergence,
                        const struct convergence_sample *sample)
{
    double since = (double)(sample->now_ms - convergence->round_started_ms);
    double memory = (double)sample->memory_left + (double)sample->memory_dirty_rate * since / 1000;
    double total = time_for(memory, sample->memory_rate) +
                   time_for((double)sample->disk_left,
                            sample->disk_rate ? sample->disk_rate : sample->memory_rate) +
                   sample->fixed_ms;

    return total < (double)UINT32_MAX ? (uint32_t)total : UINT32_MAX;
}

static void note_round(struct convergence *convergence, const struct convergence_sample *sample)
{
    if (sample->round == convergence->round) {
        return;
    }
    convergence->round = sample->round;
    convergence->round_started_ms = sample->now_ms;
    convergence->last_left = sample->memory_left;
    /* The first two rounds are not remainders: everything there is, and what the whole of the first let become dirty. */
    if (sample->memory_left < convergence->smallest_left) {
        convergence->smallest_left = sample->memory_left;
        convergence->smallest_round = sample->round;
    }
}

/* "412 ms", or that nobody knows. */
static const char *pause_text(const struct convergence *convergence, char text[32])
{
    if (convergence->predicted_downtime_ms == UINT32_MAX) {
        return "an unknown time";
    }
    snprintf(text, 32, "%u ms", convergence->predicted_downtime_ms);
    return text;
}

static enum convergence_verdict judge_quick(struct convergence *convergence)
{
    char text[32];

    if (convergence->round < 2) {
        return CONVERGENCE_GO_ON;
    }
    if (convergence->predicted_downtime_ms > convergence->limits.max_quick_downtime_ms) {
        if (convergence->round - convergence->smallest_round < CONVERGENCE_PATIENCE_ROUNDS) {
            return CONVERGENCE_GO_ON;
        }
        snprintf(
            convergence->reason, sizeof convergence->reason,
            "the pause would take %s, more than --max-quick-downtime of %u ms, and %d rounds did not make it shorter",
            pause_text(convergence, text), convergence->limits.max_quick_downtime_ms,
            CONVERGENCE_PATIENCE_ROUNDS);
        return CONVERGENCE_GIVE_UP;
    }
    snprintf(convergence->reason, sizeof convergence->reason,
             "quick: a live round is done; the rest is predicted to take %u ms (limit %u ms)",
             convergence->predicted_downtime_ms, convergence->limits.max_quick_downtime_ms);
    return CONVERGENCE_SWITCH_OVER;
}

static enum convergence_verdict judge_live(struct convergence *convergence,
                                           const struct convergence_sample *sample)
{
    char text[32];

    if (convergence->round >= 2 &&
        convergence->predicted_downtime_ms <= convergence->limits.max_downtime_ms) {
        snprintf(convergence->reason, sizeof convergence->reason,
                 "what is left fits: %u ms predicted, limit %u ms (round %llu)",
                 convergence->predicted_downtime_ms, convergence->limits.max_downtime_ms,
                 (unsigned long long)convergence->round);
        return CONVERGENCE_SWITCH_OVER;
    }
    if (convergence->round >= 2 &&
        convergence->round - convergence->smallest_round >= CONVERGENCE_PATIENCE_ROUNDS) {
        snprintf(
            convergence->reason, sizeof convergence->reason,
            "the guest dirties memory at %.1f MB/s, %.1f MB/s leave; %d rounds brought no progress: %.1f MB are left, a "
            "pause of %s, the limit is %u ms (--max-downtime)",
            (double)sample->memory_dirty_rate / 1e6, (double)sample->memory_rate / 1e6,
            CONVERGENCE_PATIENCE_ROUNDS, (double)sample->memory_left / 1e6,
            pause_text(convergence, text), convergence->limits.max_downtime_ms);
        return CONVERGENCE_GIVE_UP;
    }
    return CONVERGENCE_GO_ON;
}

enum convergence_verdict convergence_step(struct convergence *convergence,
                                          const struct convergence_sample *sample)
{
    enum convergence_verdict verdict;

    note_round(convergence, sample);
    convergence->fixed_ms = sample->fixed_ms;
    convergence->predicted_downtime_ms = predict(convergence, sample);
    verdict =
        convergence->limits.quick ? judge_quick(convergence) : judge_live(convergence, sample);
    /* A pass that began before the pause must be whole before the last one can follow: better outside the pause. */
    if (verdict == CONVERGENCE_SWITCH_OVER && sample->pass_running) {
        return CONVERGENCE_GO_ON;
    }
    return verdict;
}

bool convergence_fits(const struct convergence *convergence)
{
    uint32_t limit = convergence->limits.quick ? convergence->limits.max_quick_downtime_ms
                                               : convergence->limits.max_downtime_ms;

    return convergence->predicted_downtime_ms != UINT32_MAX &&
           convergence->predicted_downtime_ms - convergence->fixed_ms <= limit;
}

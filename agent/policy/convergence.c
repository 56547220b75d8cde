#include "convergence.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A pause is shorter than another if it is so by a twentieth: less is chance. */
#define PROGRESS_PART 20
/* Disk writes are worth a throttle when their data is such a part of the pause, or of what the link carries. */
#define DISK_PART 4
/* Disk writes are a storm when this much of them is more than the link carries of disks. */
#define STORM_PART 1.25
/* Below that QEMU's limits hurt the guest more than the link. */
#define DISK_LIMIT_MIN (64 * 1024.0)
#define CPU_STEP 20
/* A fall-back that is due by the deadline begins with so much to spare, and a quarter of its time. */
#define DEADLINE_SPARE_MS 1000
/* Disk writes are counted from pass to pass, or over so long. */
#define DISK_INTERVAL_MS 1000
/* How fast the first round goes can be told after so long. */
#define FIRST_ROUND_MS 1000

void convergence_init(struct convergence *convergence, const struct convergence_limits *limits)
{
    memset(convergence, 0, sizeof *convergence);
    convergence->limits = *limits;
    forecast_init(&convergence->forecast);
    convergence->predicted_downtime_ms = FORECAST_UNKNOWN;
    convergence->longest_downtime_ms = FORECAST_UNKNOWN;
    convergence->predicted_total_ms = FORECAST_UNKNOWN;
    convergence->round_best_ms = FORECAST_UNKNOWN;
    convergence->best_ms = FORECAST_UNKNOWN;
}

/* --- words --- */

static void because(struct convergence *convergence, const char *text, ...)
    __attribute__((format(printf, 2, 3)));
static void because(struct convergence *convergence, const char *text, ...)
{
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(convergence->reason, sizeof convergence->reason, text, arguments);
    va_end(arguments);
}

/* "412 ms", or that nobody knows. */
static const char *time_text(uint32_t ms, char text[32])
{
    if (ms == FORECAST_UNKNOWN) {
        return "an unknown time";
    }
    snprintf(text, 32, "%u ms", ms);
    return text;
}

struct pace {
    char text[160];
};

/* What stands in the way: "memory becomes dirty at 84.0 MB/s, 61.0 MB/s leave". */
static struct pace pace_text(const struct convergence *convergence)
{
    const struct convergence_sample *last = &convergence->forecast.last;
    struct pace pace;

    snprintf(pace.text, sizeof pace.text,
             "memory becomes dirty at %.1f MB/s, disks at %.1f MB/s; %.1f MB/s of memory leave",
             forecast_dirty_rate(&convergence->forecast) / 1e6, convergence->disk_write_rate / 1e6,
             (double)last->memory_rate / 1e6);
    return pace;
}

/* --- what the samples show --- */

static uint32_t pause_limit(const struct convergence *convergence)
{
    return convergence->limits.mode == CONVERGENCE_QUICK ? convergence->limits.max_quick_downtime_ms
                                                         : convergence->limits.max_downtime_ms;
}

static void note_round(struct convergence *convergence, const struct convergence_sample *sample)
{
    uint32_t best = convergence->round_best_ms;

    if (sample->round == convergence->round) {
        return;
    }
    if (convergence->round < 2 && sample->round >= 2) {
        /* Only now is it known how fast memory becomes dirty. */
        convergence->predicted_total_ms =
            forecast_total(&convergence->forecast, pause_limit(convergence));
        convergence->progress_round = sample->round;
        convergence->progress_ms = sample->now_ms;
    } else if (best != FORECAST_UNKNOWN &&
               best < convergence->best_ms - convergence->best_ms / PROGRESS_PART) {
        convergence->best_ms = best;
        convergence->progress_round = sample->round;
        convergence->progress_ms = sample->now_ms;
    }
    convergence->round = sample->round;
    convergence->round_best_ms = FORECAST_UNKNOWN;
}

static void restart_patience(struct convergence *convergence)
{
    convergence->progress_round = convergence->forecast.last.round;
    convergence->progress_ms = convergence->forecast.last.now_ms;
}

static void note_pass(struct convergence *convergence, const struct convergence_sample *sample)
{
    bool has_ended = convergence->pass_running && !sample->pass_running;

    convergence->pass_running = sample->pass_running;
    if (convergence->disk_settling == 0) {
        return;
    }
    convergence->disk_settling -= has_ended;
    if (sample->now_ms - convergence->progress_ms >= CONVERGENCE_SETTLING_MS) {
        convergence->disk_settling = 0;
    }
    if (convergence->disk_settling == 0) {
        /* What the disks made of the pause before is no measure for what comes. */
        convergence->best_ms = FORECAST_UNKNOWN;
        restart_patience(convergence);
    }
}

/* Bytes/s since disk_ms, MS ago. */
static double disk_growth(const struct convergence *convergence, uint64_t ms)
{
    double bytes = (double)convergence->disk_taken + (double)convergence->disk_left -
                   (double)convergence->disk_first;

    return convergence->disk_ms && bytes > 0 ? bytes * 1000 / (double)ms : 0;
}

static void note_storm(struct convergence *convergence, const struct convergence_sample *sample)
{
    if (convergence->disk_write_rate * STORM_PART <= (double)sample->disk_rate) {
        convergence->storm_ms = 0;
    } else if (convergence->storm_ms == 0) {
        convergence->storm_ms = sample->now_ms;
    }
}

/* What is dirty grows by writing, and a pass that begins takes its disk's share away. A guest that writes to the same blocks leaves less
 * and less in the course of a long pass: what passes take counts, and the beginning of one. */
static void note_disks(struct convergence *convergence, const struct convergence_sample *sample)
{
    bool has_begun = sample->disk_left < convergence->disk_left;
    uint64_t ms = sample->now_ms - convergence->disk_ms;
    double before = convergence->disk_write_rate, rate;

    convergence->disk_taken += has_begun ? convergence->disk_left - sample->disk_left : 0;
    convergence->disk_left = sample->disk_left;
    if (convergence->disk_ms == 0 || (has_begun && ms >= DISK_INTERVAL_MS)) {
        rate = disk_growth(convergence, ms);
        convergence->disk_write_rate = before > 0 ? (before + rate) / 2 : rate;
        convergence->disk_ms = sample->now_ms;
        convergence->disk_taken = 0;
        convergence->disk_first = sample->disk_left;
    } else if (ms >= DISK_INTERVAL_MS && disk_growth(convergence, ms) > before) {
        convergence->disk_write_rate = disk_growth(convergence, ms);
    }
}

/* The patience is for what the guest does under the throttle. */
static void note_throttle(struct convergence *convergence, const struct convergence_sample *sample)
{
    bool in_vain = sample->round - convergence->progress_round >= CONVERGENCE_FORCE_ROUNDS &&
                   sample->now_ms - convergence->progress_ms >= CONVERGENCE_FORCE_MS;

    if (convergence->cpu_throttle == 0 || convergence->cpu_in_force ||
        (sample->cpu_throttle < convergence->cpu_throttle && !in_vain)) {
        return;
    }
    convergence->cpu_in_force = true;
    restart_patience(convergence);
}

static unsigned long long stalled_rounds(const struct convergence *convergence)
{
    return convergence->forecast.last.round - convergence->progress_round;
}

static bool is_stalled(const struct convergence *convergence)
{
    uint64_t rounds = stalled_rounds(convergence);
    uint64_t ms = convergence->forecast.last.now_ms - convergence->progress_ms;

    return (convergence->cpu_throttle == 0 || convergence->cpu_in_force) &&
           convergence->disk_settling == 0 &&
           ((rounds >= CONVERGENCE_PATIENCE_ROUNDS && ms >= CONVERGENCE_PATIENCE_MS) ||
            (rounds >= CONVERGENCE_LONG_ROUNDS && ms >= CONVERGENCE_LONG_ROUNDS_MS));
}

/* --- the ladder --- */

/* Of the guest's disk writes, less than PERCENT that is in force; 0: there is no further step. */
static uint32_t next_disk_throttle(const struct convergence *convergence)
{
    static const uint32_t steps[] = {50, 75, 90, 95, 99};
    uint32_t most = convergence->limits.max_throttle;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        uint32_t step = steps[i] < most ? steps[i] : most;

        if (step > convergence->disk_throttle) {
            return step;
        }
    }
    return 0;
}

static bool disks_matter(const struct convergence *convergence)
{
    const struct convergence_sample *last = &convergence->forecast.last;
    double rate = (double)last->disk_rate;

    return rate > 0 &&
           (convergence->disk_write_rate > rate / DISK_PART ||
            (double)last->disk_left * 1000 / rate >
                (double)convergence->limits.max_downtime_ms / DISK_PART) &&
           convergence->disk_write_rate > 0;
}

/* WHY follows on the pace. */
static bool throttle_disks(struct convergence *convergence, const char *why)
{
    uint32_t step = next_disk_throttle(convergence);
    double before = convergence->disk_throttle
                        ? convergence->disk_limit * 100 / (100 - convergence->disk_throttle)
                        : convergence->disk_write_rate;
    struct pace pace = pace_text(convergence);

    if (!convergence->limits.can_throttle_disks || step == 0 || !disks_matter(convergence)) {
        return false;
    }
    convergence->disk_throttle = step;
    convergence->disk_limit = before * (100 - step) / 100;
    if (convergence->disk_limit < DISK_LIMIT_MIN) {
        convergence->disk_limit = DISK_LIMIT_MIN;
    }
    because(convergence, "%s%s: disk writes throttled to %.1f MB/s", pace.text, why,
            convergence->disk_limit / 1e6);
    convergence->storm_ms = 0;
    convergence->disk_settling = CONVERGENCE_SETTLING_PASSES;
    restart_patience(convergence);
    return true;
}

static bool throttle_cpus(struct convergence *convergence)
{
    uint32_t most = convergence->limits.max_throttle;
    uint32_t step = convergence->cpu_throttle + CPU_STEP;
    struct pace pace = pace_text(convergence);

    if (!convergence->limits.can_throttle_cpus || convergence->cpu_throttle >= most) {
        return false;
    }
    convergence->cpu_throttle = step < most ? step : most;
    convergence->cpu_in_force = false;
    because(convergence, "%s; %llu rounds brought no progress: vCPUs throttled to run %u %% less",
            pace.text, stalled_rounds(convergence), convergence->cpu_throttle);
    restart_patience(convergence);
    return true;
}

static enum convergence_verdict after_pass(const struct convergence *convergence,
                                           enum convergence_verdict verdict)
{
    /* A pass that began before the pause must be whole before the last one can follow: better outside the pause. */
    return convergence->forecast.last.pass_running ? CONVERGENCE_WAIT : verdict;
}

static enum convergence_verdict give_up(struct convergence *convergence)
{
    const struct convergence_limits *limits = &convergence->limits;
    uint32_t pause = convergence->longest_downtime_ms, best = convergence->best_ms;
    struct pace pace = pace_text(convergence);
    char now[32], shortest[32];

    if (limits->mode == CONVERGENCE_LIVE) {
        because(
            convergence,
            "%s; %llu rounds brought no progress, vCPUs %u %% throttled: a pause would take %s, %s at "
            "best, and --max-downtime allows %u ms. Allow that much, or more --max-throttle, or use "
            "--mode auto",
            pace.text, stalled_rounds(convergence), convergence->cpu_throttle,
            time_text(pause, now), time_text(best, shortest), limits->max_downtime_ms);
        return CONVERGENCE_GIVE_UP;
    }
    because(
        convergence,
        "%s; %llu rounds brought no progress, vCPUs %u %% throttled: a pause would take %s, and "
        "--max-quick-downtime allows %u ms%s",
        pace.text, stalled_rounds(convergence), convergence->cpu_throttle, time_text(pause, now),
        limits->max_quick_downtime_ms,
        pause == FORECAST_UNKNOWN ? "" : ". Allow that much, or more --max-throttle");
    return CONVERGENCE_GIVE_UP;
}

/* The end of the ladder. */
static enum convergence_verdict fall_back(struct convergence *convergence)
{
    const struct convergence_limits *limits = &convergence->limits;
    struct pace pace = pace_text(convergence);

    if (limits->mode == CONVERGENCE_LIVE) {
        return give_up(convergence);
    }
    if (convergence->longest_downtime_ms <= limits->max_quick_downtime_ms) {
        because(
            convergence,
            "%s, and %u ms of pause do not fit --max-downtime of %u ms: falling back to quick (limit "
            "%u ms)",
            pace.text, convergence->predicted_downtime_ms, limits->max_downtime_ms,
            limits->max_quick_downtime_ms);
        return after_pass(convergence, CONVERGENCE_FALL_BACK);
    }
    if (convergence->round - convergence->quick_round < CONVERGENCE_QUICK_ROUNDS) {
        return CONVERGENCE_GO_ON;
    }
    return give_up(convergence);
}

static enum convergence_verdict next_rung(struct convergence *convergence)
{
    char why[64];

    snprintf(why, sizeof why, "; %llu rounds brought no progress", stalled_rounds(convergence));
    /* No throttle shortens what a pause costs besides data. */
    if (convergence->forecast.last.fixed_ms < convergence->limits.max_downtime_ms) {
        if (throttle_disks(convergence, why)) {
            return CONVERGENCE_THROTTLE_DISKS;
        }
        if (throttle_cpus(convergence)) {
            return CONVERGENCE_THROTTLE_CPUS;
        }
    }
    convergence->quick_due = true;
    convergence->quick_round = convergence->round;
    return fall_back(convergence);
}

/* Disks that take the link for themselves keep the first round from coming to its end: so that rung does not wait for it. */
static enum convergence_verdict judge_first_round(struct convergence *convergence)
{
    const struct convergence_sample *last = &convergence->forecast.last;
    bool is_storm = convergence->storm_ms != 0 && convergence->disk_settling == 0 &&
                    last->now_ms - convergence->storm_ms >= CONVERGENCE_STORM_MS;

    return is_storm && convergence->limits.mode != CONVERGENCE_QUICK &&
                   throttle_disks(convergence, ", and the first round does not end")
               ? CONVERGENCE_THROTTLE_DISKS
               : CONVERGENCE_GO_ON;
}

/* --- the deadline --- */

static uint32_t time_left(const struct convergence *convergence, uint64_t elapsed_ms)
{
    uint32_t deadline = convergence->limits.deadline_ms;

    return elapsed_ms < deadline ? deadline - (uint32_t)elapsed_ms : 0;
}

static enum convergence_verdict miss_deadline(struct convergence *convergence, const char *what,
                                              double needed_ms, uint32_t left_ms)
{
    convergence->missed_deadline = true;
    if (needed_ms >= FORECAST_UNKNOWN) {
        because(convergence,
                "nobody knows how long %s would take, and --deadline of %.1f s leaves %.1f s", what,
                convergence->limits.deadline_ms / 1e3, left_ms / 1e3);
        return CONVERGENCE_GIVE_UP;
    }
    because(convergence,
            "%s would take %.1f s more, and --deadline of %.1f s leaves %.1f s: allow %.1f s", what,
            needed_ms / 1000, convergence->limits.deadline_ms / 1e3, left_ms / 1e3,
            (convergence->limits.deadline_ms - left_ms + needed_ms) / 1000);
    return CONVERGENCE_GIVE_UP;
}

/* The first round must end whatever comes after. Zero pages cost nothing, so its own pace counts where that is better. */
static enum convergence_verdict first_round_in_time(struct convergence *convergence)
{
    const struct convergence_sample *last = &convergence->forecast.last;
    uint32_t left_ms = time_left(convergence, last->elapsed_ms);
    uint64_t ms = last->now_ms - convergence->first_ms;
    double rate = (double)last->memory_rate, needed;

    if (ms > 0 && last->memory_left < convergence->first_left) {
        double pace = (double)(convergence->first_left - last->memory_left) * 1000 / (double)ms;

        rate = pace > rate ? pace : rate;
    }
    needed = rate > 0 ? (double)last->memory_left * 1000 / rate : 0;
    if (ms >= FIRST_ROUND_MS && needed > left_ms) {
        return miss_deadline(convergence, "the first round of memory", needed, left_ms);
    }
    return CONVERGENCE_GO_ON;
}

/* GO_ON: there is time, or no deadline. */
static enum convergence_verdict judge_deadline(struct convergence *convergence)
{
    const struct convergence_limits *limits = &convergence->limits;
    const struct convergence_sample *last = &convergence->forecast.last;
    uint32_t pause = convergence->longest_downtime_ms;
    uint32_t left_ms = time_left(convergence, last->elapsed_ms);
    bool quick_fits = limits->mode != CONVERGENCE_LIVE && pause <= limits->max_quick_downtime_ms;

    if (limits->deadline_ms == 0) {
        return CONVERGENCE_GO_ON;
    }
    if (last->round < 2) {
        return first_round_in_time(convergence);
    }
    if (left_ms <= last->fixed_ms || (quick_fits && pause > left_ms)) {
        return miss_deadline(convergence, quick_fits ? "the pause of quick" : "a pause", pause,
                             left_ms);
    }
    if (quick_fits && (double)pause * 1.25 + DEADLINE_SPARE_MS >= left_ms) {
        because(convergence,
                "--deadline of %.1f s leaves %.1f s, and the pause takes %u ms: quick, now "
                "(limit %u ms)",
                limits->deadline_ms / 1e3, left_ms / 1e3, pause, limits->max_quick_downtime_ms);
        return after_pass(convergence, limits->mode == CONVERGENCE_QUICK ? CONVERGENCE_SWITCH_OVER
                                                                         : CONVERGENCE_FALL_BACK);
    }
    return CONVERGENCE_GO_ON;
}

bool convergence_disks_in_time(struct convergence *convergence, uint64_t elapsed_ms,
                               uint64_t disk_left, uint64_t disk_rate)
{
    uint32_t left_ms = time_left(convergence, elapsed_ms);
    double needed = disk_rate ? (double)disk_left * 1000 / (double)disk_rate : 0;

    if (convergence->limits.deadline_ms == 0 || (left_ms > 0 && needed <= left_ms)) {
        return true;
    }
    miss_deadline(convergence, "copying the disks", needed, left_ms);
    return false;
}

/* --- the step --- */

static enum convergence_verdict judge_quick(struct convergence *convergence)
{
    const struct forecast *forecast = &convergence->forecast;

    if (convergence->round == 2 &&
        forecast->last.now_ms - forecast->round_started_ms < CONVERGENCE_SHOWN_MS &&
        convergence->longest_downtime_ms > convergence->limits.max_downtime_ms) {
        return CONVERGENCE_GO_ON;
    }
    if (convergence->longest_downtime_ms <= convergence->limits.max_quick_downtime_ms) {
        because(convergence,
                "quick: a live round is done; the rest is predicted to take %u ms (limit %u ms)",
                convergence->predicted_downtime_ms, convergence->limits.max_quick_downtime_ms);
        return after_pass(convergence, CONVERGENCE_SWITCH_OVER);
    }
    return is_stalled(convergence) ? give_up(convergence) : CONVERGENCE_GO_ON;
}

static enum convergence_verdict judge_ladder(struct convergence *convergence)
{
    uint32_t longest = convergence->longest_downtime_ms;
    enum convergence_verdict verdict;

    /* The longest, not the likely one, while rounds become shorter: where they differ they do so fast, and one more costs little. */
    if (longest <= convergence->limits.max_downtime_ms ||
        (is_stalled(convergence) &&
         convergence->predicted_downtime_ms <= convergence->limits.max_downtime_ms)) {
        because(convergence,
                "what is left fits: %u ms predicted, %u ms at most, limit %u ms (round %llu)",
                convergence->predicted_downtime_ms, longest, convergence->limits.max_downtime_ms,
                (unsigned long long)convergence->round);
        return after_pass(convergence, CONVERGENCE_SWITCH_OVER);
    }
    verdict = judge_deadline(convergence);
    if (verdict != CONVERGENCE_GO_ON) {
        return verdict;
    }
    if (convergence->quick_due) {
        return fall_back(convergence);
    }
    return is_stalled(convergence) ? next_rung(convergence) : CONVERGENCE_GO_ON;
}

enum convergence_verdict convergence_step(struct convergence *convergence,
                                          const struct convergence_sample *sample)
{
    enum convergence_verdict verdict;

    if (convergence->forecast.last.round == 0) {
        convergence->first_ms = sample->now_ms;
        convergence->first_left = sample->memory_left;
    }
    forecast_note(&convergence->forecast, sample);
    note_round(convergence, sample);
    note_pass(convergence, sample);
    note_disks(convergence, sample);
    note_storm(convergence, sample);
    note_throttle(convergence, sample);
    convergence->predicted_downtime_ms = forecast_pause(&convergence->forecast);
    convergence->longest_downtime_ms = forecast_longest_pause(&convergence->forecast);
    if (convergence->predicted_downtime_ms < convergence->round_best_ms) {
        convergence->round_best_ms = convergence->predicted_downtime_ms;
    }
    if (convergence->limits.deadline_ms > 0 && time_left(convergence, sample->elapsed_ms) == 0) {
        return miss_deadline(convergence, "what is left", convergence->longest_downtime_ms, 0);
    }
    if (sample->round < 2) {
        verdict = judge_deadline(convergence);
        return verdict == CONVERGENCE_GO_ON ? judge_first_round(convergence) : verdict;
    }
    if (convergence->limits.mode != CONVERGENCE_QUICK) {
        return judge_ladder(convergence);
    }
    verdict = judge_quick(convergence);
    return verdict == CONVERGENCE_GO_ON ? judge_deadline(convergence) : verdict;
}

bool convergence_fits(const struct convergence *convergence, uint32_t limit_ms)
{
    return forecast_data(&convergence->forecast) <= limit_ms;
}

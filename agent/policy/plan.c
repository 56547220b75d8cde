#include "plan.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A series of rounds that takes more does not end, for all that can be said. */
#define ROUNDS_MAX 100
/* A round is shorter than the one before if it is so by a twentieth: convergence.c counts progress the same way. */
#define PROGRESS 0.95
/* Bytes a millisecond that a guest may write in a burst (forecast.c). */
#define BURST 2e6
/* Between two looks no round is shorter. */
#define ROUND_MIN_MS 20.0
/* The share of a link that disk writes must leave for memory to get anywhere. */
#define LEFT_FOR_MEMORY 0.05
/* A disk pass begins when so much is dirty, or anything for so long (source_disk.c). */
#define PASS_WORTH_BYTES 1048576.0
#define PASS_WORTH_MS 1000.0
/* Memory begins when the disks need no longer than this part of the allowed downtime, or after so many passes (source_disk.c). */
#define READY_PART 4
#define PASSES_MAX 8
/* So long quick looks at the second round before it pauses the guest (convergence.h). */
#define QUICK_SHOWN_MS 1500.0
/* Of busy link: less shows little, as zstd and TCP have hardly settled. */
#define BUSY_MS_GOOD 1500
/* A pause predicted to be nearer to its limit may as well miss it. */
#define NEAR_THE_LIMIT 0.75
/* What is advised to be allowed is more than what is predicted: half as much again, whole seconds. */
#define ROOM 1.5
#define UNKNOWN_MS 4294967295.0

/* --- dirty memory --- */

/* The exponent of bytes over time at short periods: 1 where pages are always new ones, 0 where they are always the same. */
static double exponent(const struct plan_measures *measures)
{
    const struct plan_dirty *first = &measures->dirty[0], *second = &measures->dirty[1];
    double value;

    if (measures->dirty_count < 2 || first->bytes == 0) {
        return 0.5;
    }
    value = log((double)second->bytes / (double)first->bytes) /
            log((double)second->ms / (double)first->ms);
    return value < 0 ? 0 : value > 1 ? 1 : value;
}

static double shorter_than_measured(const struct plan_measures *measures, double ms)
{
    double bytes = (double)measures->dirty[0].bytes;

    if (ms <= 0) {
        return 0;
    }
    bytes *= pow(ms / measures->dirty[0].ms, exponent(measures));
    return bytes < ms * BURST ? bytes : ms * BURST;
}

/* What was measured, never less than at a shorter period: a sample may miss what the one before had seen. */
static double measured(const struct plan_measures *measures, size_t index)
{
    uint64_t most = 0;

    for (size_t i = 0; i <= index; i++) {
        most = measures->dirty[i].bytes > most ? measures->dirty[i].bytes : most;
    }
    return (double)most;
}

static double on_a_line(double ms, double from_ms, double from, double to_ms, double to)
{
    return from + (to - from) * (ms - from_ms) / (to_ms - from_ms);
}

double plan_dirty_bytes(const struct plan_measures *measures, double ms)
{
    size_t count = measures->dirty_count, i = 0;
    double bytes, most = (double)measures->memory_bytes;

    if (count == 0) {
        return 0;
    }
    while (i < count && (double)measures->dirty[i].ms < ms) {
        i++;
    }
    if (i == 0) {
        bytes = shorter_than_measured(measures, ms);
    } else {
        /* Longer than all that was measured: as it went on lately. */
        size_t to = i < count ? i : count - 1;
        double from_ms = to > 0 ? measures->dirty[to - 1].ms : 0;
        double from = to > 0 ? measured(measures, to - 1) : 0;

        bytes = on_a_line(ms, from_ms, from, measures->dirty[to].ms, measured(measures, to));
    }
    return bytes < most ? bytes : most;
}

/* --- the model of a migration --- */

struct model {
    const struct plan_measures *measures;
    double slower; /* 1: not throttled */
    double memory_ratio, dirty_ratio, worst_ratio, disk_ratio;
    double link,
        link_beside;    /* bytes/ms on the wire; what the guest's writes to its disks leave of it */
    double disk_writes; /* bytes/ms */
    double disk_rate;   /* bytes/ms, when it has the link for itself */
    double disks_left;  /* bytes that the passes before memory leave */
    double total_ms, wire_bytes;
};

/* How well the pages shrink that become dirty. */
enum shrinking {
    AT_BEST, /* as all of memory */
    LIKELY,
    AT_WORST, /* as badly as any */
};

static double dirty_ratio(const struct model *model, enum shrinking shrinking)
{
    switch (shrinking) {
    case AT_BEST:
        return model->memory_ratio;
    case AT_WORST:
        return model->worst_ratio;
    case LIKELY:
        break;
    }
    return sqrt(model->memory_ratio *
                model->worst_ratio); /* as forecast.c does with how much is dirty */
}

static struct model model_of(const struct plan_measures *measures, uint32_t throttle,
                             enum shrinking shrinking)
{
    struct model model = {.measures = measures, .slower = 1 - throttle / 100.0};

    model.memory_ratio = measures->memory_ratio > 0 ? measures->memory_ratio : 1;
    model.worst_ratio =
        measures->worst_ratio > model.memory_ratio ? measures->worst_ratio : model.memory_ratio;
    model.dirty_ratio = dirty_ratio(&model, shrinking);
    model.disk_ratio = measures->disk_ratio > 0 ? measures->disk_ratio : 1;
    model.link = (double)measures->link_rate / 1000;
    model.disk_writes = (double)measures->disk_write_rate / 1000 * model.slower;
    model.disk_rate =
        (measures->disk_link_rate ? (double)measures->disk_link_rate / 1000 : model.link) /
        model.disk_ratio;
    model.link_beside = model.link - model.disk_writes * model.disk_ratio;
    model.total_ms = measures->prepare_ms;
    return model;
}

static double dirty_after(const struct model *model, double ms)
{
    return plan_dirty_bytes(model->measures, ms * model->slower);
}

static void carry(struct model *model, double ms, double bytes, double ratio)
{
    model->total_ms += ms;
    model->wire_bytes += bytes * ratio;
}

/* The bulk pass, and passes until what is left is small beside the pause. */
static void carry_disks(struct model *model, uint32_t pause_limit_ms)
{
    double left = (double)model->measures->disk_bytes, ms;
    double small = (double)pause_limit_ms / READY_PART * model->disk_rate;

    small = small > PASS_WORTH_BYTES ? small : PASS_WORTH_BYTES;
    for (int pass = 0; pass <= PASSES_MAX; pass++) {
        double before = left;

        ms = left / model->disk_rate + (pass > 0 ? model->measures->pass_ms : 0);
        carry(model, ms, left, model->disk_ratio);
        left = model->disk_writes * ms;
        model->disks_left = left;
        if (left <= small || left >= before) {
            return;
        }
    }
}

/* Its data over the link that is free while memory goes; 0 bytes take none. */
static void carry_writes_beside(struct model *model, double ms)
{
    model->wire_bytes += model->disk_writes * ms * model->disk_ratio;
}

/* The guest writes to its disks as fast as the link carries it. */
static bool is_storm(const struct model *model)
{
    return model->link_beside <= LEFT_FOR_MEMORY * model->link;
}

/* What the last pass has to carry. */
static double last_pass(const struct model *model)
{
    double second = model->disk_writes * PASS_WORTH_MS;
    double due = PASS_WORTH_BYTES + model->disk_writes * model->measures->pass_ms;

    if (is_storm(model)) {
        return model->disks_left;
    }
    return second < due ? second : due;
}

static double pause_with(const struct model *model, double dirty, double ratio)
{
    double memory_ms = dirty * ratio / model->link;

    return last_pass(model) / model->disk_rate +
           (memory_ms > model->measures->pass_ms ? memory_ms : model->measures->pass_ms) +
           model->measures->fixed_ms;
}

static uint32_t whole(double ms)
{
    return ms < UNKNOWN_MS ? (uint32_t)ceil(ms) : UINT32_MAX;
}

static struct plan_prediction ending(struct model *model, uint32_t rounds, double dirty)
{
    double pause = pause_with(model, dirty, model->dirty_ratio);

    carry(model, pause, dirty, model->dirty_ratio);
    model->wire_bytes += last_pass(model) * model->disk_ratio;
    return (struct plan_prediction){.is_known = true,
                                    .ends = true,
                                    .total_ms = whole(model->total_ms),
                                    .rounds = rounds,
                                    .downtime_ms = whole(pause),
                                    .wire_bytes = (uint64_t)model->wire_bytes};
}

static bool can_predict(const struct plan_measures *measures)
{
    return measures->link_rate > 0 && measures->dirty_count > 0;
}

/* Milliseconds of a round that carries BYTES. */
static double round_ms(const struct model *model, double bytes, double ratio)
{
    double ms = bytes * ratio / (is_storm(model) ? model->link : model->link_beside);

    return ms > ROUND_MIN_MS ? ms : ROUND_MIN_MS;
}

/* Live with the guest's vCPUs and writes slowed down by THROTTLE per cent. */
static struct plan_prediction predict_live(const struct plan_measures *measures,
                                           const struct plan_limits *limits, uint32_t throttle,
                                           enum shrinking shrinking)
{
    struct model model = model_of(measures, throttle, shrinking);
    struct plan_prediction never = {.is_known = true};
    double left = (double)measures->first_round, best = UNKNOWN_MS;
    double longest_ratio = shrinking == AT_BEST ? model.dirty_ratio : model.worst_ratio;

    if (!can_predict(measures)) {
        return (struct plan_prediction){0};
    }
    if (is_storm(&model)) {
        never.downtime_ms = UINT32_MAX;
        return never;
    }
    carry_disks(&model, limits->max_downtime_ms);
    for (uint32_t round = 1; round <= ROUNDS_MAX; round++) {
        double ratio = round == 1 ? model.memory_ratio : model.dirty_ratio;
        double ms = round_ms(&model, left, ratio), dirty = dirty_after(&model, ms);
        double pause = pause_with(&model, dirty, model.dirty_ratio);
        bool is_stalled = round > 1 && dirty >= PROGRESS * left;

        carry(&model, ms, left, ratio);
        carry_writes_beside(&model, ms);
        /* As convergence.c decides: by the longest pause while rounds get shorter, by the likely one when they do not. */
        if (pause_with(&model, dirty, longest_ratio) <= limits->max_downtime_ms ||
            (is_stalled && pause <= limits->max_downtime_ms)) {
            return ending(&model, round, dirty);
        }
        best = pause < best ? pause : best;
        never.rounds = round;
        if (is_stalled) {
            break;
        }
        left = dirty;
    }
    never.downtime_ms = whole(best);
    return never;
}

/* What is dirty when quick pauses the guest, if DIRTY was at the end of the first round: it looks at the second one for a moment, *MS, or to its
 * end. */
static double dirty_at_pause(const struct model *model, double dirty, double *ms)
{
    double round = round_ms(model, dirty, model->dirty_ratio);
    double left;

    *ms = round < QUICK_SHOWN_MS ? round : QUICK_SHOWN_MS;
    left = dirty * (1 - *ms / round) + dirty_after(model, *ms);
    return left < dirty ? left : dirty;
}

static struct plan_prediction predict_quick(const struct plan_measures *measures)
{
    struct model model = model_of(measures, 0, LIKELY), worst = model_of(measures, 0, AT_WORST);
    struct plan_prediction prediction;
    double ms, dirty, left, moment;

    if (!can_predict(measures)) {
        return (struct plan_prediction){0};
    }
    carry_disks(&model, 1000);
    ms = round_ms(&model, (double)measures->first_round, model.memory_ratio);
    carry(&model, ms, (double)measures->first_round, model.memory_ratio);
    carry_writes_beside(&model, ms);
    dirty = dirty_after(&model, ms);
    left = dirty_at_pause(&model, dirty, &moment);
    carry(&model, moment, fmin(moment * model.link, dirty * model.dirty_ratio), 1);
    carry_writes_beside(&model, moment);
    prediction = ending(&model, 2, left);
    worst.disks_left = model.disks_left;
    left = dirty_at_pause(&worst, dirty, &moment);
    prediction.longest_ms = whole(pause_with(&worst, left, worst.dirty_ratio));
    return prediction;
}

/* --- what to say --- */

static void say(char reason[PLAN_REASON_SIZE], const char *text, ...)
    __attribute__((format(printf, 2, 3)));
static void say(char reason[PLAN_REASON_SIZE], const char *text, ...)
{
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(reason, PLAN_REASON_SIZE, text, arguments);
    va_end(arguments);
}

static bool is_near(uint32_t ms, uint32_t limit_ms)
{
    return ms <= limit_ms && (double)ms > NEAR_THE_LIMIT * (double)limit_ms;
}

static enum plan_confidence judge(const struct plan_measures *measures,
                                  const struct plan_limits *limits, struct plan *plan)
{
    char *reason = plan->confidence_reason;

    if (measures->link_rate == 0) {
        say(reason,
            "what the link carries is not known: a trial measures it, or give it with --link RATE");
        return PLAN_NO_CONFIDENCE;
    }
    if (measures->dirty_count == 0) {
        say(reason, "how fast memory becomes dirty could not be measured");
        return PLAN_NO_CONFIDENCE;
    }
    if (measures->link_given) {
        say(reason,
            "the link's rate was given, not measured, and everything is taken not to compress");
        return PLAN_LOW;
    }
    if (measures->link_busy_ms < BUSY_MS_GOOD) {
        say(reason, "the trial kept the link busy for only %.1f s", measures->link_busy_ms / 1e3);
        return PLAN_FAIR;
    }
    if (predict_live(measures, limits, 0, AT_BEST).ends !=
        predict_live(measures, limits, 0, AT_WORST).ends) {
        say(reason,
            "whether live comes to its end hangs on how well the pages shrink that become dirty");
        return PLAN_FAIR;
    }
    if (plan->live.ends && is_near(plan->live.downtime_ms, limits->max_downtime_ms)) {
        say(reason, "the predicted pause of %u ms is near the limit of %u ms",
            plan->live.downtime_ms, limits->max_downtime_ms);
        return PLAN_FAIR;
    }
    say(reason, "guest, disks and link were measured, the link for %.1f s",
        measures->link_busy_ms / 1e3);
    return PLAN_GOOD;
}

static bool in_time(const struct plan_prediction *prediction, const struct plan_limits *limits)
{
    return prediction->ends &&
           (limits->deadline_ms == 0 || prediction->total_ms <= limits->deadline_ms);
}

/* MS with room, in whole seconds. */
static uint32_t with_room(uint32_t ms)
{
    return ms > UINT32_MAX / 2 ? UINT32_MAX : ((uint32_t)(ms * ROOM) / 1000 + 1) * 1000;
}

static enum plan_advice advise_quick(const struct plan_limits *limits, struct plan *plan)
{
    const struct plan_prediction *quick = &plan->quick;
    const char *live =
        plan->live.ends ? "live takes longer than the deadline" : "live does not come to its end";

    if (!in_time(quick, limits)) {
        plan->needed_ms = with_room(quick->total_ms);
        say(plan->advice_reason, "%s, and quick takes %.1f s, --deadline allows %.1f s", live,
            quick->total_ms / 1e3, limits->deadline_ms / 1e3);
        return PLAN_ADVISE_MORE_TIME;
    }
    if (quick->longest_ms > limits->max_quick_downtime_ms) {
        plan->needed_ms = with_room(quick->longest_ms);
        say(plan->advice_reason,
            "%s; quick pauses the guest for %.1f s, %.1f s at most, and %.1f s are allowed",
            limits->mode == PLAN_QUICK ? "quick was asked for" : live, quick->downtime_ms / 1e3,
            quick->longest_ms / 1e3, limits->max_quick_downtime_ms / 1e3);
        return PLAN_ADVISE_LONGER_PAUSE;
    }
    say(plan->advice_reason, "%s; quick pauses the guest for %.1f s, %.1f s at most",
        limits->mode == PLAN_QUICK ? "quick was asked for" : live, quick->downtime_ms / 1e3,
        quick->longest_ms / 1e3);
    return PLAN_ADVISE_QUICK;
}

static enum plan_advice advise_live_only(const struct plan_limits *limits, struct plan *plan)
{
    const struct plan_prediction *live = &plan->live;

    if (live->ends) {
        plan->needed_ms = with_room(live->total_ms);
        say(plan->advice_reason, "live takes %.1f s, --deadline allows %.1f s",
            live->total_ms / 1e3, limits->deadline_ms / 1e3);
        return PLAN_ADVISE_MORE_TIME;
    }
    if (live->downtime_ms == UINT32_MAX) {
        say(plan->advice_reason,
            "what the guest writes to its disks takes all that the link carries");
        return PLAN_ADVISE_LONGER_PAUSE;
    }
    plan->needed_ms = with_room(live->downtime_ms);
    say(plan->advice_reason, "the shortest pause would be %u ms, and --max-downtime allows %u ms",
        live->downtime_ms, limits->max_downtime_ms);
    return PLAN_ADVISE_LONGER_PAUSE;
}

/* Live may come to its end; and if it does not, quick is no harm. */
static bool is_worth_a_try(const struct plan_measures *measures, const struct plan_limits *limits,
                           const struct plan *plan)
{
    struct plan_prediction best = predict_live(measures, limits, 0, AT_BEST);

    return limits->mode == PLAN_AUTO && in_time(&best, limits) && in_time(&plan->quick, limits) &&
           plan->quick.longest_ms <= limits->max_quick_downtime_ms;
}

static enum plan_advice advise(const struct plan_measures *measures,
                               const struct plan_limits *limits, struct plan *plan)
{
    if (!plan->quick.is_known) {
        say(plan->advice_reason, "%s", plan->confidence_reason);
        return PLAN_ADVISE_NOTHING;
    }
    if (limits->mode == PLAN_QUICK) {
        return advise_quick(limits, plan);
    }
    if (in_time(&plan->live, limits)) {
        say(plan->advice_reason, "live fits: a pause of %u ms after %u round%s of memory",
            plan->live.downtime_ms, plan->live.rounds, plan->live.rounds == 1 ? "" : "s");
        return PLAN_ADVISE_LIVE;
    }
    if (is_worth_a_try(measures, limits, plan)) {
        say(plan->advice_reason,
            "live may fit, which only the attempt shows; else quick pauses the guest for %.1f s, %.1f s at most",
            plan->quick.downtime_ms / 1e3, plan->quick.longest_ms / 1e3);
        return PLAN_ADVISE_TRY;
    }
    if (limits->max_throttle > 0 && in_time(&plan->throttled, limits)) {
        say(plan->advice_reason,
            "live fits with the guest slowed down by up to %u %%: a pause of %u ms",
            limits->max_throttle, plan->throttled.downtime_ms);
        return PLAN_ADVISE_THROTTLED;
    }
    return limits->mode == PLAN_LIVE ? advise_live_only(limits, plan) : advise_quick(limits, plan);
}

void plan_make(const struct plan_measures *measures, const struct plan_limits *limits,
               struct plan *plan)
{
    memset(plan, 0, sizeof *plan);
    plan->live = predict_live(measures, limits, 0, LIKELY);
    plan->throttled = predict_live(measures, limits, limits->max_throttle, LIKELY);
    plan->quick = predict_quick(measures);
    plan->confidence = judge(measures, limits, plan);
    plan->advice = advise(measures, limits, plan);
}

const char *plan_confidence_word(enum plan_confidence confidence)
{
    static const char *const words[] = {"none", "low", "fair", "good"};

    return words[confidence];
}

const char *plan_advice_word(enum plan_advice advice)
{
    static const char *const words[] = {
        [PLAN_ADVISE_NOTHING] = "unknown",    [PLAN_ADVISE_LIVE] = "live",
        [PLAN_ADVISE_TRY] = "try-live",       [PLAN_ADVISE_THROTTLED] = "live-throttled",
        [PLAN_ADVISE_QUICK] = "quick",        [PLAN_ADVISE_LONGER_PAUSE] = "longer-pause",
        [PLAN_ADVISE_MORE_TIME] = "more-time"};

    return words[advice];
}

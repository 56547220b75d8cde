/*
 * What a plan tells: its findings, what was measured, and what agent/policy/plan.h makes of it, with the command to run.
 */
#include "plan_state.h"

#include "agent/common/must.h"
#include "agent/mover/orders.h"
#include "agent/policy/bandwidth.h"
#include "agent/policy/forecast.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What nobody has measured yet: making disks and starting a QEMU over there, and what a disk pass costs besides its data. */
#define PREPARE_MS 1000
#define PASS_MS 30
/* Its exports and bitmaps are made over QMP; with the destination it needs these. */
#define PASS_ROUND_TRIPS 4

/* --- the command --- */

/* As a shell takes it for one word. */
static void add_word(FILE *out, const char *word)
{
    bool plain = *word != '\0';

    for (const char *at = word; *at; at++) {
        plain = plain && (isalnum((unsigned char)*at) || strchr("_.:/=+@%,-", *at));
    }
    if (plain) {
        fprintf(out, " %s", word);
        return;
    }
    fputs(" '", out);
    for (const char *at = word; *at; at++) {
        if (*at == '\'') {
            fputs("'\\''", out);
        } else {
            fputc(*at, out);
        }
    }
    fputs("'", out);
}

static void add_disks(FILE *out, const struct migrate_request *request)
{
    for (size_t i = 0; i < request->disk_count; i++) {
        char *word = must_format("%s=%s", request->disks[i].device, request->disks[i].target);

        fprintf(out, " --disk");
        add_word(out, word);
        free(word);
    }
}

/* A limit that is not the default of control_migrate.h. */
static void add_time(FILE *out, const char *option, uint32_t ms, uint32_t usual_ms)
{
    if (ms != usual_ms) {
        fprintf(out, " %s %ums", option, (unsigned)ms);
    }
}

static void add_mode(FILE *out, const struct migrate_request *request, bool quick)
{
    if (quick) {
        fprintf(out, " --mode quick");
    } else if (request->mode == MIGRATION_LIVE) {
        fprintf(out, " --mode live");
    }
}

static void add_compress(FILE *out, const struct migrate_request *request)
{
    if (request->compress_auto) {
        return;
    }
    if (request->level == ORDER_LEVEL_OFF) {
        fprintf(out, " --compress off");
    } else {
        fprintf(out, " --compress %d", (int)request->level);
    }
}

static void add_rate(FILE *out, const char *option, uint64_t rate)
{
    if (rate == BANDWIDTH_NO_LIMIT) {
        fprintf(out, " %s none", option);
    } else {
        fprintf(out, " %s %llubit", option, (unsigned long long)rate * 8);
    }
}

/* What was asked for, with what ADVICE changes in it. NULL: there is none that would do. */
static char *command_of(const struct planning *planning, const struct plan *plan)
{
    struct migrate_request request = planning->request.migrate;
    bool live_only = request.mode == MIGRATION_LIVE;
    bool quick = request.mode == MIGRATION_QUICK || plan->advice == PLAN_ADVISE_QUICK ||
                 (plan->advice == PLAN_ADVISE_LONGER_PAUSE && !live_only) ||
                 (plan->advice == PLAN_ADVISE_MORE_TIME && !plan->live.ends);
    char *command = NULL;
    size_t size;
    FILE *out;

    if (plan->advice == PLAN_ADVISE_NOTHING ||
        (plan->needed_ms == 0 && plan->advice == PLAN_ADVISE_LONGER_PAUSE)) {
        return NULL;
    }
    if (plan->advice == PLAN_ADVISE_LONGER_PAUSE) {
        *(quick ? &request.max_quick_downtime_ms : &request.max_downtime_ms) = plan->needed_ms;
    } else if (plan->advice == PLAN_ADVISE_MORE_TIME) {
        request.deadline_ms = plan->needed_ms;
    }
    out = open_memstream(&command, &size);
    if (!out) {
        return NULL; /* no memory: there is still all the rest to tell */
    }
    fprintf(out, "watari migrate");
    add_word(out, request.vm);
    fprintf(out, " --to");
    add_word(out, request.peer);
    add_mode(out, &request, quick);
    add_time(out, "--max-downtime", request.max_downtime_ms, MIGRATE_MAX_DOWNTIME_MS);
    add_time(out, "--max-quick-downtime", request.max_quick_downtime_ms,
             MIGRATE_MAX_QUICK_DOWNTIME_MS);
    add_time(out, "--reconnect-timeout", request.reconnect_timeout_ms,
             MIGRATE_RECONNECT_TIMEOUT_MS);
    add_time(out, "--deadline", request.deadline_ms, 0);
    if (request.max_throttle != MIGRATE_MAX_THROTTLE) {
        fprintf(out, " --max-throttle %u", (unsigned)request.max_throttle);
    }
    if (request.max_bandwidth != BANDWIDTH_NO_LIMIT) {
        add_rate(out, "--max-bandwidth", request.max_bandwidth);
    }
    if (request.switchover_bandwidth != SWITCHOVER_AS_EVER) {
        add_rate(out, "--switchover-bandwidth", request.switchover_bandwidth);
    }
    add_compress(out, &request);
    if (request.lanes) {
        fprintf(out, " --lanes %u", (unsigned)request.lanes);
    }
    if (request.verify) {
        fprintf(out, " --verify");
    }
    add_disks(out, &request);
    fclose(out);
    return command;
}

/* --- what was measured --- */

static json_t *number_or_null(bool known, uint64_t number)
{
    return known ? must_json(json_integer((json_int_t)number)) : json_null();
}

static uint64_t disk_bytes(const struct planning *planning, bool allocated)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < planning->inspection.disk_count; i++) {
        const struct inspected_disk *disk = &planning->inspection.disks[i];

        bytes += disk->read_only ? 0 : allocated ? disk->allocated : disk->size;
    }
    return bytes;
}

static json_t *dirty_list(const struct guest_pace_result *written)
{
    json_t *list = must_json(json_array());

    for (size_t i = 0; i < written->dirty_count; i++) {
        json_array_append_new(list,
                              must_json(json_pack("{sI,sI}", "ms", (json_int_t)written->dirty[i].ms,
                                                  "bytes", (json_int_t)written->dirty[i].bytes)));
    }
    return list;
}

static json_t *memory_object(const struct planning *planning)
{
    return must_json(json_pack("{sI,so,so}", "bytes", (json_int_t)planning->inspection.memory_bytes,
                               "used", number_or_null(planning->is_paced, planning->memory_used),
                               "dirty", dirty_list(&planning->written)));
}

static const json_t *shown_of(const struct planning *planning, const char *what)
{
    return json_object_get(json_object_get(planning->shown, "trial"), what);
}

/* 0 where it is null, or there was no trial. */
static uint64_t shown_integer(const json_t *object, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* The trial counts each block once. */
static uint64_t disk_write_rate(const struct planning *planning)
{
    const json_t *disk = shown_of(planning, "disk");

    return json_is_integer(json_object_get(disk, "write_rate")) ? shown_integer(disk, "write_rate")
                                                                : planning->written.disk_write_rate;
}

static uint64_t link_rate(const struct planning *planning)
{
    uint64_t memory = shown_integer(shown_of(planning, "memory"), "link_rate");
    uint64_t disk = shown_integer(shown_of(planning, "disk"), "link_rate");

    return memory ? memory : disk ? disk : planning->request.link_rate;
}

/*
 * Bytes of memory that are not zero. What the trial has seen of it counts as it was. Of the rest it is known what QEMU has touched, which may
 * be zero all the same; the more was seen, the more the rest is taken to be like that.
 */
static uint64_t first_round(const struct planning *planning)
{
    const json_t *memory = shown_of(planning, "memory");
    double all = (double)planning->inspection.memory_bytes;
    double used = (double)planning->memory_used;
    double seen = (double)shown_integer(memory, "seen");
    double full = (double)shown_integer(memory, "bytes"), weight, share, bytes;

    if (seen <= 0 || seen >= all) {
        return planning->memory_used;
    }
    weight = seen < all / 2 ? seen / (all / 2) : 1;
    share = weight * full / seen + (1 - weight) * used / all;
    bytes = full + (all - seen) * share;
    return (uint64_t)(bytes < used ? bytes : used);
}

static struct plan_measures measures_of(const struct planning *planning)
{
    const json_t *disk = shown_of(planning, "disk"), *memory = shown_of(planning, "memory");
    uint64_t disk_link_rate = shown_integer(disk, "link_rate");
    uint64_t memory_link_rate = shown_integer(memory, "link_rate");
    uint64_t round_trip_ns = planning->round_trip_ns == UINT64_MAX ? 0 : planning->round_trip_ns;
    struct plan_measures measures = {
        .memory_bytes = planning->inspection.memory_bytes,
        .first_round = first_round(planning),
        .dirty_count = planning->written.dirty_count,
        .disk_bytes = disk_bytes(planning, true),
        .disk_write_rate = disk_write_rate(planning),
        .link_rate = link_rate(planning),
        .disk_link_rate = disk_link_rate,
        .link_given = disk_link_rate == 0 && memory_link_rate == 0,
        .memory_ratio = json_number_value(json_object_get(memory, "ratio")),
        .worst_ratio = json_number_value(json_object_get(memory, "worst_ratio")),
        .disk_ratio = json_number_value(json_object_get(disk, "ratio")),
        .prepare_ms = PREPARE_MS,
        .fixed_ms = forecast_fixed_ms(planning->sync_ns, round_trip_ns, FORECAST_ANSWER_NS),
    };

    if (planning->shown) {
        measures.prepare_ms =
            (uint32_t)shown_integer(json_object_get(planning->shown, "trial"), "prepare_ms");
        measures.link_busy_ms =
            (uint32_t)(shown_integer(json_object_get(planning->shown, "trial"), "disk_ms") +
                       shown_integer(memory, "ms"));
    }
    measures.pass_ms = (uint32_t)(PASS_MS + shown_integer(disk, "flush_us") / 1000 +
                                  PASS_ROUND_TRIPS * round_trip_ns / 1000000);
    memcpy(measures.dirty, planning->written.dirty, sizeof measures.dirty);
    return measures;
}

static json_t *disk_object(const struct planning *planning)
{
    const json_t *disk = shown_of(planning, "disk");
    json_t *object =
        must_json(json_pack("{sI,sI,so}", "bytes", (json_int_t)disk_bytes(planning, false),
                            "allocated", (json_int_t)disk_bytes(planning, true), "write_rate",
                            number_or_null(planning->is_paced, disk_write_rate(planning))));

    json_object_set_new(
        object, "flush_us",
        number_or_null(shown_integer(disk, "flush_us") > 0, shown_integer(disk, "flush_us")));
    return object;
}

static json_t *copy_or_null(const json_t *value)
{
    return value ? must_json(json_deep_copy(value)) : json_null();
}

static json_t *link_object(const struct planning *planning)
{
    const json_t *disk = shown_of(planning, "disk"), *memory = shown_of(planning, "memory");
    bool timed = planning->round_trip_ns != UINT64_MAX;
    bool tried = shown_integer(memory, "link_rate") || shown_integer(disk, "link_rate");
    uint64_t rate = link_rate(planning);

    return must_json(json_pack(
        "{so,ss?,so,so,so,so}", "rate", number_or_null(rate > 0, rate), "how",
        tried  ? "trial"
        : rate ? "given"
               : NULL,
        "round_trip_us", number_or_null(timed, timed ? planning->round_trip_ns / 1000 : 0),
        "disk_rate", copy_or_null(json_object_get(disk, "link_rate")), "memory_ratio",
        copy_or_null(json_object_get(memory, "ratio")), "disk_ratio",
        copy_or_null(json_object_get(disk, "ratio"))));
}

/* What it cost. */
static json_t *trial_object(const struct planning *planning)
{
    if (!planning->shown) {
        return json_null();
    }
    return must_json(json_pack("{sO,sO,sO,sO}", "total_ms",
                               json_object_get(planning->shown, "total_ms"), "wire_bytes",
                               json_object_get(planning->shown, "wire_bytes"), "disk_bytes",
                               json_object_get(shown_of(planning, "disk"), "bytes"), "memory_bytes",
                               json_object_get(shown_of(planning, "memory"), "bytes")));
}

static struct plan_limits limits_of(const struct migrate_request *request)
{
    static const enum plan_mode modes[] = {
        [MIGRATION_AUTO] = PLAN_AUTO, [MIGRATION_LIVE] = PLAN_LIVE, [MIGRATION_QUICK] = PLAN_QUICK};

    return (struct plan_limits){.mode = modes[request->mode],
                                .max_downtime_ms = request->max_downtime_ms,
                                .max_quick_downtime_ms = request->max_quick_downtime_ms,
                                .deadline_ms = request->deadline_ms,
                                .max_throttle = request->max_throttle};
}

/* --- what is predicted --- */

static json_t *prediction_object(const struct plan_prediction *prediction)
{
    bool downtime_known = prediction->downtime_ms != UINT32_MAX;

    if (!prediction->is_known) {
        return json_null();
    }
    return must_json(json_pack(
        "{sb,so,so,si,so}", "ends", prediction->ends, "total_ms",
        number_or_null(prediction->ends, prediction->total_ms), "downtime_ms",
        number_or_null(downtime_known, prediction->downtime_ms), "rounds", (int)prediction->rounds,
        "wire_bytes", number_or_null(prediction->ends, prediction->wire_bytes)));
}

static json_t *quick_object(const struct plan_prediction *quick)
{
    json_t *object = prediction_object(quick);

    if (quick->is_known) {
        json_object_set_new(object, "longest_ms",
                            must_json(json_integer((json_int_t)quick->longest_ms)));
    }
    return object;
}

static void add_prediction(const struct planning *planning, json_t *report)
{
    struct plan_measures measures = measures_of(planning);
    struct plan_limits limits = limits_of(&planning->request.migrate);
    struct plan plan;
    char *command;

    plan_make(&measures, &limits, &plan);
    command = command_of(planning, &plan);
    json_object_update_new(
        report,
        must_json(json_pack(
            "{s{so,so,so},s{ss,ss},s{ss,ss,ss?}}", "predicted", "live",
            prediction_object(&plan.live), "throttled", prediction_object(&plan.throttled), "quick",
            quick_object(&plan.quick), "confidence", "word", plan_confidence_word(plan.confidence),
            "reason", plan.confidence_reason, "recommendation", "word",
            plan_advice_word(plan.advice), "reason", plan.advice_reason, "command", command)));
    free(command);
}

json_t *plan_report(const struct planning *planning)
{
    json_t *report = must_json(json_pack(
        "{ss,si,ss,ss,sb,sO,s{so,so,so,so},so,sn,sn,sn}", "event", "plan", "schema", 1, "vm",
        planning->vm.name, "peer", planning->request.migrate.peer, "migratable", !planning->blocked,
        "findings", planning->findings, "measured", "memory",
        planning->is_inspected ? memory_object(planning) : json_null(), "disk",
        planning->is_inspected ? disk_object(planning) : json_null(), "link", link_object(planning),
        "sync_us", number_or_null(planning->sync_ns > 0, planning->sync_ns / 1000), "trial",
        trial_object(planning), "predicted", "confidence", "recommendation"));

    if (!planning->blocked && planning->is_paced) {
        add_prediction(planning, report);
    }
    return report;
}

/*
 * What the source adds to its migration's timeline (agent/common/timeline_file.h has the lines): what was asked for, what the controller
 * saw and decided, and the moments of the pause.
 */
#include "source_state.h"

#include "clock.h"
#include "daemon.h"
#include "qmp.h"

#include "agent/common/must.h"
#include "agent/policy/convergence_record.h"
#include "agent/policy/page_budget.h"


static json_t *known_or_null(uint32_t ms)
{
    return ms == FORECAST_UNKNOWN ? json_null() : must_json(json_integer(ms));
}

/* --- what was asked for --- */

static json_t *compression(const struct migrate_request *request)
{
    return request->compress_auto              ? must_json(json_string("auto"))
           : request->level == ORDER_LEVEL_OFF ? must_json(json_string("off"))
                                               : must_json(json_integer(request->level));
}

static json_t *request_object(const struct source *source)
{
    const struct migrate_request *request = &source->request;
    json_t *disks = must_json(json_object());

    for (size_t i = 0; i < request->disk_count; i++) {
        json_object_set_new(disks, request->disks[i].device,
                            must_json(message_text(request->disks[i].target)));
    }
    return must_json(json_pack(
        "{ss,sI,sI,sI,sI,sI,so,sI,sb,so}", "mode", source_mode_word(source), "max_downtime_ms",
        (json_int_t)request->max_downtime_ms, "max_quick_downtime_ms",
        (json_int_t)request->max_quick_downtime_ms, "reconnect_timeout_ms",
        (json_int_t)request->reconnect_timeout_ms, "deadline_ms", (json_int_t)request->deadline_ms,
        "max_throttle", (json_int_t)request->max_throttle, "compress", compression(request),
        "lanes", (json_int_t)request->lanes, "verify", request->verify, "disks", disks));
}

static json_t *settings_object(const struct config *config)
{
    json_t *page_cache = config->page_cache == PAGE_BUDGET_AUTO
                             ? json_string("auto")
                             : json_integer((json_int_t)config->page_cache);

    return must_json(json_pack("{sI,so,sI}", "in_flight_ms", (json_int_t)config->in_flight_ms,
                               "page_cache", must_json(page_cache), "patience_ms",
                               (json_int_t)config->patience_ms));
}

void source_record_begin(struct source *source)
{
    migration_record_begin(
        &source->migration, "begin",
        must_json(json_pack("{si,so,so}", "pid", (int)source->vm.pid, "request",
                            request_object(source), "settings",
                            settings_object(&source->migration.daemon->config))));
}

void source_record_vm(struct source *source)
{
    const struct inspection *inspection = &source->inspection;
    json_t *disks = must_json(json_array());
    char version[QMP_VERSION_SIZE];

    for (size_t i = 0; i < inspection->disk_count; i++) {
        const struct inspected_disk *disk = &inspection->disks[i];

        json_array_append_new(
            disks, must_json(json_pack("{so,ss?,sI,sI,sb}", "device",
                                       must_json(message_text(disk->device)), "format",
                                       disk->format, "size", (json_int_t)disk->size, "allocated",
                                       (json_int_t)disk->allocated, "throttled", disk->throttled)));
    }
    migration_record(
        &source->migration, TIMELINE_EVENT, "vm",
        must_json(json_pack("{ss,ss?,sI,so}", "qemu", qmp_version_text(source->qmp, version),
                            "machine", inspection->machine, "memory_bytes",
                            (json_int_t)inspection->memory_bytes, "disks", disks)));
}

/* --- the controller --- */

void source_record_limits(struct source *source, const struct convergence_limits *limits)
{
    migration_record(&source->migration, TIMELINE_EVENT, "limits",
                     must_json(convergence_limits_record(limits)));
}

static void record_decision(struct source *source, enum convergence_verdict verdict)
{
    const struct convergence *convergence = &source->convergence;

    migration_record(&source->migration, TIMELINE_EVENT, "decision",
                     must_json(json_pack(
                         "{ss,so,so,so,so,sI,sI,sI}", "verdict", convergence_verdict_name(verdict),
                         "reason", must_json(message_text(convergence->reason)),
                         "predicted_downtime_ms", known_or_null(convergence->predicted_downtime_ms),
                         "longest_downtime_ms", known_or_null(convergence->longest_downtime_ms),
                         "predicted_total_ms", known_or_null(convergence->predicted_total_ms),
                         "cpu_throttle", (json_int_t)convergence->cpu_throttle, "disk_throttle",
                         (json_int_t)convergence->disk_throttle, "disk_limit",
                         (json_int_t)convergence->disk_limit)));
}

void source_record_sample(struct source *source, const struct convergence_sample *sample,
                          enum convergence_verdict verdict)
{
    const struct convergence *convergence = &source->convergence;
    bool waits_still = verdict == CONVERGENCE_WAIT && source->recorded_verdict == verdict;
    json_t *line = must_json(convergence_sample_record(sample));

    json_object_set_new(line, "predicted_downtime_ms",
                        known_or_null(convergence->predicted_downtime_ms));
    json_object_set_new(line, "longest_downtime_ms",
                        known_or_null(convergence->longest_downtime_ms));
    json_object_set_new(line, "verdict", must_json(json_string(convergence_verdict_name(verdict))));
    migration_record(&source->migration, TIMELINE_SAMPLE, "sample", line);
    if (verdict != CONVERGENCE_GO_ON && !waits_still) {
        record_decision(source, verdict);
    }
    source->recorded_verdict = verdict;
}

/* --- the pause --- */

void source_record_mark(struct source *source, const char *what)
{
    uint64_t now_ns = clock_monotonic_ns();
    json_t *line = must_json(json_pack("{ss,sI,sI,sI}", "what", what, "stream_bytes",
                                       (json_int_t)source->sample.stream_bytes, "disk_bytes",
                                       (json_int_t)source->sample.disk_bytes, "wire_sent",
                                       (json_int_t)source->sample.wire_sent));

    if (source->paused_ns) {
        json_object_set_new(
            line, "paused_us",
            must_json(json_integer((json_int_t)((now_ns - source->paused_ns) / 1000))));
    }
    if (source->resumed_ns) {
        json_object_set_new(
            line, "measured_us",
            must_json(json_integer(
                (json_int_t)((int64_t)(source->resumed_ns - source->paused_ns) / 1000))));
    }
    migration_record(&source->migration, TIMELINE_DETAIL, "mark", line);
}

/*
 * What the operator is told about a migration at its source: progress, status, and the result object of DESIGN §10.
 */
#include "source_state.h"

#include "clock.h"
#include "journal.h"
#include "peer.h"

#include "agent/common/must.h"
#include "agent/policy/phase.h"
#include "daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Progress events need not come more often than eyes and scripts can follow. */
#define PROGRESS_NS 500000000ull

static uint64_t wire_bytes(const struct source *source)
{
    return source->sample.wire_sent + source->sample.wire_received +
           (source->peer ? peer_wire_bytes(source->peer) : source->control_bytes);
}

static json_t *number_or_null(bool known, uint64_t number)
{
    return known ? must_json(json_integer((json_int_t)number)) : json_null();
}

const char *source_mode_word(const struct source *source)
{
    return source->request.mode == MIGRATION_QUICK  ? "quick"
           : source->request.mode == MIGRATION_LIVE ? "live"
                                                    : "auto";
}

/* Where the VM is now, and what to do next: the part of an error message that does not depend on what went wrong. */
static char *whereabouts(const struct source *source, const char *result)
{
    const char *vm = source->migration.vm;

    if (strcmp(result, "undecided") == 0) {
        return must_copy("");
    }
    if (source->ended_there) {
        return must_format(
            ". %s runs nowhere now; it belongs to %s, with its disks: `watari start %s` there", vm,
            source->migration.peer, vm);
    }
    if (strcmp(result, "lost") == 0) {
        return must_format(
            ". %s runs nowhere now; its disks are whole at this host%s%s: start it again as you "
            "usually do. Journal: %s",
            vm, source->disk_count ? ", the first is " : "",
            source->disk_count ? source->disks[0].path : "",
            source->journal_path ? source->journal_path : "none");
    }
    if (json_array_size(source->left) > 0) {
        return must_format(
            ". %s should run at this host as before (pid %d, QMP %s), but not everything could be put back: %s",
            vm, (int)source->vm.pid, source->vm.qmp_path,
            json_string_value(json_array_get(source->left, 0)));
    }
    return must_format(
        ". %s runs at this host as before (pid %d, QMP %s). The log of watarid has more%s%s", vm,
        (int)source->vm.pid, source->vm.qmp_path, source->offered ? ", here and at " : "",
        source->offered ? source->migration.peer : "");
}

static json_t *error_object(const struct source *source, const char *result)
{
    char *where, *text;
    json_t *object;

    if (strcmp(result, "done") == 0) {
        return json_null();
    }
    where = whereabouts(source, result);
    text = must_format("%s: %s%s", source->migration.vm, source->error.text, where);
    object = must_json(
        json_pack("{ss,so}", "id", source->error.id, "text", must_json(message_text(text))));
    free(where);
    free(text);
    return object;
}

static json_t *where_object(const struct source *source, const char *result)
{
    json_t *disks = must_json(json_array());

    if (strcmp(result, "done") == 0 || strcmp(result, "undecided") == 0 || source->ended_there) {
        const json_t *disk;
        size_t i;

        json_array_foreach(json_object_get(source->accepted, "disks"), i, disk)
        {
            json_array_append(disks, json_object_get(disk, "path"));
        }
        return must_json(json_pack("{sO,sO,sO,so,sO,sO}", "host",
                                   json_object_get(source->accepted, "host"), "pid",
                                   json_object_get(source->accepted, "pid"), "qmp",
                                   json_object_get(source->accepted, "qmp"), "disks", disks,
                                   "launch", json_object_get(source->accepted, "launch"), "log",
                                   json_object_get(source->accepted, "log")));
    }
    if (strcmp(result, "lost") == 0) {
        json_decref(disks);
        return json_null();
    }
    for (size_t i = 0; i < source->disk_count; i++) {
        json_array_append_new(disks, must_json(json_string(source->disks[i].path)));
    }
    return must_json(json_pack("{ss,si,ss?,so,sn,sn}", "host", source->migration.daemon->host,
                               "pid", (int)source->vm.pid, "qmp", source->vm.qmp_path, "disks",
                               disks, "launch", "log"));
}

static json_t *disk_object(const struct source *source)
{
    uint64_t bytes = source->lost_disk_bytes;
    uint32_t passes = 0;

    for (size_t i = 0; i < source->disk_count; i++) {
        bytes += source->disks[i].data_bytes;
        passes = source->disks[i].passes > passes ? source->disks[i].passes : passes;
    }
    return must_json(json_pack("{sI,sI,si}", "bytes", (json_int_t)bytes, "wire_bytes",
                               (json_int_t)source->sample.disk_wire_bytes, "passes", (int)passes));
}

static json_t *memory_object(const struct source *source)
{
    const struct report_sample *sample = &source->sample;

    return must_json(json_pack(
        "{sI,sI,sI,sI,sI,sI,sI}", "rounds", (json_int_t)source->round, "pages",
        (json_int_t)sample->pages, "zero", (json_int_t)sample->zero_pages, "same",
        (json_int_t)sample->same_pages, "delta", (json_int_t)sample->delta_pages, "bytes",
        (json_int_t)sample->stream_bytes, "wire_bytes", (json_int_t)sample->stream_wire_bytes));
}

json_t *source_result(const struct source *source, const char *result, const char *reason)
{
    bool done = strcmp(result, "done") == 0;
    json_t *object;
    bool downtime_known = source->paused_ns && source->resumed_ns > source->paused_ns;
    json_t *downtime =
        number_or_null(downtime_known, (source->resumed_ns - source->paused_ns + 500000) / 1000000);

    object = must_json(json_pack(
        "{ss,si,ss,ss,ss,ss,ss,so,so,sI,so,so,sI,so,so,s{so,so},sO,s{so,so},sb,sI,sI,so}", "event",
        "result", "schema", 1, "id", source->migration.id, "vm", source->migration.vm,
        "mode_requested", source_mode_word(source), "mode_used",
        source_is_quick(source) ? "quick" : "live", "result", result, "reason",
        done ? json_null() : must_json(json_string(reason)), "error", error_object(source, result),
        "total_ms", (json_int_t)(clock_boottime_ms() - source->migration.started_ms), "downtime_ms",
        downtime, "downtime_error_ms",
        downtime_known ? must_json(json_real((double)source->downtime_error_ns / 1e6))
                       : json_null(),
        "wire_bytes", (json_int_t)wire_bytes(source), "disk", disk_object(source), "memory",
        memory_object(source), "predicted", "total_ms",
        number_or_null(source->memory_started &&
                           source->convergence.predicted_total_ms != FORECAST_UNKNOWN,
                       source->convergence.predicted_total_ms),
        "downtime_ms",
        number_or_null(source->switching && source->convergence.predicted_downtime_ms != UINT32_MAX,
                       source->convergence.predicted_downtime_ms),
        "planned", source->planned, "verified", "memory",
        source->hash_agreed ? json_true() : json_null(), "disk",
        source->disks_equal    ? json_true()
        : source->disks_differ ? json_false()
                               : json_null(),
        "resumed", source->resumed > 0, "resent_bytes", (json_int_t)source->sample.resent_bytes,
        "key_renewals", (json_int_t)source->sample.key_renewals, "where",
        where_object(source, result)));
    if (source->request.trial) {
        json_object_set_new(object, "trial", source_trial_object(source));
    }
    return object;
}

/* --- progress --- */

static json_t *progress_of_disks(const struct source *source)
{
    uint64_t total = 0, left = 0;
    uint32_t pass = 0;

    for (size_t i = 0; i < source->disk_count; i++) {
        total += source->disks[i].size;
        left += source->disks[i].state == PASS_IDLE ? 0 : source->sample.pass_left[i];
        pass = source->disks[i].passes > pass ? source->disks[i].passes : pass;
    }
    return must_json(json_pack(
        "{sI,sI,sI,si,so}", "total", (json_int_t)total, "done",
        (json_int_t)source->sample.disk_acknowledged, "left",
        (json_int_t)(left + source_disk_left(source)), "pass", (int)pass, "uncompared",
        number_or_null(source->request.verify && source->mover, source->sample.uncompared_bytes)));
}

static json_t *progress_object(const struct source *source)
{
    uint32_t predicted = source->convergence.predicted_downtime_ms;

    return must_json(json_pack(
        "{ss,sI,so,s{sI,sI,sI,sI},sI,sI,sn,so}", "phase", source->migration.phase, "elapsed_ms",
        (json_int_t)(clock_boottime_ms() - source->migration.started_ms), "disk",
        progress_of_disks(source), "memory", "round", (json_int_t)source->round, "left",
        (json_int_t)source->memory_left, "bytes", (json_int_t)source->sample.stream_bytes,
        "dirty_rate", (json_int_t)source->memory_dirty_rate, "wire_bytes",
        (json_int_t)wire_bytes(source), "wire_rate", (json_int_t)source->wire_rate.rate, "eta_ms",
        "predicted_downtime_ms",
        number_or_null(source->memory_started && predicted != UINT32_MAX, predicted)));
}

void source_progress(struct source *source)
{
    uint64_t now = clock_monotonic_ns();

    rate_window_note(&source->wire_rate, wire_bytes(source), now);
    if (now - source->progress_ns < PROGRESS_NS) {
        return;
    }
    source->progress_ns = now;
    migration_publish(&source->migration, "progress", progress_object(source));
}

void source_describe(const struct migration *migration, json_t *into)
{
    const struct source *source = (const struct source *)migration;

    json_object_update_new(into, progress_object(source));
    json_object_set_new(
        into, "pause_age_ms",
        number_or_null(source->paused_ns && !source->resumed_ns && !source->handoff.resumed,
                       (clock_monotonic_ns() - source->paused_ns) / 1000000));
    json_object_set_new(into, "rate_limit", number_or_null(source->rate != 0, source->rate));
    source_describe_handoff(source, into);
}

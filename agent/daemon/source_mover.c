/*
 * Going on with new movers after one has died (DESIGN §7). What a mover had in its hands is gone with it, and the two are a pair: both sides
 * begin with new ones, under new keys. The disks go on: the bulk pass from where all before was acknowledged, a dirty pass from its beginning,
 * with the bitmap that it had. Memory starts again. Once the guest stands still there is no time for that, and the migration fails.
 *
 *   own mover's end, or mover-lost from the destination
 *     this side: a new mover; exports of the passes under way made anew, passes ordered again; `migrate` cancelled
 *     that side: resume{movers + 1} -> resumed; then lanes, as after a lost link
 */
#include "source_state.h"

#include "clock.h"
#include "mover_link.h"
#include "qmp.h"
#include "undo.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <string.h>

/* A mover that dies again and again has a reason that a new one does not end. */
#define REPLACEMENTS_MAX 3

/* --- figures, over all movers --- */

void source_take_sample(struct source *source, const struct report_sample *sample)
{
    const struct report_sample *before = &source->sample_before;
    struct report_sample *sum = &source->sample;

    *sum = *sample;
    sum->wire_sent += before->wire_sent;
    sum->wire_received += before->wire_received;
    sum->disk_bytes += before->disk_bytes;
    sum->disk_acknowledged += before->disk_acknowledged;
    sum->disk_zero_bytes += before->disk_zero_bytes;
    sum->disk_wire_bytes += before->disk_wire_bytes;
    sum->stream_bytes += before->stream_bytes;
    sum->stream_acknowledged += before->stream_acknowledged;
    sum->stream_wire_bytes += before->stream_wire_bytes;
    sum->resent_bytes += before->resent_bytes;
    sum->key_renewals += before->key_renewals;
    sum->pages += before->pages;
    sum->zero_pages += before->zero_pages;
    sum->page_bytes += before->page_bytes;
    sum->same_pages += before->same_pages;
    sum->delta_pages += before->delta_pages;
}

/* What it had sent for nothing counts as sent again: all of the stream, and of the disks what was not acknowledged. */
static void close_figures(struct source *source)
{
    struct report_sample *before = &source->sample_before;
    const struct report_sample *sum = &source->sample;
    uint64_t read = sum->disk_bytes - before->disk_bytes;
    uint64_t acknowledged = sum->disk_acknowledged - before->disk_acknowledged;
    uint64_t resent = sum->resent_bytes + sum->stream_wire_bytes - before->stream_wire_bytes +
                      (read > acknowledged ? read - acknowledged : 0);

    for (size_t i = 0; i < source->disk_count; i++) {
        struct source_disk *disk = &source->disks[i];

        if (disk->bitmap == 0 && sum->pass_reached[i] > disk->reached) {
            disk->reached = sum->pass_reached[i];
        }
    }
    source->lost_disk_bytes +=
        read > source->mover_disk_bytes ? read - source->mover_disk_bytes : 0;
    source->mover_disk_bytes = 0;
    *before = *sum;
    before->resent_bytes = resent;
    memset(&source->sample, 0, sizeof source->sample);
    source_take_sample(source, &(struct report_sample){0});
}

/* --- memory --- */

static void on_end_state(json_t *value, const struct error *error, void *context)
{
    static const char *const over[] = {"none", "failed", "cancelled", "completed"};
    struct source *source = context;
    const char *status = json_string_value(json_object_get(value, "status"));
    bool ended = !status;

    source->asking_end = false;
    if (error) {
        source_fail(source, error);
        return;
    }
    for (size_t i = 0; i < sizeof over / sizeof *over; i++) {
        ended = ended || strcmp(status, over[i]) == 0;
    }
    if (ended) {
        source->memory_ending = false;
        undo_forget(source->undo, "migration");
    }
}

void source_memory_end_tick(struct source *source)
{
    if (source->memory_ending && !source->batch && !source->asking_end) {
        source->asking_end = true;
        qmp_execute(source->qmp, "query-migrate", NULL, -1, on_end_state, source);
    }
}

static void on_cancelled(json_t *value, const struct error *error, void *context)
{
    (void)value;
    if (error) {
        source_fail(context, error);
    }
}

/* Its stream's socket has lost its other end, so it may have failed by itself; it does no harm then. */
void source_memory_end(struct source *source)
{
    qmp_execute(source->qmp, "migrate_cancel", NULL, -1, on_cancelled, source);
}

/* --- replacing --- */

static void announce(struct source *source, const struct error *why)
{
    const char *vm = source->migration.vm;
    char *text =
        must_format("%s. New movers take over: the disks of %s go on where they were%s", why->text,
                    vm, source->memory_begun ? ", its memory starts again" : "");

    log_warning("migration %s of %s: %s", source->migration.id, vm, text);
    migration_publish(&source->migration, "warning",
                      must_json(json_pack("{ss,so}", "what", "movers-replaced", "text",
                                          must_json(message_text(text)))));
    free(text);
}

static void forget_mover(struct source *source)
{
    mover_link_free(source->mover);
    source->mover = NULL;
    source->stream_sent = false;
    source_end_lane_dials(source);
    json_decref(source->tickets);
    source->tickets = NULL;
    source->mover_resumes = false;
    if (source->later.id[0]) {
        source->later.id[0] = '\0';
        source_limit(source, NULL, 0);
    }
    close_figures(source);
    source_memory_forget(source);
}

static void suspend(struct source *source)
{
    source->replacing = true;
    if (!source->suspended) {
        source->suspended = true;
        source->suspended_ms = clock_boottime_ms();
    }
}

/* --verify compares over the connection of the bulk pass, and goes by what went through the same mover since. */
static bool comparison_can_go_on(const struct source *source)
{
    if (!source->request.verify || !source->bulk_started) {
        return true;
    }
    for (size_t i = 0; i < source->disk_count; i++) {
        if (source->disks[i].bitmap != 0 || source->disks[i].state == PASS_IDLE) {
            return false;
        }
    }
    return true;
}

void source_mover_lost(struct source *source, const struct error *why)
{
    if (source->failing) {
        return;
    }
    if (source->handoff.state == SOURCE_PAUSED) {
        source_fail_text(source, why->id, "%s, after the guest was paused for the handover",
                         why->text);
        return;
    }
    if (source->handoff.state != SOURCE_OPEN || !source->accepted || source->qmp_lost ||
        source->request.trial) {
        source_fail(source, why);
        return;
    }
    if (!comparison_can_go_on(source)) {
        source_fail_text(
            source, why->id,
            "%s, and with --verify another one cannot go on once the disks are being compared",
            why->text);
        return;
    }
    if (source->movers == REPLACEMENTS_MAX) {
        source_fail_text(
            source, why->id,
            "%s. That is the last of %d replacements: something ends the movers again and again",
            why->text, REPLACEMENTS_MAX);
        return;
    }
    announce(source, why);
    source->movers++;
    suspend(source);
    forget_mover(source);
    if (!source_start_mover(source)) {
        return;
    }
    source_reads_new_mover(source);
    source_passes_again(source);
    if (source->peer && source->peer_up) {
        source_resume(source);
    } else if (!source->peer) {
        source_redial(source);
    }
}

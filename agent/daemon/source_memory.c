/*
 * Memory at the source: capabilities and parameters, the stream's socket, rounds beside disk passes, the decision to switch over, and the
 * pause, up to the moment when the whole stream has left. The pause is ours (DESIGN §4):
 *
 *   near the end of a round the mover holds the stream (HOLD/HELD), the controller decides, the mover goes on (GO)
 *   to switch over: `stop`; then side by side the last disk passes and what is left of memory; when the disks are through and their
 *   exports gone, downtime-limit at its maximum makes QEMU go to pre-switchover, and migrate-continue lets it finish
 */
#include "source_state.h"

#include "batch.h"
#include "clock.h"
#include "qmp.h"
#include "undo.h"
#include "unix_socket.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/pause_point.h"
#include "agent/policy/phase.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_READY_MS 30000
/* QEMU's downtime-limit: the smallest keeps it from going to pre-switchover by itself but for an idle guest; the largest makes it go at once. */
#define DOWNTIME_LIMIT_MIN_MS 1
#define DOWNTIME_LIMIT_MAX_MS 2000000
#define PAGE_BYTES 4096u
/* The hold comes so many pages before QEMU has sent all it knows to be dirty: what its own buffers and the socket hold. */
#define HOLD_MARGIN_PAGES 256u
#define PAUSE_LIMIT_MIN_MS 2000
#define PAUSE_LIMIT_FACTOR 3
#define WINDOW_NS 500000000ull
/* A mover that takes longer to hold its reads has made the decision to pause an old one. */
#define DECISION_VALID_NS 100000000ull
/* QEMU's migration fails as soon as its stream's reader is gone; that this was the mover's death is known a moment later. */
#define MOVER_WORD_MS 1000

void rate_window_note(struct rate_window *window, uint64_t bytes, uint64_t now_ns)
{
    if (window->at_ns == 0) {
        window->at_ns = now_ns;
        window->bytes = bytes;
    } else if (now_ns - window->at_ns >= WINDOW_NS) {
        window->rate =
            (uint64_t)((double)(bytes - window->bytes) * 1e9 / (double)(now_ns - window->at_ns));
        window->at_ns = now_ns;
        window->bytes = bytes;
    }
}

/* --- starting --- */

static bool wanted(const struct source *source, const char *capability)
{
    return strcmp(capability, "events") == 0 ||
           strcmp(capability, "pause-before-switchover") == 0 ||
           (strcmp(capability, "auto-converge") == 0 && source_can_throttle_cpus(source));
}

/* Every capability is set, whatever was left there by others; the inverse puts all of them back. */
static void set_capabilities(struct source *source, struct batch *batch)
{
    json_t *list = must_json(json_array());
    json_t *before =
        must_json(json_pack("{sss{sO}}", "qmp", "migrate-set-capabilities", "arguments",
                            "capabilities", source->inspection.capabilities));
    const json_t *capability;
    size_t i;

    json_array_foreach(source->inspection.capabilities, i, capability)
    {
        const char *name = json_string_value(json_object_get(capability, "capability"));

        json_array_append_new(list, must_json(json_pack("{ss,sb}", "capability", name, "state",
                                                        wanted(source, name))));
    }
    batch_add_change(batch, "capabilities", before, "migrate-set-capabilities",
                     must_json(json_pack("{so}", "capabilities", list)));
}

static void set_parameters(struct source *source, struct batch *batch)
{
    const json_t *now = source->inspection.parameters;
    json_t *before = must_json(json_object());
    json_t *after = must_json(json_pack("{si,si,ss}", "max-bandwidth", 0, "downtime-limit",
                                        DOWNTIME_LIMIT_MIN_MS, "tls-creds", ""));
    json_t *parked = source_parked_throttle(source);
    const char *name;
    json_t *wanted_value;

    json_object_update(after, parked);
    json_decref(parked);
    json_object_foreach(after, name, wanted_value)
    {
        json_t *value = json_object_get(now, name);

        if (value) {
            json_object_set(before, name, value);
        }
    }
    batch_add_change(
        batch, "parameters",
        must_json(json_pack("{ssso}", "qmp", "migrate-set-parameters", "arguments", before)),
        "migrate-set-parameters", after);
}

static void on_migrating(const json_t *replies, const struct error *error, void *context)
{
    struct source *source = context;

    (void)replies;
    source->batch = NULL;
    if (source->memory_ending && (!error || strcmp(error->id, "qmp-error") == 0)) {
        source_memory_end(source);
        return;
    }
    if (error) {
        source_fail(source, error);
        return;
    }
    if (source->later.id[0]) {
        return; /* it has failed already */
    }
    source->memory_began_ns = clock_monotonic_ns();
    source->memory_started = true;
}

bool source_is_quick(const struct source *source)
{
    return source->request.mode == MIGRATION_QUICK || source->fell_back;
}

struct convergence_limits source_convergence_limits(const struct source *source)
{
    static const enum convergence_mode modes[] = {[MIGRATION_AUTO] = CONVERGENCE_AUTO,
                                                  [MIGRATION_LIVE] = CONVERGENCE_LIVE,
                                                  [MIGRATION_QUICK] = CONVERGENCE_QUICK};

    return (struct convergence_limits){
        .mode = modes[source->request.mode],
        .max_downtime_ms = source->request.max_downtime_ms,
        .max_quick_downtime_ms = source->request.max_quick_downtime_ms,
        .deadline_ms = source->request.deadline_ms,
        .max_throttle = source->request.max_throttle,
        .can_throttle_disks = source->request.max_throttle > 0 && source_can_throttle_disks(source),
        .can_throttle_cpus = source_can_throttle_cpus(source),
    };
}

void source_memory_begin(struct source *source)
{
    struct convergence_limits limits = source_convergence_limits(source);

    source->memory_begun = true;
    convergence_init(&source->convergence, &limits);
    source_record_limits(source, &limits);
    migration_phase(&source->migration, PHASE_MEMORY, "%.0f MiB of memory, %.1f MiB of disk left",
                    (double)source->inspection.memory_bytes / 1048576.0,
                    (double)source_disk_left(source) / 1048576.0);
    source_limit(source, "preparing the destination's QEMU for memory", MEMORY_READY_MS);
    source->memory_asked = true;
    source_send(source, "memory", NULL);
}

void source_memory_ready(struct source *source)
{
    struct order order = {.type = ORDER_MEMORY};
    struct error error;
    int pair[2];

    if (!source->memory_asked || source->failing) {
        return; /* said twice: the link was lost in between; or to movers that are gone */
    }
    source->memory_asked = false;
    source_limit(source, NULL, 0);
    if (!unix_socket_pair(pair, &error)) {
        source_fail(source, &error);
        return;
    }
    if (source->request.trial && !source_trial_bound_stream(source, pair[0])) {
        close(pair[0]);
        close(pair[1]);
        return;
    }
    source->batch = batch_new(source->qmp, source->undo);
    set_capabilities(source, source->batch);
    set_parameters(source, source->batch);
    batch_add_fd(source->batch, "watari-stream", pair[0]);
    batch_add_change(source->batch, "migration", must_json(json_pack("{sb}", "resume", 1)),
                     "migrate", must_json(json_pack("{ss}", "uri", "fd:watari-stream")));
    /* `migrate` has taken the descriptor over. */
    batch_add_forget(source->batch, "fd:watari-stream");
    batch_run(source->batch, on_migrating, source);
    source_order(source, &order, pair[1]);
}

void source_memory_forget(struct source *source)
{
    if (!source->memory_begun) {
        return;
    }
    source_limit(source, NULL, 0);
    source->memory_ending = source->batch || source->memory_started || source->later.id[0];
    source->memory_begun = source->memory_asked = source->memory_started = source->held = false;
    source->switching = false;
    source->round = source->held_round = source->memory_left = 0;
    memset(&source->link, 0, sizeof source->link);
    if (source->memory_ending && !source->batch) {
        source_memory_end(source);
    }
}

/* --- rounds --- */

static void order_simple(struct source *source, enum order_type type, uint64_t pages)
{
    struct order order = {.type = type, .hold = {.pages = pages}};

    source_order(source, &order, -1);
}

/* Once a round: where the mover is to hold, so that the decision falls when least is left. */
static void set_hold(struct source *source, const json_t *ram)
{
    uint64_t pages = (uint64_t)(json_integer_value(json_object_get(ram, "normal")) +
                                json_integer_value(json_object_get(ram, "duplicate")));
    uint64_t left = source->memory_left / PAGE_BYTES;

    if (source->round < 2 || source->held_round == source->round || source->held) {
        return;
    }
    source->held_round = source->round;
    if (left > 2 * HOLD_MARGIN_PAGES) {
        order_simple(source, ORDER_HOLD, pages + left - HOLD_MARGIN_PAGES);
    }
}

/* The mover gives the disks and the memory of the link what they need. */
static void tell_left(struct source *source)
{
    struct order order = {.type = ORDER_LEFT, .left = {.bytes = source->memory_left}};

    source_order(source, &order, -1);
}

static void note_ram(struct source *source, const json_t *migrate)
{
    const json_t *ram = json_object_get(migrate, "ram");

    source->round = (uint64_t)json_integer_value(json_object_get(ram, "dirty-sync-count"));
    source->memory_left = (uint64_t)json_integer_value(json_object_get(ram, "remaining"));
    source->memory_dirty_rate =
        (uint64_t)json_integer_value(json_object_get(ram, "dirty-pages-rate")) * PAGE_BYTES;
    source->cpu_throttle =
        (uint32_t)json_integer_value(json_object_get(migrate, "cpu-throttle-percentage"));
    tell_left(source);
    set_hold(source, ram);
}

static void go_on(struct source *source)
{
    if (source->held) {
        source->held = false;
        order_simple(source, ORDER_GO, 0);
    }
}

/* From the pause on nothing may hold the stream back: neither a hold that was reached nor one that is still ahead, nor a bound on what
 * is under way. */
static void take_back_hold(struct source *source)
{
    struct order order = {.type = ORDER_GO, .go = {.last = true}};

    source->held = false;
    source_order(source, &order, -1);
}

static void give_up(struct source *source)
{
    source_fail_text(source, source->convergence.missed_deadline ? "deadline" : "no-convergence",
                     "%s", source->convergence.reason);
}

static void begin_switchover(struct source *source, bool falling_back);

static enum convergence_verdict judge(struct source *source)
{
    struct convergence_sample sample;
    enum convergence_verdict verdict;

    source_sample_convergence(source, &sample);
    verdict = convergence_step(&source->convergence, &sample);
    source_record_sample(source, &sample, verdict);
    return verdict;
}

/* What the controller decides besides going on and ending, and why. */
static void tell_decision(struct source *source)
{
    const struct convergence *convergence = &source->convergence;

    migration_publish(
        &source->migration, "decision",
        must_json(json_pack("{ss,ss,sI,si,si,sI}", "phase", source->migration.phase, "text",
                            convergence->reason, "round", (json_int_t)source->round, "cpu_throttle",
                            (int)convergence->cpu_throttle, "disk_throttle",
                            (int)convergence->disk_throttle, "disk_limit",
                            (json_int_t)convergence->disk_limit)));
}

static void decide(struct source *source)
{
    switch (judge(source)) {
    case CONVERGENCE_WAIT:
        return; /* held or not: a pass is all that is awaited */
    case CONVERGENCE_THROTTLE_DISKS:
        tell_decision(source);
        source_throttle_disks(source);
        break;
    case CONVERGENCE_THROTTLE_CPUS:
        tell_decision(source);
        source_throttle_cpus(source);
        break;
    case CONVERGENCE_FALL_BACK:
        begin_switchover(source, true);
        return;
    case CONVERGENCE_SWITCH_OVER:
        begin_switchover(source, false);
        return;
    case CONVERGENCE_GIVE_UP:
        give_up(source);
        return;
    case CONVERGENCE_GO_ON:
        break;
    }
    go_on(source);
    source_passes(source, false);
}

static void on_nodes(json_t *value, const struct error *error, void *context)
{
    struct source *source = context;

    source->asking = false;
    if (error) {
        source_fail(source, error);
        return;
    }
    source_note_dirty(source, value);
    source_note_answer(source, clock_monotonic_ns() - source->asked_ns);
    if (source->switching || source->failing || !source->memory_started) {
        return;
    }
    if (source->request.trial) {
        source_trial_memory_tick(source);
    } else {
        decide(source);
    }
}

static void on_migrate_state(json_t *value, const struct error *error, void *context)
{
    struct source *source = context;

    if (error) {
        source->asking = false;
        source_fail(source, error);
        return;
    }
    note_ram(source, value);
}

/* Two questions in one go; the second answer decides. */
static void ask(struct source *source)
{
    if (source->asking || source->switching) {
        return;
    }
    source->asking = true;
    source->asked_ns = clock_monotonic_ns();
    qmp_execute(source->qmp, "query-migrate", NULL, -1, on_migrate_state, source);
    qmp_execute(source->qmp, "query-named-block-nodes", must_json(json_pack("{sb}", "flat", 1)), -1,
                on_nodes, source);
}

void source_memory_tick(struct source *source)
{
    if (source->memory_started) {
        ask(source);
    }
}

void source_memory_held(struct source *source)
{
    if (source->switching) {
        return; /* it crossed the order to go on */
    }
    source->held = true;
    ask(source);
}

/* --- the pause --- */

static uint32_t pause_limit_ms(const struct source *source)
{
    uint32_t live = PAUSE_LIMIT_FACTOR * source->request.max_downtime_ms;

    if (source_is_quick(source)) {
        return source->request.max_quick_downtime_ms > PAUSE_LIMIT_MIN_MS
                   ? source->request.max_quick_downtime_ms
                   : PAUSE_LIMIT_MIN_MS;
    }
    return live > PAUSE_LIMIT_MIN_MS ? live : PAUSE_LIMIT_MIN_MS;
}

static void arm_pause_clock(struct source *source)
{
    uint32_t limit = pause_limit_ms(source);

    event_add(source->pause_clock, &(struct timeval){limit / 1000, (limit % 1000) * 1000});
}

static void pause_began(struct source *source)
{
    source->paused_ns = clock_monotonic_ns();
    arm_pause_clock(source);
}

/* The guest stands still: the last disk passes and what is left of memory, side by side. */
void source_last_passes(struct source *source)
{
    if (!source->disks_frozen || source_pass_running(source)) {
        return; /* a pass from before the pause must be whole first; its end calls this again */
    }
    source_passes(source, true);
}

static void guest_stands_still(struct source *source)
{
    source->disks_frozen = true;
    source_record_mark(source, "guest-stopped");
    take_back_hold(source);
    source_last_passes(source);
}

static void on_stopped(json_t *value, const struct error *error, void *context)
{
    struct source *source = context;

    (void)value;
    if (error) {
        source_fail(source, error);
        return;
    }
    guest_stands_still(source);
    source_reads_go(source);
}

static void pause_guest(void *context)
{
    struct source *source = context;

    if (!source->switching) {
        source_reads_go(source); /* another mover is there now, and memory begins again */
        return;
    }
    if (clock_monotonic_ns() - source->decided_ns > DECISION_VALID_NS) {
        source->switching = false;
        source_reads_go(source);
        ask(source);
        return;
    }
    source->fell_back = source->fell_back || source->falling_back;
    migration_phase(&source->migration, PHASE_PAUSED, "%s", source->convergence.reason);
    source_journal_paused(source);
    source_handoff(source, SOURCE_IN_PAUSED, NULL);
    qmp_execute(source->qmp, "stop", NULL, -1, on_stopped, source);
}

static void begin_switchover(struct source *source, bool falling_back)
{
    source->switching = true;
    source->falling_back = falling_back;
    source->decided_ns = clock_monotonic_ns();
    source_reads_hold(source, pause_guest, source);
}

static void on_continued(json_t *value, const struct error *error, void *context)
{
    (void)value;
    if (error) {
        source_fail(context, error);
    }
}

/* QEMU may finish: it waits in pre-switchover, and the disks have given everything. */
static void continue_if_ready(struct source *source)
{
    if (!source->pre_switchover || !source->disks_done || source->continued) {
        return;
    }
    source->continued = true;
    migration_phase(&source->migration, PHASE_HANDOFF, "device state");
    qmp_execute(source->qmp, "migrate-continue",
                must_json(json_pack("{ss}", "state", "pre-switchover")), -1, on_continued, source);
}

void source_disks_done(struct source *source)
{
    source->disks_done = true;
    source_record_mark(source, "disks-done");
    if (!source->pre_switchover) {
        qmp_execute(source->qmp, "migrate-set-parameters",
                    must_json(json_pack("{si}", "downtime-limit", DOWNTIME_LIMIT_MAX_MS)), -1,
                    on_continued, source);
    }
    continue_if_ready(source);
}

/* Whether what is left fits the pause that was asked for, or, with auto, that of quick. */
static bool unasked_pause_fits(struct source *source)
{
    const struct migrate_request *request = &source->request;

    /* Nothing was ever busy long enough to be measured, and so nothing says that it does not fit. The pause's clock watches. */
    if (source->link.count == 0) {
        return true;
    }
    if (request->mode != MIGRATION_QUICK &&
        convergence_fits(&source->convergence, request->max_downtime_ms)) {
        return true;
    }
    if (request->mode == MIGRATION_LIVE ||
        !convergence_fits(&source->convergence, request->max_quick_downtime_ms)) {
        return false;
    }
    source->fell_back = request->mode == MIGRATION_AUTO;
    arm_pause_clock(source);
    return true;
}

/* QEMU stopped the guest by itself: so little was left that its smallest limit was met. Good, if that and the disks fit. */
static void on_unasked_pause_known(json_t *value, const struct error *error, void *context)
{
    struct source *source = context;

    if (error) {
        source_fail(source, error);
        return;
    }
    note_ram(source, value);
    judge(source);
    if (!unasked_pause_fits(source)) {
        source_fail_text(
            source, "unasked-pause",
            "QEMU paused the guest by itself with %.1f MB of memory and %.1f MB of disk left, which would take "
            "%u ms; %s allows %u ms: allow more, or use --mode quick",
            (double)source->memory_left / 1e6, (double)source_disk_left(source) / 1e6,
            source->convergence.predicted_downtime_ms,
            source->request.mode == MIGRATION_LIVE ? "--max-downtime" : "--max-quick-downtime",
            source->request.mode == MIGRATION_LIVE ? source->request.max_downtime_ms
                                                   : source->request.max_quick_downtime_ms);
        return;
    }
    guest_stands_still(source);
}

static void unasked_pause(struct source *source)
{
    source->switching = true;
    migration_phase(&source->migration, PHASE_PAUSED, "QEMU found nothing left to send");
    source_journal_paused(source);
    source_handoff(source, SOURCE_IN_PAUSED, NULL);
    tell_left(source); /* it is answered with how it stands now */
    qmp_execute(source->qmp, "query-migrate", NULL, -1, on_unasked_pause_known, source);
}

/* Not by our doing. Before the pause a mover may have died, which is no end. */
static void migration_failed(struct source *source, const char *status)
{
    struct error error;

    error_set(&error, "qemu-migration-failed",
              "the source's QEMU says that its migration %s (its log has more)",
              strcmp(status, "failed") == 0 ? "failed" : "was cancelled by somebody else");
    if (source->handoff.state != SOURCE_OPEN) {
        source_fail(source, &error);
        return;
    }
    source->memory_started = false;
    source->later = error;
    source_limit(source, NULL, MOVER_WORD_MS);
}

static void on_migration_status(struct source *source, const char *status)
{
    if (source->memory_ending) {
        return;
    }
    if (strcmp(status, "pre-switchover") == 0) {
        source->pre_switchover = true;
        source_record_mark(source, status);
        if (source->request.trial) {
            source_fail_text(source, "unasked-pause",
                             "QEMU paused the guest by itself in the trial of a plan");
        } else if (!source->switching) {
            unasked_pause(source);
        } else {
            continue_if_ready(source);
        }
    } else if (strcmp(status, "completed") == 0) {
        source_record_mark(source, status);
        source_handoff(source, SOURCE_IN_COMPLETED, NULL);
    } else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
        migration_failed(source, status);
    }
}

/* Before the commit what the destination has is old now; after it, this host has no right to run it. */
static void resumed_by_somebody(struct source *source)
{
    if (source->handoff.state == SOURCE_PAUSED) {
        error_set(&source->error, "resumed-by-somebody",
                  "somebody resumed the guest of %s while it was paused for the handover",
                  source->migration.vm);
    }
    source_handoff(source, SOURCE_IN_RUNS_HERE, NULL);
}

void source_memory_event(struct source *source, const char *name, json_t *data)
{
    const char *status;

    if (source->failing) {
        return;
    }
    if (strcmp(name, "MIGRATION") == 0 &&
        (status = json_string_value(json_object_get(data, "status")))) {
        on_migration_status(source, status);
    } else if (strcmp(name, "STOP") == 0 && source->memory_ending) {
        source_fail_text(source, "unasked-pause",
                         "QEMU paused the guest just when its migration was cancelled");
    } else if (strcmp(name, "STOP") == 0 && source->paused_ns == 0 && !source->recovered) {
        pause_began(source);
    } else if (strcmp(name, "RESUME") == 0 && !source->taking_back) {
        resumed_by_somebody(source);
    } else if ((strcmp(name, "SHUTDOWN") == 0 || strcmp(name, "GUEST_PANICKED") == 0) &&
               !source->switching) {
        error_set(&source->error, "guest-ended", "the guest of %s %s while it was being migrated",
                  source->migration.vm,
                  strcmp(name, "SHUTDOWN") == 0 ? "shut down or was reset" : "panicked");
    }
}

void source_memory_last_held(struct source *source)
{
    pause_point(PAUSE_POINT_DEVICE_STATE);
    order_simple(source, ORDER_GO, 0);
}

void source_memory_sent(struct source *source, const struct report_memory *report)
{
    source->stream_sent = true;
    source_record_mark(source, "stream-sent");
    source->stream_bytes = report->bytes;
    for (size_t i = 0; i < ORDERS_HASH_SIZE; i++) {
        snprintf(source->stream_hash + 2 * i, 3, "%02x", report->hash[i]);
    }
    source_send_sent(source);
}

void source_memory_done(struct source *source)
{
    source->stream_done = true;
    source_record_mark(source, "stream-done");
}

void source_send_sent(struct source *source)
{
    source_send(source, "sent",
                must_json(json_pack("{sI,ss}", "bytes", (json_int_t)source->stream_bytes, "hash",
                                    source->stream_hash)));
}

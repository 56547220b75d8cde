#include "plan_state.h"

#include "daemon.h"
#include "host_memory.h"
#include "journal.h"
#include "offer.h"
#include "peer.h"
#include "qmp.h"
#include "source.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/process.h"
#include "agent/policy/page_budget.h"

#include <stdlib.h>
#include <string.h>

/* For QEMU's answers, and for the destination's; each is looked for in moments. */
#define ANSWER_MS 15000
/* Before the clock of the round trip is read there have been so many, for the smallest counts. */
#define PING_COUNT 5
#define REMEMBERED_MAX 256

/* --- telling --- */

static void tell_step(struct planning *planning, const char *text)
{
    json_t *event = must_json(
        json_pack("{ss,ss,ss}", "event", "plan-step", "vm", planning->vm.name, "text", text));

    planning->handlers.step(event, planning->context);
    json_decref(event);
}

static void find(struct planning *planning, const char *side, const char *level, const char *id,
                 const char *text)
{
    planning->blocked = planning->blocked || strcmp(level, "blocker") == 0;
    json_array_append_new(planning->findings,
                          must_json(json_pack("{ss,ss,ss,so}", "side", side, "level", level, "id",
                                              id, "text", must_json(message_text(text)))));
}

static void find_blocker(struct planning *planning, const char *side, const struct error *error)
{
    find(planning, side, "blocker", error->id, error->text);
}

/* A newer peer may have levels that this host does not know: whatever they are, they do not stop a migration. */
static const char *known_level(const char *level)
{
    return strcmp(level, "blocker") == 0 || strcmp(level, "warning") == 0 ? level : "note";
}

static void take_findings(struct planning *planning, const char *side, const json_t *findings)
{
    const json_t *finding;
    size_t i;

    json_array_foreach(findings, i, finding)
    {
        find(planning, side, known_level(json_string_value(json_object_get(finding, "level"))),
             json_string_value(json_object_get(finding, "id")),
             json_string_value(json_object_get(finding, "text")));
    }
}

/* --- what was predicted --- */

static void remember(struct planning *planning, const json_t *report)
{
    struct daemon *daemon = planning->daemon;
    json_t *predicted = json_object_get(report, "predicted");

    if (!daemon->plans) {
        daemon->plans = must_json(json_object());
    }
    if (json_is_object(json_object_get(predicted, "quick"))) {
        /* More VMs than hosts have; those that are gone shall not heap up. */
        if (json_object_size(daemon->plans) >= REMEMBERED_MAX) {
            json_object_clear(daemon->plans);
        }
        json_object_set_new(daemon->plans, planning->vm.name,
                            must_json(json_pack("{ss,sO}", "peer", planning->request.migrate.peer,
                                                "predicted", predicted)));
    }
}

json_t *plan_last(const struct daemon *daemon, const char *vm, const char *peer)
{
    const json_t *last = json_object_get(daemon->plans, vm);
    const char *to = json_string_value(json_object_get(last, "peer"));

    return to && strcmp(to, peer) == 0 ? json_incref(json_object_get(last, "predicted"))
                                       : json_null();
}

void plan_forget_all(struct daemon *daemon)
{
    json_decref(daemon->plans);
    daemon->plans = NULL;
}

/* --- the end --- */

static void let_go_of_qemu(struct planning *planning)
{
    guest_pace_free(planning->pace);
    planning->pace = NULL;
    inspect_free(planning->inspect);
    planning->inspect = NULL;
    qmp_free(planning->qmp);
    planning->qmp = NULL;
}

/* It rolls back by itself; nobody waits for that. */
static void end_trial(struct planning *planning)
{
    struct error error;

    if (planning->trial) {
        migration_unwatch(&planning->watcher);
        if (!planning->trial->ops->cancel(planning->trial, &error)) {
            log_warning("%s", error.text);
        }
        planning->trial = NULL;
    }
}

void plan_cancel(struct planning *planning)
{
    if (!planning) {
        return;
    }
    end_trial(planning);
    let_go_of_qemu(planning);
    peer_free(planning->peer);
    journal_free(planning->journal);
    event_free(planning->timer);
    inspection_clear(&planning->inspection);
    vm_clear(&planning->vm);
    migrate_request_clear(&planning->request.migrate);
    json_decref(planning->findings);
    json_decref(planning->shown);
    free(planning);
}

static void finish(struct planning *planning)
{
    json_t *report = plan_report(planning);

    remember(planning, report);
    planning->handlers.done(report, planning->context);
    json_decref(report);
    plan_cancel(planning);
}

static void limit(struct planning *planning, const char *awaited)
{
    planning->awaited = awaited;
    if (awaited) {
        event_add(planning->timer, &(struct timeval){ANSWER_MS / 1000, 0});
    } else {
        event_del(planning->timer);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct planning *planning = context;
    struct error error;

    (void)fd;
    (void)what;
    error_set(&error, "timeout", "%s did not answer within %d s", planning->awaited,
              ANSWER_MS / 1000);
    find_blocker(planning, planning->peer ? "destination" : "source", &error);
    finish(planning);
}

/* --- measures --- */

/* Memory that QEMU never touched is zero, and costs next to nothing. What QEMU has for itself is counted with it: so at most. */
static uint64_t memory_used(const struct planning *planning)
{
    uint64_t used = process_memory(planning->vm.pid);
    uint64_t all = planning->inspection.memory_bytes;

    return used > 0 && used < all ? used : all;
}

/* --- the trial --- */

static void on_trial_event(const json_t *event, bool last, void *context)
{
    struct planning *planning = context;
    const char *reason = json_string_value(json_object_get(event, "reason"));
    const json_t *error = json_object_get(event, "error");

    if (!last) {
        return;
    }
    planning->trial = NULL;
    if (reason && strcmp(reason, SOURCE_TRIAL_OVER) == 0) {
        planning->shown = json_deep_copy(event);
    } else {
        find(planning, "source", reason && strcmp(reason, "cancelled") == 0 ? "warning" : "blocker",
             reason ? reason : "trial", json_string_value(json_object_get(error, "text")));
    }
    finish(planning);
}

/* As the migration that is meant, but nothing may hold it up or slow the guest down. */
static struct migrate_request trial_request(const struct planning *planning)
{
    struct migrate_request request = migrate_request_copy(&planning->request.migrate);

    free(request.vm);
    request.vm = must_format("%d", (int)planning->vm.pid);
    request.trial = true;
    request.mode = MIGRATION_LIVE;
    request.verify = false;
    request.deadline_ms = request.max_throttle = request.reconnect_timeout_ms = 0;
    return request;
}

static void try_it(struct planning *planning)
{
    struct migrate_request request = trial_request(planning);
    struct error error;

    tell_step(planning, "a trial: a few seconds of a migration, which is cancelled then");
    planning->trial = source_start(planning->daemon, &request, &error);
    if (!planning->trial) {
        find_blocker(planning, "source", &error);
        finish(planning);
        return;
    }
    planning->watcher.callback = on_trial_event;
    planning->watcher.context = planning;
    migration_watch(planning->trial, &planning->watcher);
}

static void on_paced(const struct guest_pace_result *result, void *context)
{
    struct planning *planning = context;

    planning->pace = NULL;
    planning->written = *result;
    planning->is_paced = true;
    if (error_is_set(&result->error)) {
        find(planning, "source", strcmp(result->error.id, "qmp-gone") == 0 ? "blocker" : "note",
             result->error.id, result->error.text);
    }
    planning->memory_used = memory_used(planning);
    planning->round_trip_ns = peer_round_trip(planning->peer);
    /* The trial has connections of its own, and QEMU takes one client at a time. */
    peer_free(planning->peer);
    planning->peer = NULL;
    let_go_of_qemu(planning);
    if (planning->request.trial && !planning->blocked) {
        try_it(planning);
    } else {
        finish(planning);
    }
}

static void measure(struct planning *planning)
{
    limit(planning, NULL); /* its own are in guest_pace.c */
    tell_step(planning, "measuring for 7 s how fast the guest writes");
    for (int i = 0; i < PING_COUNT; i++) {
        peer_ping(planning->peer);
    }
    planning->pace = guest_pace_start(planning->daemon->base, planning->qmp, &planning->inspection,
                                      on_paced, planning);
}

/* --- the destination --- */

static void on_message(struct peer *peer, enum message_type type, json_t *object, void *context)
{
    struct planning *planning = context;

    (void)peer;
    if (type != MESSAGE_FINDINGS || planning->pace ||
        strcmp(json_string_value(json_object_get(object, "migration")), planning->id) != 0) {
        return; /* what was not asked means nothing here */
    }
    take_findings(planning, "destination", json_object_get(object, "findings"));
    if (planning->blocked) {
        finish(planning);
    } else {
        measure(planning);
    }
}

static void lose_peer(struct planning *planning, const struct error *error)
{
    find_blocker(planning, "destination", error);
    finish(planning);
}

static void on_lost(struct peer *peer, const struct error *error, void *context)
{
    struct error copy = *error;

    (void)peer;
    lose_peer(context, &copy);
}

static void ask_destination(struct planning *planning)
{
    const struct migrate_request *request = &planning->request.migrate;
    uint64_t page_cache = page_budget(planning->daemon->config.page_cache,
                                      planning->inspection.memory_bytes, host_memory_available());
    char version[QMP_VERSION_SIZE];
    json_t *question =
        offer_build(&planning->vm, &planning->inspection, request,
                    qmp_version_text(planning->qmp, version), offer_lanes(request), page_cache);

    if (!question) {
        find(planning, "source", "blocker", OFFER_NOT_UTF8, OFFER_NOT_UTF8_TEXT);
        finish(planning);
        return;
    }
    json_object_set_new(question, "type", must_json(json_string("preflight")));
    json_object_set_new(question, "migration", must_json(json_string(planning->id)));
    limit(planning, request->peer);
    peer_send(planning->peer, question);
}

static void on_peer_ready(struct peer *peer, const struct error *error, void *context)
{
    (void)peer;
    if (error) {
        struct error copy = *error;

        lose_peer(context, &copy);
    } else {
        ask_destination(context);
    }
}

static void dial(struct planning *planning)
{
    static const struct peer_handlers handlers = {on_peer_ready, on_message, on_lost};
    const struct tls_peer *known =
        tls_trust_by_name(planning->daemon->trust, planning->request.migrate.peer);

    if (planning->no_peer || !known) {
        finish(planning); /* it has been said why */
        return;
    }
    tell_step(planning, "asking the destination");
    limit(planning, known->name);
    planning->peer = peer_dial(planning->daemon, known, &handlers, planning);
}

/* --- this host --- */

static void on_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct planning *planning = context;

    if (error) {
        find_blocker(planning, "source", error);
    } else {
        planning->sync_ns = nanoseconds;
    }
    journal_free(planning->journal);
    planning->journal = NULL;
    dial(planning);
}

/* A record is appended and synced as the journal of a migration would be, in a file that has no name. */
static void try_journal(struct planning *planning)
{
    char *directory = must_format("%s/journal", planning->daemon->config.state_dir);
    struct error error;

    planning->journal = journal_create_nameless(planning->daemon->syncer, directory, &error);
    free(directory);
    if (!planning->journal) {
        find(planning, "source", "note", error.id, error.text);
        dial(planning);
    } else if (!journal_append(planning->journal, "begin",
                               must_json(json_pack("{ss}", "migration", planning->id)), &error)) {
        find_blocker(planning, "source", &error);
        dial(planning);
    } else {
        journal_sync(planning->journal, on_synced, planning);
    }
}

static void look_at_disks(struct planning *planning)
{
    const struct migrate_request *request = &planning->request.migrate;
    char *text;

    for (size_t i = 0; i < request->disk_count; i++) {
        if (!inspection_disk(&planning->inspection, request->disks[i].device)) {
            text = must_format("--disk %s: the VM has no disk of that name (watari list)",
                               request->disks[i].device);
            find(planning, "source", "blocker", "disk-unknown", text);
            free(text);
        }
    }
    for (size_t i = 0; i < planning->inspection.disk_count; i++) {
        const struct inspected_disk *disk = &planning->inspection.disks[i];

        if (disk->throttled && !disk->read_only) {
            text = must_format("disk %s has limits of its own: its writes are not throttled",
                               disk->device);
            find(planning, "source", "note", "disk-limits", text);
            free(text);
        }
    }
}

static void on_inspected(struct inspection *inspection, const struct error *error, void *context)
{
    struct planning *planning = context;

    planning->inspect = NULL;
    limit(planning, NULL);
    if (error) {
        find_blocker(planning, "source", error);
        finish(planning);
        return;
    }
    inspection_take(&planning->inspection, inspection);
    planning->is_inspected = true;
    take_findings(planning, "source", planning->inspection.findings);
    look_at_disks(planning);
    try_journal(planning);
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct planning *planning = context;

    if (error) {
        find_blocker(planning, "source", error);
        finish(planning);
        return;
    }
    planning->inspect = inspect_start(planning->qmp, on_inspected, planning);
}

static void on_qmp_closed(void *context)
{
    struct planning *planning = context;
    struct error error;

    error_set(&error, "qmp-gone", "the QEMU of %s closed its QMP socket: it has ended, or ends",
              planning->vm.name);
    find_blocker(planning, "source", &error);
    finish(planning);
}

struct planning *plan_start(struct daemon *daemon, struct plan_request *request,
                            const struct plan_handlers *handlers, void *context,
                            struct error *error)
{
    static const struct qmp_handlers qmp_handlers = {on_qmp_ready, NULL, on_qmp_closed};
    struct planning *planning;
    struct error reason;
    struct vm vm;

    if (!vm_find(request->migrate.vm, &vm, error)) {
        migrate_request_clear(&request->migrate);
        return NULL;
    }
    planning = must_alloc(sizeof *planning);
    planning->daemon = daemon;
    planning->request = *request;
    memset(request, 0, sizeof *request);
    planning->handlers = *handlers;
    planning->context = context;
    planning->vm = vm;
    planning->findings = must_json(json_array());
    planning->round_trip_ns = UINT64_MAX;
    planning->timer = evtimer_new(daemon->base, on_timer, planning);
    migration_new_id(planning->id);
    if (!source_may_start(daemon, &planning->request.migrate, &planning->vm, &reason)) {
        planning->no_peer = true;
        find_blocker(planning, "source", &reason);
    }
    limit(planning, "the VM's QEMU");
    planning->qmp = qmp_open(daemon->base, planning->vm.qmp_path, &qmp_handlers, planning);
    return planning;
}

#include "source.h"

#include "bandwidth.h"
#include "batch.h"
#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "farewell.h"
#include "journal.h"
#include "mover_link.h"
#include "peer.h"
#include "plan.h"
#include "qmp.h"
#include "recover.h"
#include "source_state.h"
#include "tree.h"
#include "undo.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS 50
/* A step that the lost link holds up is looked at again after this. */
#define SUSPENDED_LIMIT_MS 5000
/* How long a rollback waits for the peer's word that it has tidied up as well; it does so on its own in any case. */
#define ABORTED_WAIT_MS 5000
/* A QEMU that ends closes its QMP socket first; its process is gone a moment later. */
#define QMP_CLOSED_MS 3000

/* --- time --- */

static void on_limit(evutil_socket_t fd, short what, void *context)
{
    struct source *source = context;

    (void)fd;
    (void)what;
    if (source->peer_abort.id[0]) {
        source_abandoned(source, &source->peer_abort);
        return;
    }
    if (source->later.id[0]) {
        struct error later = source->later;

        source_fail(source, &later);
        return;
    }
    if (source->suspended) {
        source_limit(source, source->limit_what, SUSPENDED_LIMIT_MS); /* its own limit is another */
        return;
    }
    source_fail_text(source, "timeout", "%s took too long", source->limit_what);
}

void source_limit(struct source *source, const char *what, uint32_t ms)
{
    source->limit_what = what;
    if (ms) {
        event_add(source->limit, &(struct timeval){ms / 1000, (ms % 1000) * 1000});
    } else {
        event_del(source->limit);
    }
}

static void on_pause_clock(evutil_socket_t fd, short what, void *context)
{
    struct source *source = context;

    (void)fd;
    (void)what;
    if (source->verifying) {
        source_fail_text(
            source, "pause-too-long",
            "the guest stood still for %llu ms, and %.1f MB of its disks were still to be compared (--verify): allow a "
            "longer pause, or go without",
            (unsigned long long)(clock_monotonic_ns() - source->paused_ns) / 1000000,
            (double)source->sample.uncompared_bytes / 1e6);
        return;
    }
    source_fail_text(
        source, "pause-too-long",
        "the guest stood still for %llu ms without the destination being ready to take over",
        (unsigned long long)(clock_monotonic_ns() - source->paused_ns) / 1000000);
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
    struct source *source = context;

    (void)fd;
    (void)what;
    if (source->failing) {
        return;
    }
    source_memory_end_tick(source);
    if (source->suspended) {
        source_suspended_tick(source);
    } else {
        source_disk_tick(source);
        source_memory_tick(source);
    }
    if (!source->failing) {
        source_progress(source);
    }
}

/* --- making and freeing --- */

static bool cancel(struct migration *migration, struct error *error)
{
    struct source *source = source_of(migration);

    if (source->failing) {
        return true;
    }
    if (source->handoff.state == SOURCE_PAUSED && source->handoff.qemu_dead) {
        return error_set(
            error, "too-late",
            "the QEMU of %s has ended here, and %s may have the only copy: it is being asked. To start the VM "
            "from its disks here instead: watari resolve %s --run-here",
            migration->vm, migration->peer, migration->id);
    }
    if (!handoff_source_can_roll_back(&source->handoff)) {
        return error_set(
            error, "too-late",
            "too late to cancel: %s has been handed over to %s (`watari status %s` shows how it stands)",
            migration->vm, migration->peer, migration->id);
    }
    source->cancelled = true;
    source_fail_text(source, "cancelled", "cancelled by the operator");
    return true;
}

static const struct migration_ops source_ops = {cancel,         source_describe, source_evidence,
                                                source_resolve, source_set,      source_release};

struct source *source_new(struct daemon *daemon, const char *id, const char *vm, const char *peer)
{
    static const struct timeval handoff_time = {HANDOFF_TIME_MS / 1000,
                                                HANDOFF_TIME_MS % 1000 * 1000};
    struct source *source = must_alloc(sizeof *source);

    migration_init(&source->migration, daemon, MIGRATION_SOURCE, id, vm, peer);
    source->migration.ops = &source_ops;
    source->run_dir = must_format("%s/migrations/%s", daemon->config.run_dir, id);
    source->left = must_json(json_array());
    STAILQ_INIT(&source->reads.waiters);
    source->planned = json_null();
    source->tick = event_new(daemon->base, -1, EV_PERSIST, on_tick, source);
    source->limit = evtimer_new(daemon->base, on_limit, source);
    source->pause_clock = evtimer_new(daemon->base, on_pause_clock, source);
    source->handoff_time = event_new(daemon->base, -1, EV_PERSIST, source_on_handoff_time, source);
    event_add(source->handoff_time, &handoff_time);
    return source;
}

static void free_steps(struct source *source)
{
    batch_cancel(source->batch);
    source->batch = NULL;
    batch_cancel(source->throttling);
    source->throttling = NULL;
    inspect_free(source->inspect);
    source->inspect = NULL;
    for (size_t i = 0; i < source->disk_count; i++) {
        batch_cancel(source->disks[i].batch);
        source->disks[i].batch = NULL;
        if (source->disks[i].nbd_fd >= 0) {
            close(source->disks[i].nbd_fd);
            source->disks[i].nbd_fd = -1;
        }
    }
    source_reads_forget(source);
    source_end_lane_dials(source);
    if (source->qmp) {
        qmp_forget(source->qmp, source);
    }
}

void source_release(struct migration *migration)
{
    struct source *source = source_of(migration);

    free_steps(source);
    undo_free(source->undo);
    qmp_free(source->qmp);
    process_watch_free(source->process);
    inspection_clear(&source->inspection);
    peer_free(source->peer);
    mover_link_free(source->mover);
    journal_free(source->journal);
    for (size_t i = 0; i < source->disk_count; i++) {
        free(source->disks[i].device);
        free(source->disks[i].node);
        free(source->disks[i].path);
        free(source->disks[i].mark);
    }
    free(source->disks);
    free(source->lane_dials);
    json_decref(source->accepted);
    json_decref(source->planned);
    json_decref(source->left);
    json_decref(source->tickets);
    free(source->run_dir);
    free(source->journal_path);
    event_free(source->tick);
    event_free(source->limit);
    event_free(source->pause_clock);
    event_free(source->handoff_time);
    if (source->redial) {
        event_free(source->redial);
    }
    if (source->recover_retry) {
        event_free(source->recover_retry);
    }
    vm_clear(&source->vm);
    migrate_request_clear(&source->request);
    free(source);
}

/* --- talking --- */

void source_send(struct source *source, const char *type, json_t *members)
{
    json_t *object =
        must_json(json_pack("{ss,ss}", "type", type, "migration", source->migration.id));

    if (members) {
        json_object_update(object, members);
        json_decref(members);
    }
    if (source->peer) {
        peer_send(source->peer, object);
    } else {
        json_decref(object);
    }
}

void source_order(struct source *source, const struct order *order, int fd)
{
    mover_link_send(source->mover, order, fd);
}

void source_hang_up(struct source *source)
{
    mover_link_free(source->mover);
    source->mover = NULL;
    source_share_bandwidth(source->migration.daemon);
    source_drop_peer(source);
}

/* --- failing --- */

/* A destination that may have everything keeps it until it is told; see farewell.h. That of a trial never has. */
static bool owes_abort(const struct source *source)
{
    return source->accepted && source->memory_begun && !source->peer_acknowledged &&
           !source->request.trial;
}

void source_tidy_end(struct source *source)
{
    struct error error;

    if (!source->undone || !source->peer_undone) {
        return;
    }
    source_limit(source, NULL, 0);
    event_del(source->tick);
    if (source->journal &&
        !journal_append(source->journal, handoff_source_record_name(SOURCE_RECORD_ROLLED_BACK),
                        must_json(json_pack("{ss,sO,sb}", "reason", source->error.id, "left",
                                            source->left, "owes_abort", owes_abort(source))),
                        &error)) {
        log_warning("%s", error.text);
    }
    source_hang_up(source);
    handoff_source_step(&source->handoff, SOURCE_IN_ROLLED_BACK, NULL, clock_boottime_ms());
    source_finish(source);
}

static void on_undone(const json_t *left, void *context)
{
    struct source *source = context;

    json_array_extend(source->left, (json_t *)left);
    if (source->qmp_lost && !source->handoff.qemu_dead) {
        /* If the process ends with it there is nothing to put back, and the guest runs nowhere. */
        source->awaits_qemu_end = true;
        source_limit(source, NULL, QMP_CLOSED_MS);
        return;
    }
    source->undone = true;
    source_tidy_end(source);
}

static void on_undo_qmp_ready(const struct error *error, void *context)
{
    struct source *source = context;

    if (error) {
        log_warning("%s: rollback without QMP: %s", source->migration.vm, error->text);
        json_array_append_new(source->left, json_string(error->text));
    } else {
        source->qmp_ready = true;
    }
    undo_run(source->undo, error ? NULL : source->qmp, on_undone, source);
}

static void on_undo_qmp_closed(void *context)
{
    struct source *source = context;

    /* Undo's commands have been failed and noted one by one. */
    source->qmp_ready = false;
    source->qmp_lost = true;
}

/* Puts everything back, over a QMP connection that works. */
static void put_back(struct source *source)
{
    static const struct qmp_handlers handlers = {on_undo_qmp_ready, NULL, on_undo_qmp_closed};

    if (!source->undo) {
        source->undone = true;
        source_tidy_end(source);
    } else if (source->qmp_ready || source->handoff.qemu_dead) {
        undo_run(source->undo, source->handoff.qemu_dead ? NULL : source->qmp, on_undone, source);
    } else {
        qmp_free(source->qmp);
        source->qmp =
            qmp_open(source->migration.daemon->base, source->vm.qmp_path, &handlers, source);
    }
}

static void on_rollback_limit(evutil_socket_t fd, short what, void *context)
{
    struct source *source = context;

    (void)fd;
    (void)what;
    source->peer_undone = true;
    source->undone = source->undone || source->awaits_qemu_end;
    source_tidy_end(source);
}

static void end_steps(struct source *source)
{
    free_steps(source);
    event_del(source->tick);
    event_del(source->pause_clock);
    event_free(source->limit);
    source->limit = evtimer_new(source->migration.daemon->base, on_rollback_limit, source);
}

/* For INPUT, which may end the migration. */
static void end_with(struct source *source, enum source_input input, const struct error *error)
{
    if (source->failing || source->migration.result) {
        return;
    }
    /* QEMU's end shows at many places at once; its pidfd tells what it was, and it is not far. */
    if (source->process && strcmp(error->id, "timeout") != 0 &&
        (source->qmp_lost || (source->qmp_ready && strcmp(error->id, "qmp-gone") == 0))) {
        source_limit(source, "waiting for QEMU after it closed its QMP socket", QMP_CLOSED_MS);
        return;
    }
    if (handoff_source_can_roll_back(&source->handoff)) {
        source->error = *error;
    } else if (source->handoff.state != SOURCE_PAUSED) {
        log_warning("migration %s of %s, after the commit: %s", source->migration.id,
                    source->migration.vm, error->text);
    }
    source_handoff(source, input, NULL);
}

void source_fail(struct source *source, const struct error *error)
{
    end_with(source, SOURCE_IN_FAILED, error);
}

void source_abandoned(struct source *source, const struct error *error)
{
    end_with(source, SOURCE_IN_ABANDONED, error);
}

void source_fail_text(struct source *source, const char *id, const char *text, ...)
{
    struct error error;
    va_list arguments;

    va_start(arguments, text);
    error_set_list(&error, id, text, arguments);
    va_end(arguments);
    source_fail(source, &error);
}

/*
 * The mover goes first: in its last phase QEMU writes the stream under its big lock, and a mover that does not read (its lanes are gone) would
 * keep every QMP command waiting for ever. And it must be gone: QEMU 7.2 is stuck for good, guest and all, when its NBD server is stopped
 * while a client has not finished its negotiation, and takes note of its end no more. Of those that have, QEMU does not see the end: their
 * sockets are parked in it.
 */
static void on_mover_gone(void *context)
{
    struct source *source = context;

    mover_link_free(source->mover);
    source->mover = NULL;
    source_share_bandwidth(source->migration.daemon);
    put_back(source);
}

void source_roll_back(struct source *source)
{
    bool peer_knows = source->peer && source->offered && !source->refused;

    end_steps(source);
    source->peer_undone = !peer_knows || source->peer_acknowledged;
    if (!source->peer_undone) {
        source_limit(source, NULL, ABORTED_WAIT_MS);
    }
    if (source->mover) {
        mover_link_end(source->mover, on_mover_gone, source);
    } else {
        put_back(source);
    }
}

void source_finish(struct source *source)
{
    const char *result = source->lost        ? "lost"
                         : source->cancelled ? "cancelled"
                         : source->refused   ? "refused"
                         : source->failing   ? "failed"
                                             : "done";
    struct error error;

    event_del(source->tick);
    free_steps(source);
    undo_free(source->undo);
    source->undo = NULL;
    qmp_free(source->qmp);
    source->qmp = NULL;
    process_watch_free(source->process);
    source->process = NULL;
    if (source->journal && !source->failing && source->peer_acknowledged &&
        !journal_append(source->journal, handoff_source_record_name(SOURCE_RECORD_ACKNOWLEDGED),
                        NULL, &error)) {
        log_warning("%s", error.text);
    }
    if (source->request.trial && json_array_size(source->left) == 0) {
        journal_discard(source->journal);
    } else if (source->journal &&
               (source->failing ? owes_abort(source) : !source->peer_acknowledged)) {
        farewell_begin(source->migration.daemon, source->migration.peer, source->migration.id,
                       source->failing ? FAREWELL_ABORT : FAREWELL_DONE, source->journal);
    } else {
        journal_free(source->journal);
    }
    source->journal = NULL;
    migration_finish(&source->migration, source_result(source, result, source->error.id));
}

/* --- the VM --- */

void source_forget_qemu(struct source *source)
{
    process_watch_free(source->process);
    source->process = NULL;
    source->qmp_ready = false;
    source_limit(source, NULL, 0);
}

void source_on_qemu_end(pid_t pid, void *context)
{
    struct source *source = context;

    (void)pid;
    if (source->failing || source->migration.result) {
        source->handoff.qemu_dead = true;
        if (source->failing && !source->migration.result) {
            error_set(
                &source->error, "qemu-ended",
                "the QEMU of %s (pid %d) ended during the rollback: the guest powered off, or QEMU was killed or crashed",
                source->migration.vm, (int)source->vm.pid);
            source->lost = true;
            if (source->awaits_qemu_end) {
                source->undone = true;
                source_tidy_end(source);
            }
        }
        return;
    }
    if (source->handoff.state == SOURCE_CLEANING) {
        source_qemu_gone(source);
        return;
    }
    if (source->error.id[0] == '\0') {
        error_set(
            &source->error, "qemu-ended",
            "the QEMU of %s (pid %d) ended: the guest powered off, or QEMU was killed or crashed",
            source->migration.vm, (int)source->vm.pid);
    }
    source_forget_qemu(source);
    source_handoff(source, SOURCE_IN_QEMU_DEAD, NULL);
    if (source->handoff.state == SOURCE_PAUSED) {
        event_del(source->pause_clock);
        migration_phase(&source->migration, PHASE_HANDOFF,
                        "its QEMU ended here after the guest was paused: %s is asked for its copy",
                        source->migration.peer);
    }
}

static void on_qmp_event(const char *name, json_t *data, void *context)
{
    struct source *source = context;

    if (strcmp(name, "BLOCK_EXPORT_DELETED") == 0) {
        const char *id = json_string_value(json_object_get(data, "id"));

        source_export_deleted(source, id ? id : "");
    } else {
        source_memory_event(source, name, data);
    }
}

static void on_qmp_closed(void *context)
{
    struct source *source = context;

    source->qmp_ready = false;
    source->qmp_lost = true;
    /* If the process ends with it, the pidfd says so within moments, and says more. */
    if (source->handoff.state != SOURCE_CLEANING) {
        source_limit(source, "waiting for QEMU after it closed its QMP socket", QMP_CLOSED_MS);
    }
}

static void on_inspected(struct inspection *inspection, const struct error *error, void *context)
{
    struct source *source = context;
    struct error blocker;

    source->inspect = NULL;
    if (error) {
        source_fail(source, error);
        return;
    }
    inspection_take(&source->inspection, inspection);
    source_record_vm(source);
    if (inspection_blocker(&source->inspection, &blocker)) {
        source->refused = true;
        source_fail(source, &blocker);
        return;
    }
    for (size_t i = 0; i < source->request.disk_count; i++) {
        const char *device = source->request.disks[i].device;

        if (!inspection_disk(&source->inspection, device)) {
            source->refused = true;
            source_fail_text(source, "disk-unknown",
                             "--disk %s: the VM has no disk of that name (watari list)", device);
            return;
        }
    }
    source_dial(source);
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct source *source = context;

    if (error) {
        source->refused = true;
        source_fail(source, error);
        return;
    }
    source->qmp_ready = true;
    source->inspect = inspect_start(source->qmp, on_inspected, source);
}

bool source_may_start(struct daemon *daemon, const struct migrate_request *request,
                      const struct vm *vm, struct error *error)
{
    const struct tls_peer *known = tls_trust_by_name(daemon->trust, request->peer);
    const struct migration *running = migration_of_vm(daemon, vm->name);

    if (!known) {
        return error_set(
            error, "peer-unknown",
            "no peer is trusted under the name %s (watari trust list); %s goes on running here",
            request->peer, vm->name);
    }
    if (!(known->allow & TLS_ALLOW_RECEIVE)) {
        return error_set(error, "peer-not-allowed",
                         "%s may not be sent VMs (watari trust list); %s goes on running here",
                         known->name, vm->name);
    }
    if (strcmp(known->address, "-") == 0) {
        return error_set(
            error, "peer-unreachable",
            "%s has no address here: it can only send to this host; %s goes on running here",
            known->name, vm->name);
    }
    if (running) {
        return error_set(error, "migration-active",
                         "a migration of %s is under way already: %s (watari watch %s)", vm->name,
                         running->id, running->id);
    }
    return !recover_blocks(daemon, vm->name, error);
}

struct migration *source_start(struct daemon *daemon, struct migrate_request *request,
                               struct error *error)
{
    static const struct qmp_handlers handlers = {on_qmp_ready, on_qmp_event, on_qmp_closed};
    static const struct timeval tick = {0, TICK_MS * 1000};
    char id[MIGRATION_ID_SIZE];
    struct source *source;
    struct vm vm;

    if (!vm_find(request->vm, &vm, error)) {
        migrate_request_clear(request);
        return NULL;
    }
    if (!source_may_start(daemon, request, &vm, error)) {
        vm_clear(&vm);
        migrate_request_clear(request);
        return NULL;
    }
    migration_new_id(id);
    source = source_new(daemon, id, vm.name, request->peer);
    source->vm = vm;
    source->request = *request;
    memset(request, 0, sizeof *request);
    source->migration.mode = source->request.mode;
    source->migration.trial = source->request.trial;
    json_decref(source->planned);
    source->planned = plan_last(daemon, source->migration.vm, source->migration.peer);
    source->process = process_watch_new(daemon->base, source->vm.pid, source->vm.start_time,
                                        source_on_qemu_end, source, error);
    if (!source->process) {
        migration_clear(&source->migration);
        source_release(&source->migration);
        return NULL;
    }
    migration_register(&source->migration);
    source_record_begin(source);
    migration_phase(&source->migration, PHASE_PREFLIGHT, "%s (pid %d) to %s, %s",
                    source->migration.vm, (int)source->vm.pid, source->migration.peer,
                    source_mode_word(source));
    source->qmp = qmp_open(daemon->base, source->vm.qmp_path, &handlers, source);
    event_add(source->tick, &tick);
    return &source->migration;
}

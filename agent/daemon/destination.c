#include "destination.h"

#include "bandwidth.h"
#include "batch.h"
#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "destination_state.h"
#include "journal.h"
#include "listener.h"
#include "mover_link.h"
#include "peer.h"
#include "qmp.h"
#include "recover.h"
#include "start.h"
#include "undo.h"
#include "vm.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A step that the lost link may hold up is looked at again after this. */
#define LINK_LOST_LIMIT_MS 5000

/* --- making and freeing --- */

static void on_limit(evutil_socket_t fd, short what, void *context)
{
    struct destination *destination = context;

    (void)fd;
    (void)what;
    if (destination->later.id[0]) {
        struct error later = destination->later;

        destination_fail(destination, &later);
        return;
    }
    if (destination->accepted && !destination->peer) {
        destination_limit(destination, destination->limit_what, LINK_LOST_LIMIT_MS);
        return; /* the lost link has a limit of its own */
    }
    destination_fail_text(destination, "timeout", "%s took too long", destination->limit_what);
}

void destination_limit(struct destination *destination, const char *what, uint32_t ms)
{
    destination->limit_what = what;
    if (ms) {
        event_add(destination->limit, &(struct timeval){ms / 1000, (ms % 1000) * 1000});
    } else {
        event_del(destination->limit);
    }
}

static bool cancel(struct migration *migration, struct error *error)
{
    struct destination *destination = destination_of(migration);

    if (destination->failing) {
        return true;
    }
    if (destination->handoff.state != DESTINATION_PREPARING) {
        return error_set(
            error, "too-late",
            "too late to cancel here: %s is loaded and waits for %s's decision; ask there",
            migration->vm, migration->peer);
    }
    destination->cancelled = true;
    destination_fail_text(destination, "cancelled", "cancelled by the operator of the destination");
    return true;
}

static void free_steps(struct destination *destination)
{
    listener_void(destination->migration.daemon->listener, destination);
    batch_cancel(destination->batch);
    destination->batch = NULL;
    inspect_free(destination->inspect);
    destination->inspect = NULL;
    event_del(destination->retry);
    event_del(destination->limit);
    for (size_t i = 0; i < destination->disk_count; i++) {
        if (destination->disks[i].nbd_fd >= 0) {
            close(destination->disks[i].nbd_fd);
            destination->disks[i].nbd_fd = -1;
        }
    }
    mover_link_free(destination->mover);
    destination->mover = NULL;
}

void destination_let_go(struct destination *destination)
{
    if (destination->qmp) {
        qmp_forget(destination->qmp, destination);
    }
    qmp_free(destination->qmp);
    destination->qmp = NULL;
    destination->qmp_ready = false;
    process_watch_free(destination->process);
    destination->process = NULL;
    if (destination->child) {
        child_free(destination->child);
        destination->child = NULL;
    }
}

static void release(struct migration *migration)
{
    struct destination *destination = destination_of(migration);

    free_steps(destination);
    undo_free(destination->undo);
    destination_let_go(destination);
    peer_free(destination->peer);
    journal_free(destination->journal);
    for (size_t i = 0; i < destination->disk_count; i++) {
        struct destination_disk *disk = &destination->disks[i];

        free(disk->name);
        free(disk->source_path);
        free(disk->path);
        free(disk->format);
        free(disk->node);
    }
    free(destination->disks);
    launch_clear(&destination->launch);
    free(destination->vm_dir);
    free(destination->qmp_path);
    free(destination->log_path);
    free(destination->run_dir);
    free(destination->launch_path);
    json_decref(destination->offer);
    json_decref(destination->left);
    event_free(destination->retry);
    event_free(destination->limit);
    event_free(destination->handoff_time);
    if (destination->recover_retry) {
        event_free(destination->recover_retry);
    }
    free(destination);
}

static const struct migration_ops destination_ops = {
    cancel, destination_describe, destination_evidence, destination_resolve, destination_set,
    release};

struct destination *destination_new(struct daemon *daemon, const char *id, const char *vm,
                                    const char *peer)
{
    static const struct timeval handoff_time = {HANDOFF_TIME_MS / 1000,
                                                HANDOFF_TIME_MS % 1000 * 1000};
    struct destination *destination = must_alloc(sizeof *destination);

    migration_init(&destination->migration, daemon, MIGRATION_DESTINATION, id, vm, peer);
    destination->migration.ops = &destination_ops;
    destination->vm_dir = must_format("%s/vms/%s", daemon->config.run_dir, vm);
    destination->qmp_path = must_format("%s/private/watari-qmp.sock", destination->vm_dir);
    destination->log_path = must_format("%s/qemu.log", destination->vm_dir);
    destination->run_dir = must_format("%s/migrations/%s", daemon->config.run_dir, id);
    destination->launch_path = must_format("%s/vms/%s/launch", daemon->config.state_dir, vm);
    destination->retry = evtimer_new(daemon->base, destination_on_retry, destination);
    destination->limit = evtimer_new(daemon->base, on_limit, destination);
    destination->handoff_time =
        event_new(daemon->base, -1, EV_PERSIST, destination_on_handoff_time, destination);
    event_add(destination->handoff_time, &handoff_time);
    return destination;
}

void destination_is_trial(struct destination *destination)
{
    const struct config *config = &destination->migration.daemon->config;

    destination->migration.trial = true;
    free(destination->vm_dir);
    free(destination->qmp_path);
    free(destination->log_path);
    /* No VM has such a name: see destination_may_offer(). */
    destination->vm_dir =
        must_format("%s/vms/.trial-%s", config->run_dir, destination->migration.id);
    destination->qmp_path = must_format("%s/private/watari-qmp.sock", destination->vm_dir);
    destination->log_path = must_format("%s/qemu.log", destination->vm_dir);
}

void destination_send(struct destination *destination, const char *type, json_t *members)
{
    json_t *object =
        must_json(json_pack("{ss,ss}", "type", type, "migration", destination->migration.id));

    if (members) {
        json_object_update(object, members);
        json_decref(members);
    }
    if (destination->peer) {
        peer_send(destination->peer, object);
    } else {
        json_decref(object);
    }
}

/* --- failing --- */

static json_t *result_object(const struct destination *destination, const char *result)
{
    bool done = strcmp(result, "done") == 0;

    return must_json(
        json_pack("{ss,si,ss,ss,ss,ss,so,so,sI,sI}", "event", "result", "schema", 1, "id",
                  destination->migration.id, "vm", destination->migration.vm, "side", "destination",
                  "result", result, "reason",
                  done ? json_null() : must_json(json_string(destination->error.id)), "error",
                  done ? json_null()
                       : must_json(json_pack("{ss,so}", "id", destination->error.id, "text",
                                             must_json(message_text(destination->error.text)))),
                  "total_ms", (json_int_t)(clock_boottime_ms() - destination->migration.started_ms),
                  "wire_bytes",
                  (json_int_t)(destination->wire_before + destination->sample.wire_sent +
                               destination->sample.wire_received)));
}

void destination_finish(struct destination *destination, const char *result)
{
    free_steps(destination);
    destination_share_bandwidth(destination->migration.daemon);
    undo_free(destination->undo);
    destination->undo = NULL;
    destination_let_go(destination);
    if (destination->migration.trial && json_array_size(destination->left) == 0) {
        journal_discard(destination->journal);
    } else {
        journal_free(destination->journal);
    }
    destination->journal = NULL;
    peer_free(destination->peer);
    destination->peer = NULL;
    migration_finish(&destination->migration, result_object(destination, result));
}

static void abandoned(struct destination *destination)
{
    if (destination->accepted) {
        destination_send(
            destination, "aborted",
            must_json(json_pack("{so}", "text", must_json(message_text(destination->error.text)))));
    } else {
        destination_send(destination, "refuse",
                         must_json(json_pack("{ss,so}", "error", destination->error.id, "text",
                                             must_json(message_text(destination->error.text)))));
    }
    destination_finish(destination, destination->cancelled || destination->migration.trial ||
                                            strcmp(destination->error.id, "cancelled") == 0
                                        ? "cancelled"
                                    : destination->accepted ? "failed"
                                                            : "refused");
}

/* "aborted" waits: a source that knows keeps nothing of this migration, and a reboot here would offer the copy again. */
static void not_written(struct destination *destination, const struct error *error)
{
    log_error("migration %s of %s: its end here could not be written down, which %s is told "
              "only then; tried again every %d s: %s",
              destination->migration.id, destination->migration.vm, destination->migration.peer,
              HANDOFF_TIME_MS / 1000, error->text);
    if (destination->accepted) {
        destination->abandon_again = true;
    } else {
        abandoned(destination); /* "refuse" promises nothing */
    }
}

static void on_abandoned_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    (void)nanoseconds;
    if (error) {
        not_written(context, error);
    } else {
        abandoned(context);
    }
}

static void write_abandoned(struct destination *destination)
{
    struct error error;

    if (!destination->abandoned_appended &&
        !journal_append(destination->journal,
                        handoff_destination_record_name(DESTINATION_RECORD_ABANDONED),
                        must_json(json_pack("{sssO}", "reason", destination->error.id, "left",
                                            destination->left)),
                        &error)) {
        not_written(destination, &error);
        return;
    }
    destination->abandoned_appended = true;
    journal_sync(destination->journal, on_abandoned_synced, destination);
}

void destination_abandon_again(struct destination *destination)
{
    if (destination->abandon_again) {
        destination->abandon_again = false;
        write_abandoned(destination);
    }
}

static void on_undone(const json_t *left, void *context)
{
    struct destination *destination = context;

    destination->left = json_deep_copy(left);
    write_abandoned(destination);
}

/* Its QEMU is ended by the list: what was changed in it goes with it. */
void destination_undo(struct destination *destination)
{
    undo_run(destination->undo, NULL, on_undone, destination);
}

void destination_refuse_early(struct destination *destination, const struct error *error)
{
    destination->error = *error;
    destination_send(destination, "refuse",
                     must_json(json_pack("{ss,so}", "error", error->id, "text",
                                         must_json(message_text(error->text)))));
    destination_finish(destination, "failed");
}

void destination_abandon_begin(struct destination *destination)
{
    destination->failing = true;
    if (destination->error.id[0] == '\0') {
        error_set(&destination->error, "aborted", "the source ended the migration");
    }
    migration_phase(&destination->migration, PHASE_ROLLBACK, "removing what was made here: %s",
                    destination->error.text);
    if (destination->accepted && !destination->told_by_source) {
        destination_send(destination, "abort",
                         must_json(json_pack("{ss,so}", "error", destination->error.id, "text",
                                             must_json(message_text(destination->error.text)))));
    }
    free_steps(destination);
    destination_share_bandwidth(destination->migration.daemon);
    destination_let_go(destination);
    if (destination->maker) {
        /* It would make the image again after its removal: its end comes first. */
        child_signal(destination->maker, SIGKILL);
        return;
    }
    destination_undo(destination);
}

void destination_fail(struct destination *destination, const struct error *error)
{
    if (destination->failing || destination->migration.result) {
        return;
    }
    if (destination->handoff.state != DESTINATION_PREPARING &&
        destination->handoff.state != DESTINATION_LOADING) {
        log_warning("migration %s of %s: %s", destination->migration.id, destination->migration.vm,
                    error->text);
        return;
    }
    destination->error = *error;
    destination_handoff(destination, DESTINATION_IN_FAILED, NULL);
}

void destination_fail_text(struct destination *destination, const char *id, const char *text, ...)
{
    struct error error;
    va_list arguments;

    va_start(arguments, text);
    error_set_list(&error, id, text, arguments);
    va_end(arguments);
    destination_fail(destination, &error);
}

/* --- the source's connection --- */

static void take_abort(struct destination *destination, const json_t *object)
{
    /* What this host refused for is the better reason. */
    if (destination->handoff.state != DESTINATION_REFUSED &&
        destination->handoff.state != DESTINATION_REFUSING) {
        error_set(&destination->error, json_string_value(json_object_get(object, "error")),
                  "%s: %s", destination->migration.peer,
                  json_string_value(json_object_get(object, "text")));
    }
    destination->told_by_source = true;
    destination_handoff(destination, DESTINATION_IN_ABORT, NULL);
}

static void on_message(struct peer *peer, enum message_type type, json_t *object, void *context)
{
    struct destination *destination = context;
    const char *id = json_string_value(json_object_get(object, "migration"));
    struct handoff_word word = {
        .nonce = json_string_value(json_object_get(object, "nonce")),
        .refusal = (uint32_t)json_integer_value(json_object_get(object, "refusal"))};

    (void)peer;
    if (destination->recovering) {
        return; /* the source asks again */
    }
    if (!id || strcmp(id, destination->migration.id) != 0) {
        destination_fail_text(destination, "peer-protocol", "%s spoke of another migration",
                              destination->migration.peer);
        return;
    }
    switch (type) {
    case MESSAGE_RESUME:
        destination_resume(destination, object);
        break;
    case MESSAGE_MEMORY:
        destination_memory(destination);
        break;
    case MESSAGE_SENT:
        destination_sent(destination, object);
        break;
    case MESSAGE_COMMIT:
        destination_handoff(destination, DESTINATION_IN_COMMIT, &word);
        break;
    case MESSAGE_ABORT:
        take_abort(destination, object);
        break;
    case MESSAGE_QUERY:
        destination_queried(destination, json_is_true(json_object_get(object, "sending")));
        break;
    case MESSAGE_TAKEN_BACK:
        destination->told_by_source = true;
        destination_handoff(destination, DESTINATION_IN_TAKEN_BACK, NULL);
        break;
    case MESSAGE_TRY_AGAIN:
        destination_handoff(destination, DESTINATION_IN_TRY_AGAIN, &word);
        break;
    case MESSAGE_CONFLICT:
        log_error("%s says: %s", destination->migration.peer,
                  json_string_value(json_object_get(object, "text")));
        break;
    case MESSAGE_DONE:
        destination_handoff(destination, DESTINATION_IN_DONE, NULL);
        break;
    default:
        destination_fail_text(destination, "peer-protocol", "%s sent %s, which a source does not",
                              destination->migration.peer, message_type_name(type));
        break;
    }
}

static void on_lost(struct peer *peer, const struct error *error, void *context)
{
    struct destination *destination = context;

    (void)peer;
    struct error copy = *error;

    peer_free(destination->peer);
    destination->peer = NULL;
    if (destination->accepted && destination->handoff.state == DESTINATION_PREPARING &&
        !destination->migration.trial &&
        (destination->mover || destination->mover_lost.id[0] || destination->replacing)) {
        destination_link_lost(destination, &copy);
        return;
    }
    destination->told_by_source = true; /* there is nobody to tell */
    destination_fail(destination, &copy);
}

static void on_ready(struct peer *peer, const struct error *error, void *context)
{
    /* Only connections that are up get these handlers. */
    (void)peer;
    (void)error;
    (void)context;
}

void destination_bind(struct destination *destination, struct peer *peer)
{
    static const struct peer_handlers handlers = {on_ready, on_message, on_lost};

    peer_free(destination->peer);
    destination->peer = peer;
    peer_set_handlers(peer, &handlers, destination);
}

/* --- visitors: authenticated peers that have not said what they want --- */

struct visitor {
    struct daemon *daemon;
    struct peer *peer;
};

static void refuse(struct peer *peer, const char *id, const struct error *error)
{
    log_warning("an offer of %s was refused: %s", peer_name(peer), error->text);
    peer_send(peer, must_json(json_pack("{ss,ss,ss,so}", "type", "refuse", "migration", id, "error",
                                        error->id, "text", must_json(message_text(error->text)))));
}

bool destination_may_offer(struct daemon *daemon, const struct peer *peer, const char *id,
                           const char *vm, struct error *error)
{
    const struct tls_peer *known = tls_trust_by_name(daemon->trust, peer_name(peer));
    const struct migration *running = migration_of_vm(daemon, vm);
    struct vm_list list;
    bool exists = false;

    if (!known || !(known->allow & TLS_ALLOW_SEND)) {
        return error_set(error, "peer-not-allowed",
                         "%s may not send VMs to %s (watari trust list there)", peer_name(peer),
                         daemon->host);
    }
    if (vm[0] == '.' || strchr(vm, '/')) {
        return error_set(error, "vm-name", "the VM's name %s cannot be the name of a directory",
                         vm);
    }
    if (running || migration_find(daemon, id)) {
        return error_set(error, "migration-active",
                         "a migration of %s is undecided at %s (watari status there)", vm,
                         daemon->host);
    }
    if (recover_blocks(daemon, vm, error)) {
        return false;
    }
    if (vm_scan(&list) < 0) {
        return error_set(error, "vm-scan", "/proc cannot be read at %s", daemon->host);
    }
    for (size_t i = 0; i < list.count; i++) {
        exists = exists || strcmp(list.vms[i].name, vm) == 0;
    }
    vm_list_clear(&list);
    if (exists) {
        return error_set(error, "vm-exists", "a VM named %s runs at %s already", vm, daemon->host);
    }
    if (start_is_owned(daemon, vm, error)) {
        return error_set(
            error, "vm-exists",
            "a VM named %s belongs to %s, where a migration brought it, and is switched off there",
            vm, daemon->host);
    }
    return strcmp(error->id, "not-owned") == 0 || strcmp(error->id, "may-not-start") == 0;
}

static void take_offer(struct visitor *visitor, json_t *offer)
{
    struct daemon *daemon = visitor->daemon;
    struct peer *peer = visitor->peer;
    const char *id = json_string_value(json_object_get(offer, "migration"));
    const char *vm = json_string_value(json_object_get(offer, "vm"));
    struct destination *destination;
    struct error error;

    if (!destination_may_offer(daemon, peer, id, vm, &error)) {
        refuse(peer, id, &error);
        return;
    }
    free(visitor);
    destination = destination_new(daemon, id, vm, peer_name(peer));
    destination->offer = json_incref(offer);
    destination->lanes = (uint32_t)json_integer_value(json_object_get(offer, "lanes"));
    destination->reconnect_timeout_ms =
        (uint64_t)json_integer_value(json_object_get(offer, "reconnect_timeout_ms"));
    destination->migration.mode =
        strcmp(json_string_value(json_object_get(offer, "mode")), "quick") == 0 ? MIGRATION_QUICK
                                                                                : MIGRATION_LIVE;
    if (json_is_true(json_object_get(offer, "trial"))) {
        destination_is_trial(destination);
    }
    destination_bind(destination, peer);
    migration_register(&destination->migration);
    migration_record_begin(&destination->migration, "begin",
                           must_json(json_pack("{sO,sO}", "mode", json_object_get(offer, "mode"),
                                               "lanes", json_object_get(offer, "lanes"))));
    destination_prepare_begin(destination);
}

/* About a migration of an earlier connection: the answer to a query, or the end of an abort or a done. */
static void take_up(struct visitor *visitor, json_t *object, enum message_type type)
{
    struct peer *peer = visitor->peer;
    struct migration *migration =
        migration_find(visitor->daemon, json_string_value(json_object_get(object, "migration")));

    if (!migration || migration->side != MIGRATION_DESTINATION ||
        strcmp(migration->peer, peer_name(peer)) != 0 || migration->result) {
        destination_answer_ended(visitor->daemon, peer, type, object);
        return;
    }
    free(visitor);
    destination_bind(destination_of(migration), peer);
    destination_bandwidth_forgotten(destination_of(migration));
    on_message(peer, type, object, migration);
}

/* It stays a visitor: an offer may follow. */
static void answer_preflight(const struct visitor *visitor, json_t *preflight)
{
    peer_send(visitor->peer, must_json(json_pack(
                                 "{ss,sO,so}", "type", "findings", "migration",
                                 json_object_get(preflight, "migration"), "findings",
                                 destination_findings(visitor->daemon, visitor->peer, preflight))));
}

static void on_visitor_message(struct peer *peer, enum message_type type, json_t *object,
                               void *context)
{
    struct visitor *visitor = context;

    (void)peer;
    if (type == MESSAGE_OFFER) {
        take_offer(visitor, object);
    } else if (type == MESSAGE_PREFLIGHT) {
        answer_preflight(visitor, object);
    } else if (type == MESSAGE_QUERY || type == MESSAGE_RESUME || type == MESSAGE_ABORT ||
               type == MESSAGE_DONE) {
        take_up(visitor, object, type);
    } else {
        log_warning("%s begins with %s; closed", peer_name(visitor->peer), message_type_name(type));
        peer_free(visitor->peer);
        free(visitor);
    }
}

static void on_visitor_lost(struct peer *peer, const struct error *error, void *context)
{
    struct visitor *visitor = context;

    (void)peer;
    (void)error;
    peer_free(visitor->peer);
    free(visitor);
}

void destination_welcome(struct daemon *daemon, struct peer *peer)
{
    static const struct peer_handlers handlers = {on_ready, on_visitor_message, on_visitor_lost};
    struct visitor *visitor = must_alloc(sizeof *visitor);

    visitor->daemon = daemon;
    visitor->peer = peer;
    peer_set_handlers(peer, &handlers, visitor);
}

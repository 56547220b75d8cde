/*
 * A destination's migration after a restart of the daemon, from its journal.
 */
#include "destination.h"

#include "destination_state.h"

#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "journal.h"
#include "peer.h"
#include "qmp.h"
#include "undo.h"
#include "vm.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/handoff_records.h"
#include "agent/policy/phase.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A QEMU that does not answer now may do so later. */
#define RECOVER_RETRY_S 1

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}

/* Our own monitor's path names the QEMU we started: no other has it. */
static void find_qemu(struct destination *destination)
{
    struct vm_list list;
    struct error error;

    if (vm_scan(&list) < 0) {
        return;
    }
    for (size_t i = 0; i < list.count; i++) {
        const struct vm *vm = &list.vms[i];

        if (vm->qmp_path && strcmp(vm->qmp_path, destination->qmp_path) == 0) {
            destination->pid = vm->pid;
            destination->process =
                process_watch_new(destination->migration.daemon->base, vm->pid, vm->start_time,
                                  destination_on_qemu_end, destination, &error);
        }
    }
    vm_list_clear(&list);
}

static void restore_sockets(struct destination *destination, const json_t *prepared)
{
    const json_t *list = json_object_get(prepared, "sockets");
    const json_t *pair;
    size_t i;

    destination->launch.sockets =
        must_alloc((json_array_size(list) + 1) * sizeof *destination->launch.sockets);
    json_array_foreach(list, i, pair)
    {
        struct launch_socket *socket =
            &destination->launch.sockets[destination->launch.socket_count++];

        socket->private_path = must_copy(json_string_value(json_array_get(pair, 0)));
        socket->public_path = must_copy(json_string_value(json_array_get(pair, 1)));
    }
}

/* What a LOADED repeats. */
static void restore_stream(struct destination *destination, const json_t *loaded)
{
    destination->stream_bytes = (uint64_t)json_integer_value(json_object_get(loaded, "bytes"));
    snprintf(destination->stream_hash, sizeof destination->stream_hash, "%s",
             text_of(loaded, "hash"));
}

static void begin(struct destination *destination, enum destination_found found)
{
    unsigned actions;

    destination->recovering = false;
    memset(&destination->handoff, 0, sizeof destination->handoff);
    if (found == FOUND_QEMU_DEAD) {
        error_set(&destination->error, "qemu-ended", "the QEMU of %s at %s is gone",
                  destination->migration.vm, destination->migration.daemon->host);
    }
    actions =
        handoff_destination_recover(&destination->handoff, &destination->recovered_journal, found);
    if (actions & DESTINATION_DO_KILL_QEMU) {
        error_set(
            &destination->error, "resumed-early",
            "somebody resumed the copy of %s at %s before it was handed over; that copy was killed",
            destination->migration.vm, destination->migration.daemon->host);
        log_error("%s", destination->error.text);
    }
    if (destination->handoff.state == DESTINATION_LOADED) {
        migration_phase(&destination->migration, PHASE_LOADED,
                        "after a restart: a whole copy of %s waits for %s",
                        destination->migration.vm, destination->migration.peer);
    }
    if (destination->handoff.state == DESTINATION_OWNED && !actions) {
        destination->migration.decided = true;
        destination_settle(destination);
    }
    destination_handoff_begin(destination, actions);
}

static void on_qmp_ready(const struct error *error, void *context);

static void on_status(json_t *value, const struct error *error, void *context)
{
    if (error) {
        on_qmp_ready(error, context);
    } else {
        begin(context, json_is_true(json_object_get(value, "running")) ? FOUND_GUEST_RUNS
                                                                       : FOUND_GUEST_PAUSED);
    }
}

static void ask(evutil_socket_t fd, short what, void *context)
{
    struct destination *destination = context;

    (void)fd;
    (void)what;
    if (!destination->recovering) {
        return; /* it has ended meanwhile */
    }
    qmp_free(destination->qmp);
    destination->qmp = NULL;
    destination_qmp_open(destination, on_qmp_ready);
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct destination *destination = context;

    if (!destination->recovering) {
        return;
    }
    if (!error) {
        destination->qmp_ready = true;
        qmp_execute(destination->qmp, "query-status", NULL, -1, on_status, destination);
        return;
    }
    /* Whether it runs the guest decides: nothing is said to the source before. */
    log_warning("%s: %s; asked again in a moment", destination->migration.vm, error->text);
    if (!destination->recover_retry) {
        destination->recover_retry =
            evtimer_new(destination->migration.daemon->base, ask, destination);
    }
    event_add(destination->recover_retry, &(struct timeval){RECOVER_RETRY_S, 0});
}

void destination_recover_qemu_ended(struct destination *destination)
{
    begin(destination, FOUND_QEMU_DEAD);
}

static bool must_ask(const struct destination *destination)
{
    const struct handoff_destination_journal *journal = &destination->recovered_journal;

    return destination->process && !journal->owned && !journal->conflict &&
           journal->last != DESTINATION_RECORD_BEGIN;
}

void destination_recover(struct daemon *daemon, const char *path,
                         const struct journal_content *content)
{
    const json_t *begin_record = journal_content_last(content, "begin");
    const struct handoff_destination_journal journal =
        handoff_destination_records(content->records);
    bool trial = json_is_true(json_object_get(begin_record, "trial"));
    struct destination *destination;

    if (journal.abandoned && trial) {
        journal_discard(journal_reopen(daemon->syncer, path, content->good_length,
                                       json_array_size(content->records)));
        return;
    }
    if (journal.abandoned || journal.done || !journal.begun) {
        return;
    }
    destination = destination_new(daemon, text_of(begin_record, "migration"),
                                  text_of(begin_record, "vm"), text_of(begin_record, "peer"));
    destination->journal = journal_reopen(daemon->syncer, path, content->good_length,
                                          json_array_size(content->records));
    if (trial) {
        destination_is_trial(destination);
    }
    migration_register(&destination->migration);
    migration_record_begin(&destination->migration, "restart", NULL);
    destination->undo = undo_new(daemon->base, destination->journal);
    undo_restore(destination->undo, content);
    destination->recovered_journal = journal;
    restore_stream(destination, journal_content_last(content, "loaded"));
    destination->accepted = true;
    destination->told_by_source = true;
    destination->quiesced = journal.last != DESTINATION_RECORD_BEGIN;
    destination->loaded_ms = clock_boottime_ms();
    error_set(&destination->error, "daemon-restarted",
              "watarid at %s ended in the middle of the migration and was started again",
              daemon->host);
    restore_sockets(destination, journal_content_last(content, "prepared"));
    find_qemu(destination);
    if (must_ask(destination)) {
        destination->recovering = true;
        ask(-1, 0, destination);
    } else {
        begin(destination, destination->process ? FOUND_GUEST_PAUSED : FOUND_QEMU_DEAD);
    }
}

/* --- what has ended --- */

static void answer(struct peer *peer, const char *type, const char *id, json_t *members)
{
    json_t *object = must_json(json_pack("{ss,ss}", "type", type, "migration", id));

    json_object_update(object, members);
    json_decref(members);
    peer_send(peer, object);
}

static enum destination_input input_of(enum message_type type)
{
    return type == MESSAGE_DONE    ? DESTINATION_IN_DONE
           : type == MESSAGE_ABORT ? DESTINATION_IN_ABORT
                                   : DESTINATION_IN_LINK_UP;
}

/* By the journal, if that migration was with this very peer. False when it says nothing. */
static bool answer_by_journal(struct peer *peer, enum message_type type, const char *id,
                              const struct journal_content *content)
{
    const json_t *begin_record = journal_content_last(content, "begin");
    const struct handoff_destination_journal journal =
        handoff_destination_records(content->records);
    struct handoff_destination handoff = {0};
    unsigned actions;

    if (!begin_record || strcmp(text_of(begin_record, "peer"), peer_name(peer)) != 0 ||
        (!journal.abandoned && !journal.done)) {
        return false;
    }
    handoff_destination_recover(&handoff, &journal, FOUND_QEMU_DEAD);
    actions = handoff_destination_step(&handoff, input_of(type), NULL, clock_boottime_ms());
    if (actions & DESTINATION_DO_SEND_ABANDONED) {
        answer(peer, "aborted", id, must_json(json_pack("{ss}", "text", "")));
    } else if (actions & DESTINATION_DO_SEND_OWNED) {
        answer(peer, "owned", id, must_json(json_pack("{sb,si}", "running", 1, "resumed_at", 0)));
    } else if (actions & DESTINATION_DO_SEND_DONE_ACK) {
        answer(peer, "done-ack", id, must_json(json_object()));
    }
    return true;
}

void destination_answer_ended(struct daemon *daemon, struct peer *peer, enum message_type type,
                              const json_t *object)
{
    const char *id = json_string_value(json_object_get(object, "migration"));
    char *path = must_format("%s/journal/%s.destination", daemon->config.state_dir, id);
    struct journal_content content = {0};
    struct error error;

    if (access(path, F_OK) == 0) {
        if (!journal_file_read(path, &content, &error)) {
            log_error("%s asks about migration %s, and gets no answer: %s", peer_name(peer), id,
                      error.text);
            free(path);
            return;
        }
        if (answer_by_journal(peer, type, id, &content)) {
            goto end;
        }
    }
    if (type == MESSAGE_DONE) {
        answer(peer, "done-ack", id, must_json(json_object()));
    } else if (type == MESSAGE_ABORT) {
        answer(peer, "aborted", id, must_json(json_pack("{ss}", "text", "")));
    } else {
        answer(peer, "unknown", id, must_json(json_object()));
    }

end:
    journal_content_clear(&content);
    free(path);
}

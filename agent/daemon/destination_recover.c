/*
 * A destination's migration after a restart of the daemon, from its journal.
 */
#include "destination.h"

#include "destination_state.h"

#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "journal.h"
#include "qmp.h"
#include "undo.h"
#include "vm.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

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

static void on_status(json_t *value, const struct error *error, void *context)
{
    struct destination *destination = context;
    bool running = !error && json_is_true(json_object_get(value, "running"));

    if (error) {
        return; /* QEMU's pidfd decides */
    }
    if (running && destination->committed_before) {
        destination->handoff.state = DESTINATION_STARTING;
        destination_handoff(destination, DESTINATION_IN_RUNNING, NULL);
    } else if (running) {
        error_set(
            &destination->error, "resumed-early",
            "somebody resumed the copy of %s at %s before it was handed over; that copy was killed",
            destination->migration.vm, destination->migration.daemon->host);
        log_error("%s", destination->error.text);
        process_watch_signal(destination->process, SIGKILL);
        destination_handoff(destination, DESTINATION_IN_RESUMED_EARLY, NULL);
    }
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct destination *destination = context;

    if (error) {
        log_warning("%s: %s", destination->migration.vm, error->text);
        return;
    }
    destination->qmp_ready = true;
    qmp_execute(destination->qmp, "query-status", NULL, -1, on_status, destination);
}

/* A whole copy was loaded: it is kept, and the source is waited for. */
static void go_on_loaded(struct destination *destination, const struct journal_content *content)
{
    destination->committed_before = journal_content_last(content, "committed") != NULL;
    destination->loaded_ms = clock_boottime_ms();
    destination->handoff.state = DESTINATION_LOADED;
    destination->quiesced = true;
    migration_phase(&destination->migration, PHASE_LOADED,
                    "after a restart: a whole copy of %s waits for %s", destination->migration.vm,
                    destination->migration.peer);
    if (destination->process) {
        destination_qmp_open(destination, on_qmp_ready);
        return;
    }
    if (destination->committed_before) {
        /* It may have run and shut down. */
        destination->handoff.state = DESTINATION_STARTING;
    } else {
        error_set(&destination->error, "qemu-ended", "the loaded QEMU of %s at %s is gone",
                  destination->migration.vm, destination->migration.daemon->host);
    }
    destination_handoff(destination, DESTINATION_IN_QEMU_DEAD, NULL);
}

bool destination_recover(struct daemon *daemon, const char *path,
                         const struct journal_content *content, struct error *error)
{
    const json_t *begin = journal_content_last(content, "begin");
    struct destination *destination;

    if (journal_content_last(content, "abandoned") || journal_content_last(content, "done") ||
        !begin) {
        return true;
    }
    destination = destination_new(daemon, text_of(begin, "migration"), text_of(begin, "vm"),
                                  text_of(begin, "peer"));
    destination->journal = journal_reopen(daemon->syncer, path, content->good_length,
                                          json_array_size(content->records), error);
    migration_register(&destination->migration);
    if (!destination->journal) {
        destination_finish(destination, "failed");
        return false;
    }
    destination->undo = undo_new(daemon->base, destination->journal);
    undo_restore(destination->undo, content);
    destination->accepted = true;
    destination->told_by_source = true;
    restore_sockets(destination, journal_content_last(content, "prepared"));
    find_qemu(destination);
    if (journal_content_last(content, "owned")) {
        destination->handoff.state = DESTINATION_OWNED;
        destination->migration.decided = true;
        destination->handoff.qemu_dead = destination->process == NULL;
    } else if (journal_content_last(content, "refused")) {
        destination->handoff.state = DESTINATION_REFUSED;
        destination->handoff.qemu_dead = destination->process == NULL;
        destination->loaded_ms = clock_boottime_ms();
    } else if (journal_content_last(content, "loaded")) {
        go_on_loaded(destination, content);
    } else {
        error_set(&destination->error, "daemon-restarted",
                  "watarid at %s ended in the middle of the migration and was started again",
                  daemon->host);
        destination_handoff(destination, DESTINATION_IN_FAILED, NULL);
    }
    return true;
}

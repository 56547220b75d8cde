/*
 * A source's migration after a restart of the daemon, from its journal.
 */
#include "source.h"

#include "source_state.h"

#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "farewell.h"
#include "journal.h"
#include "qmp.h"
#include "undo.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}

/* The very process that the journal means: same boot, same pid, same start. */
static void find_qemu(struct source *source, const json_t *begin)
{
    char boot_id[37] = "";
    struct error error;

    source->vm.name = must_copy(source->migration.vm);
    source->vm.qmp_path = must_copy(text_of(begin, "qmp"));
    source->vm.pid = (pid_t)json_integer_value(json_object_get(begin, "pid"));
    source->vm.start_time = (uint64_t)json_integer_value(json_object_get(begin, "start_time"));
    if (vm_boot_id(boot_id) == 0 && strcmp(boot_id, text_of(begin, "boot_id")) == 0) {
        source->process =
            process_watch_new(source->migration.daemon->base, source->vm.pid, source->vm.start_time,
                              source_on_qemu_end, source, &error);
    }
    source->handoff.qemu_dead = source->process == NULL;
}

static void restore_disks(struct source *source, const json_t *begin)
{
    const json_t *list = json_object_get(begin, "disks");
    const json_t *entry;
    size_t i;

    source->disks = must_alloc((json_array_size(list) + 1) * sizeof *source->disks);
    json_array_foreach(list, i, entry)
    {
        struct source_disk *disk = &source->disks[source->disk_count];

        disk->source = source;
        disk->index = (uint32_t)source->disk_count++;
        disk->nbd_fd = -1;
        disk->path = must_copy(text_of(entry, "path"));
        disk->mark = must_copy(json_string_value(json_object_get(entry, "mark")));
    }
}

/* --- committed: the destination is asked until it answers --- */

/* COMMITTED means marks on; the crash may have fallen between two of them. */
static void mark_again(const struct source *source)
{
    for (size_t i = 0; i < source->disk_count; i++) {
        const struct source_disk *disk = &source->disks[i];

        if (disk->mark && access(disk->path, F_OK) == 0 && access(disk->mark, F_OK) < 0 &&
            rename(disk->path, disk->mark) < 0) {
            log_error("%s could not be renamed to %s", disk->path, disk->mark);
        }
    }
}

static void on_status(json_t *value, const struct error *error, void *context)
{
    struct source *source = context;

    if (!error && json_is_true(json_object_get(value, "running"))) {
        source->runs_here = true;
        log_error(
            "conflict: %s was handed over to %s, but its QEMU (pid %d) runs the guest here: no COMMIT is sent. "
            "Look with `watari status` at both hosts",
            source->migration.vm, source->migration.peer, (int)source->vm.pid);
    }
    source_dial(source);
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct source *source = context;

    if (error) {
        source_dial(source);
        return;
    }
    source->qmp_ready = true;
    qmp_execute(source->qmp, "query-status", NULL, -1, on_status, source);
}

static void on_qmp_event(const char *name, json_t *data, void *context)
{
    (void)name;
    (void)data;
    (void)context;
}

static void on_qmp_closed(void *context)
{
    struct source *source = context;

    source->qmp_ready = false;
}

static void go_on_committed(struct source *source, const json_t *committed)
{
    static const struct qmp_handlers handlers = {on_qmp_ready, on_qmp_event, on_qmp_closed};

    source->handoff.state = SOURCE_COMMITTED;
    source->handoff.loaded = true;
    source->hash_agreed = true;
    source->accepted = json_deep_copy(json_object_get(committed, "accepted"));
    source->committed_ms = clock_boottime_ms();
    migration_phase(&source->migration, PHASE_COMMITTED,
                    "after a restart: %s was handed over to %s, whose answer is awaited",
                    source->migration.vm, source->migration.peer);
    mark_again(source);
    if (source->handoff.qemu_dead) {
        source_dial(source);
        return;
    }
    source->qmp = qmp_open(source->migration.daemon->base, source->vm.qmp_path, &handlers, source);
}

/* Ended, but the destination may not know how. */
static bool go_on_farewell(struct daemon *daemon, const char *path,
                           const struct journal_content *content, const json_t *begin,
                           enum farewell_word word, struct error *error)
{
    struct journal *journal = journal_reopen(daemon->syncer, path, content->good_length,
                                             json_array_size(content->records), error);

    if (!journal) {
        return false;
    }
    farewell_begin(daemon, text_of(begin, "peer"), text_of(begin, "migration"), word, journal);
    return true;
}

bool source_recover(struct daemon *daemon, const char *path, const struct journal_content *content,
                    struct error *error)
{
    const json_t *begin = journal_content_last(content, "begin");
    const json_t *committed = journal_content_last(content, "committed");
    const json_t *rolled_back = journal_content_last(content, "rolled-back");
    struct source *source;

    if (!begin || journal_content_last(content, "acknowledged")) {
        return true;
    }
    if (journal_content_last(content, "done")) {
        return go_on_farewell(daemon, path, content, begin, FAREWELL_DONE, error);
    }
    if (rolled_back) {
        return !json_is_true(json_object_get(rolled_back, "owes_abort")) ||
               go_on_farewell(daemon, path, content, begin, FAREWELL_ABORT, error);
    }
    source = source_new(daemon, text_of(begin, "migration"), text_of(begin, "vm"),
                        text_of(begin, "peer"));
    source->migration.mode =
        strcmp(text_of(begin, "mode"), "quick") == 0 ? MIGRATION_QUICK : MIGRATION_LIVE;
    source->request.mode = source->migration.mode;
    source->request.reconnect_timeout_ms =
        (uint32_t)json_integer_value(json_object_get(begin, "reconnect_timeout_ms"));
    source->offered = true;
    source->journal_path = must_copy(path);
    source->journal = journal_reopen(daemon->syncer, path, content->good_length,
                                     json_array_size(content->records), error);
    if (!source->journal) {
        migration_clear(&source->migration);
        source_release(&source->migration);
        return false;
    }
    migration_register(&source->migration);
    source->undo = undo_new(daemon->base, source->journal);
    undo_restore(source->undo, content);
    find_qemu(source, begin);
    restore_disks(source, begin);
    if (committed && !journal_content_last(content, "taken-back")) {
        go_on_committed(source, committed);
        return true;
    }
    /* How far the destination had come is not known: it is told in any case. */
    source->accepted = must_json(json_object());
    source->memory_begun = true;
    error_set(&source->error, "daemon-restarted",
              "watarid ended in the middle of the migration and was started again");
    source_roll_back_recovered(source);
    return true;
}

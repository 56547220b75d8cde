/*
 * A source's migration after a restart of the daemon, from its journal.
 */
#include "source.h"

#include "source_state.h"

#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "disk_users.h"
#include "farewell.h"
#include "journal.h"
#include "qmp.h"
#include "undo.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/process.h"
#include "agent/policy/handoff_records.h"
#include "agent/policy/phase.h"

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

/* The very process that the journal means: same boot, same pid, same start. */
static void find_qemu(struct source *source, const json_t *begin)
{
    struct error error;

    source->vm.name = must_copy(source->migration.vm);
    source->vm.qmp_path = must_copy(text_of(begin, "qmp"));
    source->vm.pid = (pid_t)json_integer_value(json_object_get(begin, "pid"));
    source->vm.start_time = (uint64_t)json_integer_value(json_object_get(begin, "start_time"));
    if (process_of_record_alive(begin)) {
        source->process =
            process_watch_new(source->migration.daemon->base, source->vm.pid, source->vm.start_time,
                              source_on_qemu_end, source, &error);
    }
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

/* --- what is found --- */

static bool unmarked(const struct source *source)
{
    for (size_t i = 0; i < source->disk_count; i++) {
        const struct source_disk *disk = &source->disks[i];

        if (disk->mark && access(disk->path, F_OK) == 0 && access(disk->mark, F_OK) < 0) {
            return true;
        }
    }
    return false;
}

/* Somebody started the VM again without asking `watari may-start`. */
static bool started_again(const struct source *source)
{
    for (size_t i = 0; i < source->disk_count; i++) {
        const struct source_disk *disk = &source->disks[i];
        pid_t writer = disk_writer(disk->path);

        if (!writer && disk->mark) {
            writer = disk_writer(disk->mark);
        }
        if (writer) {
            log_error(
                "process %d has %s of %s open for writing, which this host is handing over to %s",
                (int)writer, disk->path, source->migration.vm, source->migration.peer);
            return true;
        }
    }
    return false;
}

static void begin(struct source *source, bool guest_runs)
{
    struct handoff_source_found found = {.qemu_dead = source->process == NULL,
                                         .guest_runs = guest_runs,
                                         .unmarked = unmarked(source)};
    unsigned actions;

    memset(&source->handoff, 0, sizeof source->handoff);
    actions = handoff_source_recover(&source->handoff, &source->recovered_journal, &found,
                                     clock_boottime_ms());
    if (source->handoff.held) {
        log_error(
            "conflict: %s was handed over to %s, but %s here: no COMMIT is sent. Look with `watari status` "
            "at both hosts",
            source->migration.vm, source->migration.peer,
            guest_runs ? "it runs" : "its disks have their old names");
    }
    if (source->handoff.state == SOURCE_COMMITTED) {
        migration_phase(&source->migration, PHASE_COMMITTED,
                        "after a restart: %s was handed over to %s, whose answer is awaited",
                        source->migration.vm, source->migration.peer);
    } else if (source->handoff.state == SOURCE_PAUSED) {
        migration_phase(&source->migration, PHASE_HANDOFF,
                        "after a restart, and with its QEMU gone: %s is asked for its copy of %s",
                        source->migration.peer, source->migration.vm);
    }
    source_handoff_begin(source, actions);
    if (guest_runs) {
        source->lost = false;
    }
}

/* --- with a live QEMU, it is asked first whether it runs the guest --- */

static void on_status(json_t *value, const struct error *error, void *context);

static void on_qmp_ready(const struct error *error, void *context)
{
    struct source *source = context;

    if (!error) {
        source->qmp_ready = true;
        qmp_execute(source->qmp, "query-status", NULL, -1, on_status, source);
        return;
    }
    if (!source->process) {
        begin(source, started_again(source)); /* it has ended meanwhile */
        return;
    }
    log_error("%s: whether it runs here is not known, so nothing is sent to %s: %s",
              source->migration.vm, source->migration.peer, error->text);
    event_add(source->recover_retry, &(struct timeval){RECOVER_RETRY_S, 0});
}

static void on_status(json_t *value, const struct error *error, void *context)
{
    struct source *source = context;

    if (error) {
        on_qmp_ready(error, source);
    } else {
        begin(source, json_is_true(json_object_get(value, "running")));
    }
}

static void on_qmp_event(const char *name, json_t *data, void *context)
{
    source_memory_event(context, name, data);
}

static void on_qmp_closed(void *context)
{
    struct source *source = context;

    source->qmp_ready = false;
}

static void ask(struct source *source)
{
    static const struct qmp_handlers handlers = {on_qmp_ready, on_qmp_event, on_qmp_closed};

    qmp_free(source->qmp);
    source->qmp = qmp_open(source->migration.daemon->base, source->vm.qmp_path, &handlers, source);
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    struct source *source = context;

    (void)fd;
    (void)what;
    if (source->process) {
        ask(source);
    } else {
        begin(source, started_again(source));
    }
}

static void ask_first(struct source *source)
{
    /* Until then as good as committed, and silent. */
    source->handoff.state = SOURCE_COMMITTED;
    source->handoff.held = true;
    source->handoff.commit_sent_ms = clock_boottime_ms();
    source->recover_retry = evtimer_new(source->migration.daemon->base, on_retry, source);
    ask(source);
}

/* Ended, but the destination may not know how. */
static void go_on_farewell(struct daemon *daemon, const char *path,
                           const struct journal_content *content, const json_t *begin,
                           enum farewell_word word)
{
    farewell_begin(daemon, text_of(begin, "peer"), text_of(begin, "migration"), word,
                   journal_reopen(daemon->syncer, path, content->good_length,
                                  json_array_size(content->records)));
}

static void restore_agreement(struct source *source, const struct journal_content *content)
{
    const json_t *record = journal_content_last(content, "committed");
    const json_t *accepted;

    record = record ? record : journal_content_last(content, "paused");
    accepted = json_object_get(record, "accepted");
    source->accepted = accepted ? json_deep_copy(accepted) : must_json(json_object());
}

static struct source *restore(struct daemon *daemon, const char *path,
                              const struct journal_content *content, const json_t *begin)
{
    struct source *source = source_new(daemon, text_of(begin, "migration"), text_of(begin, "vm"),
                                       text_of(begin, "peer"));

    source->migration.mode =
        strcmp(text_of(begin, "mode"), "quick") == 0 ? MIGRATION_QUICK : MIGRATION_LIVE;
    source->request.mode = source->migration.mode;
    source->request.trial = source->migration.trial = json_is_true(json_object_get(begin, "trial"));
    source->request.reconnect_timeout_ms =
        (uint32_t)json_integer_value(json_object_get(begin, "reconnect_timeout_ms"));
    source->recovered = source->offered = true;
    source->journal_path = must_copy(path);
    source->journal = journal_reopen(daemon->syncer, path, content->good_length,
                                     json_array_size(content->records));
    source->undo = undo_new(daemon->base, source->journal);
    undo_restore(source->undo, content);
    restore_disks(source, begin);
    restore_agreement(source, content);
    /* How far the destination had come is not known: it is told in any case. */
    source->memory_begun = true;
    error_set(&source->error, "daemon-restarted",
              "watarid ended in the middle of the migration and was started again");
    return source;
}

void source_recover(struct daemon *daemon, const char *path, const struct journal_content *content)
{
    const json_t *begin_record = journal_content_last(content, "begin");
    const struct handoff_source_journal journal = handoff_source_records(content->records);
    struct source *source;

    if (!journal.begun || journal.acknowledged) {
        return;
    }
    if (journal.rolled_back && json_is_true(json_object_get(begin_record, "trial"))) {
        journal_discard(journal_reopen(daemon->syncer, path, content->good_length,
                                       json_array_size(content->records)));
        return;
    }
    if (journal.done || journal.rolled_back) {
        if (journal.done || journal.owes_abort) {
            go_on_farewell(daemon, path, content, begin_record,
                           journal.done ? FAREWELL_DONE : FAREWELL_ABORT);
        }
        return;
    }
    source = restore(daemon, path, content, begin_record);
    source->recovered_journal = journal;
    migration_register(&source->migration);
    migration_record_begin(&source->migration, "restart", NULL);
    find_qemu(source, begin_record);
    if (source->process && journal.committed && !journal.taken_back) {
        ask_first(source);
    } else {
        begin(source,
              !source->process && (journal.paused || journal.committed) && started_again(source));
    }
}

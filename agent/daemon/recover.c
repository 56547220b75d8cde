#include "recover.h"

#include "clock.h"
#include "daemon.h"
#include "destination.h"
#include "migration.h"
#include "source.h"

#include "agent/common/journal_file.h"
#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/process.h"
#include "agent/policy/handoff_records.h"
#include "agent/policy/phase.h"
#include "protocol/message.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECOVER_LIMIT_MS 30000

/* --- what cannot be read --- */

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}

/* " (rename A back to B, C back to D)", or nothing when the disks keep their names. */
static char *marked_names(const json_t *begin)
{
    char *names = must_copy("");
    const json_t *disk;
    size_t i;

    json_array_foreach(json_object_get(begin, "disks"), i, disk)
    {
        const char *mark = text_of(disk, "mark");
        char *more;

        if (!*mark) {
            continue;
        }
        more = must_format("%s%s%s back to %s", names, *names ? ", " : " (rename ", mark,
                           text_of(disk, "path"));
        free(names);
        names = more;
    }
    if (*names) {
        char *closed = must_format("%s)", names);

        free(names);
        names = closed;
    }
    return names;
}

/* What an operator can do by hand: the little that is certain from the readable beginning. */
static char *by_hand(const json_t *begin)
{
    const char *vm = text_of(begin, "vm"), *peer = text_of(begin, "peer"),
               *qmp = text_of(begin, "qmp");
    char *names, *text;

    if (strcmp(text_of(begin, "side"), "source") != 0) {
        return must_format(
            "It is about VM %s, coming from %s. Its copy here (QMP socket %s) may run only "
            "when %s certainly does not run at %s, and never will again",
            vm, peer, qmp, vm, peer);
    }
    names = marked_names(begin);
    text =
        process_of_record_alive(begin)
            ? must_format(
                  "It is about VM %s, going to %s; its QEMU still lives here (pid %d). Only when %s "
                  "certainly does not run at %s: give its disks their names back%s, then say `cont` on "
                  "its QMP socket %s",
                  vm, peer, (int)json_integer_value(json_object_get(begin, "pid")), vm, peer, names,
                  qmp)
            : must_format(
                  "It is about VM %s, going to %s; its QEMU here has ended. Only when %s certainly "
                  "does not run at %s: give its disks their names back%s, then start it",
                  vm, peer, vm, peer, names);
    free(names);
    return text;
}

/* ABOUT: the begin record, or NULL. TEXT is stolen. */
static void note(struct daemon *daemon, const char *path, bool source, const json_t *about,
                 char *text)
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    char *id = must_copy(name);

    id[strcspn(id, ".")] = '\0';
    log_error("%s", text);
    json_array_append_new(
        daemon->unreadable,
        must_json(json_pack("{ss,ss,sO?,sO?,ss,so,ss}", "id", id, "side",
                            source ? "source" : "destination", "vm", json_object_get(about, "vm"),
                            "peer", json_object_get(about, "peer"), "phase", "unreadable", "text",
                            must_json(message_text(text)), "journal", path)));
    free(text);
    free(id);
}

static void note_journal(struct daemon *daemon, const char *path, bool source,
                         const struct error *error)
{
    struct journal_content readable;
    const json_t *begin;
    char *hint;

    journal_file_read_some(path, &readable);
    begin = journal_content_last(&readable, "begin");
    hint = begin ? by_hand(begin)
                 : must_copy("Which VM it is about cannot be told, so none comes or goes");
    note(daemon, path, source, begin,
         must_format(
             "%s. %s. When all is decided, move that file to another directory and restart watarid",
             error->text, hint));
    free(hint);
    journal_content_clear(&readable);
}

static bool is_noted(const struct daemon *daemon, const char *path)
{
    const json_t *entry;
    size_t i;

    json_array_foreach(daemon->unreadable, i, entry)
    {
        if (strcmp(text_of(entry, "journal"), path) == 0) {
            return true;
        }
    }
    return false;
}

json_t *recover_unreadable_describe(const struct daemon *daemon)
{
    return must_json(daemon->unreadable ? json_deep_copy(daemon->unreadable) : json_array());
}

bool recover_blocks(const struct daemon *daemon, const char *vm, struct error *error)
{
    const json_t *entry;
    size_t i;

    json_array_foreach(daemon->unreadable, i, entry)
    {
        const char *about = json_string_value(json_object_get(entry, "vm"));

        if (about && strcmp(about, vm) != 0) {
            continue;
        }
        error_set(
            error, "journal-damaged",
            "an earlier migration of %s at %s may be undecided, and its journal cannot be read: %s",
            vm, daemon->host, text_of(entry, "text"));
        return true;
    }
    return false;
}

void recover_free(struct daemon *daemon)
{
    json_decref(daemon->unreadable);
    daemon->unreadable = NULL;
}

/* --- recovery --- */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length > end_length && strcmp(text + length - end_length, end) == 0;
}

/* In this order. What waits for a disk comes after the guests that stand still here. */
enum turn { TURN_OPEN_SOURCES, TURN_COMMITTED_SOURCES, TURN_DESTINATIONS };

/* Whether the other side is told something that a power failure must not take back, and its turn comes later for that. */
static bool must_be_down(const struct journal_content *content, bool source)
{
    if (source) {
        const struct handoff_source_journal journal = handoff_source_records(content->records);

        return journal.committed && !journal.done && !journal.rolled_back;
    }
    const struct handoff_destination_journal journal =
        handoff_destination_records(content->records);

    return journal.last != DESTINATION_RECORD_BEGIN && !journal.done && !journal.abandoned;
}

/* 0 or errno. */
static int bring_directory_down(const char *path)
{
    char *copy = must_copy(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int reason = fd < 0 || fsync(fd) < 0 ? errno : 0;

    if (fd >= 0) {
        close(fd);
    }
    free(copy);
    return reason;
}

/* 0 or errno. Written anew, because a sync that failed in the life before leaves pages that pass for written. */
static int bring_records_down(const char *path, size_t length)
{
    char *text = must_alloc(length + 1);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int reason = fd < 0 ? errno : journal_file_read_start(fd, text, length);

    if (reason == 0) {
        reason = journal_file_write(fd, text, length, 0);
    }
    if (reason == 0 && fdatasync(fd) < 0) {
        reason = errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    free(text);
    return reason;
}

/* The names that the disks were marked with go along; where they lay may be gone by now. */
static void bring_marks_down(const struct journal_content *content)
{
    const json_t *begin = journal_content_last(content, "begin");
    const json_t *disk;
    size_t i;

    json_array_foreach(json_object_get(begin, "disks"), i, disk)
    {
        const char *mark = text_of(disk, "mark");
        int reason = *mark ? bring_directory_down(mark) : 0;

        if (reason) {
            log_warning("the new name of %s could not be brought to disk: %s", mark,
                        strerror(reason));
        }
    }
}

/*
 * What was read may be in memory only: the life before may have ended between a record and its sync. It is believed when it is on the disk,
 * or the host's next power failure makes a second owner of one who was told that there is none.
 */
static bool bring_down(const char *path, const struct journal_content *content, struct error *error)
{
    int reason = bring_records_down(path, content->good_length);

    if (reason == 0) {
        reason = bring_directory_down(path);
    }
    if (reason) {
        return error_set(
            error, "journal-unwritable",
            "journal %s could not be brought to disk: %s. Nothing is done that follows from it "
            "before that is mended and watarid restarted",
            path, strerror(reason));
    }
    bring_marks_down(content);
    return true;
}

/*
 * Made by a life that ended before its first word, when nothing had been done yet. What holds anything at all, even a piece of a record, may
 * have been more once, and stays.
 */
static bool never_begun(const struct journal_content *content)
{
    return content->good_length == 0 && !content->torn;
}

static void remove_never_begun(const char *path)
{
    if (unlink(path) < 0) {
        log_warning("journal %s is empty, and could not be removed: %s", path, strerror(errno));
    } else {
        log_info("journal %s was empty: removed; its migration had not begun", path);
    }
}

static void recover_one(struct daemon *daemon, const char *path, enum turn turn)
{
    bool source = turn != TURN_DESTINATIONS;
    struct journal_content content;
    struct error error;
    bool down;

    if (is_noted(daemon, path)) {
        return; /* in the turn before */
    }
    if (!journal_file_read(path, &content, &error)) {
        note_journal(daemon, path, source, &error);
        return;
    }
    if (never_begun(&content)) {
        remove_never_begun(path);
        goto end;
    }
    migration_note_begun(daemon, json_integer_value(json_object_get(
                                     journal_content_last(&content, "begin"), "began_s")));
    down = must_be_down(&content, source);
    if (source && down != (turn == TURN_COMMITTED_SOURCES)) {
        goto end;
    }
    if (down && !bring_down(path, &content, &error)) {
        note_journal(daemon, path, source, &error);
    } else if (source) {
        source_recover(daemon, path, &content);
    } else {
        destination_recover(daemon, path, &content);
    }

end:
    journal_content_clear(&content);
}

/* False when the directory cannot be read. */
static bool take_turn(struct daemon *daemon, const char *directory, enum turn turn)
{
    const char *suffix = turn == TURN_DESTINATIONS ? ".destination" : ".source";
    DIR *entries = opendir(directory);
    struct dirent *entry;

    if (!entries) {
        note(
            daemon, directory, turn != TURN_DESTINATIONS, NULL,
            must_format(
                "the journals' directory %s cannot be read: %s. What is undecided here is not known: no VM "
                "comes or goes before that is mended and watarid restarted",
                directory, strerror(errno)));
        return false;
    }
    while ((entry = readdir(entries))) {
        if (ends_with(entry->d_name, suffix)) {
            char *path = must_format("%s/%s", directory, entry->d_name);

            recover_one(daemon, path, turn);
            free(path);
        }
    }
    closedir(entries);
    return true;
}

static bool rolling_back(const struct daemon *daemon)
{
    const struct migration *migration;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (!migration->result && strcmp(migration->phase, PHASE_ROLLBACK) == 0) {
            return true;
        }
    }
    return false;
}

static void on_limit(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
}

static void await_rollbacks(struct daemon *daemon, uint64_t end)
{
    while (rolling_back(daemon) && clock_boottime_ms() < end) {
        event_base_loop(daemon->base, EVLOOP_ONCE);
    }
}

void recover_run(struct daemon *daemon)
{
    char *directory = must_format("%s/journal", daemon->config.state_dir);
    uint64_t end = clock_boottime_ms() + RECOVER_LIMIT_MS;
    /* Only wakes the loop up, so that the limit is looked at. */
    struct event *tick = event_new(daemon->base, -1, EV_PERSIST, on_limit, NULL);

    daemon->unreadable = must_json(json_array());
    event_add(tick, &(struct timeval){1, 0});
    if (take_turn(daemon, directory, TURN_OPEN_SOURCES)) {
        await_rollbacks(daemon, end);
        (void)(take_turn(daemon, directory, TURN_COMMITTED_SOURCES) &&
               take_turn(daemon, directory, TURN_DESTINATIONS));
        await_rollbacks(daemon, end);
    }
    event_free(tick);
    free(directory);
}

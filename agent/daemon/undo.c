#include "undo.h"

#include "child.h"
#include "qmp.h"
#include "tree.h"
#include "vm.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#define POLL_MS 20
/* How long QEMU may take to let go of an export or a migration: a slow disk drains first. */
#define POLL_LIMIT (120 * 1000 / POLL_MS)

struct entry {
    char *key;
    json_t *what;
    TAILQ_ENTRY(entry) link;
};
TAILQ_HEAD(entry_list, entry);

struct undo {
    struct event_base *base;
    struct journal *journal;
    struct entry_list entries;
    /* A run under way: */
    struct qmp *qmp;
    struct entry *current;
    struct event *timer;
    unsigned untold; /* commands that end exports, not answered yet */
    unsigned polls;
    struct process_watch *process;
    json_t *left;
    undo_done_callback callback;
    void *context;
};

static void run_next(struct undo *undo);

static void entry_free(struct undo *undo, struct entry *entry)
{
    TAILQ_REMOVE(&undo->entries, entry, link);
    json_decref(entry->what);
    free(entry->key);
    free(entry);
}

static struct entry *find(const struct undo *undo, const char *key)
{
    struct entry *entry;

    TAILQ_FOREACH(entry, &undo->entries, link)
    {
        if (strcmp(entry->key, key) == 0) {
            return entry;
        }
    }
    return NULL;
}

static void insert(struct undo *undo, const char *key, json_t *what)
{
    struct entry *entry = find(undo, key);

    if (entry) {
        /* The same change, known better now (a file with its inode). */
        json_decref(entry->what);
        entry->what = what;
        return;
    }
    entry = must_alloc(sizeof *entry);
    entry->key = must_copy(key);
    entry->what = what;
    TAILQ_INSERT_HEAD(&undo->entries, entry, link);
}

static void mark_undone(struct undo *undo, const char *key)
{
    struct error error;

    if (!journal_append(undo->journal, "undone", must_json(json_pack("{ss}", "key", key)),
                        &error)) {
        /* It will be undone once more after a restart, which does no harm. */
        log_warning("%s", error.text);
    }
}

static void finish(struct undo *undo)
{
    json_t *left = undo->left;

    undo->left = NULL;
    undo->qmp = NULL;
    undo->callback(left, undo->context);
    json_decref(left);
}

/* The current entry is through; PROBLEM is NULL or says what is left. */
static void entry_done(struct undo *undo, const char *problem)
{
    struct entry *entry = undo->current;

    if (problem) {
        char *text = must_format("%s: %s", entry->key, problem);

        log_warning("not put back: %s", text);
        json_array_append_new(undo->left, json_string(text));
        free(text);
    }
    mark_undone(undo, entry->key);
    entry_free(undo, entry);
    undo->current = NULL;
    /* From the loop, so that a long list does not nest. */
    event_add(undo->timer, &(struct timeval){0, 0});
}

static void poll_again(struct undo *undo)
{
    if (++undo->polls > POLL_LIMIT) {
        entry_done(undo, "QEMU did not get there in time");
        return;
    }
    event_add(undo->timer, &(struct timeval){0, POLL_MS * 1000});
}

static bool json_equal_text(const json_t *object, const char *member, const char *wanted)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text && strcmp(text, wanted) == 0;
}

static void on_qmp_done(json_t *value, const struct error *error, void *context)
{
    struct undo *undo = context;

    (void)value;
    if (error) {
        /* "not found" and the like: the change was not made, or QEMU has undone it itself. Descriptors go with their exports. */
        if (!json_equal_text(undo->current->what, "qmp", "closefd")) {
            log_info("undo %s: %s", undo->current->key, error->text);
        }
    }
    entry_done(undo, NULL);
}

static void on_exports(json_t *value, const struct error *error, void *context)
{
    struct undo *undo = context;
    const char *id = json_string_value(json_object_get(undo->current->what, "export"));
    json_t *export;
    size_t i;

    if (error) {
        entry_done(undo, error->text);
        return;
    }
    json_array_foreach(value, i, export)
    {
        if (strcmp(json_string_value(json_object_get(export, "id")), id) == 0) {
            poll_again(undo);
            return;
        }
    }
    entry_done(undo, NULL);
}

static void on_told(json_t *value, const struct error *error, void *context)
{
    struct undo *undo = context;

    (void)value;
    (void)error; /* "not found": there is none, or nothing was parked */
    if (--undo->untold == 0) {
        event_add(undo->timer, &(struct timeval){0, 0});
    }
}

static void tell(struct undo *undo, const char *command, json_t *arguments)
{
    undo->untold++;
    qmp_execute(undo->qmp, command, arguments, -1, on_told, undo);
}

/*
 * If the client died with answers unread, QEMU waits for room in a socket that only its own parked copy keeps open, and hangs as soon as it
 * has to drain that disk, as `cont` does: that copy goes, before anything else is put back. (Before the deletion was asked for, its closing
 * would have been the client leaving, which aborts QEMU 7.2 with an iothread.) The last export made is the one that may be read now, and
 * deleting one drains the disk, so it is the first.
 */
static void tell_exports(struct undo *undo)
{
    struct entry *entry;

    TAILQ_FOREACH(entry, &undo->entries, link)
    {
        json_t *id = json_object_get(entry->what, "export");

        if (id) {
            tell(undo, "block-export-del",
                 must_json(json_pack("{sO,ss}", "id", id, "mode", "hard")));
            tell(undo, "closefd", must_json(json_pack("{sO}", "fdname", id)));
        }
    }
}

static void on_continued(json_t *value, const struct error *error, void *context)
{
    struct undo *undo = context;

    (void)value;
    entry_done(undo, error ? error->text : NULL);
}

static void on_run_state(json_t *value, const struct error *error, void *context)
{
    struct undo *undo = context;

    if (error) {
        entry_done(undo, error->text);
    } else if (json_is_true(json_object_get(value, "running"))) {
        entry_done(undo, NULL);
    } else {
        qmp_execute(undo->qmp, "cont", NULL, -1, on_continued, undo);
    }
}

static void on_migration_state(json_t *value, const struct error *error, void *context)
{
    struct undo *undo = context;
    const char *status = error ? "" : json_string_value(json_object_get(value, "status"));

    if (error) {
        entry_done(undo, error->text);
    } else if (!status || strcmp(status, "none") == 0 || strcmp(status, "cancelled") == 0 ||
               strcmp(status, "failed") == 0 || strcmp(status, "completed") == 0) {
        qmp_execute(undo->qmp, "query-status", NULL, -1, on_run_state, undo);
    } else {
        poll_again(undo);
    }
}

static void on_cancelled(json_t *value, const struct error *error, void *context)
{
    struct undo *undo = context;

    (void)value;
    (void)error;
    qmp_execute(undo->qmp, "query-migrate", NULL, -1, on_migration_state, undo);
}

/* Still the very file that was made; one whose inode could not be noted yet must be empty. */
static bool is_ours(const json_t *what, const struct stat *status)
{
    const json_t *ino = json_object_get(what, "ino");

    return ino ? (json_int_t)status->st_ino == json_integer_value(ino) &&
                     (json_int_t)status->st_dev == json_integer_value(json_object_get(what, "dev"))
               : S_ISREG(status->st_mode) && status->st_size == 0;
}

static void undo_file(struct undo *undo, const json_t *what, const char *path)
{
    struct stat status;

    if (lstat(path, &status) < 0) {
        entry_done(undo, errno == ENOENT ? NULL : strerror(errno));
    } else if (!is_ours(what, &status)) {
        entry_done(undo, "another file is there now; it was left alone");
    } else {
        entry_done(undo, unlink(path) < 0 ? strerror(errno) : NULL);
    }
}

/*
 * On stable storage before the guest resumes: with COMMITTED in the journal, the names are what tells a restart after a power failure that
 * it was not meant to stay. The directory was synced milliseconds ago, so this does not take long.
 */
static bool sync_directory_of(const char *path)
{
    char *copy = must_copy(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0) {
        close(fd);
    }
    free(copy);
    return good;
}

static void undo_rename(struct undo *undo, const json_t *names)
{
    const char *from = json_string_value(json_array_get(names, 0));
    const char *to = json_string_value(json_array_get(names, 1));

    if (access(to, F_OK) < 0 && errno == ENOENT) {
        entry_done(undo, NULL);
    } else if (access(from, F_OK) == 0) {
        entry_done(undo, "a file of the old name is there; both were left alone");
    } else if (rename(to, from) < 0) {
        entry_done(undo, strerror(errno));
    } else {
        if (!sync_directory_of(from)) {
            log_warning("the directory of %s could not be synced: %s", from, strerror(errno));
        }
        entry_done(undo, NULL);
    }
}

static void on_process_end(pid_t pid, void *context)
{
    struct undo *undo = context;

    (void)pid;
    process_watch_free(undo->process);
    undo->process = NULL;
    entry_done(undo, NULL);
}

static void undo_process(struct undo *undo, const char *qmp_path_of_it)
{
    struct vm_list list;
    struct error error = {0};

    if (vm_scan(&list) < 0) {
        entry_done(undo, "/proc cannot be read");
        return;
    }
    for (size_t i = 0; i < list.count; i++) {
        const struct vm *vm = &list.vms[i];

        if (vm->qmp_path && strcmp(vm->qmp_path, qmp_path_of_it) == 0) {
            undo->process = process_watch_new(undo->base, vm->pid, vm->start_time, on_process_end,
                                              undo, &error);
            break;
        }
    }
    vm_list_clear(&list);
    if (!undo->process) {
        entry_done(undo, NULL);
        return;
    }
    process_watch_signal(undo->process, SIGKILL);
}

static void run_entry(struct undo *undo, struct entry *entry)
{
    const json_t *what = entry->what;
    const char *text;

    undo->polls = 0;
    if (json_object_get(what, "resume")) {
        if (!undo->qmp) {
            entry_done(undo, NULL);
            return;
        }
        qmp_execute(undo->qmp, "migrate_cancel", NULL, -1, on_cancelled, undo);
    } else if ((text = json_string_value(json_object_get(what, "qmp")))) {
        if (!undo->qmp) {
            entry_done(undo, NULL);
            return;
        }
        qmp_execute(undo->qmp, text, json_deep_copy(json_object_get(what, "arguments")), -1,
                    on_qmp_done, undo);
    } else if ((text = json_string_value(json_object_get(what, "export")))) {
        if (!undo->qmp) {
            entry_done(undo, NULL);
            return;
        }
        qmp_execute(undo->qmp, "query-block-exports", NULL, -1, on_exports, undo);
    } else if ((text = json_string_value(json_object_get(what, "file")))) {
        undo_file(undo, what, text);
    } else if (json_object_get(what, "rename")) {
        undo_rename(undo, json_object_get(what, "rename"));
    } else if ((text = json_string_value(json_object_get(what, "process")))) {
        undo_process(undo, text);
    } else if ((text = json_string_value(json_object_get(what, "tree")))) {
        entry_done(undo, tree_remove(text) < 0 ? strerror(errno) : NULL);
    } else {
        entry_done(undo, "the journal asks for something this version does not know");
    }
}

static struct entry *first_of_kind(struct undo *undo, const char *kind)
{
    struct entry *entry;

    TAILQ_FOREACH(entry, &undo->entries, link)
    {
        if (json_object_get(entry->what, kind)) {
            return entry;
        }
    }
    return NULL;
}

static void run_next(struct undo *undo)
{
    /* Names before the guest resumes: with auto-read-only QEMU reopens its images by path. Then the guest: all else can wait. */
    struct entry *entry = first_of_kind(undo, "rename");

    if (!entry) {
        entry = first_of_kind(undo, "resume");
    }
    if (!entry) {
        entry = TAILQ_FIRST(&undo->entries);
    }
    if (!entry) {
        finish(undo);
        return;
    }
    undo->current = entry;
    run_entry(undo, entry);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct undo *undo = context;

    (void)fd;
    (void)what;
    if (!undo->current) {
        run_next(undo);
    } else if (json_object_get(undo->current->what, "export")) {
        qmp_execute(undo->qmp, "query-block-exports", NULL, -1, on_exports, undo);
    } else {
        qmp_execute(undo->qmp, "query-migrate", NULL, -1, on_migration_state, undo);
    }
}

struct undo *undo_new(struct event_base *base, struct journal *journal)
{
    struct undo *undo = must_alloc(sizeof *undo);

    undo->base = base;
    undo->journal = journal;
    undo->timer = evtimer_new(base, on_timer, undo);
    TAILQ_INIT(&undo->entries);
    return undo;
}

void undo_free(struct undo *undo)
{
    if (!undo) {
        return;
    }
    while (!TAILQ_EMPTY(&undo->entries)) {
        entry_free(undo, TAILQ_FIRST(&undo->entries));
    }
    if (undo->qmp) {
        qmp_forget(undo->qmp, undo);
    }
    process_watch_free(undo->process);
    event_free(undo->timer);
    json_decref(undo->left);
    free(undo);
}

void undo_restore(struct undo *undo, const struct journal_content *content)
{
    json_t *record;
    size_t i;

    json_array_foreach(content->records, i, record)
    {
        const char *kind = json_string_value(json_object_get(record, "record"));
        const char *key = json_string_value(json_object_get(record, "key"));
        struct entry *entry;

        if (!key) {
            continue;
        }
        if (strcmp(kind, "undo") == 0) {
            insert(undo, key, json_incref(json_object_get(record, "what")));
        } else if (strcmp(kind, "undone") == 0 && (entry = find(undo, key))) {
            entry_free(undo, entry);
        }
    }
}

bool undo_add(struct undo *undo, const char *key, json_t *what, struct error *error)
{
    if (!journal_append(undo->journal, "undo",
                        must_json(json_pack("{sssO}", "key", key, "what", what)), error)) {
        json_decref(what);
        return false;
    }
    insert(undo, key, what);
    return true;
}

bool undo_has(const struct undo *undo, const char *key)
{
    return find(undo, key) != NULL;
}

void undo_forget(struct undo *undo, const char *key)
{
    struct entry *entry = find(undo, key);

    if (entry) {
        mark_undone(undo, key);
        entry_free(undo, entry);
    }
}

void undo_forget_all(struct undo *undo)
{
    while (!TAILQ_EMPTY(&undo->entries)) {
        mark_undone(undo, TAILQ_FIRST(&undo->entries)->key);
        entry_free(undo, TAILQ_FIRST(&undo->entries));
    }
}

static void keep_file(const json_t *what, const char *path, const char *suffix)
{
    char *kept = must_format("%s%s", path, suffix);
    struct stat status;

    if (lstat(path, &status) < 0 || !is_ours(what, &status)) {
        log_warning("%s is not the file that was made here; it is left alone", path);
    } else if (rename(path, kept) < 0) {
        log_warning("%s could not be renamed to %s: %s", path, kept, strerror(errno));
    } else {
        log_info("%s is kept as %s", path, kept);
    }
    free(kept);
}

void undo_keep_files(struct undo *undo, const char *suffix)
{
    struct entry *entry = TAILQ_FIRST(&undo->entries);

    while (entry) {
        struct entry *next = TAILQ_NEXT(entry, link);
        const char *path = json_string_value(json_object_get(entry->what, "file"));

        if (path) {
            keep_file(entry->what, path, suffix);
            mark_undone(undo, entry->key);
            entry_free(undo, entry);
        }
        entry = next;
    }
}

bool undo_left(const json_t *left, const char *key)
{
    const json_t *sentence;
    size_t i, length = strlen(key);

    json_array_foreach(left, i, sentence)
    {
        const char *text = json_string_value(sentence);

        if (strncmp(text, key, length) == 0 && text[length] == ':') {
            return true;
        }
    }
    return false;
}

void undo_run(struct undo *undo, struct qmp *qmp, undo_done_callback callback, void *context)
{
    undo->qmp = qmp;
    undo->callback = callback;
    undo->context = context;
    json_decref(undo->left);
    undo->left = must_json(json_array());
    undo->untold = 0;
    if (qmp) {
        tell_exports(undo);
    }
    if (undo->untold == 0) {
        event_add(undo->timer, &(struct timeval){0, 0});
    }
}

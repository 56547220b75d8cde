#include "start.h"

#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "qmp.h"
#include "recover.h"
#include "vm.h"

#include "agent/common/journal_directory.h"
#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/handoff_records.h"
#include "agent/policy/may_start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The control client waits for an answer for 60 s. */
#define QEMU_START_MS 30000
#define QMP_RETRY_MS 20
#define LOG_TAIL_BYTES 600
#define REASON_SIZE 256

/* A QEMU that was started, until its QMP answers. */
struct start {
    struct daemon *daemon;
    char *name, *log_path;
    char *qmp_path;  /* NULL: it has none */
    long log_before; /* bytes of earlier runs in its log */
    pid_t pid;
    struct child *child;
    struct qmp *qmp;
    struct event *retry;
    uint64_t end_ms; /* CLOCK_BOOTTIME */
    start_callback done;
    void *context;
};

/* --- may it --- */

static bool check_name(const char *name, struct error *error)
{
    return (*name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) ||
           error_set(error, "invalid-argument", "\"%.100s\" is no VM's name", name);
}

/* The journals' word about NAME, by those of this host. */
static bool journals_allow(const struct journal_directory *journals, const char *name,
                           char reason[REASON_SIZE])
{
    struct may_start_journal *list = must_alloc((journals->count + 1) * sizeof *list);
    bool may;

    for (size_t i = 0; i < journals->count; i++) {
        list[i] = (struct may_start_journal){journals->entries[i].content.records,
                                             journals->entries[i].written,
                                             journals->entries[i].qemu_lives};
    }
    may = may_start(name, list, journals->count, reason, REASON_SIZE);
    free(list);
    return may;
}

static bool came_here(const struct journal_content *content, const char *name)
{
    const json_t *begin = journal_content_last(content, "begin");
    const char *vm = json_string_value(json_object_get(begin, "vm"));
    const char *side = json_string_value(json_object_get(begin, "side"));
    struct handoff_destination_journal journal;

    if (!vm || !side || strcmp(vm, name) != 0 || strcmp(side, "destination") != 0) {
        return false;
    }
    journal = handoff_destination_records(content->records);
    return handoff_destination_may_start(&journal) == START_CAME_HERE;
}

static bool is_owned(const struct daemon *daemon, const struct journal_directory *journals,
                     const char *name, struct error *error)
{
    char reason[REASON_SIZE];
    bool came = false;

    if (!journals_allow(journals, name, reason)) {
        return error_set(error, "may-not-start", "VM %s must not be started at %s: %s", name,
                         daemon->host, reason);
    }
    for (size_t i = 0; i < journals->count && !came; i++) {
        came = came_here(&journals->entries[i].content, name);
    }
    return came || error_set(error, "not-owned",
                             "no migration has brought a VM %s to %s, so watari does not know how "
                             "to start it: start it as you always did",
                             name, daemon->host);
}

bool start_is_owned(const struct daemon *daemon, const char *name, struct error *error)
{
    struct journal_directory journals;
    bool good = journal_directory_read(daemon->config.state_dir, &journals, error) &&
                is_owned(daemon, &journals, name, error);

    journal_directory_clear(&journals);
    return good;
}

static bool check_owned(struct daemon *daemon, const char *name, struct error *error)
{
    const struct migration *migration = migration_of_vm(daemon, name);

    if (migration) {
        return error_set(error, "migration-under-way",
                         "VM %s must not be started at %s: migration %s %s %s is under way or "
                         "undecided; look with `watari status %s`",
                         name, daemon->host, migration->id,
                         migration->side == MIGRATION_SOURCE ? "to" : "from", migration->peer,
                         migration->id);
    }
    return !recover_blocks(daemon, name, error) && start_is_owned(daemon, name, error);
}

/* --- what is to be started --- */

static void free_vector(char **argv)
{
    for (size_t i = 0; argv && argv[i]; i++) {
        free(argv[i]);
    }
    free(argv);
}

/* NULL with an error. */
static char **read_launch(const struct daemon *daemon, const char *name, struct error *error)
{
    char *path = must_format("%s/vms/%s/launch", daemon->config.state_dir, name);
    json_error_t why;
    json_t *list = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    size_t count = json_array_size(list), taken = 0;
    char **argv = must_alloc((count + 1) * sizeof *argv);

    while (taken < count && json_is_string(json_array_get(list, taken))) {
        argv[taken] = must_copy(json_string_value(json_array_get(list, taken)));
        taken++;
    }
    if (taken == 0 || taken < count || argv[0][0] != '/') {
        error_set(error, "launch-unreadable",
                  "VM %s belongs to %s, but %s, which says how to start it, cannot be used: %s. "
                  "Its disks are untouched: start it by hand",
                  name, daemon->host, path,
                  list ? "it is not a list of arguments that begins with a program's path"
                       : why.text);
        free_vector(argv);
        argv = NULL;
    }
    json_decref(list);
    free(path);
    return argv;
}

/* The sockets and the log are in there; after a reboot it is gone. */
static bool make_directory(const struct daemon *daemon, const char *name, struct error *error)
{
    char *path = must_format("%s/vms/%s", daemon->config.run_dir, name);
    bool good = mkdir(path, 0700) == 0 || errno == EEXIST ||
                error_set(error, "run-dir", "VM %s cannot be started: %s cannot be made: %s", name,
                          path, strerror(errno));

    free(path);
    return good;
}

/* --- its QEMU --- */

static void end(struct start *start, json_t *result, const struct error *error)
{
    start_callback done = start->done;
    void *context = start->context;

    qmp_free(start->qmp);
    child_free(start->child);
    event_free(start->retry);
    free(start->name);
    free(start->log_path);
    free(start->qmp_path);
    free(start);
    done(result, error, context);
    json_decref(result);
}

static json_t *answer(const char *name, pid_t pid, const char *qmp, const char *log, bool already)
{
    return must_json(json_pack("{s:s,s:i,s:s?,s:s?,s:b}", "vm", name, "pid", (int)pid, "qmp", qmp,
                               "log", log, "already", already));
}

static void started(struct start *start)
{
    log_info("VM %s was started here, pid %d", start->name, (int)start->pid);
    end(start, answer(start->name, start->pid, start->qmp_path, start->log_path, false), NULL);
}

/* Of this run only. */
static void log_tail(const struct start *start, char tail[LOG_TAIL_BYTES + 1])
{
    FILE *file = fopen(start->log_path, "re");
    size_t got = 0;

    if (file && fseek(file, 0, SEEK_END) == 0) {
        long from = ftell(file) - LOG_TAIL_BYTES;

        if (fseek(file, from > start->log_before ? from : start->log_before, SEEK_SET) == 0) {
            got = fread(tail, 1, LOG_TAIL_BYTES, file);
        }
    }
    if (file) {
        fclose(file);
    }
    tail[got] = '\0';
}

static void on_exit_of_qemu(struct child *child, bool exited, int code, void *context)
{
    struct start *start = context;
    char tail[LOG_TAIL_BYTES + 1];
    struct error error;

    (void)child;
    log_tail(start, tail);
    error_set(&error, "qemu-ended",
              "the QEMU of VM %s ended at once (%s %d): %s. It runs nowhere; its disks are "
              "untouched; its log is %s",
              start->name, exited ? "exit code" : "signal", code,
              tail[0] ? tail : "it said nothing", start->log_path);
    end(start, NULL, &error);
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct start *start = context;
    struct error silent;

    /* Busy: somebody was faster, and it has answered him. */
    if (!error || strcmp(error->id, "qmp-busy") == 0) {
        started(start);
    } else if (clock_boottime_ms() < start->end_ms) {
        event_add(start->retry, &(struct timeval){0, QMP_RETRY_MS * 1000});
    } else {
        error_set(&silent, "qemu-silent",
                  "the QEMU of VM %s (pid %d) was started, and runs, but %s has not answered for "
                  "%d s; its log is %s",
                  start->name, (int)start->pid, start->qmp_path, QEMU_START_MS / 1000,
                  start->log_path);
        end(start, NULL, &silent);
    }
}

static void try_qmp(evutil_socket_t fd, short what, void *context)
{
    /* QEMU's end comes by the child's callback. */
    static const struct qmp_handlers handlers = {on_qmp_ready, NULL, NULL};
    struct start *start = context;

    (void)fd;
    (void)what;
    qmp_free(start->qmp);
    start->qmp = qmp_open(start->daemon->base, start->qmp_path, &handlers, start);
}

/* The user's, as its command line has it: by now that is QEMU's. NULL when there is none. */
static char *find_qmp_path(pid_t pid)
{
    struct vm_list list;
    char *path = NULL;

    if (vm_scan(&list) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < list.count && !path; i++) {
        if (list.vms[i].pid == pid) {
            path = must_copy(list.vms[i].qmp_path);
        }
    }
    vm_list_clear(&list);
    return path;
}

static void boot(struct daemon *daemon, const char *name, char **argv, start_callback done,
                 void *context)
{
    struct start *start = must_alloc(sizeof *start);
    struct child_options options = {
        .path = argv[0], .argv = (const char *const *)argv, .pass_fd = -1, .detach = true};
    struct error error;
    struct stat log;

    *start = (struct start){.daemon = daemon, .done = done, .context = context};
    start->name = must_copy(name);
    start->log_path = must_format("%s/vms/%s/qemu.log", daemon->config.run_dir, name);
    start->retry = evtimer_new(daemon->base, try_qmp, start);
    start->end_ms = clock_boottime_ms() + QEMU_START_MS;
    start->log_before = stat(start->log_path, &log) == 0 ? (long)log.st_size : 0;
    options.log_path = start->log_path;
    start->child = child_spawn(daemon->base, &options, on_exit_of_qemu, start, &error);
    if (!start->child) {
        error_prefix(&error, "VM %s cannot be started: ", name);
        end(start, NULL, &error);
        return;
    }
    start->pid = child_pid(start->child);
    start->qmp_path = find_qmp_path(start->pid);
    if (start->qmp_path) {
        try_qmp(-1, 0, start);
    } else {
        started(start); /* nothing will say more */
    }
}

/* --- the call --- */

/* The QEMU of that name: its pid, 0 when there is none, -1 with an error. */
static pid_t find_running(const char *name, struct error *error)
{
    struct vm_list list;
    int status = vm_scan(&list);
    pid_t pid = 0;

    if (status < 0) {
        error_set(error, "vm-not-found", "VM %s is not started: /proc cannot be read: %s", name,
                  strerror(-status));
        return -1;
    }
    for (size_t i = 0; i < list.count && pid == 0; i++) {
        if (strcmp(list.vms[i].name, name) == 0) {
            pid = list.vms[i].pid;
        }
    }
    vm_list_clear(&list);
    return pid;
}

static void answer_already(const char *name, pid_t pid, start_callback done, void *context)
{
    json_t *result = answer(name, pid, NULL, NULL, true);

    done(result, NULL, context);
    json_decref(result);
}

void start_vm(struct daemon *daemon, const char *name, start_callback done, void *context)
{
    struct error error;
    char **argv = NULL;
    pid_t running = -1;

    if (check_name(name, &error) && check_owned(daemon, name, &error)) {
        running = find_running(name, &error);
    }
    if (running < 0) {
        done(NULL, &error, context);
        return;
    }
    if (running > 0) {
        answer_already(name, running, done, context);
        return;
    }
    argv = read_launch(daemon, name, &error);
    if (!argv || !make_directory(daemon, name, &error)) {
        done(NULL, &error, context);
    } else {
        boot(daemon, name, argv, done, context);
    }
    free_vector(argv);
}

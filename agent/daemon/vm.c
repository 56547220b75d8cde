/*
 * QEMU processes found in /proc. See vm.h.
 */
#include "vm.h"

#include "agent/common/must.h"
#include "agent/common/process.h"
#include "agent/policy/launch_options.h"
#include "agent/policy/qemu_options.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A vector that is longer is none that could be carried to a peer. */
#define COMMAND_LINE_MAX (4u << 20)
/* The chardev of the monitor of a VM that watari launched (agent/policy/launch.h). */
#define OWN_MONITOR "watari-qmp"

/* Where a QMP server listens, as far as one option tells. */
struct qmp_search {
    char *own;       /* path of our own monitor */
    char *first;     /* path of the first other one */
    char **monitors; /* chardevs with QMP on them */
    size_t monitor_count;
    size_t room; /* as many as there are arguments */
};

/* The whole file, NUL-terminated; NULL with errno. */
static char *read_file(const char *path, size_t limit, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = NULL, *more;
    size_t room = 0, used = 0;
    ssize_t length;

    if (fd < 0) {
        return NULL;
    }
    do {
        if (used + 1 >= room) {
            room = room ? room * 2 : 4096;
            more = realloc(text, room);
            if (!more) {
                goto fail;
            }
            text = more;
        }
        length = read(fd, text + used, room - used - 1);
        if (length < 0 && errno != EINTR) {
            goto fail;
        }
        used += length > 0 ? (size_t)length : 0;
        if (used > limit) {
            errno = E2BIG;
            goto fail;
        }
    } while (length != 0);
    close(fd);
    text[used] = '\0';
    *size = used;
    return text;

fail:
    close(fd);
    free(text);
    return NULL;
}

static char *read_link(const char *path)
{
    char target[PATH_MAX];
    ssize_t length = readlink(path, target, sizeof target);

    if (length < 0 || (size_t)length >= sizeof target) {
        return NULL;
    }
    return must_format("%.*s", (int)length, target);
}

void vm_clear(struct vm *vm)
{
    for (size_t i = 0; i < vm->argc; i++) {
        free(vm->argv[i]);
    }
    free(vm->argv);
    free(vm->binary);
    free(vm->name);
    free(vm->qmp_path);
    memset(vm, 0, sizeof *vm);
}

void vm_list_clear(struct vm_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        vm_clear(&list->vms[i]);
    }
    free(list->vms);
    memset(list, 0, sizeof *list);
}

static bool is_qemu(const char *binary)
{
    const char *slash = strrchr(binary, '/'), *name = slash ? slash + 1 : binary;

    return strncmp(name, "qemu-system-", strlen("qemu-system-")) == 0 ||
           strcmp(name, "qemu-kvm") == 0 || strcmp(name, "kvm") == 0;
}

/* Of a QEMU whose package was upgraded while it ran /proc says "PATH (deleted)". */
static char *read_binary(pid_t pid)
{
    static const char deleted[] = " (deleted)";
    char path[64], *binary;
    size_t length;

    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    binary = read_link(path);
    length = binary ? strlen(binary) : 0;
    if (length > strlen(deleted) && strcmp(binary + length - strlen(deleted), deleted) == 0) {
        binary[length - strlen(deleted)] = '\0';
    }
    return binary;
}

/* The paths of a process in another mount namespace mean other files. */
static bool is_in_our_namespace(pid_t pid)
{
    char path[64], *ours, *theirs;
    bool same;

    snprintf(path, sizeof path, "/proc/%d/ns/mnt", pid);
    ours = read_link("/proc/self/ns/mnt");
    theirs = read_link(path);
    same = ours && theirs && strcmp(ours, theirs) == 0;
    free(ours);
    free(theirs);
    return same;
}

static void split_command_line(const char *text, size_t size, struct vm *vm)
{
    size_t count = 0;

    for (size_t i = 0; i < size; i++) {
        count += text[i] == '\0';
    }
    vm->argv = must_alloc((count + 1) * sizeof *vm->argv);
    for (const char *at = text; vm->argc < count; at += strlen(at) + 1) {
        vm->argv[vm->argc++] = must_copy(at);
    }
}

static bool read_command_line(pid_t pid, struct vm *vm)
{
    char path[64], *text;
    size_t size;

    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    text = read_file(path, COMMAND_LINE_MAX, &size);
    if (!text) {
        return false;
    }
    split_command_line(text, size, vm);
    free(text);
    return true;
}

static void set_name(struct vm *vm, const char *argument)
{
    struct qemu_options options;
    const char *name;

    if (!qemu_options_parse(&options, argument, "guest") &&
        (name = qemu_options_get(&options, "guest"))) {
        free(vm->name);
        vm->name = must_copy(name);
    }
    qemu_options_clear(&options);
}

static void take_path(char **place, const char *path)
{
    if (path && !*place) {
        *place = must_copy(path);
    }
}

static void add_monitor(struct qmp_search *search, const char *id)
{
    if (!search->monitors) {
        search->monitors = must_alloc(search->room * sizeof *search->monitors);
    }
    search->monitors[search->monitor_count++] = must_copy(id);
}

/* -mon [chardev=]ID,mode=control */
static void note_mon(struct qmp_search *search, const char *argument)
{
    struct qemu_options options;
    const char *mode, *id;

    if (!qemu_options_parse(&options, argument, "chardev")) {
        mode = qemu_options_get(&options, "mode");
        id = qemu_options_get(&options, "chardev");
        if (id && mode && strcmp(mode, "control") == 0) {
            add_monitor(search, id);
        }
    }
    qemu_options_clear(&options);
}

/* -qmp unix:PATH,... or -qmp chardev:ID */
static void note_qmp(struct qmp_search *search, const char *argument)
{
    struct qemu_options options;

    if (strncmp(argument, "chardev:", 8) == 0) {
        add_monitor(search, argument + 8);
    } else if (strncmp(argument, "unix:", 5) == 0) {
        if (!qemu_options_parse(&options, argument + 5, "path")) {
            take_path(&search->first, qemu_options_get(&options, "path"));
        }
        qemu_options_clear(&options);
    }
}

static void note_chardev(struct qmp_search *search, const char *argument)
{
    struct qemu_options options;
    const char *id, *backend;

    if (!qemu_options_parse(&options, argument, "backend")) {
        id = qemu_options_get(&options, "id");
        backend = qemu_options_get(&options, "backend");
        for (size_t i = 0; id && backend && i < search->monitor_count; i++) {
            if (strcmp(search->monitors[i], id) == 0 && strcmp(backend, "socket") == 0) {
                take_path(strcmp(id, OWN_MONITOR) == 0 ? &search->own : &search->first,
                          qemu_options_get(&options, "path"));
            }
        }
    }
    qemu_options_clear(&options);
}

static bool is_option(const struct launch_argument *step, const char *name)
{
    return step->option && step->argument && strcmp(step->option->name, name) == 0;
}

static void clear_search(struct qmp_search *search)
{
    for (size_t i = 0; i < search->monitor_count; i++) {
        free(search->monitors[i]);
    }
    free(search->monitors);
    free(search->own);
    free(search->first);
}

/* A relative path is one of the process's working directory; NULL when that cannot be read. */
static char *absolute(pid_t pid, char *path)
{
    char link[64], *directory, *whole = NULL;

    if (!path || *path == '/') {
        return path;
    }
    snprintf(link, sizeof link, "/proc/%d/cwd", pid);
    directory = read_link(link);
    if (directory) {
        whole = must_format("%s/%s", strcmp(directory, "/") == 0 ? "" : directory, path);
    }
    free(directory);
    free(path);
    return whole;
}

static void read_options(struct vm *vm)
{
    const char *const *argv = (const char *const *)vm->argv;
    struct qmp_search search = {.room = vm->argc};

    /* Monitors first: -mon may come before or after its -chardev. */
    for (size_t i = 1; i < vm->argc;) {
        struct launch_argument step = launch_argument_next(argv, vm->argc, &i);

        if (is_option(&step, "name")) {
            set_name(vm, step.argument);
        } else if (is_option(&step, "mon")) {
            note_mon(&search, step.argument);
        } else if (is_option(&step, "qmp") || is_option(&step, "qmp-pretty")) {
            note_qmp(&search, step.argument);
        }
    }
    for (size_t i = 1; i < vm->argc;) {
        struct launch_argument step = launch_argument_next(argv, vm->argc, &i);

        if (is_option(&step, "chardev")) {
            note_chardev(&search, step.argument);
        }
    }
    vm->qmp_path = search.own ? search.own : search.first;
    if (search.own) {
        search.own = NULL;
    } else {
        search.first = NULL;
    }
    vm->qmp_path = absolute(vm->pid, vm->qmp_path);
    clear_search(&search);
}

/* False when PID is no QEMU of ours, or has vanished meanwhile. */
static bool read_vm(pid_t pid, struct vm *vm)
{
    memset(vm, 0, sizeof *vm);
    vm->pid = pid;
    vm->binary = read_binary(pid);
    if (!vm->binary || !is_qemu(vm->binary) || !is_in_our_namespace(pid) ||
        process_start_time(pid, &vm->start_time) < 0 || !read_command_line(pid, vm)) {
        vm_clear(vm);
        return false;
    }
    read_options(vm);
    if (!vm->name) {
        vm->name = must_format("qemu-%d", pid);
    }
    /* Between the reads another process may have come under this pid. */
    if (!process_alive(pid, vm->start_time)) {
        vm_clear(vm);
        return false;
    }
    return true;
}

static pid_t parse_pid(const char *text)
{
    char *end;
    long value;

    if (*text < '1' || *text > '9') {
        return 0;
    }
    errno = 0;
    value = strtol(text, &end, 10);
    return *end == '\0' && errno == 0 && value <= INT_MAX ? (pid_t)value : 0;
}

static int add_vm(struct vm_list *list, pid_t pid)
{
    struct vm vm, *vms;

    if (!read_vm(pid, &vm)) {
        return 0;
    }
    vms = reallocarray(list->vms, list->count + 1, sizeof *vms);
    if (!vms) {
        vm_clear(&vm);
        return -ENOMEM;
    }
    list->vms = vms;
    vms[list->count++] = vm;
    return 0;
}

int vm_scan(struct vm_list *out)
{
    DIR *directory = opendir("/proc");
    struct dirent *entry;
    int status = 0;

    memset(out, 0, sizeof *out);
    if (!directory) {
        return -errno;
    }
    while (status == 0 && (errno = 0, entry = readdir(directory))) {
        pid_t pid = parse_pid(entry->d_name);

        status = pid > 0 ? add_vm(out, pid) : 0;
    }
    if (status == 0 && errno != 0) {
        status = -errno;
    }
    closedir(directory);
    if (status < 0) {
        vm_list_clear(out);
    }
    return status;
}

static bool is_same_file(const char *one, const char *other)
{
    struct stat first, second;

    return strcmp(one, other) == 0 ||
           (stat(one, &first) == 0 && stat(other, &second) == 0 && first.st_dev == second.st_dev &&
            first.st_ino == second.st_ino);
}

/* Of a VM that watari launched: any socket in its directory names it. */
static bool is_in_directory_of(const struct vm *vm, const char *wanted)
{
    static const char end[] = "/private/" OWN_MONITOR ".sock";
    size_t length = strlen(vm->qmp_path), end_length = strlen(end);

    return length > end_length && strcmp(vm->qmp_path + length - end_length, end) == 0 &&
           strncmp(vm->qmp_path, wanted, length - end_length + 1) == 0;
}

static bool is_wanted(const struct vm *vm, const char *wanted)
{
    if (*wanted == '/') {
        return vm->qmp_path &&
               (is_same_file(vm->qmp_path, wanted) || is_in_directory_of(vm, wanted));
    }
    return strcmp(vm->name, wanted) == 0;
}

static bool not_found(const char *wanted, const struct vm_list *list, struct error *error)
{
    char here[512] = "";
    size_t used = 0;

    for (size_t i = 0; i < list->count && used < sizeof here; i++) {
        int length = snprintf(here + used, sizeof here - used, "%s%.100s (pid %d)",
                              i > 0 ? ", " : "", list->vms[i].name, list->vms[i].pid);

        used += length > 0 ? (size_t)length : 0;
    }
    return error_set(error, "vm-not-found", "no VM \"%.100s\" runs on this host; here: %s", wanted,
                     list->count > 0 ? here : "none");
}

static bool pick(const char *wanted, struct vm_list *list, struct vm *out, struct error *error)
{
    struct vm *found = NULL;
    pid_t pid = parse_pid(wanted);

    for (size_t i = 0; i < list->count; i++) {
        if (!is_wanted(&list->vms[i], wanted)) {
            continue;
        }
        if (found) {
            return error_set(error, "vm-ambiguous",
                             "two VMs here are called \"%.100s\": pid %d and pid %d; name the one "
                             "you mean by its pid",
                             wanted, found->pid, list->vms[i].pid);
        }
        found = &list->vms[i];
    }
    for (size_t i = 0; !found && i < list->count; i++) {
        if (list->vms[i].pid == pid) {
            found = &list->vms[i];
        }
    }
    if (!found) {
        return not_found(wanted, list, error);
    }
    if (!found->qmp_path) {
        return error_set(error, "vm-no-qmp",
                         "VM %.100s (pid %d) has no QMP socket; start it with -qmp "
                         "unix:PATH,server=on,wait=off",
                         found->name, found->pid);
    }
    *out = *found;
    memset(found, 0, sizeof *found);
    return true;
}

bool vm_find(const char *wanted, struct vm *out, struct error *error)
{
    struct vm_list list;
    int status = vm_scan(&list);
    bool good;

    memset(out, 0, sizeof *out);
    if (status < 0) {
        return error_set(error, "vm-not-found", "/proc cannot be read: %s", strerror(-status));
    }
    good = pick(wanted, &list, out, error);
    vm_list_clear(&list);
    return good;
}

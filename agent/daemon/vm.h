/*
 * The QEMU processes of this host, as /proc shows them: those in our own mount namespace (the paths
 * of others mean something else). Nothing is asked over QMP here. Any thread; no state.
 */
#ifndef WATARI_DAEMON_VM_H
#define WATARI_DAEMON_VM_H

#include "agent/common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct vm {
    pid_t pid;
    uint64_t start_time; /* agent/common/process.h */
    char *binary;        /* /proc/PID/exe */
    char *name;          /* -name NAME or -name guest=NAME; "qemu-PID" when there is none */
    /* Of the monitor that watari gave it (chardev "watari-qmp"), else of its first QMP server on a
     * unix socket (-qmp unix:, or -chardev socket and -mon mode=control); made absolute with the
     * process's cwd. NULL when there is none. */
    char *qmp_path;
    char **argv; /* NULL-terminated, from /proc/PID/cmdline */
    size_t argc;
};

struct vm_list {
    struct vm *vms;
    size_t count;
};

/* A negative errno when /proc cannot be read; processes that vanish meanwhile are left out. */
int vm_scan(struct vm_list *out);
void vm_list_clear(struct vm_list *list);

/* Finds one VM by name, pid or QMP socket path (of a VM that watari launched: any path in its
 * directory) and moves it out of a fresh scan into *out (clear with vm_clear). Errors:
 * "vm-not-found" (listing what is here), "vm-ambiguous" (two of that name: with their pids),
 * "vm-no-qmp". */
bool vm_find(const char *wanted, struct vm *out, struct error *error);
void vm_clear(struct vm *vm);

#endif

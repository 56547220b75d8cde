/*
 * Child processes: forked without a shell, awaited through a pidfd on the daemon's loop. Loop
 * thread only.
 */
#ifndef WATARI_DAEMON_CHILD_H
#define WATARI_DAEMON_CHILD_H

#include "agent/common/error.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct child;

struct child_options {
    /* The executable. With USER it is opened by us and executed by descriptor, so that USER need
     * not reach it (a script cannot be run so). */
    const char *path;
    const char *const *argv; /* NULL-terminated, argv[0] included */
    /* stdout and stderr are appended here (0600); NULL: both go to our stderr. */
    const char *log_path;
    /* Instead: keep the first 16 KiB of stderr for child_output(), stdout to /dev/null. */
    bool capture;
    const char *user; /* NULL: stay who we are; else that user's ids, no others, and no_new_privs */
    /* -1, or a descriptor that becomes descriptor 3 (the caller keeps and closes its own). Every
     * other one is closed. */
    int pass_fd;
    bool detach;           /* setsid: the child outlives us (QEMU) */
    const char *directory; /* chdir there first; NULL: "/" */
};

/* STATUS as of waitid: exited with CODE, or killed by signal CODE. Called once; with capture, after
 * everything it wrote was read. The child object is still valid in the callback, which may free
 * it. */
typedef void (*child_exit_callback)(struct child *child, bool exited, int code, void *context);

/* NULL with an error "exec-failed": step, path and errno text, also of what fails after fork, up to
 * exec. ON_EXIT may be NULL. */
struct child *child_spawn(struct event_base *base, const struct child_options *options,
                          child_exit_callback on_exit, void *context, struct error *error);
pid_t child_pid(const struct child *child);
/* Sends SIGNAL through the pidfd; nothing when it has ended already. */
void child_signal(struct child *child, int signal);
/* What it wrote to stderr, with capture; "" else. */
const char *child_output(const struct child *child);
/* Forgets the child without ending it: no callback any more. When it ends it is reaped all the same, as long as the loop runs. */
void child_free(struct child *child);

/* Watches a process that is not our child (a QEMU found again after a restart, or the source's), or
 * one that we forgot. CALLBACK once, when it ends; it may free the watch. */
struct process_watch;
typedef void (*process_end_callback)(pid_t pid, void *context);
/* NULL with an error "process-gone" when it has ended or is another one now (START_TIME differs,
 * see vm.h). */
struct process_watch *process_watch_new(struct event_base *base, pid_t pid, uint64_t start_time,
                                        process_end_callback callback, void *context,
                                        struct error *error);
/* Through the pidfd: never hits a stranger. 0 or a negative errno. */
int process_watch_signal(struct process_watch *watch, int signal);
void process_watch_free(struct process_watch *watch);

#endif

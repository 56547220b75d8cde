/*
 * Children and other processes, by pidfd. See child.h.
 *
 * Between fork and exec the child calls only what is async-signal-safe: another thread of the
 * daemon may hold any lock at that moment. Everything it needs is looked up and opened before.
 */
#include "child.h"

#include "agent/common/must.h"
#include "agent/common/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX 16384u
/* Descriptors that the child's own 0 to 3 must not overwrite before they are in place. */
#define FIRST_FREE_FD 4

struct child {
    pid_t pid;
    int pidfd;
    int output_fd; /* of capture; -1 when there is none or it has ended */
    bool ended;
    struct event *exit_event;
    struct event *output_event;
    char *output;
    size_t output_length;
    child_exit_callback on_exit;
    void *context;
};

struct process_watch {
    pid_t pid;
    int pidfd;
    bool ended;
    struct event *event;
    process_end_callback callback;
    void *context;
};

enum step {
    STEP_SESSION,
    STEP_DESCRIPTORS,
    STEP_DIRECTORY,
    STEP_USER,
    STEP_EXEC,
};
static const char *const step_names[] = {"setsid", "its descriptors", "its directory", "its user",
                                         "exec"};

/* What the child tells when it does not get as far as its program. */
struct failure {
    int step;
    int error;
};

/* All that the child needs, made before fork. Descriptors are above 3 and close-on-exec; -1 when
 * there is none. */
struct plan {
    const struct child_options *options;
    int program;
    int input;
    int output, errors; /* its stdout and stderr */
    int status;         /* the write end of the pipe that exec closes */
    int status_read;
    int capture_read;
    bool drop;
    uid_t uid;
    gid_t gid;
};

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void clear_plan(struct plan *plan)
{
    if (plan->errors == plan->output) {
        plan->errors = -1;
    }
    close_fd(&plan->program);
    close_fd(&plan->input);
    close_fd(&plan->output);
    close_fd(&plan->errors);
    close_fd(&plan->status);
    close_fd(&plan->status_read);
    close_fd(&plan->capture_read);
}

/* Moves *FD out of the way of 0 to 3, which the daemon may have been started without. False with
 * errno. */
static bool raise_fd(int *fd)
{
    int raised;

    if (*fd < 0 || *fd >= FIRST_FREE_FD) {
        return *fd >= 0;
    }
    raised = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    close(*fd);
    *fd = raised;
    return raised >= 0;
}

static bool open_fd(int *fd, const char *path, int flags)
{
    *fd = open(path, flags | O_CLOEXEC, 0600);
    return raise_fd(fd);
}

static bool open_pipe(int *read_fd, int *write_fd)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        return false;
    }
    *read_fd = fds[0];
    *write_fd = fds[1];
    return raise_fd(read_fd) && raise_fd(write_fd);
}

static bool plan_failed(const struct plan *plan, const char *what, struct error *error)
{
    return error_set(error, "exec-failed", "%s cannot be started: %s: %s", plan->options->path,
                     what, strerror(errno));
}

static bool plan_output(struct plan *plan, struct error *error)
{
    const struct child_options *options = plan->options;

    if (options->capture) {
        if (!open_fd(&plan->output, "/dev/null", O_WRONLY) ||
            !open_pipe(&plan->capture_read, &plan->errors)) {
            return plan_failed(plan, "its output", error);
        }
        return fcntl(plan->capture_read, F_SETFL, O_NONBLOCK) == 0 ||
               plan_failed(plan, "its output", error);
    }
    if (options->log_path) {
        if (!open_fd(&plan->output, options->log_path,
                     O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NOCTTY)) {
            return plan_failed(plan, options->log_path, error);
        }
    } else {
        plan->output = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (plan->output < 0 && !open_fd(&plan->output, "/dev/null", O_WRONLY)) {
            return plan_failed(plan, "its output", error);
        }
    }
    plan->errors = plan->output;
    return true;
}

static bool plan_user(struct plan *plan, struct error *error)
{
    const char *name = plan->options->user;
    struct passwd entry, *found = NULL;
    size_t size = 1024;
    char *buffer;
    int status;

    if (!name) {
        return true;
    }
    do {
        size *= 2;
        buffer = must_alloc(size);
        status = getpwnam_r(name, &entry, buffer, size, &found);
        if (found) {
            plan->uid = found->pw_uid;
            plan->gid = found->pw_gid;
        }
        free(buffer);
    } while (status == ERANGE && size < (1u << 20));
    if (!found) {
        return error_set(error, "exec-failed", "%s cannot be started: there is no user \"%s\"%s%s",
                         plan->options->path, name, status ? ": " : "",
                         status ? strerror(status) : "");
    }
    /* A daemon that is that user already has nothing to drop, and no right to. */
    plan->drop = geteuid() != plan->uid || getegid() != plan->gid || geteuid() == 0;
    return true;
}

static bool make_plan(struct plan *plan, const struct child_options *options, struct error *error)
{
    *plan = (struct plan){.options = options,
                          .program = -1,
                          .input = -1,
                          .output = -1,
                          .errors = -1,
                          .status = -1,
                          .status_read = -1,
                          .capture_read = -1};
    if (!open_fd(&plan->program, options->path, O_PATH)) {
        return plan_failed(plan, "open", error);
    }
    if (!open_fd(&plan->input, "/dev/null", O_RDONLY)) {
        return plan_failed(plan, "/dev/null", error);
    }
    if (!open_pipe(&plan->status_read, &plan->status)) {
        return plan_failed(plan, "pipe", error);
    }
    return plan_output(plan, error) && plan_user(plan, error);
}

/* ---- in the child ---- */

static _Noreturn void give_up(const struct plan *plan, enum step step)
{
    struct failure failure = {.step = step, .error = errno};
    ssize_t written = write(plan->status, &failure, sizeof failure);

    /* Whether the parent heard it or not, there is nobody left to tell. */
    _exit(written == (ssize_t)sizeof failure ? 127 : 126);
}

/* Handlers are the daemon's; a mask or an ignored signal would be inherited over exec. */
static void reset_signals(void)
{
    sigset_t none;

    for (int signal = 1; signal < NSIG; signal++) {
        sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool arrange_descriptors(const struct plan *plan)
{
    int passed = -1;

    if (plan->options->pass_fd >= 0) {
        passed = fcntl(plan->options->pass_fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (passed < 0) {
            return false;
        }
    }
    /* Closed by exec, not now: program and status are still needed. */
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) < 0) {
        return false;
    }
    return dup2(plan->input, STDIN_FILENO) >= 0 && dup2(plan->output, STDOUT_FILENO) >= 0 &&
           dup2(plan->errors, STDERR_FILENO) >= 0 && (passed < 0 || dup2(passed, 3) >= 0);
}

/* By system call: glibc's functions of these names synchronise threads, which is not for a child of
 * fork. */
static bool become_user(const struct plan *plan)
{
    if (plan->drop && (syscall(SYS_setgroups, 0, NULL) < 0 ||
                       syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) < 0 ||
                       syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) < 0)) {
        return false;
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* A program executed by descriptor is called by its number in ps and pgrep, so that only who needs
 * it is. */
static void execute(const struct plan *plan)
{
    char *const *argv = (char *const *)plan->options->argv;

    if (plan->options->user) {
        syscall(SYS_execveat, plan->program, "", argv, environ, AT_EMPTY_PATH);
    } else {
        execve(plan->options->path, argv, environ);
    }
}

static _Noreturn void run(const struct plan *plan)
{
    const char *directory = plan->options->directory;

    reset_signals();
    if (plan->options->detach && setsid() < 0) {
        give_up(plan, STEP_SESSION);
    }
    if (!arrange_descriptors(plan)) {
        give_up(plan, STEP_DESCRIPTORS);
    }
    if (chdir(directory ? directory : "/") < 0) {
        give_up(plan, STEP_DIRECTORY);
    }
    if (plan->options->user && !become_user(plan)) {
        give_up(plan, STEP_USER);
    }
    execute(plan);
    give_up(plan, STEP_EXEC);
}

/* ---- in the daemon ---- */

/* All signals are blocked around it, so that none of the daemon's handlers runs in the child. */
static pid_t fork_child(const struct plan *plan)
{
    sigset_t all, before;
    pid_t pid;
    int saved;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0) {
        run(plan);
    }
    saved = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

/* Waits until the child has reached its program, which takes it some microseconds. */
static bool await_exec(struct plan *plan, pid_t pid, struct error *error)
{
    struct failure failure;
    ssize_t length;

    close_fd(&plan->status);
    do {
        length = read(plan->status_read, &failure, sizeof failure);
    } while (length < 0 && errno == EINTR);
    if (length == 0) {
        return true;
    }
    reap(pid);
    if (length != (ssize_t)sizeof failure) {
        return error_set(error, "exec-failed", "%s cannot be started: it ended before exec",
                         plan->options->path);
    }
    return error_set(error, "exec-failed", "%s cannot be started: %s: %s", plan->options->path,
                     step_names[failure.step], strerror(failure.error));
}

static void end_output(struct child *child)
{
    if (child->output_event) {
        event_free(child->output_event);
        child->output_event = NULL;
    }
    close_fd(&child->output_fd);
}

/* Keeps the beginning and throws the rest away, so that the child never waits for us. */
static void read_output(struct child *child)
{
    char buffer[4096];
    ssize_t length;

    while (child->output_fd >= 0) {
        size_t room = OUTPUT_MAX - child->output_length, kept;

        length = read(child->output_fd, buffer, sizeof buffer);
        if (length < 0 && errno == EINTR) {
            continue;
        }
        if (length < 0 && errno == EAGAIN) {
            return;
        }
        if (length <= 0) {
            end_output(child);
            return;
        }
        kept = (size_t)length < room ? (size_t)length : room;
        memcpy(child->output + child->output_length, buffer, kept);
        child->output_length += kept;
    }
}

static void on_output(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    read_output(context);
}

static void on_child_exit(evutil_socket_t fd, short what, void *context)
{
    struct child *child = context;
    siginfo_t info = {0};
    int status;

    (void)fd;
    (void)what;
    do {
        status = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED);
    } while (status < 0 && errno == EINTR);
    child->ended = true;
    /* What is in the pipe by now is all of it; a grandchild that holds the other end is not waited
     * for. */
    read_output(child);
    end_output(child);
    if (!child->on_exit) {
        child_free(child); /* it was forgotten before; reaping was all that was left to do */
        return;
    }
    if (status < 0) {
        /* Somebody else reaped it: how it ended is lost. */
        child->on_exit(child, true, 255, child->context);
    } else {
        child->on_exit(child, info.si_code == CLD_EXITED, info.si_status, child->context);
    }
}

static bool watch_child(struct child *child, struct event_base *base, struct plan *plan,
                        struct error *error)
{
    child->pidfd = pidfd_open(child->pid, 0);
    if (child->pidfd < 0) {
        return plan_failed(plan, "pidfd_open", error);
    }
    child->exit_event = event_new(base, child->pidfd, EV_READ, on_child_exit, child);
    if (!child->exit_event || event_add(child->exit_event, NULL) < 0) {
        return error_set(error, "exec-failed", "%s cannot be watched", plan->options->path);
    }
    if (plan->capture_read < 0) {
        return true;
    }
    child->output_fd = plan->capture_read;
    plan->capture_read = -1;
    child->output_event = event_new(base, child->output_fd, EV_READ | EV_PERSIST, on_output, child);
    return (child->output_event && event_add(child->output_event, NULL) == 0) ||
           error_set(error, "exec-failed", "%s cannot be watched", plan->options->path);
}

struct child *child_spawn(struct event_base *base, const struct child_options *options,
                          child_exit_callback on_exit, void *context, struct error *error)
{
    struct child *child = NULL;
    struct plan plan;
    pid_t pid;

    if (!make_plan(&plan, options, error)) {
        goto out;
    }
    pid = fork_child(&plan);
    if (pid < 0) {
        plan_failed(&plan, "fork", error);
        goto out;
    }
    if (!await_exec(&plan, pid, error)) {
        goto out;
    }
    child = must_alloc(sizeof *child);
    *child = (struct child){.pid = pid,
                            .pidfd = -1,
                            .output_fd = -1,
                            .output = must_alloc(OUTPUT_MAX + 1),
                            .on_exit = on_exit,
                            .context = context};
    if (!watch_child(child, base, &plan, error)) {
        kill(pid, SIGKILL);
        reap(pid);
        child->ended = true;
        child_free(child);
        child = NULL;
    }

out:
    clear_plan(&plan);
    return child;
}

pid_t child_pid(const struct child *child)
{
    return child->pid;
}

void child_signal(struct child *child, int signal)
{
    if (!child->ended) {
        /* It fails only when the child has ended and its event is about to come. */
        (void)pidfd_send_signal(child->pidfd, signal, NULL, 0);
    }
}

const char *child_output(const struct child *child)
{
    return child->output;
}

void child_free(struct child *child)
{
    if (!child) {
        return;
    }
    end_output(child);
    if (!child->ended) {
        child->on_exit = NULL; /* kept until its end, to be reaped */
        return;
    }
    if (child->exit_event) {
        event_free(child->exit_event);
    }
    close_fd(&child->pidfd);
    free(child->output);
    free(child);
}

/* ---- processes of others ---- */

static void on_process_end(evutil_socket_t fd, short what, void *context)
{
    struct process_watch *watch = context;

    (void)fd;
    (void)what;
    watch->ended = true;
    /* A child of ours that was forgotten would stay a zombie; of others' children this answers
     * ECHILD. */
    (void)waitid(P_PIDFD, (id_t)watch->pidfd, &(siginfo_t){0}, WEXITED | WNOHANG);
    watch->callback(watch->pid, watch->context);
}

struct process_watch *process_watch_new(struct event_base *base, pid_t pid, uint64_t start_time,
                                        process_end_callback callback, void *context,
                                        struct error *error)
{
    struct process_watch *watch = must_alloc(sizeof *watch);

    *watch = (struct process_watch){.pid = pid, .callback = callback, .context = context};
    watch->pidfd = pidfd_open(pid, 0);
    /* Looked at after the descriptor holds the process: before, another could have come in
     * between. */
    if (watch->pidfd < 0 || !process_alive(pid, start_time)) {
        error_set(error, "process-gone", "process %d has ended", pid);
        goto fail;
    }
    watch->event = event_new(base, watch->pidfd, EV_READ, on_process_end, watch);
    if (!watch->event || event_add(watch->event, NULL) < 0) {
        error_set(error, "process-gone", "process %d cannot be watched", pid);
        goto fail;
    }
    return watch;

fail:
    process_watch_free(watch);
    return NULL;
}

int process_watch_signal(struct process_watch *watch, int signal)
{
    if (watch->ended) {
        return -ESRCH;
    }
    return pidfd_send_signal(watch->pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

void process_watch_free(struct process_watch *watch)
{
    if (!watch) {
        return;
    }
    if (watch->event) {
        event_free(watch->event);
    }
    close_fd(&watch->pidfd);
    free(watch);
}

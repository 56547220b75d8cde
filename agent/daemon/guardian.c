/*
 * The guardian: see guardian.h. It waits for signals only, all of which are blocked, so that none is lost and none needs a handler.
 */
#include "guardian.h"

#include "agent/common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A daemon that does not live as long as this is not started again at once, so as not to fill machine and log. */
#define SHORT_LIFE_MS 1000
/* ps shows who is who, and `killall -9 watarid` leaves the one that helps. At most 15 characters. */
#define GUARDIAN_NAME "watarid-guard"
#define NAME_SIZE 16
/* As a shell says it. */
#define EXIT_SIGNAL 128

struct guardian {
    sigset_t awaited;
    sigset_t before;      /* the mask that the daemon gets back */
    char name[NAME_SIZE]; /* of the process, likewise */
    pid_t daemon;         /* -1: there is none */
    int64_t began_ms;
    bool told; /* to end: it is not started again */
};

bool guardian_is_needed(void)
{
    return getenv("NOTIFY_SOCKET") == NULL;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void prepare(struct guardian *guardian)
{
    struct sigaction hangup;

    *guardian = (struct guardian){.daemon = -1};
    sigemptyset(&guardian->awaited);
    sigaddset(&guardian->awaited, SIGCHLD);
    sigaddset(&guardian->awaited, SIGTERM);
    sigaddset(&guardian->awaited, SIGINT);
    /* Under nohup it stays ignored. A blocked signal would be taken all the same. */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) {
        sigaddset(&guardian->awaited, SIGHUP);
    }
    /* Somebody may have started us with it ignored, and then no child can be waited for. */
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_BLOCK, &guardian->awaited, &guardian->before);
    prctl(PR_GET_NAME, guardian->name);
    prctl(PR_SET_NAME, GUARDIAN_NAME);
}

/* True in the daemon. In the guardian it may have failed, with errno. */
static bool fork_daemon(struct guardian *guardian)
{
    guardian->began_ms = now_ms();
    guardian->daemon = fork();
    if (guardian->daemon == 0) {
        prctl(PR_SET_NAME, guardian->name);
        sigprocmask(SIG_SETMASK, &guardian->before, NULL);
        return true;
    }
    return false;
}

static void forward(struct guardian *guardian, const siginfo_t *info)
{
    guardian->told = true;
    /* What is typed at a terminal goes to all its processes: the daemon has had it. */
    if (guardian->daemon > 0 && info->si_code != SI_KERNEL) {
        kill(guardian->daemon, info->si_signo);
    }
}

/* Until the daemon has ended; returns how, as of waitpid. */
static int wait_for_daemon(struct guardian *guardian)
{
    siginfo_t info;
    int status;

    for (;;) {
        if (sigwaitinfo(&guardian->awaited, &info) < 0) {
            continue; /* interrupted by a stop and a continuation */
        }
        if (info.si_signo != SIGCHLD) {
            forward(guardian, &info);
        } else if (waitpid(guardian->daemon, &status, WNOHANG) == guardian->daemon) {
            guardian->daemon = -1;
            return status;
        }
    }
}

/* SHORT_LIFE_MS, or until it is told to end. */
static void pause_before_restart(struct guardian *guardian)
{
    const struct timespec pause = {.tv_sec = SHORT_LIFE_MS / 1000,
                                   .tv_nsec = SHORT_LIFE_MS % 1000 * 1000000L};
    siginfo_t info;

    if (sigtimedwait(&guardian->awaited, &info, &pause) > 0 && info.si_signo != SIGCHLD) {
        forward(guardian, &info);
    }
}

/* True in the new daemon. In the guardian there is one then, or it was told to end before. */
static bool restart(struct guardian *guardian)
{
    if (!guardian->told && now_ms() - guardian->began_ms < SHORT_LIFE_MS) {
        pause_before_restart(guardian);
    }
    while (!guardian->told) {
        if (fork_daemon(guardian)) {
            return true;
        }
        if (guardian->daemon > 0) {
            return false;
        }
        log_error("watarid cannot be started again: %s; tried again in a moment", strerror(errno));
        pause_before_restart(guardian);
    }
    return false;
}

bool guardian_start(int *code)
{
    struct guardian guardian;

    prepare(&guardian);
    if (fork_daemon(&guardian)) {
        return true;
    }
    if (guardian.daemon < 0) {
        log_error("watarid cannot be started: %s", strerror(errno));
        *code = EXIT_FAILURE;
        return false;
    }
    for (;;) {
        int status = wait_for_daemon(&guardian);

        if (WIFEXITED(status)) {
            *code = WEXITSTATUS(status);
            return false;
        }
        *code = EXIT_SIGNAL + WTERMSIG(status);
        log_warning("watarid was killed by signal %d (%s)%s", WTERMSIG(status),
                    strsignal(WTERMSIG(status)), guardian.told ? "" : "; it is started again");
        if (restart(&guardian)) {
            return true;
        }
        if (guardian.daemon < 0) {
            return false;
        }
    }
}

/*
 * A QEMU without a machine (-M none) for tests of what speaks QMP: there in a fraction of a
 * second, and it ends with the test program. For one test program; everything is static, and
 * inline so that not all has to be used.
 */
#ifndef WATARI_TESTS_QEMU_PROCESS_H
#define WATARI_TESTS_QEMU_PROCESS_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define QEMU_PROGRAM "qemu-system-x86_64"
/* Under a sanitizer on a busy machine it takes its time. */
#define QEMU_START_MS 30000

struct qemu_process {
    pid_t pid; /* 0: not running */
    char directory[64];
    char qmp[80];
};

static inline bool qemu_process_there(void)
{
    const char *path = getenv("PATH");
    char *copy = strdup(path ? path : ""), *save = NULL;
    bool there = false;

    for (char *part = strtok_r(copy, ":", &save); part && !there;
         part = strtok_r(NULL, ":", &save)) {
        char program[512];

        snprintf(program, sizeof program, "%s/" QEMU_PROGRAM, part);
        there = access(program, X_OK) == 0;
    }
    free(copy);
    return there;
}

/* Skips the test when there is no QEMU. */
static inline void qemu_process_require(void)
{
    if (!qemu_process_there()) {
        print_message("skipped: no " QEMU_PROGRAM " in PATH\n");
        skip();
    }
}

/* Its socket is there before QEMU listens, and to try it would take the one place for a client. */
static inline bool qemu_process_listens(const struct qemu_process *process)
{
    FILE *sockets = fopen("/proc/net/unix", "re");
    char line[256];
    bool listens = false;

    assert_non_null(sockets);
    while (!listens && fgets(line, sizeof line, sockets)) {
        /* Num: RefCount Protocol Flags(__SO_ACCEPTCON) Type St Inode Path */
        listens = strstr(line, process->qmp) && strstr(line, " 00010000 ");
    }
    fclose(sockets);
    return listens;
}

/* Returns when its QMP socket takes clients. */
static inline void qemu_process_start(struct qemu_process *process)
{
    pid_t parent = getpid();
    char monitor[128];

    strcpy(process->directory, "/tmp/test_qemu.XXXXXX");
    assert_non_null(mkdtemp(process->directory));
    snprintf(process->qmp, sizeof process->qmp, "%s/qmp", process->directory);
    snprintf(monitor, sizeof monitor, "unix:%s,server=on,wait=off", process->qmp);
    process->pid = fork();
    assert_true(process->pid >= 0);
    if (process->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) {
            execlp(QEMU_PROGRAM, QEMU_PROGRAM, "-M", "none", "-nodefaults", "-display", "none",
                   "-S", "-qmp", monitor, (char *)NULL);
        }
        _exit(127);
    }
    for (int waited = 0; !qemu_process_listens(process); waited += 5) {
        assert_true(waited < QEMU_START_MS);
        assert_int_equal(waitpid(process->pid, NULL, WNOHANG), 0);
        usleep(5000);
    }
}

/* Waits for its end; its status is as of waitpid. */
static inline int qemu_process_reap(struct qemu_process *process)
{
    int status = 0;

    while (waitpid(process->pid, &status, 0) < 0) {
        assert_int_equal(errno, EINTR);
    }
    process->pid = 0;
    return status;
}

/* Also when it was never started. */
static inline void qemu_process_end(struct qemu_process *process)
{
    if (process->pid > 0) {
        kill(process->pid, SIGKILL);
        qemu_process_reap(process);
    }
    if (process->directory[0]) {
        unlink(process->qmp);
        assert_int_equal(rmdir(process->directory), 0);
        process->directory[0] = '\0';
    }
}

#endif

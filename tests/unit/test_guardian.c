/*
 * The guardian: what it does when its daemon ends, is killed or is to be ended, and what the daemon has of it. Each test forks a guardian;
 * its daemons are functions here, and tell what they saw through shared memory.
 */
#include "agent/daemon/guardian.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define LIVES_MAX 4
#define WAIT_MS 20000

struct seen {
    int lives;
    pid_t pids[LIVES_MAX];
    int64_t began_ms[LIVES_MAX];
    bool ready; /* the daemon waits for signals */
    bool blocked;
    char name[16];
};

static volatile struct seen *seen;

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(int64_t ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    while (nanosleep(&pause, &pause) < 0 && errno == EINTR) {
    }
}

/* A daemon that was forgotten falls to this process, which must be able to reap it. */
static int prepare(void **state)
{
    (void)state;
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(seen, MAP_FAILED);
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

static int end(void **state)
{
    (void)state;
    return munmap((void *)seen, sizeof *seen);
}

/* LIFE gets the number of the life and returns the daemon's exit code. */
static pid_t start(int (*life)(int number))
{
    pid_t guardian = fork();
    int code, number;

    assert_true(guardian >= 0);
    if (guardian > 0) {
        return guardian;
    }
    if (!guardian_start(&code)) {
        _exit(code);
    }
    number = seen->lives;
    if (number >= LIVES_MAX) {
        _exit(99);
    }
    seen->pids[number] = getpid();
    seen->began_ms[number] = now_ms();
    seen->lives = number + 1;
    _exit(life(number));
}

static int end_of(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void wait_until_ready(void)
{
    int64_t limit = now_ms() + WAIT_MS;

    while (!seen->ready && now_ms() < limit) {
        sleep_ms(5);
    }
    assert_true(seen->ready);
}

static int live_until_killed(int number)
{
    (void)number;
    seen->ready = true;
    sleep_ms(WAIT_MS);
    return 98;
}

static void on_signal(int number)
{
    _exit(40 + number);
}

static int take_signals(int number)
{
    (void)number;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGHUP, on_signal);
    seen->ready = true;
    sleep_ms(WAIT_MS);
    return 98;
}

/* --- tests --- */

static void none_is_needed_under_systemd(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    assert_true(guardian_is_needed());
    setenv("NOTIFY_SOCKET", "/run/systemd/notify", 1);
    assert_false(guardian_is_needed());
    unsetenv("NOTIFY_SOCKET");
}

static int look(int number)
{
    sigset_t mask;
    char name[16];

    (void)number;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    seen->blocked = sigismember(&mask, SIGTERM) || sigismember(&mask, SIGINT) ||
                    sigismember(&mask, SIGHUP) || sigismember(&mask, SIGCHLD);
    prctl(PR_GET_NAME, name);
    memcpy((void *)seen->name, name, sizeof name);
    return 7;
}

static void it_ends_with_the_code_of_the_daemon(void **state)
{
    (void)state;
    assert_int_equal(end_of(start(look)), 7);
    assert_int_equal(seen->lives, 1);
}

static void the_daemon_has_its_own_name_and_no_signal_blocked(void **state)
{
    char name[16];

    (void)state;
    prctl(PR_GET_NAME, name);
    end_of(start(look));
    assert_false(seen->blocked);
    assert_string_equal((const char *)seen->name, name);
}

static int be_killed_twice(int number)
{
    if (number == 0) {
        sleep_ms(1100); /* long enough to be no daemon that cannot live */
    }
    if (number < 2) {
        kill(getpid(), number == 0 ? SIGKILL : SIGABRT);
    }
    return 5;
}

static void a_killed_daemon_is_started_again_and_after_a_short_life_not_at_once(void **state)
{
    (void)state;
    assert_int_equal(end_of(start(be_killed_twice)), 5);
    assert_int_equal(seen->lives, 3);
    assert_int_not_equal(seen->pids[0], seen->pids[1]);
    assert_in_range(seen->began_ms[1] - seen->began_ms[0], 1100, 2090);
    assert_in_range(seen->began_ms[2] - seen->began_ms[1], 1000, WAIT_MS);
}

static void signals_are_forwarded(void **state)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        pid_t guardian;

        seen->ready = false;
        seen->lives = 0;
        guardian = start(take_signals);
        wait_until_ready();
        kill(guardian, numbers[i]);
        assert_int_equal(end_of(guardian), 40 + numbers[i]);
        assert_int_equal(seen->lives, 1);
    }
}

static void what_was_told_to_end_is_not_started_again(void **state)
{
    pid_t guardian = start(live_until_killed);

    (void)state;
    wait_until_ready();
    kill(guardian, SIGTERM);
    assert_int_equal(end_of(guardian), 128 + SIGTERM);
    assert_int_equal(seen->lives, 1);
}

static int be_killed(int number)
{
    (void)number;
    seen->ready = true;
    kill(getpid(), SIGKILL);
    return 1;
}

static void it_can_be_ended_while_it_waits_to_start_the_daemon_again(void **state)
{
    pid_t guardian = start(be_killed);

    (void)state;
    wait_until_ready();
    sleep_ms(200);
    kill(guardian, SIGTERM);
    assert_int_equal(end_of(guardian), 128 + SIGKILL);
    assert_int_equal(seen->lives, 1);
}

static void an_ignored_hangup_stays_ignored(void **state)
{
    pid_t guardian;

    (void)state;
    signal(SIGHUP, SIG_IGN);
    guardian = start(live_until_killed);
    signal(SIGHUP, SIG_DFL);
    wait_until_ready();
    kill(guardian, SIGHUP);
    sleep_ms(1100);
    seen->ready = false;
    kill(seen->pids[0], SIGKILL);
    wait_until_ready();
    assert_int_equal(seen->lives, 2);
    kill(guardian, SIGTERM);
    assert_int_equal(end_of(guardian), 128 + SIGTERM);
}

static void a_daemon_can_be_waited_for_where_children_were_ignored(void **state)
{
    pid_t guardian;

    (void)state;
    signal(SIGCHLD, SIG_IGN);
    guardian = start(look);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(end_of(guardian), 7);
}

static void the_daemon_goes_on_when_the_guardian_is_killed(void **state)
{
    pid_t guardian = start(take_signals);
    int status;

    (void)state;
    wait_until_ready();
    kill(guardian, SIGKILL);
    assert_int_equal(waitpid(guardian, &status, 0), guardian);
    sleep_ms(200);
    assert_int_equal(kill(seen->pids[0], SIGTERM), 0);
    assert_int_equal(end_of(seen->pids[0]), 40 + SIGTERM);
    assert_int_equal(seen->lives, 1);
}

#define test_of_guardian(function) cmocka_unit_test_setup_teardown(function, prepare, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_is_needed_under_systemd),
        test_of_guardian(it_ends_with_the_code_of_the_daemon),
        test_of_guardian(the_daemon_has_its_own_name_and_no_signal_blocked),
        test_of_guardian(a_killed_daemon_is_started_again_and_after_a_short_life_not_at_once),
        test_of_guardian(signals_are_forwarded),
        test_of_guardian(what_was_told_to_end_is_not_started_again),
        test_of_guardian(it_can_be_ended_while_it_waits_to_start_the_daemon_again),
        test_of_guardian(an_ignored_hangup_stays_ignored),
        test_of_guardian(a_daemon_can_be_waited_for_where_children_were_ignored),
        test_of_guardian(the_daemon_goes_on_when_the_guardian_is_killed),
    };

    /* Under nohup it would be ignored, and that be passed on. */
    signal(SIGHUP, SIG_DFL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

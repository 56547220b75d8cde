/*
 * Children: how they start and fail to, what they inherit, how their end is told; and watching
 * processes that are not ours.
 */
#include "agent/daemon/child.h"

#include "agent/common/process.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TEXT_SIZE 32768

struct place {
    struct event_base *base;
    char directory[64];
    char log[80];
    int calls;
    bool exited;
    int code;
    pid_t ended_pid;
};

static int make_place(void **state)
{
    struct place *place = calloc(1, sizeof *place);

    assert_non_null(place);
    strcpy(place->directory, "/tmp/test-child.XXXXXX");
    assert_non_null(mkdtemp(place->directory));
    snprintf(place->log, sizeof place->log, "%s/log", place->directory);
    place->base = event_base_new();
    assert_non_null(place->base);
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;

    event_base_free(place->base);
    unlink(place->log);
    assert_int_equal(rmdir(place->directory), 0);
    free(place);
    return 0;
}

static void on_exit_of_child(struct child *child, bool exited, int code, void *context)
{
    struct place *place = context;

    place->ended_pid = child_pid(child);
    place->calls++;
    place->exited = exited;
    place->code = code;
    event_base_loopbreak(place->base);
}

static void turn(struct place *place)
{
    struct timeval limit = {20, 0};

    event_base_loopexit(place->base, &limit);
    event_base_dispatch(place->base);
}

/* Until the loop has reaped a forgotten child. */
static void await_reaped(struct place *place, pid_t pid)
{
    while (kill(pid, 0) == 0) {
        event_base_loop(place->base, EVLOOP_ONCE);
    }
}

static struct child *spawn(struct place *place, struct child_options options)
{
    struct error error = {0};
    struct child *child = child_spawn(place->base, &options, on_exit_of_child, place, &error);

    if (!child) {
        fail_msg("%s", error.text);
    }
    return child;
}

/* Runs it to its end, which must be a normal one with CODE. */
static void run(struct place *place, struct child_options options, int code)
{
    struct child *child = spawn(place, options);

    turn(place);
    assert_int_equal(place->calls, 1);
    assert_true(place->exited);
    assert_int_equal(place->code, code);
    child_free(child);
    place->calls = 0;
}

static struct child_options shell(const struct place *place, const char *script)
{
    static const char *argv[4];

    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = script;
    argv[3] = NULL;
    return (struct child_options){
        .path = "/bin/sh", .argv = argv, .log_path = place->log, .pass_fd = -1};
}

static void read_log(const struct place *place, char text[TEXT_SIZE])
{
    FILE *file = fopen(place->log, "re");
    size_t length;

    assert_non_null(file);
    length = fread(text, 1, TEXT_SIZE - 1, file);
    text[length] = '\0';
    fclose(file);
}

static void test_exit_codes_and_signals(void **state)
{
    struct place *place = *state;
    struct child *child;

    run(place, shell(place, "exit 0"), 0);
    run(place, shell(place, "exit 42"), 42);
    child = spawn(place, shell(place, "kill -9 $$"));
    turn(place);
    assert_false(place->exited);
    assert_int_equal(place->code, SIGKILL);
    child_free(child);
    place->calls = 0;
    child = spawn(place, shell(place, "sleep 60"));
    child_signal(child, SIGTERM);
    turn(place);
    assert_int_equal(place->calls, 1);
    assert_int_equal(place->code, SIGTERM);
    assert_int_equal(place->ended_pid, child_pid(child));
    child_signal(child, SIGTERM);
    child_free(child);
}

static void refuse(struct place *place, struct child_options options, const char *why)
{
    struct error error = {0};

    assert_null(child_spawn(place->base, &options, on_exit_of_child, place, &error));
    assert_string_equal(error.id, "exec-failed");
    if (!strstr(error.text, why)) {
        fail_msg("\"%s\" does not say \"%s\"", error.text, why);
    }
    /* Nothing is left that would have to be waited for. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void test_failures_to_start_name_step_and_reason(void **state)
{
    struct place *place = *state;
    struct child_options options = shell(place, "exit 0");

    options.path = "/nowhere/program";
    refuse(place, options, "/nowhere/program cannot be started: open: No such file");
    options.path = "/etc/passwd";
    refuse(place, options, "exec: Permission denied");
    options = shell(place, "exit 0");
    options.directory = "/nowhere";
    refuse(place, options, "its directory: No such file");
    options = shell(place, "exit 0");
    options.user = "no-such-user";
    refuse(place, options, "there is no user \"no-such-user\"");
    options = shell(place, "exit 0");
    options.log_path = "/nowhere/log";
    refuse(place, options, "/nowhere/log: No such file");
    options = shell(place, "exit 0");
    options.pass_fd = 999;
    refuse(place, options, "its descriptors: Bad file descriptor");
}

static void test_log_is_appended_to_and_private(void **state)
{
    struct place *place = *state;
    char text[TEXT_SIZE];
    struct stat status;

    run(place, shell(place, "echo one; echo two >&2"), 0);
    run(place, shell(place, "echo three; pwd"), 0);
    read_log(place, text);
    assert_string_equal(text, "one\ntwo\nthree\n/\n");
    assert_int_equal(stat(place->log, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void test_capture_keeps_the_beginning(void **state)
{
    struct place *place = *state;
    struct child_options options = shell(place, "echo out; echo complaint >&2; exit 3");
    struct child *child;

    options.log_path = NULL;
    options.capture = true;
    child = spawn(place, options);
    turn(place);
    assert_int_equal(place->code, 3);
    assert_string_equal(child_output(child), "complaint\n");
    child_free(child);

    place->calls = 0;
    options.argv = (const char *const[]){
        "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 4", NULL};
    child = spawn(place, options);
    turn(place);
    assert_int_equal(place->calls, 1);
    assert_int_equal(place->code, 4);
    assert_int_equal(strlen(child_output(child)), 16384);
    child_free(child);
}

/* A grandchild that holds the pipe must not hold up the news of the child's end. */
static void test_capture_does_not_wait_for_grandchildren(void **state)
{
    struct place *place = *state;
    struct child_options options = shell(place, "sleep 30 & echo $! >&2");
    struct child *child;

    options.log_path = NULL;
    options.capture = true;
    child = spawn(place, options);
    turn(place);
    assert_int_equal(place->calls, 1);
    assert_true(atoi(child_output(child)) > 1);
    kill((pid_t)atoi(child_output(child)), SIGKILL);
    child_free(child);
}

static void test_only_what_is_handed_over_is_open(void **state)
{
    struct place *place = *state;
    struct child_options options = shell(place, "exec ls /proc/self/fd");
    int passed[2], stray = open("/dev/null", O_RDONLY);
    char text[TEXT_SIZE];

    assert_true(stray >= 0);
    assert_int_equal(pipe(passed), 0);
    run(place, options, 0);
    read_log(place, text);
    /* 3 is the directory that ls reads. */
    assert_string_equal(text, "0\n1\n2\n3\n");
    unlink(place->log);

    options = shell(place, "echo hello >&3; cat <&0; ls /proc/self/fd");
    options.pass_fd = passed[1];
    run(place, options, 0);
    read_log(place, text);
    assert_string_equal(text, "0\n1\n2\n3\n4\n");
    assert_int_equal(read(passed[0], text, 6), 6);
    assert_memory_equal(text, "hello\n", 6);
    close(stray);
    close(passed[0]);
    close(passed[1]);
}

static void test_signals_are_reset(void **state)
{
    struct place *place = *state;
    char text[TEXT_SIZE];
    sigset_t some;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&some);
    sigaddset(&some, SIGUSR1);
    sigprocmask(SIG_BLOCK, &some, NULL);
    run(place, shell(place, "exec grep -E '^Sig(Blk|Ign)' /proc/self/status"), 0);
    sigprocmask(SIG_UNBLOCK, &some, NULL);
    signal(SIGPIPE, SIG_DFL);
    read_log(place, text);
    assert_string_equal(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void test_user_is_dropped_for_good(void **state)
{
    struct place *place = *state;
    struct child_options options = shell(
        place,
        "id -u; id -g; id -G; id -un; grep -E '^(NoNewPrivs|CapEff|CapPrm)' /proc/self/status");
    char text[TEXT_SIZE];

    if (geteuid() != 0) {
        skip();
    }
    options.user = "nobody";
    run(place, options, 0);
    read_log(place, text);
    assert_string_equal(text, "65534\n65534\n65534\nnobody\nCapPrm:\t0000000000000000\n"
                              "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
}

/* The program lies where the user cannot go: it is run by descriptor. */
static void test_user_need_not_reach_the_program(void **state)
{
    struct place *place = *state;
    struct child_options options = shell(place, "id -un");
    char program[96], command[256], text[TEXT_SIZE];

    if (geteuid() != 0) {
        skip();
    }
    snprintf(program, sizeof program, "%s/program", place->directory);
    snprintf(command, sizeof command, "install -m 755 /bin/sh %s && chmod 700 %s", program,
             place->directory);
    assert_int_equal(system(command), 0);
    options.path = program;
    options.user = "nobody";
    run(place, options, 0);
    unlink(program);
    read_log(place, text);
    assert_string_equal(text, "nobody\n");
}

static void test_detached_child_leads_a_session(void **state)
{
    struct place *place = *state;
    struct child_options options =
        shell(place, "exec awk '{print ($1 == $6) ? \"leader\" : \"member\"}' /proc/self/stat");
    char text[TEXT_SIZE];

    run(place, options, 0);
    options.detach = true;
    run(place, options, 0);
    read_log(place, text);
    assert_string_equal(text, "member\nleader\n");
}

static void test_child_may_be_freed_before_its_end(void **state)
{
    struct place *place = *state;
    struct child *child = spawn(place, shell(place, "exec sleep 60"));
    struct process_watch *watch;
    struct error error = {0};
    uint64_t start_time;
    pid_t pid = child_pid(child);

    child_free(child);
    assert_int_equal(process_start_time(pid, &start_time), 0);
    /* And forgotten, it can be watched like any other; its zombie is gone afterwards. */
    watch = process_watch_new(place->base, pid, start_time, NULL, NULL, &error);
    assert_non_null(watch);
    process_watch_free(watch);
    kill(pid, SIGKILL);
    await_reaped(place, pid);
    assert_int_equal(place->calls, 0);
}

static void on_process_end(pid_t pid, void *context)
{
    struct place *place = context;

    place->calls++;
    place->ended_pid = pid;
    event_base_loopbreak(place->base);
}

/* Twice forked, so that it is nobody's child here. */
static pid_t stranger(void)
{
    int fds[2];
    pid_t middle, pid = 0;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    middle = fork();
    assert_true(middle >= 0);
    if (middle == 0) {
        pid = fork();
        if (pid == 0) {
            execl("/bin/sleep", "sleep", "60", (char *)NULL);
            _exit(127);
        }
        _exit(write(fds[1], &pid, sizeof pid) == sizeof pid ? 0 : 1);
    }
    assert_int_equal(read(fds[0], &pid, sizeof pid), sizeof pid);
    assert_int_equal(waitpid(middle, NULL, 0), middle);
    close(fds[0]);
    close(fds[1]);
    return pid;
}

static void test_watching_a_stranger(void **state)
{
    struct place *place = *state;
    struct process_watch *watch;
    struct error error = {0};
    uint64_t start_time = 0;
    pid_t pid = stranger();

    assert_int_equal(process_start_time(pid, &start_time), 0);
    assert_null(process_watch_new(place->base, pid, start_time + 1, on_process_end, place, &error));
    assert_string_equal(error.id, "process-gone");
    watch = process_watch_new(place->base, pid, start_time, on_process_end, place, &error);
    assert_non_null(watch);
    assert_int_equal(process_watch_signal(watch, 0), 0);
    assert_int_equal(process_watch_signal(watch, SIGKILL), 0);
    turn(place);
    assert_int_equal(place->calls, 1);
    assert_int_equal(place->ended_pid, pid);
    assert_int_equal(process_watch_signal(watch, SIGKILL), -ESRCH);
    process_watch_free(watch);
    assert_false(process_alive(pid, start_time));
    assert_null(process_watch_new(place->base, pid, start_time, on_process_end, place, &error));
}

static void test_watching_a_forgotten_child_reaps_it(void **state)
{
    struct place *place = *state;
    struct child *child = spawn(place, shell(place, "exec sleep 60"));
    struct process_watch *watch;
    struct error error = {0};
    pid_t pid = child_pid(child);
    uint64_t start_time = 0;

    assert_int_equal(process_start_time(pid, &start_time), 0);
    child_free(child);
    watch = process_watch_new(place->base, pid, start_time, on_process_end, place, &error);
    assert_non_null(watch);
    assert_int_equal(process_watch_signal(watch, SIGTERM), 0);
    turn(place);
    assert_int_equal(place->calls, 1);
    process_watch_free(watch);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
    /* The child's own event may still be due, which frees it. */
    event_base_loop(place->base, EVLOOP_NONBLOCK);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_exit_codes_and_signals),
        TEST(test_failures_to_start_name_step_and_reason),
        TEST(test_log_is_appended_to_and_private),
        TEST(test_capture_keeps_the_beginning),
        TEST(test_capture_does_not_wait_for_grandchildren),
        TEST(test_only_what_is_handed_over_is_open),
        TEST(test_signals_are_reset),
        TEST(test_user_is_dropped_for_good),
        TEST(test_user_need_not_reach_the_program),
        TEST(test_detached_child_leads_a_session),
        TEST(test_child_may_be_freed_before_its_end),
        TEST(test_watching_a_stranger),
        TEST(test_watching_a_forgotten_child_reaps_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

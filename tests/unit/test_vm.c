/*
 * QEMU processes in /proc. The processes are this test itself, run under a QEMU's name with a
 * QEMU's arguments: it does nothing then.
 */
#include "agent/daemon/vm.h"

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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define VMS_MAX 8

struct place {
    char directory[64];
    char qemu[96];
    pid_t pids[VMS_MAX];
    size_t count;
};

static void copy_program(const char *from, const char *to)
{
    char buffer[65536];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    ssize_t length;

    assert_true(in >= 0 && out >= 0);
    while ((length = read(in, buffer, sizeof buffer)) > 0) {
        assert_int_equal(write(out, buffer, (size_t)length), length);
    }
    assert_int_equal(length, 0);
    close(in);
    close(out);
}

static int make_place(void **state)
{
    struct place *place = calloc(1, sizeof *place);

    assert_non_null(place);
    strcpy(place->directory, "/tmp/test-vm.XXXXXX");
    assert_non_null(mkdtemp(place->directory));
    snprintf(place->qemu, sizeof place->qemu, "%s/qemu-system-test", place->directory);
    copy_program("/proc/self/exe", place->qemu);
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;

    for (size_t i = 0; i < place->count; i++) {
        kill(place->pids[i], SIGKILL);
        waitpid(place->pids[i], NULL, 0);
    }
    unlink(place->qemu);
    assert_int_equal(rmdir(place->directory), 0);
    free(place);
    return 0;
}

/* Starts a "QEMU" with the arguments in TEXT, separated by blanks; it has exec'ed on return. */
static pid_t start(struct place *place, const char *program, const char *text)
{
    const char *argv[64] = {program};
    char *copy = strdup(text), byte;
    size_t count = 1;
    int fds[2];
    pid_t pid;

    assert_non_null(copy);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        argv[count++] = word;
    }
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (chdir(place->directory) == 0) {
            execv(place->qemu, (char *const *)argv);
        }
        _exit(127);
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 0);
    close(fds[0]);
    free(copy);
    place->pids[place->count++] = pid;
    return pid;
}

static const struct vm *find(const struct vm_list *list, pid_t pid)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->vms[i].pid == pid) {
            return &list->vms[i];
        }
    }
    return NULL;
}

static void test_what_a_scan_tells(void **state)
{
    struct place *place = *state;
    pid_t pid = start(place, "qemu-system-x86_64",
                      "-name guest=web,debug-threads=on -append -qmp -qmp unix:/x/q,server,nowait");
    struct vm_list list;
    const struct vm *vm;

    assert_int_equal(vm_scan(&list), 0);
    vm = find(&list, pid);
    assert_non_null(vm);
    assert_string_equal(vm->name, "web");
    assert_string_equal(vm->binary, place->qemu);
    assert_string_equal(vm->qmp_path, "/x/q");
    assert_int_equal(vm->argc, 7);
    assert_string_equal(vm->argv[0], "qemu-system-x86_64");
    assert_string_equal(vm->argv[6], "unix:/x/q,server,nowait");
    assert_null(vm->argv[7]);
    assert_true(process_alive(pid, vm->start_time));
    assert_false(process_alive(pid, vm->start_time + 1));
    assert_null(find(&list, getpid()));
    vm_list_clear(&list);
}

static void test_every_spelling_of_a_qmp_socket(void **state)
{
    static const struct {
        const char *text, *path;
    } cases[] = {
        {"-qmp unix:/x/q,,r,server=on,wait=off", "/x/q,r"},
        {"--qmp-pretty unix:path=/x/q,server", "/x/q"},
        {"-qmp chardev:c -chardev socket,path=/x/q,id=c,server=on", "/x/q"},
        {"-chardev socket,server=on,id=c,path=/x/q -mon mode=control,chardev=c", "/x/q"},
        {"-mon c,mode=control,pretty=on -chardev socket,id=c,path=/x/q,server", "/x/q"},
        {"-chardev {\"backend\":\"socket\",\"id\":\"c\",\"path\":\"/x/q\"} "
         "-mon {\"chardev\":\"c\",\"mode\":\"control\"}",
         "/x/q"},
        {"-qmp unix:/user,server -chardev socket,id=watari-qmp,path=/x/w,server=on -mon "
         "chardev=watari-qmp,mode=control",
         "/x/w"},
        {"-qmp unix:/first,server -qmp unix:/second,server", "/first"},
        {"-monitor unix:/x/m,server", NULL},
        {"-chardev socket,id=c,path=/x/m -mon c", NULL},
        {"-chardev socket,id=c,port=1 -mon c,mode=control", NULL},
        {"-qmp tcp::4444,server", NULL},
        {"-qmp", NULL},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct place *place = *state;
        pid_t pid = start(place, "q", cases[i].text);
        struct vm_list list;
        const struct vm *vm;

        assert_int_equal(vm_scan(&list), 0);
        vm = find(&list, pid);
        assert_non_null(vm);
        if (cases[i].path) {
            assert_non_null(vm->qmp_path);
            assert_string_equal(vm->qmp_path, cases[i].path);
        } else {
            assert_null(vm->qmp_path);
        }
        vm_list_clear(&list);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        place->count--;
    }
}

static void test_relative_paths_and_replaced_binaries(void **state)
{
    struct place *place = *state;
    pid_t pid = start(place, "q", "-qmp unix:q.sock,server");
    char wanted[128];
    struct vm_list list;
    const struct vm *vm;

    unlink(place->qemu);
    assert_int_equal(vm_scan(&list), 0);
    vm = find(&list, pid);
    assert_non_null(vm);
    snprintf(wanted, sizeof wanted, "%s/q.sock", place->directory);
    assert_string_equal(vm->qmp_path, wanted);
    assert_string_equal(vm->binary, place->qemu);
    snprintf(wanted, sizeof wanted, "qemu-%d", pid);
    assert_string_equal(vm->name, wanted);
    vm_list_clear(&list);
}

static void test_finding_one(void **state)
{
    struct place *place = *state;
    pid_t one = start(place, "q", "-name test-vm-one -qmp unix:/x/one,server");
    pid_t two = start(place, "q",
                      "-name test-vm-two -chardev socket,id=watari-qmp,server=on,"
                      "path=/x/vms/two/private/watari-qmp.sock -mon watari-qmp,mode=control");
    pid_t twin = start(place, "q", "-name test-vm-twin -qmp unix:/x/t,server");
    pid_t other_twin = start(place, "q", "-name test-vm-twin -qmp unix:/x/u,server");
    pid_t mute = start(place, "q", "-name test-vm-mute");
    char text[32], pids[64];
    struct error error = {0};
    struct vm vm;

    assert_true(vm_find("test-vm-one", &vm, &error));
    assert_int_equal(vm.pid, one);
    vm_clear(&vm);
    snprintf(text, sizeof text, "%d", other_twin);
    assert_true(vm_find(text, &vm, &error));
    assert_int_equal(vm.pid, other_twin);
    vm_clear(&vm);
    assert_true(vm_find("/x/one", &vm, &error));
    assert_int_equal(vm.pid, one);
    vm_clear(&vm);
    assert_true(vm_find("/x/vms/two/qmp.sock", &vm, &error));
    assert_int_equal(vm.pid, two);
    vm_clear(&vm);

    assert_false(vm_find("test-vm-none", &vm, &error));
    assert_string_equal(error.id, "vm-not-found");
    assert_non_null(strstr(error.text, "test-vm-one (pid"));
    assert_false(vm_find("/x/vms/tw/qmp.sock", &vm, &error));
    assert_string_equal(error.id, "vm-not-found");
    assert_false(vm_find("test-vm-twin", &vm, &error));
    assert_string_equal(error.id, "vm-ambiguous");
    snprintf(pids, sizeof pids, "%d", twin);
    assert_non_null(strstr(error.text, pids));
    assert_false(vm_find("test-vm-mute", &vm, &error));
    assert_string_equal(error.id, "vm-no-qmp");
    assert_true(mute > 0);
}

static void test_the_dead_are_not_alive(void **state)
{
    struct place *place = *state;
    pid_t pid = start(place, "q", "-name x");
    uint64_t start_time = 0;
    siginfo_t info;
    struct vm_list list;

    assert_int_equal(process_start_time(pid, &start_time), 0);
    kill(pid, SIGKILL);
    /* A zombie from here on. */
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_false(process_alive(pid, start_time));
    assert_int_equal(process_start_time(pid, &start_time), -ESRCH);
    assert_int_equal(vm_scan(&list), 0);
    assert_null(find(&list, pid));
    vm_list_clear(&list);
    waitpid(pid, NULL, 0);
    place->count--;
    assert_int_equal(process_start_time(pid, &start_time), -ESRCH);
}

static void test_process_of_record(void **state)
{
    char boot_id[PROCESS_BOOT_ID_SIZE];
    uint64_t start_time;
    json_t *begin;

    (void)state;
    assert_int_equal(process_boot_id(boot_id), 0);
    assert_int_equal(process_start_time(getpid(), &start_time), 0);
    begin = json_pack("{ss,si,sI}", "boot_id", boot_id, "pid", (int)getpid(), "start_time",
                      (json_int_t)start_time);
    assert_true(process_of_record_alive(begin));
    json_object_set_new(begin, "start_time", json_integer((json_int_t)start_time - 1));
    assert_false(process_of_record_alive(begin));
    json_object_set_new(begin, "start_time", json_integer((json_int_t)start_time));
    json_object_set_new(begin, "boot_id", json_string("00000000-0000-4000-8000-000000000000"));
    assert_false(process_of_record_alive(begin));
    json_decref(begin);
    assert_false(process_of_record_alive(NULL));
}

static void test_boot_id(void **state)
{
    char id[37];

    (void)state;
    assert_int_equal(process_boot_id(id), 0);
    assert_int_equal(strlen(id), 36);
    assert_int_equal(strspn(id, "0123456789abcdef-"), 36);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_a_scan_tells),
        TEST(test_every_spelling_of_a_qmp_socket),
        TEST(test_relative_paths_and_replaced_binaries),
        TEST(test_finding_one),
        TEST(test_the_dead_are_not_alive),
        TEST(test_process_of_record),
        TEST(test_boot_id),
    };
    char self[256] = "";

    if (readlink("/proc/self/exe", self, sizeof self - 1) > 0 && strstr(self, "/qemu-system-")) {
        /* A "QEMU" of these tests. It must not outlive them when they are killed. */
        alarm(120);
        pause();
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

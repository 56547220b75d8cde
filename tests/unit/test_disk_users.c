/*
 * Behaviours of agent/daemon/disk_users.c against real processes' descriptors.
 */
#include "agent/daemon/disk_users.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/watari-disk-users-XXXXXX";
static char path[sizeof directory + 8];

static int setup(void **state)
{
    int fd;

    (void)state;
    if (!mkdtemp(directory)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/disk", directory);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static void a_disk_that_nobody_has_open_has_no_writer(void **state)
{
    (void)state;
    assert_int_equal(disk_writer(path), 0);
    assert_int_equal(disk_writer("/tmp/there/is/no/such/file"), 0);
}

static void a_reader_is_no_writer(void **state)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(disk_writer(path), 0);
    close(fd);
}

static void a_writer_is_found_under_another_name_too(void **state)
{
    char other[sizeof path + 8];
    int fd = open(path, O_RDWR | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(disk_writer(path), getpid());
    snprintf(other, sizeof other, "%s.moved", path);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(disk_writer(other), getpid());
    assert_int_equal(rename(other, path), 0);
    close(fd);
    assert_int_equal(disk_writer(path), 0);
}

static void a_writer_in_another_process_is_found(void **state)
{
    int ready[2], over[2];
    char byte;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(over), 0);
    child = fork();
    if (child == 0) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);

        close(over[1]);
        _exit(fd < 0 || write(ready[1], "r", 1) != 1 || read(over[0], &byte, 1) != 0);
    }
    assert_true(child > 0);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(disk_writer(path), child);
    close(over[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(disk_writer(path), 0);
    close(over[0]);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_nobody_has_open_has_no_writer),
        cmocka_unit_test(a_reader_is_no_writer),
        cmocka_unit_test(a_writer_is_found_under_another_name_too),
        cmocka_unit_test(a_writer_in_another_process_is_found),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

/*
 * The journal on a disk that fails or becomes full: what is said to be on it is, a record is there whole or not at all, and what has begun
 * finds room for its end.
 */
#include "journal_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define PAGE 4096

/* So many of the next syncs fail, as a disk's do; linked in place of libc's. Set while nothing is under way. */
static int failing_syncs;
/* And the file then loses its last byte's page: the kernel keeps it as long as it likes. */
static bool pages_are_lost;
static int directory_syncs;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fdatasync(int fd)
{
    static const char zeroes[PAGE];
    struct stat status;

    if (failing_syncs == 0) {
        return __real_fdatasync(fd);
    }
    failing_syncs--;
    if (pages_are_lost && fstat(fd, &status) == 0 && status.st_size <= PAGE) {
        if (pwrite(fd, zeroes, (size_t)status.st_size, 0) != status.st_size) {
            abort(); /* not the test's own thread */
        }
    }
    errno = EIO;
    return -1;
}

int __wrap_fsync(int fd)
{
    directory_syncs++;
    if (failing_syncs == 0) {
        return __real_fsync(fd);
    }
    failing_syncs--;
    errno = EIO;
    return -1;
}

/* --- a disk that fails --- */

static void expect_failed_sync(const struct fixture *fixture, size_t which, int number)
{
    assert_true(fixture->syncs[which].failed);
    assert_string_equal(fixture->syncs[which].error.id, "journal-unwritable");
    assert_non_null(strstr(fixture->syncs[which].error.text, "Input/output error"));
    assert_int_equal(fixture->syncs[which].number, number);
}

static void what_a_failed_sync_may_have_lost_is_written_anew(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked[3];

    for (int i = 0; i < 3; i++) {
        asked[i] = (struct asked){fixture, i, NULL};
    }
    /* The directory's own sync is out of the way. */
    journal_sync(journal, on_synced, &asked[0]);
    await_syncs(fixture, 1);
    append(journal, "step", 0);
    append(journal, "step", 1);
    failing_syncs = 1;
    pages_are_lost = true;
    journal_sync(journal, on_synced, &asked[1]);
    await_syncs(fixture, 2);
    expect_failed_sync(fixture, 1, 1);
    append(journal, "step", 2);
    journal_sync(journal, on_synced, &asked[2]);
    await_syncs(fixture, 3);
    expect_good_sync(fixture, 2, 2);
    expect_steps(fixture->path, 3);
    journal_free(journal);
}

/* Asked for before anybody knew that the one before it would fail. */
static void so_is_it_by_a_sync_that_was_under_way_already(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked[3];

    for (int i = 0; i < 3; i++) {
        asked[i] = (struct asked){fixture, i, NULL};
    }
    journal_sync(journal, on_synced, &asked[0]);
    await_syncs(fixture, 1);
    append(journal, "step", 0);
    append(journal, "step", 1);
    failing_syncs = 1;
    pages_are_lost = true;
    journal_sync(journal, on_synced, &asked[1]);
    journal_sync(journal, on_synced, &asked[2]);
    await_syncs(fixture, 3);
    expect_failed_sync(fixture, 1, 1);
    expect_good_sync(fixture, 2, 2);
    expect_steps(fixture->path, 2);
    journal_free(journal);
}

static void what_is_known_to_be_down_is_not_written_again(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked = {fixture, 0, NULL};
    int fd = open(fixture->path, O_RDWR | O_CLOEXEC);
    char byte = 0;

    append(journal, "step", 0);
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    append(journal, "step", 1);
    failing_syncs = 1;
    pages_are_lost = false;
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 2);
    expect_failed_sync(fixture, 1, 0);
    assert_int_equal(pwrite(fd, "#", 1, 0), 1);
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 3);
    expect_good_sync(fixture, 2, 0);
    assert_int_equal(pread(fd, &byte, 1, 0), 1);
    assert_int_equal(byte, '#');
    assert_int_equal(close(fd), 0);
    journal_free(journal);
}

static void a_directory_whose_sync_failed_is_synced_with_the_next(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked = {fixture, 0, NULL};

    journal_also_sync(journal, "/tmp");
    failing_syncs = 1;
    directory_syncs = 0;
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    expect_failed_sync(fixture, 0, 0);
    assert_int_equal(directory_syncs, 1);
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 2);
    expect_good_sync(fixture, 1, 0);
    assert_int_equal(directory_syncs, 3);
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 3);
    assert_int_equal(directory_syncs, 3);
    journal_free(journal);
}

/* --- what a life before has left --- */

/* COUNT steps in the file; its length. */
static size_t leave_steps(struct fixture *fixture, int count)
{
    struct journal *journal = create(fixture);
    struct stat status;

    for (int i = 0; i < count; i++) {
        append(journal, "step", i);
    }
    journal_free(journal);
    assert_int_equal(stat(fixture->path, &status), 0);
    return (size_t)status.st_size;
}

static void the_first_sync_of_a_reopened_journal_brings_all_of_it_down(void **state)
{
    struct fixture *fixture = *state;
    size_t length = leave_steps(fixture, 3);
    struct journal *journal = journal_reopen(fixture->syncer, fixture->path, length, 3);
    struct asked asked = {fixture, 0, NULL};
    int fd = open(fixture->path, O_WRONLY | O_CLOEXEC);

    append(journal, "step", 3);
    /* As if the page had been lost before. */
    assert_int_equal(pwrite(fd, "########", 8, 0), 8);
    assert_int_equal(close(fd), 0);
    directory_syncs = 0;
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    expect_good_sync(fixture, 0, 0);
    assert_int_equal(directory_syncs, 1);
    expect_steps(fixture->path, 4);
    journal_free(journal);
}

/* False when this process may not; NAME is then what it may not. */
static bool mount_tiny(const char *directory, const char **name)
{
    *name = "unshare(CLONE_NEWNS)";
    if (unshare(CLONE_NEWNS) < 0) {
        return false;
    }
    *name = "mount";
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("test_journal", directory, "tmpfs", 0, "size=512k,mode=0700") == 0;
}

static void mount_or_skip(const struct fixture *fixture)
{
    const char *step;

    if (!mount_tiny(fixture->directory, &step)) {
        print_message("skipped: %s: %s (root is needed for a disk that can be filled)\n", step,
                      strerror(errno));
        skip();
    }
}

/* All that is left of it. */
static void fill(struct fixture *fixture)
{
    char page[PAGE] = {1}, path[PATH_SIZE];
    int fd;

    snprintf(path, sizeof path, "%.64s/filler", fixture->directory);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, page, sizeof page) > 0) {
        continue;
    }
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(close(fd), 0);
}

static void make_room(struct fixture *fixture)
{
    char path[PATH_SIZE];

    snprintf(path, sizeof path, "%.64s/filler", fixture->directory);
    assert_int_equal(unlink(path), 0);
}

static int unmount(const struct fixture *fixture)
{
    return umount2(fixture->directory, MNT_DETACH);
}

static void on_a_full_disk_no_journal_is_begun(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    struct stat status;

    mount_or_skip(fixture);
    fill(fixture);
    assert_null(journal_create(fixture->syncer, fixture->path, &error));
    assert_string_equal(error.id, "journal-unwritable");
    assert_non_null(strstr(error.text, "No space left"));
    assert_non_null(strstr(error.text, "make room"));
    /* Nothing is left of the attempt. */
    assert_int_equal(stat(fixture->path, &status), -1);
    make_room(fixture);
    journal_free(create(fixture));
    assert_int_equal(unmount(fixture), 0);
}

static void a_disk_that_becomes_full_leaves_room_for_the_end(void **state)
{
    struct fixture *fixture = *state;
    struct asked asked = {fixture, 0, NULL};
    struct journal *journal;
    struct error error = {0};
    struct stat status;
    size_t last_words = 0;

    mount_or_skip(fixture);
    journal = create(fixture);
    fill(fixture);
    /* What only begins is refused in time ... */
    while (journal_append(journal, "undo", json_pack("{ss}", "key", "export:0"), &error)) {
        assert_int_equal(stat(fixture->path, &status), 0);
        assert_true(status.st_size < (off_t)256 << 10);
    }
    assert_string_equal(error.id, "journal-unwritable");
    assert_non_null(strstr(error.text, "make room"));
    /* ... while there is more room for the rest than that needs. */
    while (journal_append(journal, "undone", json_pack("{ss}", "key", "export:0"), &error)) {
        last_words++;
    }
    assert_string_equal(error.id, "journal-unwritable");
    assert_non_null(strstr(error.text, "No space left"));
    assert_true(last_words > 1000);
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    expect_good_sync(fixture, 0, 0);
    /* With room again it goes on as if nothing had been. */
    make_room(fixture);
    assert_true(journal_append(journal, "undo", NULL, &error));
    assert_true(journal_append(journal, "rolled-back", NULL, &error));
    journal_free(journal);
    assert_int_equal(unmount(fixture), 0);
}

static void a_life_later_that_room_is_still_there(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal;
    struct error error = {0};
    size_t length, last_words = 0;

    mount_or_skip(fixture);
    length = leave_steps(fixture, 3);
    fill(fixture);
    journal = journal_reopen(fixture->syncer, fixture->path, length, 3);
    while (journal_append(journal, "undone", json_pack("{ss}", "key", "export:0"), &error)) {
        last_words++;
    }
    assert_true(last_words > 1000);
    journal_free(journal);
    assert_int_equal(unmount(fixture), 0);
}

static size_t records_in(const char *path)
{
    struct journal_content content;
    struct error error = {0};
    size_t count;

    if (!journal_file_read(path, &content, &error)) {
        fail_msg("%s", error.text);
    }
    assert_false(content.torn);
    count = json_array_size(content.records);
    journal_content_clear(&content);
    return count;
}

/* Where nothing could be reserved: a record that finds half its room is taken back whole. */
static void a_record_without_room_leaves_no_piece_of_it(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal;
    struct error error = {0};
    size_t length, count = 3;

    mount_or_skip(fixture);
    length = leave_steps(fixture, 3);
    assert_int_equal(truncate(fixture->path, (off_t)length), 0); /* the reserved room */
    fill(fixture);
    journal = journal_reopen(fixture->syncer, fixture->path, length, 3);
    while (journal_append(journal, "step", json_pack("{ss}", "text", "longer than the rest"),
                          &error)) {
        count++;
    }
    assert_string_equal(error.id, "journal-unwritable");
    assert_true(count > 10 && count < 100); /* one page */
    assert_int_equal(records_in(fixture->path), count);
    make_room(fixture);
    append(journal, "step", 0);
    assert_int_equal(records_in(fixture->path), count + 1);
    journal_free(journal);
    assert_int_equal(unmount(fixture), 0);
}

static blkcnt_t blocks_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_blocks;
}

/* Journals are kept for long: not with all that room. */
static void what_was_reserved_is_given_back_at_the_end(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal;
    struct error error;
    size_t length;

    mount_or_skip(fixture);
    journal = create(fixture);
    append(journal, "step", 0);
    assert_true(blocks_of(fixture->path) >= (128 << 10) / 512);
    journal_free(journal);
    assert_true(blocks_of(fixture->path) >= (128 << 10) / 512);
    length = strlen("0123456789abcdef {\"record\":\"step\",\"number\":0}\n");
    journal = journal_reopen(fixture->syncer, fixture->path, length, 1);
    assert_true(journal_append(journal, "done", NULL, &error));
    assert_true(blocks_of(fixture->path) >= (128 << 10) / 512);
    journal_free(journal);
    assert_int_equal(blocks_of(fixture->path), PAGE / 512);
    assert_int_equal(records_in(fixture->path), 2);
    assert_int_equal(unmount(fixture), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_a_failed_sync_may_have_lost_is_written_anew),
        TEST(so_is_it_by_a_sync_that_was_under_way_already),
        TEST(what_is_known_to_be_down_is_not_written_again),
        TEST(a_directory_whose_sync_failed_is_synced_with_the_next),
        TEST(the_first_sync_of_a_reopened_journal_brings_all_of_it_down),
        TEST(on_a_full_disk_no_journal_is_begun),
        TEST(a_disk_that_becomes_full_leaves_room_for_the_end),
        TEST(a_life_later_that_room_is_still_there),
        TEST(a_record_without_room_leaves_no_piece_of_it),
        TEST(what_was_reserved_is_given_back_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Writing a journal: records are there at once and in order, a sync is told from the loop, and
 * neither a crash's torn end nor a full disk makes a journal that is not believed later.
 */
#include "agent/daemon/journal.h"

#include "agent/common/journal_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PATH_SIZE 128
#define SYNCS_MAX 16
#define PATIENCE_SECONDS 20

struct fixture {
    char directory[PATH_SIZE], path[PATH_SIZE];
    struct event_base *base;
    struct journal_syncer *syncer;
    /* What the callbacks saw, in their order. */
    struct {
        int number;
        bool failed;
        struct error error;
    } syncs[SYNCS_MAX];
    size_t count;
    bool too_late;
};

/* One sync that was asked for: names itself in the fixture. */
struct asked {
    struct fixture *fixture;
    int number;
    struct journal *then_free;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct error error;

    assert_non_null(fixture);
    strcpy(fixture->directory, "/tmp/test_journal.XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    snprintf(fixture->path, sizeof fixture->path, "%.64s/journal", fixture->directory);
    fixture->base = event_base_new();
    assert_non_null(fixture->base);
    fixture->syncer = journal_syncer_new(fixture->base, &error);
    assert_non_null(fixture->syncer);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    journal_syncer_free(fixture->syncer);
    event_base_free(fixture->base);
    unlink(fixture->path);
    assert_int_equal(rmdir(fixture->directory), 0);
    free(fixture);
    return 0;
}

static void on_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct asked *asked = context;
    struct fixture *fixture = asked->fixture;

    assert_true(fixture->count < SYNCS_MAX);
    assert_true(nanoseconds < UINT64_C(1000000000) * PATIENCE_SECONDS);
    fixture->syncs[fixture->count].number = asked->number;
    fixture->syncs[fixture->count].failed = error != NULL;
    if (error) {
        fixture->syncs[fixture->count].error = *error;
    }
    fixture->count++;
    journal_free(asked->then_free);
}

static void on_too_late(evutil_socket_t fd, short what, void *context)
{
    struct fixture *fixture = context;

    (void)fd;
    (void)what;
    fixture->too_late = true;
}

/* Runs the loop until so many syncs were told. */
static void await_syncs(struct fixture *fixture, size_t count)
{
    struct event *timer = evtimer_new(fixture->base, on_too_late, fixture);

    assert_int_equal(event_add(timer, &(struct timeval){PATIENCE_SECONDS, 0}), 0);
    while (fixture->count < count && !fixture->too_late) {
        assert_int_equal(event_base_loop(fixture->base, EVLOOP_ONCE), 0);
    }
    event_free(timer);
    assert_false(fixture->too_late);
    assert_int_equal(fixture->count, count);
}

static void expect_good_sync(const struct fixture *fixture, size_t which, int number)
{
    if (fixture->syncs[which].failed) {
        fail_msg("%s", fixture->syncs[which].error.text);
    }
    assert_int_equal(fixture->syncs[which].number, number);
}

static struct journal *create(struct fixture *fixture)
{
    struct error error = {0};
    struct journal *journal = journal_create(fixture->syncer, fixture->path, &error);

    if (!journal) {
        fail_msg("%s", error.text);
    }
    return journal;
}

static void append(struct journal *journal, const char *record, int number)
{
    struct error error = {0};

    if (!journal_append(journal, record, json_pack("{si}", "number", number), &error)) {
        fail_msg("%s", error.text);
    }
}

/* The file's records must be COUNT of the name "step", numbered from 0. */
static void expect_steps(const char *path, size_t count)
{
    struct journal_content content;
    struct error error = {0};

    if (!journal_file_read(path, &content, &error)) {
        fail_msg("%s", error.text);
    }
    assert_false(content.torn);
    assert_int_equal(json_array_size(content.records), count);
    for (size_t i = 0; i < count; i++) {
        const json_t *record = json_array_get(content.records, i);

        assert_string_equal(json_string_value(json_object_get(record, "record")), "step");
        assert_int_equal(json_integer_value(json_object_get(record, "number")), (json_int_t)i);
    }
    journal_content_clear(&content);
}

static void a_journal_is_made_for_its_owner_only(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct stat status;

    assert_string_equal(journal_path(journal), fixture->path);
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(status.st_size, 0);
    journal_free(journal);
    journal_free(NULL);
}

static void a_file_that_is_there_is_not_taken_for_a_new_journal(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};

    journal_free(create(fixture));
    assert_null(journal_create(fixture->syncer, fixture->path, &error));
    assert_string_equal(error.id, "journal-unwritable");
    assert_non_null(strstr(error.text, fixture->path));
    assert_non_null(strstr(error.text, "File exists"));
    assert_null(journal_create(fixture->syncer, "/tmp/there/is/no/such/directory", &error));
    assert_string_equal(error.id, "journal-unwritable");
    assert_null(journal_reopen(fixture->syncer, "/tmp/there/is/no/such/journal", 0, 0, &error));
    assert_string_equal(error.id, "journal-unwritable");
}

static void a_record_is_in_the_file_before_any_sync(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct error error;

    for (int i = 0; i < 5; i++) {
        append(journal, "step", i);
        expect_steps(fixture->path, (size_t)i + 1);
    }
    /* Without members as well; and what is not given is not asked for. */
    assert_true(journal_append(journal, "bare", NULL, &error));
    assert_int_equal(event_base_loop(fixture->base, EVLOOP_NONBLOCK), 0);
    assert_int_equal(fixture->count, 0);
    journal_free(journal);
}

static void a_sync_is_told_from_the_loop(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked = {fixture, 1, NULL};

    append(journal, "step", 0);
    journal_sync(journal, on_synced, &asked);
    /* However long the caller takes, not behind its back. */
    usleep(20000);
    assert_int_equal(fixture->count, 0);
    await_syncs(fixture, 1);
    expect_good_sync(fixture, 0, 1);
    /* And again, now without a directory. */
    append(journal, "step", 1);
    asked.number = 2;
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 2);
    expect_good_sync(fixture, 1, 2);
    journal_free(journal);
}

static void syncs_are_told_in_the_order_they_were_asked_for(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journals[4];
    struct asked asked[4];
    char paths[4][PATH_SIZE + 16];
    struct error error;

    for (int i = 0; i < 4; i++) {
        snprintf(paths[i], sizeof paths[i], "%s.%d", fixture->path, i);
        journals[i] = journal_create(fixture->syncer, paths[i], &error);
        assert_non_null(journals[i]);
        append(journals[i], "step", 0);
        asked[i] = (struct asked){fixture, i, NULL};
    }
    for (int i = 3; i >= 0; i--) {
        journal_sync(journals[i], on_synced, &asked[i]);
    }
    await_syncs(fixture, 4);
    for (int i = 0; i < 4; i++) {
        expect_good_sync(fixture, (size_t)i, 3 - i);
        journal_free(journals[i]);
        expect_steps(paths[i], 1);
        assert_int_equal(unlink(paths[i]), 0);
    }
}

static void directories_are_synced_along(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked = {fixture, 0, NULL};

    journal_also_sync(journal, "/tmp");
    journal_also_sync(journal, fixture->directory);
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    expect_good_sync(fixture, 0, 0);
    journal_free(journal);
}

static void a_directory_that_cannot_be_synced_fails_that_sync_only(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked = {fixture, 0, NULL};

    journal_also_sync(journal, "/tmp/there/is/no/such/directory");
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    assert_true(fixture->syncs[0].failed);
    assert_string_equal(fixture->syncs[0].error.id, "journal-unwritable");
    assert_non_null(strstr(fixture->syncs[0].error.text, fixture->path));
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 2);
    expect_good_sync(fixture, 1, 0);
    journal_free(journal);
}

static size_t count_descriptors(void)
{
    DIR *entries = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(entries);
    while (readdir(entries)) {
        count++;
    }
    closedir(entries);
    return count;
}

static void too_many_directories_fail_the_sync_and_lose_no_descriptor(void **state)
{
    struct fixture *fixture = *state;
    struct asked asked = {fixture, 0, NULL};
    size_t before = count_descriptors();
    struct journal *journal = create(fixture);

    for (int i = 0; i < 100; i++) {
        journal_also_sync(journal, fixture->directory);
    }
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    assert_true(fixture->syncs[0].failed);
    journal_free(journal);
    assert_int_equal(count_descriptors(), before);
}

static void a_callback_may_free_its_journal(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked = {fixture, 0, journal};

    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    expect_good_sync(fixture, 0, 0);
}

static void a_freed_journal_calls_nobody_back(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct journal *other;
    struct asked asked = {fixture, 0, NULL}, of_other = {fixture, 1, NULL};
    struct error error;
    char path[PATH_SIZE + 8];

    append(journal, "step", 0);
    journal_sync(journal, on_synced, &asked);
    journal_free(journal);
    snprintf(path, sizeof path, "%s.other", fixture->path);
    other = journal_create(fixture->syncer, path, &error);
    assert_non_null(other);
    journal_sync(other, on_synced, &of_other);
    await_syncs(fixture, 1);
    expect_good_sync(fixture, 0, 1);
    expect_steps(fixture->path, 1);
    journal_free(other);
    assert_int_equal(unlink(path), 0);
}

/* As at the daemon's end: what is under way is finished, and told to nobody. */
static void the_syncer_ends_with_work_under_way(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked = {fixture, 0, NULL};

    append(journal, "step", 0);
    journal_sync(journal, on_synced, &asked);
    journal_free(journal);
    journal_syncer_free(fixture->syncer);
    fixture->syncer = NULL;
    assert_int_equal(fixture->count, 0);
    expect_steps(fixture->path, 1);
}

static void cut_to(const char *path, off_t length)
{
    assert_int_equal(truncate(path, length), 0);
}

static void a_reopened_journal_goes_on_behind_its_last_whole_record(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct journal_content content;
    struct asked asked = {fixture, 0, NULL};
    struct error error;
    struct stat status;

    for (int i = 0; i < 3; i++) {
        append(journal, "step", i);
    }
    journal_free(journal);
    assert_int_equal(stat(fixture->path, &status), 0);
    /* Cut off at each byte of the last record; it is then written anew. */
    for (off_t length = status.st_size; length > status.st_size - 20; length--) {
        cut_to(fixture->path, length);
        assert_true(journal_file_read(fixture->path, &content, &error));
        assert_int_equal(content.torn, length < status.st_size);
        journal = journal_reopen(fixture->syncer, fixture->path, content.good_length,
                                 json_array_size(content.records), &error);
        assert_non_null(journal);
        for (int i = (int)json_array_size(content.records); i < 5; i++) {
            append(journal, "step", i);
        }
        journal_content_clear(&content);
        expect_steps(fixture->path, 5);
        journal_sync(journal, on_synced, &asked);
        await_syncs(fixture, fixture->count + 1);
        expect_good_sync(fixture, fixture->count - 1, 0);
        fixture->count = 0;
        journal_free(journal);
    }
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
           mount("test_journal", directory, "tmpfs", 0, "size=8k,mode=0700") == 0;
}

/* One page of the two that there are. */
static void fill_page(const char *path)
{
    char page[4096] = {1};
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, page, sizeof page), sizeof page);
    assert_int_equal(close(fd), 0);
}

static void a_full_disk_leaves_a_journal_that_is_believed(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal;
    struct error error = {0};
    char filler[PATH_SIZE];
    const char *step;
    int count = 0;

    if (!mount_tiny(fixture->directory, &step)) {
        print_message("skipped: %s: %s (root is needed for a disk that can be filled)\n", step,
                      strerror(errno));
        skip();
    }
    snprintf(filler, sizeof filler, "%.64s/filler", fixture->directory);
    fill_page(filler);
    journal = create(fixture);
    while (journal_append(journal, "step", json_pack("{si}", "number", count), &error)) {
        count++;
        assert_true(count < 1000);
    }
    assert_string_equal(error.id, "journal-unwritable");
    assert_non_null(strstr(error.text, "No space left"));
    assert_true(count > 10);
    expect_steps(fixture->path, (size_t)count);
    assert_false(journal_append(journal, "step", NULL, &error));
    expect_steps(fixture->path, (size_t)count);
    /* With room again it goes on as if nothing had been. */
    assert_int_equal(unlink(filler), 0);
    append(journal, "step", count);
    expect_steps(fixture->path, (size_t)count + 1);
    journal_free(journal);
    assert_int_equal(umount(fixture->directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_journal_is_made_for_its_owner_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_is_there_is_not_taken_for_a_new_journal, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_record_is_in_the_file_before_any_sync, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sync_is_told_from_the_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(syncs_are_told_in_the_order_they_were_asked_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(directories_are_synced_along, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_directory_that_cannot_be_synced_fails_that_sync_only,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(too_many_directories_fail_the_sync_and_lose_no_descriptor,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_callback_may_free_its_journal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_freed_journal_calls_nobody_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_syncer_ends_with_work_under_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_reopened_journal_goes_on_behind_its_last_whole_record,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_a_journal_that_is_believed, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

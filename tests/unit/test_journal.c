/*
 * Writing a journal: records are there at once and in order, a sync is told from the loop, and a crash's torn end makes no journal that is
 * not believed later.
 */
#include "journal_fixture.h"

#include <dirent.h>
#include <sys/stat.h>

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
}

/* tear_down() finds the directory empty. */
static void one_without_a_name_is_synced_and_leaves_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    struct journal *journal = journal_create_nameless(fixture->syncer, fixture->directory, &error);
    struct asked asked = {fixture, 1, NULL};

    assert_non_null(journal);
    assert_true(journal_append(journal, "step", NULL, &error));
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    assert_false(fixture->syncs[0].failed);
    journal_free(journal);
    assert_null(journal_create_nameless(fixture->syncer, "/tmp/there/is/no/such", &error));
    assert_string_equal(error.id, "journal-unwritable");
}

/* A guest that such a journal leaves paused is to be resumed all the same. */
static void what_cannot_be_written_can_be_held_but_takes_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal =
        journal_reopen(fixture->syncer, "/tmp/there/is/no/such/journal", 0, 0);
    struct asked asked = {fixture, 1, NULL};
    struct error error;

    assert_false(journal_append(journal, "step", NULL, &error));
    assert_string_equal(error.id, "journal-unwritable");
    journal_sync(journal, on_synced, &asked);
    await_syncs(fixture, 1);
    assert_true(fixture->syncs[0].failed);
    assert_string_equal(fixture->syncs[0].error.id, "journal-unwritable");
    journal_free(journal);
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

static void one_journal_may_have_several_syncs_under_way(void **state)
{
    struct fixture *fixture = *state;
    struct journal *journal = create(fixture);
    struct asked asked[3];

    for (int i = 0; i < 3; i++) {
        asked[i] = (struct asked){fixture, i, NULL};
        append(journal, "step", i);
        journal_sync(journal, on_synced, &asked[i]);
    }
    await_syncs(fixture, 3);
    for (int i = 0; i < 3; i++) {
        expect_good_sync(fixture, (size_t)i, i);
    }
    /* Freed with two under way: nobody is called. */
    journal_sync(journal, on_synced, &asked[0]);
    journal_sync(journal, on_synced, &asked[1]);
    journal_free(journal);
    expect_steps(fixture->path, 3);
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
                                 json_array_size(content.records));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_journal_is_made_for_its_owner_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_is_there_is_not_taken_for_a_new_journal, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_without_a_name_is_synced_and_leaves_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_record_is_in_the_file_before_any_sync, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sync_is_told_from_the_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(syncs_are_told_in_the_order_they_were_asked_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_journal_may_have_several_syncs_under_way, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_can_be_held_but_takes_nothing,
                                        set_up, tear_down),
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

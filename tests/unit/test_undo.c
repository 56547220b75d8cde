/*
 * The undo list: what is put back on this host and what is left alone, in which order, and that
 * the journal knows at any time what is still to be done.
 */
#include "undo_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int set_up(void **state)
{
    *state = make_fixture(NULL);
    return 0;
}

static int tear_down(void **state)
{
    free_fixture(*state);
    return 0;
}

/* Reads the journal and makes the list of it that the next start of the daemon would. */
static void restart(struct fixture *fixture)
{
    struct journal_content content;
    struct error error = {0};

    undo_free(fixture->undo);
    journal_free(fixture->journal);
    if (!journal_file_read(fixture->journal_path, &content, &error)) {
        fail_msg("%s", error.text);
    }
    fixture->journal = journal_reopen(fixture->syncer, fixture->journal_path, content.good_length,
                                      json_array_size(content.records));
    fixture->undo = undo_new(fixture->client.base, fixture->journal);
    undo_restore(fixture->undo, &content);
    journal_content_clear(&content);
}

/* --- files --- */

static void make(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static bool there(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

static json_t *file_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return json_pack("{ss,sI,sI}", "file", path, "dev", (json_int_t)status.st_dev, "ino",
                     (json_int_t)status.st_ino);
}

static void an_empty_list_is_through_at_once(void **state)
{
    struct fixture *fixture = *state;

    run(fixture, NULL);
    expect_nothing_left(fixture);
    undo_forget(fixture->undo, "unknown");
    undo_free(NULL);
}

static void a_file_of_ours_goes_and_another_stays(void **state)
{
    struct fixture *fixture = *state;

    make(in(fixture, "ours"), "disk");
    make(in(fixture, "theirs"), "disk");
    add(fixture, "ours", file_of(in(fixture, "ours")));
    add(fixture, "theirs", file_of(in(fixture, "theirs")));
    add(fixture, "gone", json_pack("{ss}", "file", in(fixture, "gone")));
    /* Somebody puts another file in its place (made before the old one goes, so that it has
     * another inode). */
    make(in(fixture, "new"), "precious");
    assert_int_equal(rename(in(fixture, "new"), in(fixture, "theirs")), 0);
    run(fixture, NULL);
    expect_left(fixture, (const char *const[]){"theirs: another file", NULL});
    assert_false(there(in(fixture, "ours")));
    assert_true(there(in(fixture, "theirs")));
    assert_int_equal(unlink(in(fixture, "theirs")), 0);
}

/* Journaled before it was made, its inode was not known yet: only what holds nothing goes. */
static void without_its_inode_only_an_empty_file_goes(void **state)
{
    struct fixture *fixture = *state;
    struct stat status;

    make(in(fixture, "empty"), "");
    make(in(fixture, "full"), "x");
    assert_int_equal(symlink("empty", in(fixture, "link")), 0);
    add(fixture, "empty", json_pack("{ss}", "file", in(fixture, "empty")));
    add(fixture, "full", json_pack("{ss}", "file", in(fixture, "full")));
    add(fixture, "link", json_pack("{ss}", "file", in(fixture, "link")));
    run(fixture, NULL);
    expect_left(fixture, (const char *const[]){"link", "full", NULL});
    assert_false(there(in(fixture, "empty")));
    assert_true(there(in(fixture, "full")) && lstat(in(fixture, "link"), &status) == 0);
    assert_int_equal(unlink(in(fixture, "full")), 0);
    assert_int_equal(unlink(in(fixture, "link")), 0);
}

/* Given up by an operator: what is kept has another name, and no later run, nor one after a restart, removes it. */
static void kept_files_get_another_name_and_stay(void **state)
{
    struct fixture *fixture = *state;

    make(in(fixture, "disk"), "content");
    add(fixture, "disk", file_of(in(fixture, "disk")));
    make(in(fixture, "theirs"), "precious");
    add(fixture, "theirs", json_pack("{ss}", "file", in(fixture, "theirs")));
    undo_keep_files(fixture->undo, ".kept");
    assert_false(there(in(fixture, "disk")));
    restart(fixture);
    run(fixture, NULL);
    expect_nothing_left(fixture);
    assert_true(there(in(fixture, "theirs")));
    assert_int_equal(unlink(in(fixture, "disk.kept")), 0);
    assert_int_equal(unlink(in(fixture, "theirs")), 0);
}

/* The second journaling of a file, with its inode, takes the place of the first. */
static void a_key_that_is_known_is_known_better(void **state)
{
    struct fixture *fixture = *state;

    for (int restarted = 0; restarted < 2; restarted++) {
        add(fixture, "file:0", json_pack("{ss}", "file", in(fixture, "disk")));
        make(in(fixture, "disk"), "content");
        add(fixture, "file:0", file_of(in(fixture, "disk")));
        if (restarted) {
            restart(fixture);
        }
        run(fixture, NULL);
        expect_nothing_left(fixture);
        assert_false(there(in(fixture, "disk")));
    }
}

static void a_rename_goes_back(void **state)
{
    struct fixture *fixture = *state;

    make(in(fixture, "disk.moved"), "disk");
    add(fixture, "mark:0",
        json_pack("{s[ss]}", "rename", in(fixture, "disk"), in(fixture, "disk.moved")));
    /* This one was journaled, and then never made. */
    make(in(fixture, "other"), "other");
    add(fixture, "mark:1",
        json_pack("{s[ss]}", "rename", in(fixture, "other"), in(fixture, "other.moved")));
    run(fixture, NULL);
    expect_nothing_left(fixture);
    assert_true(there(in(fixture, "disk")) && !there(in(fixture, "disk.moved")));
    assert_true(there(in(fixture, "other")));
    assert_int_equal(unlink(in(fixture, "disk")), 0);
    assert_int_equal(unlink(in(fixture, "other")), 0);
}

static void of_two_names_that_are_there_none_is_touched(void **state)
{
    struct fixture *fixture = *state;
    struct stat before, after;

    make(in(fixture, "disk"), "new");
    make(in(fixture, "disk.moved"), "old");
    assert_int_equal(stat(in(fixture, "disk"), &before), 0);
    add(fixture, "mark:0",
        json_pack("{s[ss]}", "rename", in(fixture, "disk"), in(fixture, "disk.moved")));
    run(fixture, NULL);
    expect_left(fixture, (const char *const[]){"mark:0", NULL});
    assert_int_equal(stat(in(fixture, "disk"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(unlink(in(fixture, "disk")), 0);
    assert_int_equal(unlink(in(fixture, "disk.moved")), 0);
}

static void a_tree_goes_and_nothing_that_it_points_to(void **state)
{
    struct fixture *fixture = *state;

    make(in(fixture, "outside"), "");
    assert_int_equal(mkdir(in(fixture, "tree"), 0700), 0);
    assert_int_equal(mkdir(in(fixture, "tree/sub"), 0700), 0);
    make(in(fixture, "tree/sub/file"), "x");
    assert_int_equal(symlink(in(fixture, "outside"), in(fixture, "tree/sub/link")), 0);
    add(fixture, "tree", json_pack("{ss}", "tree", in(fixture, "tree")));
    add(fixture, "missing", json_pack("{ss}", "tree", in(fixture, "missing")));
    run(fixture, NULL);
    expect_nothing_left(fixture);
    assert_false(there(in(fixture, "tree")));
    assert_int_equal(unlink(in(fixture, "outside")), 0);
}

/* --- order --- */

static void renames_go_first_then_the_guest_then_last_in_first_out(void **state)
{
    struct fixture *fixture = *state;

    add_hopeless(fixture, "a");
    add(fixture, "resume", json_pack("{sb}", "resume", 1));
    add(fixture, "r1",
        json_pack("{s[ss]}", "rename", fixture->journal_path, fixture->journal_path));
    add_hopeless(fixture, "b");
    add(fixture, "r2",
        json_pack("{s[ss]}", "rename", fixture->journal_path, fixture->journal_path));
    add_hopeless(fixture, "c");
    run(fixture, fixture->client.qmp);
    expect_left(fixture, (const char *const[]){"r2", "r1", "resume", "c", "b", "a", NULL});
}

static void changes_to_a_dead_qemu_died_with_it(void **state)
{
    struct fixture *fixture = *state;

    add(fixture, "resume", json_pack("{sb}", "resume", 1));
    add(fixture, "fd", json_pack("{ss}", "qmp", "closefd"));
    add(fixture, "export", json_pack("{ss}", "export", "e"));
    run(fixture, NULL);
    expect_nothing_left(fixture);
}

static void what_is_not_known_is_told(void **state)
{
    struct fixture *fixture = *state;

    add(fixture, "future", json_pack("{ss}", "teleport", "x"));
    run(fixture, NULL);
    expect_left(fixture, (const char *const[]){"future: ", NULL});
}

/* --- the journal --- */

static void after_a_restart_the_list_is_what_was_not_undone(void **state)
{
    struct fixture *fixture = *state;

    add_hopeless(fixture, "a");
    add_hopeless(fixture, "b");
    add_hopeless(fixture, "c");
    add_hopeless(fixture, "d");
    undo_forget(fixture->undo, "b");
    undo_forget(fixture->undo, "b");
    restart(fixture);
    run(fixture, NULL);
    expect_left(fixture, (const char *const[]){"d", "c", "a", NULL});
    restart(fixture);
    run(fixture, NULL);
    expect_nothing_left(fixture);
    add_hopeless(fixture, "e");
    add_hopeless(fixture, "a");
    undo_forget_all(fixture->undo);
    restart(fixture);
    run(fixture, NULL);
    expect_nothing_left(fixture);
}

static void a_run_that_was_cut_off_is_finished_after_a_restart(void **state)
{
    struct fixture *fixture = *state;

    add_hopeless(fixture, "a");
    add_hopeless(fixture, "b");
    undo_run(fixture->undo, NULL, on_done, fixture);
    /* One entry a turn. */
    turn(&fixture->client);
    restart(fixture);
    assert_int_equal(fixture->done, 0);
    run(fixture, NULL);
    expect_left(fixture, (const char *const[]){"a", NULL});
}

static void the_list_may_be_freed_when_it_is_through(void **state)
{
    struct fixture *fixture = *state;

    add_hopeless(fixture, "a");
    fixture->free_when_done = true;
    run(fixture, NULL);
    expect_left(fixture, (const char *const[]){"a", NULL});
    run_a_while(&fixture->client);
    assert_int_equal(fixture->done, 1);
}

/* A limit on this process's files stands for the full disk. */
static void without_its_record_no_change_is_to_be_made(void **state)
{
    struct fixture *fixture = *state;
    struct rlimit before;
    struct error error = {0};
    bool added;

    add_hopeless(fixture, "a");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){1, before.rlim_max}), 0);
    added = undo_add(fixture->undo, "b", json_pack("{ss}", "tree", fixture->directory), &error);
    /* What was added before is undone all the same, though it cannot be noted. */
    run(fixture, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(added);
    assert_string_equal(error.id, "journal-unwritable");
    expect_left(fixture, (const char *const[]){"a", NULL});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_list_is_through_at_once),
        TEST(a_file_of_ours_goes_and_another_stays),
        TEST(without_its_inode_only_an_empty_file_goes),
        TEST(kept_files_get_another_name_and_stay),
        TEST(a_key_that_is_known_is_known_better),
        TEST(a_rename_goes_back),
        TEST(of_two_names_that_are_there_none_is_touched),
        TEST(a_tree_goes_and_nothing_that_it_points_to),
        TEST(renames_go_first_then_the_guest_then_last_in_first_out),
        TEST(changes_to_a_dead_qemu_died_with_it),
        TEST(what_is_not_known_is_told),
        TEST(after_a_restart_the_list_is_what_was_not_undone),
        TEST(a_run_that_was_cut_off_is_finished_after_a_restart),
        TEST(the_list_may_be_freed_when_it_is_through),
        TEST(without_its_record_no_change_is_to_be_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

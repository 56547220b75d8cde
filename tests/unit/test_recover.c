/*
 * The daemon's first act: whose turn it is, what must be on the disk before it is believed, and what becomes of journals that cannot be.
 */
#include "agent/daemon/recover.h"

#include "agent/common/journal_file.h"
#include "agent/common/must.h"
#include "agent/common/process.h"
#include "agent/daemon/daemon.h"
#include "agent/daemon/farewell.h"
#include "agent/daemon/journal.h"
#include "agent/daemon/source.h"
#include "agent/daemon/tree.h"
#include "agent/policy/phase.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define ID "0123456789abcdef"
#define OTHER_ID "fedcba9876543210"

struct fixture {
    struct daemon daemon;
    char directory[64];
};

/* Linked in place of libc's. */
static bool syncs_fail;
static unsigned syncs, first_to_fail;
/* This one must have come to its end before the first sync. */
static const char *first_of_all;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

static bool has_record(const char *path, const char *record)
{
    struct journal_content content;
    struct error error = {0};
    bool has;

    if (!journal_file_read(path, &content, &error)) {
        fail_msg("%s", error.text);
    }
    has = journal_content_last(&content, record) != NULL;
    journal_content_clear(&content);
    return has;
}

int __wrap_fdatasync(int fd)
{
    if (syncs++ == 0 && first_of_all) {
        assert_true(has_record(first_of_all, "rolled-back"));
    }
    errno = EIO;
    return syncs_fail || syncs <= first_to_fail ? -1 : __real_fdatasync(fd);
}

static int set_up(void **state)
{
    struct fixture *fixture = must_alloc(sizeof *fixture);
    struct daemon *daemon = &fixture->daemon;
    struct error error;
    char *journals;

    strcpy(fixture->directory, "/tmp/test_recover.XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    daemon->config.state_dir = must_copy(fixture->directory);
    daemon->config.run_dir = must_copy(fixture->directory);
    strcpy(daemon->host, "west");
    TAILQ_INIT(&daemon->migrations);
    LIST_INIT(&daemon->farewells);
    daemon->base = event_base_new();
    daemon->syncer = journal_syncer_new(daemon->base, &error);
    assert_non_null(daemon->syncer);
    journals = must_format("%s/journal", fixture->directory);
    assert_int_equal(mkdir(journals, 0700), 0);
    free(journals);
    syncs_fail = false;
    syncs = first_to_fail = 0;
    first_of_all = NULL;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct daemon *daemon = &fixture->daemon;

    farewell_free_all(daemon);
    migration_free_all(daemon);
    recover_free(daemon);
    journal_syncer_free(daemon->syncer);
    event_base_free(daemon->base);
    assert_int_equal(tree_remove(fixture->directory), 0);
    free(daemon->config.state_dir);
    free(daemon->config.run_dir);
    free(fixture);
    return 0;
}

/* --- journals as a life before may have left them --- */

static char *path_of(const struct fixture *fixture, const char *name)
{
    return must_format("%s/journal/%s", fixture->directory, name);
}

/* A source's, whose QEMU is this very process or (LIVES false) one of another boot. */
static json_t *source_begin(const struct fixture *fixture, const char *id, const char *vm,
                            bool lives)
{
    char boot_id[PROCESS_BOOT_ID_SIZE] = "", path[96], mark[112];
    uint64_t start = 0;

    assert_int_equal(process_boot_id(boot_id), 0);
    assert_int_equal(process_start_time(getpid(), &start), 0);
    snprintf(path, sizeof path, "%.60s/%s.img", fixture->directory, vm);
    snprintf(mark, sizeof mark, "%s.moved", path);
    return must_json(json_pack("{ss,ss,ss,ss,ss,ss,si,sI,ss,s[{ss,ss},{ss,sn}]}", "record", "begin",
                               "side", "source", "migration", id, "vm", vm, "peer", "east", "qmp",
                               "/run/qmp.sock", "pid", (int)getpid(), "start_time",
                               (json_int_t)start, "boot_id", lives ? boot_id : "another", "disks",
                               "path", path, "mark", mark, "path", "/dev/vg/data", "mark"));
}

static json_t *destination_begin(const char *id, const char *vm)
{
    return must_json(json_pack("{ss,ss,ss,ss,ss,ss,ss,s[s]}", "record", "begin", "side",
                               "destination", "migration", id, "vm", vm, "peer", "east", "qmp",
                               "/run/copy.sock", "boot_id", "another", "disks", "/pool/web.img"));
}

static void put(const char *path, const char *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), length);
    assert_int_equal(close(fd), 0);
}

static void put_record(const char *path, size_t number, json_t *record)
{
    char *line = journal_file_line(number, record);

    put(path, line, strlen(line));
    free(line);
    json_decref(record);
}

static void put_word(const char *path, size_t number, const char *record)
{
    put_record(path, number, must_json(json_pack("{ss}", "record", record)));
}

static void damage(const char *path, off_t at)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_int_equal(pwrite(fd, "#", 1, at), 1);
    assert_int_equal(close(fd), 0);
}

static char *bytes_of(const char *path, size_t *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    char *bytes;

    assert_int_equal(fstat(fd, &status), 0);
    *length = (size_t)status.st_size;
    bytes = must_alloc(*length + 1);
    assert_int_equal(read(fd, bytes, *length), *length);
    assert_int_equal(close(fd), 0);
    return bytes;
}

static void recover_leaving_alone(struct fixture *fixture, const char *path)
{
    size_t length, now;
    char *before = bytes_of(path, &length), *after;

    recover_run(&fixture->daemon);
    after = bytes_of(path, &now);
    assert_int_equal(now, length);
    assert_memory_equal(before, after, length);
    free(before);
    free(after);
}

/* --- what is said of them --- */

/* WORDS: NULL-terminated, all must be there. */
static void expect_only_entry(const struct fixture *fixture, const char *id, const char *side,
                              const char *vm, const char *const *words)
{
    json_t *all = recover_unreadable_describe(&fixture->daemon);
    json_t *entry = json_array_get(all, 0);
    const char *text = json_string_value(json_object_get(entry, "text"));
    json_t *wanted = vm ? json_string(vm) : json_null();

    assert_int_equal(json_array_size(all), 1);
    assert_string_equal(json_string_value(json_object_get(entry, "id")), id);
    assert_string_equal(json_string_value(json_object_get(entry, "side")), side);
    assert_string_equal(json_string_value(json_object_get(entry, "phase")), "unreadable");
    assert_true(json_equal(json_object_get(entry, "vm"), wanted));
    for (; *words; words++) {
        if (!strstr(text, *words)) {
            fail_msg("\"%s\" is not in: %s", *words, text);
        }
    }
    json_decref(wanted);
    json_decref(all);
}

static void expect_blocked(const struct fixture *fixture, const char *vm, bool wanted)
{
    struct error error = {0};

    assert_int_equal(recover_blocks(&fixture->daemon, vm, &error), wanted);
    if (wanted) {
        assert_string_equal(error.id, "journal-damaged");
        assert_non_null(strstr(error.text, vm));
    }
}

static void nothing_is_blocked_where_all_can_be_read(void **state)
{
    struct fixture *fixture = *state;
    json_t *all;

    expect_blocked(fixture, "web", false);
    recover_run(&fixture->daemon);
    expect_blocked(fixture, "web", false);
    all = recover_unreadable_describe(&fixture->daemon);
    assert_int_equal(json_array_size(all), 0);
    json_decref(all);
}

static void a_damaged_source_journal_is_kept_and_tells_what_can_be_done(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source");
    char *back = must_format("rename %s/web.img.moved back to %s/web.img", fixture->directory,
                             fixture->directory);
    size_t length;

    put_record(path, 0, source_begin(fixture, ID, "web", true));
    free(bytes_of(path, &length));
    put_word(path, 1, "paused");
    put_word(path, 2, "committed");
    damage(path, (off_t)length + 20);
    recover_leaving_alone(fixture, path);
    expect_only_entry(fixture, ID, "source", "web",
                      (const char *[]){path, "record 1", "still lives here", back, "/run/qmp.sock",
                                       "does not run at east", "restart watarid", NULL});
    expect_blocked(fixture, "web", true);
    expect_blocked(fixture, "mail", false);
    free(back);
    free(path);
}

static void a_qemu_of_another_boot_is_not_said_to_live(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source");
    size_t length;

    put_record(path, 0, source_begin(fixture, ID, "web", false));
    free(bytes_of(path, &length));
    put_word(path, 1, "paused");
    put_word(path, 2, "committed");
    damage(path, (off_t)length + 20);
    recover_run(&fixture->daemon);
    expect_only_entry(fixture, ID, "source", "web", (const char *[]){"has ended", NULL});
    free(path);
}

static void a_damaged_destination_journal_too(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".destination");
    size_t length;

    put_record(path, 0, destination_begin(ID, "web"));
    free(bytes_of(path, &length));
    put_word(path, 1, "loaded");
    put_word(path, 2, "committed");
    damage(path, (off_t)length + 20);
    recover_leaving_alone(fixture, path);
    expect_only_entry(fixture, ID, "destination", "web",
                      (const char *[]){path, "/run/copy.sock", "does not run at east", NULL});
    expect_blocked(fixture, "web", true);
    expect_blocked(fixture, "mail", false);
    free(path);
}

static void a_journal_that_names_no_vm_blocks_all(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source");

    put_record(path, 0, source_begin(fixture, ID, "web", true));
    put_word(path, 1, "committed");
    damage(path, 20);
    recover_leaving_alone(fixture, path);
    expect_only_entry(fixture, ID, "source", NULL, (const char *[]){path, "record 0", NULL});
    expect_blocked(fixture, "web", true);
    expect_blocked(fixture, "mail", true);
    free(path);
}

static void so_does_a_directory_that_cannot_be_read(void **state)
{
    struct fixture *fixture = *state;
    char *directory = must_format("%s/journal", fixture->directory);

    assert_int_equal(rmdir(directory), 0);
    recover_run(&fixture->daemon);
    expect_only_entry(fixture, "journal", "source", NULL,
                      (const char *[]){directory, "No such file", NULL});
    expect_blocked(fixture, "web", true);
    free(directory);
}

/* --- what is believed --- */

static void a_committed_source_is_believed_when_it_is_on_the_disk(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source");
    struct migration *migration;

    put_record(path, 0, source_begin(fixture, ID, "web", false));
    put_word(path, 1, "paused");
    put_word(path, 2, "committed");
    recover_run(&fixture->daemon);
    assert_true(syncs > 0);
    migration = migration_find(&fixture->daemon, ID);
    assert_non_null(migration);
    assert_null(migration->result);
    expect_blocked(fixture, "web", false);
    free(path);
}

static void not_when_it_cannot_be_brought_there(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source");

    put_record(path, 0, source_begin(fixture, ID, "web", false));
    put_word(path, 1, "paused");
    put_word(path, 2, "committed");
    syncs_fail = true;
    recover_leaving_alone(fixture, path);
    assert_null(migration_find(&fixture->daemon, ID));
    expect_only_entry(fixture, ID, "source", "web",
                      (const char *[]){path, "Input/output error", "restart watarid", NULL});
    expect_blocked(fixture, "web", true);
    free(path);
}

static void nor_a_destination_that_has_told_anything(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".destination");

    put_record(path, 0, destination_begin(ID, "web"));
    put_word(path, 1, "loaded");
    syncs_fail = true;
    recover_leaving_alone(fixture, path);
    assert_null(migration_find(&fixture->daemon, ID));
    expect_blocked(fixture, "web", true);
    free(path);
}

/* Whose guest may stand still waits for no disk. */
static void what_is_not_committed_is_rolled_back_first(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source"), *other = path_of(fixture, OTHER_ID ".source");

    put_record(path, 0, source_begin(fixture, ID, "web", false));
    put_word(path, 1, "paused");
    put_word(path, 2, "committed");
    put_record(other, 0, source_begin(fixture, OTHER_ID, "mail", false));
    first_of_all = other;
    syncs_fail = true;
    recover_run(&fixture->daemon);
    assert_true(syncs > 0);
    assert_true(has_record(other, "rolled-back"));
    expect_blocked(fixture, "web", true);
    expect_blocked(fixture, "mail", false);
    free(path);
    free(other);
}

/* Its journal says first that it may run here; that is a rollback already, to who asks and to the start that waits for it. */
static void a_paused_guest_is_rolled_back_from_the_first_word_on(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source"), *other = path_of(fixture, OTHER_ID ".source");
    struct journal_content content;
    struct migration *migration;
    struct error error = {0};

    put_record(path, 0, source_begin(fixture, ID, "web", true));
    put_word(path, 1, "paused");
    assert_true(journal_file_read(path, &content, &error));
    source_recover(&fixture->daemon, path, &content);
    journal_content_clear(&content);
    migration = migration_find(&fixture->daemon, ID);
    assert_non_null(migration);
    assert_string_equal(migration->phase, PHASE_ROLLBACK);
    if (!migration->ops->cancel(migration, &error)) {
        fail_msg("%s", error.text);
    }
    migration_free_all(&fixture->daemon);
    assert_int_equal(unlink(path), 0);

    put_record(other, 0, source_begin(fixture, OTHER_ID, "web", true));
    put_word(other, 1, "paused");
    recover_run(&fixture->daemon);
    assert_true(has_record(other, "taking-back"));
    assert_true(has_record(other, "rolled-back"));
    free(path);
    free(other);
}

/* Else the source forgets it, and a reset here would offer the copy again. */
static void a_copy_is_let_go_of_when_that_is_on_the_disk(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".destination");
    struct migration *migration;

    put_record(path, 0, destination_begin(ID, "web"));
    first_to_fail = 1;
    recover_run(&fixture->daemon);
    assert_int_equal(syncs, 2);
    assert_true(has_record(path, "abandoned"));
    migration = TAILQ_FIRST(&fixture->daemon.migrations);
    assert_non_null(migration);
    assert_non_null(migration->result);
    free(path);
}

/* With the room that is reserved behind the end of the file: for ever, if nobody does. */
static void an_empty_journal_is_removed_but_no_other(void **state)
{
    struct fixture *fixture = *state;
    char *source = path_of(fixture, ID ".source"),
         *destination = path_of(fixture, ID ".destination"),
         *torn = path_of(fixture, OTHER_ID ".source");

    put(source, "", 0);
    put(destination, "", 0);
    put(torn, "0", 1);
    recover_leaving_alone(fixture, torn);
    assert_int_equal(access(source, F_OK), -1);
    assert_int_equal(access(destination, F_OK), -1);
    expect_blocked(fixture, "web", false);
    free(source);
    free(destination);
    free(torn);
}

/* may-start goes by the order: the clock was ahead when the VM came, was put right, and now it goes. */
static void a_migration_begins_after_all_that_are_known(void **state)
{
    struct fixture *fixture = *state;
    struct daemon *daemon = &fixture->daemon;
    char *path = path_of(fixture, ID ".destination");
    json_t *begin = destination_begin(ID, "web");
    int64_t now = time(NULL), ahead = now + 1000000;

    assert_in_range(migration_begins(daemon), now, ahead - 1);
    assert_int_equal(json_object_set_new(begin, "began_s", json_integer(ahead)), 0);
    put_record(path, 0, begin);
    put_word(path, 1, "owned");
    put_word(path, 2, "done");
    recover_run(daemon);
    assert_int_equal(migration_begins(daemon), ahead + 1);
    assert_int_equal(migration_begins(daemon), ahead + 2);
    free(path);
}

static void ended_ones_are_not_touched(void **state)
{
    struct fixture *fixture = *state;
    char *path = path_of(fixture, ID ".source");

    put_record(path, 0, source_begin(fixture, ID, "web", false));
    put_word(path, 1, "paused");
    put_word(path, 2, "committed");
    put_word(path, 3, "done");
    put_word(path, 4, "acknowledged");
    syncs_fail = true;
    recover_leaving_alone(fixture, path);
    assert_int_equal(syncs, 0);
    expect_blocked(fixture, "web", false);
    free(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_blocked_where_all_can_be_read),
        TEST(a_damaged_source_journal_is_kept_and_tells_what_can_be_done),
        TEST(a_qemu_of_another_boot_is_not_said_to_live),
        TEST(a_damaged_destination_journal_too),
        TEST(a_journal_that_names_no_vm_blocks_all),
        TEST(so_does_a_directory_that_cannot_be_read),
        TEST(a_committed_source_is_believed_when_it_is_on_the_disk),
        TEST(not_when_it_cannot_be_brought_there),
        TEST(nor_a_destination_that_has_told_anything),
        TEST(what_is_not_committed_is_rolled_back_first),
        TEST(a_paused_guest_is_rolled_back_from_the_first_word_on),
        TEST(a_copy_is_let_go_of_when_that_is_on_the_disk),
        TEST(an_empty_journal_is_removed_but_no_other),
        TEST(a_migration_begins_after_all_that_are_known),
        TEST(ended_ones_are_not_touched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

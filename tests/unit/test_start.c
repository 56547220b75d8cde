/*
 * `watari start` in the daemon: what the journals must say, and a real QEMU that is started by what was written down.
 */
#include "qemu_process.h"

#include "agent/common/journal_file.h"
#include "agent/common/must.h"
#include "agent/daemon/daemon.h"
#include "agent/daemon/start.h"
#include "agent/daemon/tree.h"

#include <event2/event.h>
#include <sys/stat.h>

#define QEMU_PATH "/usr/bin/" QEMU_PROGRAM

struct fixture {
    struct daemon daemon;
    char directory[64], vm[64];
    unsigned journals; /* written so far */
    pid_t pid;         /* of a QEMU that was started */
    bool answered;
    json_t *result;
    struct error error;
};

static void make_directory(const char *format, const char *part, const char *name)
{
    char *path = must_format(format, part, name);

    assert_int_equal(mkdir(path, 0700), 0);
    free(path);
}

static int set_up(void **state)
{
    struct fixture *fixture = must_alloc(sizeof *fixture);
    struct config *config = &fixture->daemon.config;

    strcpy(fixture->directory, "/tmp/test_start.XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    snprintf(fixture->vm, sizeof fixture->vm, "start-test-%d", (int)getpid());
    config->state_dir = must_format("%s/state", fixture->directory);
    config->run_dir = must_format("%s/run", fixture->directory);
    strcpy(fixture->daemon.host, "east");
    TAILQ_INIT(&fixture->daemon.migrations);
    fixture->daemon.base = event_base_new();
    make_directory("%s%s", config->state_dir, "");
    make_directory("%s/%s", config->state_dir, "journal");
    make_directory("%s/%s", config->state_dir, "vms");
    make_directory("%s%s", config->run_dir, "");
    make_directory("%s/%s", config->run_dir, "vms");
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    if (fixture->pid) {
        kill(fixture->pid, SIGKILL);
        /* It is a child of ours, which the loop reaps. */
        while (kill(fixture->pid, 0) == 0) {
            event_base_loop(fixture->daemon.base, EVLOOP_ONCE);
        }
    }
    event_base_free(fixture->daemon.base);
    free(fixture->daemon.config.state_dir);
    free(fixture->daemon.config.run_dir);
    json_decref(fixture->result);
    assert_int_equal(tree_remove(fixture->directory), 0);
    free(fixture);
    return 0;
}

/* --- what stands on the disk --- */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* A journal of SIDE with its begin record and RECORDS, words between spaces. */
static char *write_journal(struct fixture *fixture, const char *side, const char *records)
{
    char *path = must_format("%s/journal/%016x.%s", fixture->daemon.config.state_dir,
                             ++fixture->journals, side);
    char *copy = must_copy(records), *save = NULL;
    json_t *record =
        json_pack("{ss,ss,si,ss,ss,s[]}", "record", "begin", "side", side, "began_s",
                  1000 + (int)fixture->journals, "vm", fixture->vm, "peer", "west", "disks");
    FILE *file = fopen(path, "we");
    size_t number = 0;

    assert_non_null(file);
    for (const char *word = strtok_r(copy, " ", &save); record; word = strtok_r(NULL, " ", &save)) {
        char *line = journal_file_line(number++, record);

        assert_true(fputs(line, file) >= 0);
        free(line);
        json_decref(record);
        record = word ? json_pack("{ss}", "record", word) : NULL;
    }
    assert_int_equal(fclose(file), 0);
    free(copy);
    return path;
}

static void add_journal(struct fixture *fixture, const char *side, const char *records)
{
    free(write_journal(fixture, side, records));
}

static void write_launch(const struct fixture *fixture, const char *text)
{
    char *directory = must_format("%s/vms/%s", fixture->daemon.config.state_dir, fixture->vm);
    char *path = must_format("%s/launch", directory);

    assert_int_equal(mkdir(directory, 0700), 0);
    write_file(path, text);
    free(path);
    free(directory);
}

/* A QEMU without a machine; MORE is another argument. */
static void write_qemu_launch(const struct fixture *fixture, const char *more)
{
    char *text = must_format("[\"" QEMU_PATH "\",\"-name\",\"guest=%s\",\"-M\",\"none\","
                             "\"-nodefaults\",\"-display\",\"none\",\"-qmp\","
                             "\"unix:%s/vms/%s/qmp.sock,server=on,wait=off\"%s]",
                             fixture->vm, fixture->daemon.config.run_dir, fixture->vm, more);

    write_launch(fixture, text);
    free(text);
}

/* --- the call --- */

static void on_done(json_t *result, const struct error *error, void *context)
{
    struct fixture *fixture = context;

    assert_false(fixture->answered);
    assert_true(!result != !error);
    fixture->answered = true;
    fixture->result = json_incref(result);
    fixture->error = error ? *error : (struct error){0};
}

static void start(struct fixture *fixture, const char *name)
{
    json_decref(fixture->result);
    fixture->answered = false;
    start_vm(&fixture->daemon, name, on_done, fixture);
    while (!fixture->answered) {
        assert_int_equal(event_base_loop(fixture->daemon.base, EVLOOP_ONCE), 0);
    }
}

static void expect_refused(struct fixture *fixture, const char *id, const char *part)
{
    start(fixture, fixture->vm);
    assert_null(fixture->result);
    assert_string_equal(fixture->error.id, id);
    if (!strstr(fixture->error.text, part)) {
        fail_msg("no \"%s\" in: %s", part, fixture->error.text);
    }
}

/* --- tests --- */

static void names_cannot_leave_the_directory(void **state)
{
    struct fixture *fixture = *state;

    start(fixture, "../x");
    assert_string_equal(fixture->error.id, "invalid-argument");
    start(fixture, "..");
    assert_string_equal(fixture->error.id, "invalid-argument");
}

static void only_what_came_here_is_started(void **state)
{
    struct fixture *fixture = *state;

    write_qemu_launch(fixture, "");
    expect_refused(fixture, "not-owned", "start it as you always did");
    add_journal(fixture, "source", "paused rolled-back");
    expect_refused(fixture, "not-owned", "start it as you always did");
    add_journal(fixture, "destination", "abandoned");
    expect_refused(fixture, "not-owned", "start it as you always did");
}

static void what_is_undecided_or_gone_is_not_started(void **state)
{
    struct fixture *fixture = *state;

    write_qemu_launch(fixture, "");
    add_journal(fixture, "destination", "loaded");
    expect_refused(fixture, "may-not-start", "must not be started at east");
    add_journal(fixture, "destination", "loaded committed owned done");
    add_journal(fixture, "source", "paused committed");
    expect_refused(fixture, "may-not-start", "must not be started at east");
    add_journal(fixture, "source", "paused committed done");
    expect_refused(fixture, "may-not-start", "must not be started at east");
}

static void a_migration_under_way_forbids_it(void **state)
{
    struct fixture *fixture = *state;
    struct migration migration = {0};

    write_qemu_launch(fixture, "");
    add_journal(fixture, "destination", "loaded committed owned done");
    migration_init(&migration, &fixture->daemon, MIGRATION_SOURCE, "0a0a0a0a0a0a0a0a", fixture->vm,
                   "north");
    TAILQ_INSERT_TAIL(&fixture->daemon.migrations, &migration, link);
    expect_refused(fixture, "migration-under-way", "migration 0a0a0a0a0a0a0a0a to north");
    TAILQ_REMOVE(&fixture->daemon.migrations, &migration, link);
    migration_clear(&migration);
}

static void a_damaged_journal_forbids_it(void **state)
{
    struct fixture *fixture = *state;
    char *path;

    write_qemu_launch(fixture, "");
    add_journal(fixture, "destination", "loaded committed owned done");
    path = write_journal(fixture, "source", "paused");
    write_file(path, "0123456789abcdef {\"record\":\"begin\"}\n"
                     "0123456789abcdef {\"record\":\"paused\"}\n");
    expect_refused(fixture, "journal-damaged", path);
    free(path);
}

static void what_was_written_down_must_be_a_command(void **state)
{
    static const char *const wrong[] = {"", "{}", "[]", "[\"qemu\"]", "[\"/bin/true\",1]"};
    struct fixture *fixture = *state;
    char *path = must_format("%s/vms/%s/launch", fixture->daemon.config.state_dir, fixture->vm);

    add_journal(fixture, "destination", "loaded committed owned done");
    expect_refused(fixture, "launch-unreadable", path);
    write_launch(fixture, "");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_file(path, wrong[i]);
        expect_refused(fixture, "launch-unreadable", path);
    }
    write_file(path, "[\"/nowhere/qemu\"]");
    expect_refused(fixture, "exec-failed", "/nowhere/qemu");
    free(path);
}

static void what_is_owned_boots_once(void **state)
{
    struct fixture *fixture = *state;

    if (access(QEMU_PATH, X_OK) < 0) {
        print_message("skipped: no " QEMU_PATH "\n");
        skip();
    }
    write_qemu_launch(fixture, "");
    add_journal(fixture, "destination", "loaded committed owned done");
    start(fixture, fixture->vm);
    assert_string_equal(fixture->error.text, "");
    fixture->pid = (pid_t)json_integer_value(json_object_get(fixture->result, "pid"));
    assert_true(fixture->pid > 0);
    assert_int_equal(kill(fixture->pid, 0), 0);
    assert_int_equal(getsid(fixture->pid), fixture->pid); /* it outlives the daemon */
    assert_false(json_is_true(json_object_get(fixture->result, "already")));
    assert_int_equal(access(json_string_value(json_object_get(fixture->result, "qmp")), F_OK), 0);
    assert_int_equal(access(json_string_value(json_object_get(fixture->result, "log")), F_OK), 0);

    start(fixture, fixture->vm);
    assert_string_equal(fixture->error.text, "");
    assert_true(json_is_true(json_object_get(fixture->result, "already")));
    assert_int_equal(json_integer_value(json_object_get(fixture->result, "pid")), fixture->pid);
}

static void a_qemu_that_ends_is_told_in_its_own_words(void **state)
{
    struct fixture *fixture = *state;
    char *log = must_format("%s/vms/%s/qemu.log", fixture->daemon.config.run_dir, fixture->vm);

    if (access(QEMU_PATH, X_OK) < 0) {
        print_message("skipped: no " QEMU_PATH "\n");
        free(log);
        skip();
    }
    make_directory("%s/vms/%s", fixture->daemon.config.run_dir, fixture->vm);
    write_file(log, "what an earlier run said\n");
    write_qemu_launch(fixture, ",\"-device\",\"no-such-device\"");
    add_journal(fixture, "destination", "loaded committed owned");
    expect_refused(fixture, "qemu-ended", "'no-such-device' is not a valid device model name");
    assert_null(strstr(fixture->error.text, "earlier run"));
    free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_cannot_leave_the_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_what_came_here_is_started, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_undecided_or_gone_is_not_started, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_migration_under_way_forbids_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_journal_forbids_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_written_down_must_be_a_command, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_owned_boots_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_qemu_that_ends_is_told_in_its_own_words, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

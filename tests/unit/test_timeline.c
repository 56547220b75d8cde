/* Behaviours of agent/daemon/timeline.c and agent/common/timeline_file.c: what is written can be read, and neither fills a disk. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/common/must.h"
#include "agent/common/timeline_file.h"
#include "agent/daemon/timeline.h"
#include "agent/daemon/tree.h"

#define ID "0123456789abcdef"
#define SAMPLE_MS 50
/* A result and the word that something was cut. */
#define LAST_BYTES 4096

struct fixture {
    char state_dir[64], directory[96], path[128];
};

/* Linked in place of libc's. */
static bool little_room;

int __real_fstatvfs64(int fd, struct statvfs *status);
int __wrap_fstatvfs64(int fd, struct statvfs *status);

int __wrap_fstatvfs64(int fd, struct statvfs *status)
{
    int result = __real_fstatvfs64(fd, status);

    if (little_room) {
        status->f_bavail = TIMELINE_LEAVE_BYTES / status->f_frsize - 1;
    }
    return result;
}

static int set_up(void **state)
{
    struct fixture *fixture = must_alloc(sizeof *fixture);

    strcpy(fixture->state_dir, "/tmp/test_timeline.XXXXXX");
    assert_non_null(mkdtemp(fixture->state_dir));
    snprintf(fixture->directory, sizeof fixture->directory, "%s/timeline", fixture->state_dir);
    snprintf(fixture->path, sizeof fixture->path, "%s/" ID ".source", fixture->directory);
    assert_int_equal(mkdir(fixture->directory, 0700), 0);
    little_room = false;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(tree_remove(fixture->state_dir), 0);
    free(fixture);
    return 0;
}

static struct timeline *begin(const struct fixture *fixture)
{
    return timeline_open(fixture->state_dir, ID, "source");
}

static void add(struct timeline *timeline, enum timeline_kind kind, const char *event,
                uint64_t at_ms, const char *text)
{
    json_t *members = must_json(json_pack("{ss}", "text", text));

    timeline_add(timeline, kind, event, at_ms, members);
    json_decref(members);
}

static json_t *lines_of(const struct fixture *fixture, size_t wanted_bad)
{
    struct error error = {0};
    size_t bad;
    json_t *lines = timeline_file_read(fixture->path, &bad, &error);

    if (!lines) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(bad, wanted_bad);
    return lines;
}

static size_t count_of(const json_t *lines, const char *event)
{
    const json_t *line;
    size_t i, count = 0;

    json_array_foreach(lines, i, line)
    {
        count += strcmp(json_string_value(json_object_get(line, "event")), event) == 0;
    }
    return count;
}

static off_t size_of(const struct fixture *fixture)
{
    struct stat status;

    assert_int_equal(stat(fixture->path, &status), 0);
    return status.st_size;
}

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* --- lines --- */

static void what_is_added_is_read_in_its_order(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline *timeline = begin(fixture);
    json_t *lines, *line;

    add(timeline, TIMELINE_EVENT, "phase", 3, "caf\303\251");
    add(timeline, TIMELINE_SAMPLE, "sample", 50, "one");
    add(timeline, TIMELINE_RESULT, "result", 60, "done");
    timeline_free(timeline);
    lines = lines_of(fixture, 0);
    assert_int_equal(json_array_size(lines), 3);
    line = json_array_get(lines, 0);
    assert_string_equal(json_string_value(json_object_get(line, "event")), "phase");
    assert_int_equal(json_integer_value(json_object_get(line, "at_ms")), 3);
    assert_string_equal(json_string_value(json_object_get(line, "text")), "caf\303\251");
    line = json_array_get(lines, 2);
    assert_string_equal(json_string_value(json_object_get(line, "event")), "result");
    json_decref(lines);
}

static void the_file_is_closed_to_others(void **state)
{
    const struct fixture *fixture = *state;
    struct stat status;

    timeline_free(begin(fixture));
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void samples_are_gathered_and_events_are_written_at_once(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline *timeline = begin(fixture);

    add(timeline, TIMELINE_SAMPLE, "sample", 0, "gathered");
    add(timeline, TIMELINE_DETAIL, "mark", 10, "gathered");
    assert_int_equal(size_of(fixture), 0);
    add(timeline, TIMELINE_EVENT, "phase", 20, "at once");
    assert_true(size_of(fixture) > 0);
    timeline_free(timeline);
}

/* So that a report shows how it goes now. */
static void samples_are_not_kept_back_for_long(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline *timeline = begin(fixture);
    uint64_t at_ms;

    for (at_ms = 0; at_ms < 1000; at_ms += SAMPLE_MS) {
        add(timeline, TIMELINE_SAMPLE, "sample", at_ms, "gathered");
    }
    assert_int_equal(size_of(fixture), 0);
    add(timeline, TIMELINE_SAMPLE, "sample", at_ms, "a second later");
    assert_true(size_of(fixture) > 0);
    timeline_free(timeline);
}

static void what_a_killed_daemon_left_is_gone_on_with(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline *timeline;
    json_t *lines;

    put(fixture->path, "{\"event\":\"begin\",\"at_ms\":0}\n{\"event\":\"pha");
    timeline = begin(fixture);
    add(timeline, TIMELINE_EVENT, "restart", 0, "again");
    timeline_free(timeline);
    lines = lines_of(fixture, 1);
    assert_int_equal(json_array_size(lines), 2);
    assert_int_equal(count_of(lines, "restart"), 1);
    json_decref(lines);
}

static void a_last_line_that_was_cut_short_is_left_out_and_counted(void **state)
{
    const struct fixture *fixture = *state;
    json_t *lines;

    put(fixture->path, "{\"event\":\"begin\"}\n[1]\n{\"event\":");
    lines = lines_of(fixture, 2);
    assert_int_equal(json_array_size(lines), 1);
    json_decref(lines);
}

/* --- bounds --- */

static void fill(struct timeline *timeline, const struct fixture *fixture, uint64_t bytes,
                 uint64_t *at_ms)
{
    char text[4096];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    while ((uint64_t)size_of(fixture) < bytes) {
        add(timeline, TIMELINE_EVENT, "phase", (*at_ms)++, text);
    }
}

static void from_some_size_on_one_sample_a_second_is_kept(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline *timeline = begin(fixture);
    uint64_t at_ms = 0, seconds = 30;
    json_t *lines;

    fill(timeline, fixture, TIMELINE_FULL_BYTES, &at_ms);
    at_ms += 1000;
    for (uint64_t i = 0; i < seconds * 1000 / SAMPLE_MS; i++) {
        add(timeline, TIMELINE_SAMPLE, "sample", at_ms + i * SAMPLE_MS, "thin");
        if (i == 7) {
            add(timeline, TIMELINE_EVENT, "decision", at_ms + i * SAMPLE_MS, "kept");
        }
    }
    timeline_free(timeline);
    lines = lines_of(fixture, 0);
    assert_int_equal(count_of(lines, "thinned"), 1);
    assert_int_equal(count_of(lines, "sample"), seconds);
    assert_int_equal(count_of(lines, "decision"), 1);
    json_decref(lines);
}

static void from_some_size_on_only_the_result_is_kept(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline *timeline = begin(fixture);
    uint64_t at_ms = 0;
    json_t *lines;

    fill(timeline, fixture, TIMELINE_CUT_BYTES, &at_ms);
    for (int i = 0; i < 1000; i++) {
        add(timeline, TIMELINE_SAMPLE, "sample", at_ms, "no");
        add(timeline, TIMELINE_EVENT, "decision", at_ms, "no");
        at_ms += 2000;
    }
    add(timeline, TIMELINE_RESULT, "result", at_ms, "yes");
    timeline_free(timeline);
    assert_true((uint64_t)size_of(fixture) < TIMELINE_CUT_BYTES + LAST_BYTES + 4096);
    lines = lines_of(fixture, 0);
    assert_int_equal(count_of(lines, "cut"), 1);
    assert_int_equal(count_of(lines, "sample"), 0);
    assert_int_equal(count_of(lines, "decision"), 0);
    assert_int_equal(count_of(lines, "result"), 1);
    json_decref(lines);
}

/* One of BYTES, as old as AGE seconds. */
static void put_old(const struct fixture *fixture, unsigned number, off_t bytes, time_t age)
{
    char path[160];
    struct timespec times[2] = {{0}, {0}};
    int fd;

    snprintf(path, sizeof path, "%s/%016x.%s", fixture->directory, number,
             number % 2 ? "source" : "destination");
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, bytes), 0);
    times[0].tv_sec = times[1].tv_sec = 2000000000 - age;
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

static bool is_there(const struct fixture *fixture, unsigned number)
{
    char path[160];

    snprintf(path, sizeof path, "%s/%016x.%s", fixture->directory, number,
             number % 2 ? "source" : "destination");
    return access(path, F_OK) == 0;
}

static void the_oldest_go_when_there_are_too_many(void **state)
{
    const struct fixture *fixture = *state;

    for (unsigned i = 0; i < TIMELINE_KEEP_FILES + 20; i++) {
        put_old(fixture, i, 10, i);
    }
    timeline_free(begin(fixture));
    for (unsigned i = 0; i < TIMELINE_KEEP_FILES + 20; i++) {
        assert_int_equal(is_there(fixture, i), i < TIMELINE_KEEP_FILES - 1);
    }
    assert_int_equal(access(fixture->path, F_OK), 0);
}

static void the_oldest_go_when_they_are_too_large_together(void **state)
{
    const struct fixture *fixture = *state;
    off_t bytes = (off_t)TIMELINE_CUT_BYTES;
    unsigned fitting = (unsigned)(TIMELINE_KEEP_BYTES / TIMELINE_CUT_BYTES) - 1;

    for (unsigned i = 0; i < fitting + 5; i++) {
        put_old(fixture, i, bytes, i);
    }
    timeline_free(begin(fixture));
    for (unsigned i = 0; i < fitting + 5; i++) {
        assert_int_equal(is_there(fixture, i), i < fitting);
    }
}

static void what_is_no_timeline_is_left_alone(void **state)
{
    const struct fixture *fixture = *state;
    char path[160];

    for (unsigned i = 0; i < TIMELINE_KEEP_FILES + 1; i++) {
        put_old(fixture, i, 10, i);
    }
    snprintf(path, sizeof path, "%s/notes.source", fixture->directory);
    put(path, "mine");
    timeline_free(begin(fixture));
    assert_int_equal(access(path, F_OK), 0);
}

/* A daemon that was started again goes on with a file that is the oldest of many. */
static void the_one_that_is_opened_does_not_go(void **state)
{
    const struct fixture *fixture = *state;
    struct timespec times[2] = {{0}, {0}};
    json_t *lines;

    put(fixture->path, "{\"event\":\"begin\"}\n");
    assert_int_equal(utimensat(AT_FDCWD, fixture->path, times, 0), 0);
    for (unsigned i = 0; i < TIMELINE_KEEP_FILES + 1; i++) {
        put_old(fixture, i, 10, i);
    }
    timeline_free(begin(fixture));
    lines = lines_of(fixture, 0);
    assert_int_equal(count_of(lines, "begin"), 1);
    json_decref(lines);
}

/* --- disks that fail --- */

/* How many lines FUNCTION logs. */
static size_t logged_by(void (*function)(const struct fixture *fixture),
                        const struct fixture *fixture)
{
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO), c;
    size_t lines = 0;

    assert_non_null(file);
    assert_true(saved >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    function(fixture);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    rewind(file);
    while ((c = fgetc(file)) != EOF) {
        lines += c == '\n';
    }
    fclose(file);
    return lines;
}

static void add_many(struct timeline *timeline)
{
    for (uint64_t i = 0; i < 200; i++) {
        add(timeline, TIMELINE_EVENT, "phase", i, "some text to make it longer than it was");
    }
}

static void write_to_a_small_disk(const struct fixture *fixture)
{
    struct rlimit before, small;
    struct timeline *timeline;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1000; /* in the midst of a line: a write is cut short, the next one fails */
    signal(SIGXFSZ, SIG_IGN);
    timeline = begin(fixture);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    add_many(timeline);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    timeline_free(timeline);
}

static void a_full_disk_ends_it_with_a_whole_line_and_one_word(void **state)
{
    const struct fixture *fixture = *state;
    size_t logged = logged_by(write_to_a_small_disk, fixture);
    json_t *lines = lines_of(fixture, 0);

    assert_int_equal(logged, 1);
    assert_true(json_array_size(lines) > 1);
    assert_true(size_of(fixture) <= 1000);
    json_decref(lines);
}

static void write_with_little_room(const struct fixture *fixture)
{
    struct timeline *timeline = begin(fixture);

    add(timeline, TIMELINE_EVENT, "begin", 0, "there is room");
    little_room = true;
    add_many(timeline);
    timeline_free(timeline);
}

static void the_last_of_the_room_is_left_to_others(void **state)
{
    const struct fixture *fixture = *state;
    size_t logged = logged_by(write_with_little_room, fixture);
    json_t *lines = lines_of(fixture, 0);

    assert_int_equal(logged, 1);
    assert_int_equal(json_array_size(lines), 1);
    json_decref(lines);
}

static void write_nowhere(const struct fixture *fixture)
{
    struct timeline *timeline;

    assert_int_equal(rmdir(fixture->directory), 0);
    timeline = begin(fixture);
    add_many(timeline);
    timeline_free(timeline);
}

static void without_its_directory_it_is_let_go_with_one_word(void **state)
{
    const struct fixture *fixture = *state;

    assert_int_equal(logged_by(write_nowhere, fixture), 1);
    assert_int_not_equal(access(fixture->path, F_OK), 0);
}

/* --- finding one --- */

static void put_begin(const struct fixture *fixture, const char *id, const char *vm, int began_s)
{
    char path[160], text[256];

    snprintf(path, sizeof path, "%s/%s.source", fixture->directory, id);
    snprintf(text, sizeof text, "{\"event\":\"begin\",\"vm\":\"%s\",\"began_s\":%d}\n", vm,
             began_s);
    put(path, text);
}

/* The id of the one that is found for WHAT; "" when there is none, which must be said. */
static const char *found(const struct timeline_list *list, const char *what)
{
    struct error error = {0};
    const struct timeline_entry *entry = timeline_list_find(list, what, &error);

    assert_true(entry || strcmp(error.id, "timeline-unknown") == 0);
    return entry ? entry->id : "";
}

static void one_is_found_by_id_by_its_beginning_and_by_its_vm(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline_list list;
    struct error error;
    char path[160];

    put_begin(fixture, "aa00000000000001", "web1", 200);
    put_begin(fixture, "aa00000000000002", "web1", 300);
    put_begin(fixture, "bb00000000000003", "web1", 100);
    put_begin(fixture, "cc00000000000004", "db1", 50);
    snprintf(path, sizeof path, "%s/dd00000000000005.destination", fixture->directory);
    put(path, "no line of a timeline");
    assert_true(timeline_list_read(fixture->state_dir, &list, &error));
    assert_int_equal(list.count, 5);
    assert_string_equal(found(&list, "aa00000000000001"), "aa00000000000001");
    assert_string_equal(found(&list, "web1"), "aa00000000000002");
    assert_string_equal(found(&list, "db1"), "cc00000000000004");
    assert_string_equal(found(&list, "bb"), "bb00000000000003");
    assert_string_equal(found(&list, "dd"), "dd00000000000005");
    assert_string_equal(found(&list, "aa"), "");
    assert_string_equal(found(&list, "web"), "");
    assert_string_equal(found(&list, ""), "");
    timeline_list_clear(&list);
}

static void where_there_is_no_directory_that_is_said(void **state)
{
    const struct fixture *fixture = *state;
    struct timeline_list list;
    struct error error = {0};

    assert_int_equal(rmdir(fixture->directory), 0);
    assert_false(timeline_list_read(fixture->state_dir, &list, &error));
    assert_string_equal(error.id, "timeline-unreadable");
    assert_non_null(strstr(error.text, fixture->directory));
    timeline_list_clear(&list);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_added_is_read_in_its_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_file_is_closed_to_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(samples_are_gathered_and_events_are_written_at_once, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(samples_are_not_kept_back_for_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_a_killed_daemon_left_is_gone_on_with, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_last_line_that_was_cut_short_is_left_out_and_counted,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(from_some_size_on_one_sample_a_second_is_kept, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(from_some_size_on_only_the_result_is_kept, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_go_when_there_are_too_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_go_when_they_are_too_large_together, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_timeline_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_one_that_is_opened_does_not_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_disk_ends_it_with_a_whole_line_and_one_word, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_last_of_the_room_is_left_to_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_its_directory_it_is_let_go_with_one_word, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_is_found_by_id_by_its_beginning_and_by_its_vm, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(where_there_is_no_directory_that_is_said, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The journal and the death of its writer, with the real files: both sides' records, the writer killed behind each of them, in the middle of
 * each write, and at any moment; the file cut at every byte, and damaged in every byte. What the next life reads is the whole
 * records before that moment, or nothing that is believed; and it goes on behind them.
 */
#include "journal_fixture.h"

#include "agent/common/must.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* No thread may run when this process forks (a sanitizer's allocator does not stand it), so the syncer lives only while it is needed. */
static void start_syncer(struct fixture *fixture)
{
    struct error error;

    fixture->syncer = journal_syncer_new(fixture->base, &error);
    assert_non_null(fixture->syncer);
}

static void end_syncer(struct fixture *fixture)
{
    journal_syncer_free(fixture->syncer);
    fixture->syncer = NULL;
}

static int set_up_alone(void **state)
{
    int result = set_up(state);

    end_syncer(*state);
    return result;
}

struct step {
    const char *record, *members; /* JSON with ' for " */
    bool synced;
};

/* Whole migrations, as source_*.c and destination_*.c write them: the longest way either can take. */
static const struct step source_steps[] = {
    {"begin",
     "{'side':'source','began_s':1795000000,'migration':'0123456789abcdef','vm':'web',"
     "'peer':'east','qmp':'/run/web/qmp.sock','mode':'live','pid':4711,'start_time':123456,"
     "'boot_id':'6b0ad8ee-32dd-4b3b-8b7b-6f6b5c4a3d21','reconnect_timeout_ms':300000,'disks':["
     "{'path':'/pool/web.qcow2','mark':'/pool/web.qcow2.moved'},{'path':'/dev/vg/data','mark':null}]}",
     true},
    {"undo", "{'key':'export:0','what':{'export':'watari-0'}}", false},
    {"undo",
     "{'key':'dirty:0','what':{'qmp':'block-dirty-bitmap-remove','arguments':{'node':'d0'}}}",
     false},
    {"undo", "{'key':'resume','what':{'resume':true}}", false},
    {"paused", "{'accepted':{'text':'J\\u00fcrgen\\n\\u65e5\\u672c'}}", false},
    {"undo", "{'key':'mark:0','what':{'rename':['/pool/web.qcow2','/pool/web.qcow2.moved']}}",
     false},
    {"committed", "{'nonce':'00112233445566778899aabbccddeeff','accepted':{}}", true},
    {"try-again", "{'refusal':1}", true},
    {"taking-back", "{'refusal':2}", true},
    {"undone", "{'key':'mark:0'}", false},
    {"taken-back", NULL, true},
    {"rolled-back", "{'reason':'refused','left':[],'owes_abort':true}", false},
    {"acknowledged", NULL, false},
};
static const struct step destination_steps[] = {
    {"begin",
     "{'side':'destination','began_s':1795000000,'migration':'0123456789abcdef','vm':'web',"
     "'peer':'west','qmp':'/run/w/qmp.sock','disks':['/pool/web.qcow2']}",
     false},
    {"undo", "{'key':'file:0','what':{'file':'/pool/web.qcow2','dev':64768,'ino':131}}", false},
    {"undo", "{'key':'process','what':{'process':'/run/w/qmp.sock'}}", false},
    {"prepared", "{'sockets':[['/run/w/private/serial','/run/w/serial']]}", true},
    {"loaded", NULL, true},
    {"refused", "{'refusal':1}", true},
    {"loaded", NULL, true},
    {"committed", "{'forced':false}", true},
    {"owned", NULL, false},
    {"done", NULL, false},
};

struct side {
    const char *name;
    const struct step *steps;
    size_t count;
};
static const struct side sides[] = {
    {"source", source_steps, sizeof source_steps / sizeof *source_steps},
    {"destination", destination_steps, sizeof destination_steps / sizeof *destination_steps},
};
#define SIDES (sizeof sides / sizeof *sides)

/* The members of record number NUMBER; beyond the end the last one comes again. NUMBER goes along, so that none is like another. */
static json_t *members_of(const struct side *side, size_t number)
{
    const struct step *step = &side->steps[number < side->count ? number : side->count - 1];
    char *text = must_copy(step->members ? step->members : "{}");
    json_t *members;

    for (char *at = text; *at; at++) {
        *at = *at == '\'' ? '"' : *at;
    }
    members = must_json(json_loads(text, 0, NULL));
    json_object_set_new(members, "number", must_json(json_integer((json_int_t)number)));
    free(text);
    return members;
}

static const char *name_of(const struct side *side, size_t number)
{
    return side->steps[number < side->count ? number : side->count - 1].record;
}

static bool write_record(struct journal *journal, const struct side *side, size_t number)
{
    struct error error;

    return journal_append(journal, name_of(side, number), members_of(side, number), &error);
}

/* How many records there are. They must be the first ones of that side, and TORN (if not NULL) what the file says. */
static size_t expect_first(const struct side *side, const char *path, const bool *torn)
{
    struct journal_content content;
    struct error error = {0};
    size_t count;

    if (!journal_file_read(path, &content, &error)) {
        fail_msg("%s: %s", side->name, error.text);
    }
    count = json_array_size(content.records);
    for (size_t i = 0; i < count; i++) {
        json_t *wanted = members_of(side, i);

        json_object_set_new(wanted, "record", json_string(name_of(side, i)));
        assert_true(json_equal(json_array_get(content.records, i), wanted));
        json_decref(wanted);
    }
    assert_true(!torn || content.torn == *torn);
    journal_content_clear(&content);
    return count;
}

/* The next life: what it writes is readable with what was there. */
static void go_on(struct fixture *fixture, const struct side *side, size_t count)
{
    struct journal_content content;
    struct journal *journal;
    struct error error;
    bool torn = false;

    start_syncer(fixture);
    assert_true(journal_file_read(fixture->path, &content, &error));
    journal = journal_reopen(fixture->syncer, fixture->path, content.good_length,
                             json_array_size(content.records));
    journal_content_clear(&content);
    assert_true(write_record(journal, side, count));
    assert_true(write_record(journal, side, count + 1));
    journal_free(journal);
    end_syncer(fixture);
    assert_int_equal(expect_first(side, fixture->path, &torn), count + 2);
}

/* --- writers that die --- */

struct writer {
    struct event_base *base;
    struct journal *journal;
    bool synced;
};

static void on_written(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct writer *writer = context;

    (void)nanoseconds;
    writer->synced = !error;
    event_base_loopbreak(writer->base);
}

/* In a child. */
static struct writer start_writing(const char *path)
{
    struct writer writer = {.base = event_base_new()};
    struct error error;
    struct journal_syncer *syncer = journal_syncer_new(writer.base, &error);

    writer.journal = journal_create(syncer, path, &error);
    if (!writer.journal) {
        _exit(3);
    }
    return writer;
}

static void bring_down(struct writer *writer)
{
    writer->synced = false;
    journal_sync(writer->journal, on_written, writer);
    while (!writer->synced) {
        event_base_loop(writer->base, EVLOOP_ONCE);
    }
}

/* Stops behind record LAST, or behind its sync. */
static void write_until(const struct side *side, const char *path, size_t last)
{
    struct writer writer = start_writing(path);

    for (size_t i = 0; i <= last; i++) {
        if (!write_record(writer.journal, side, i)) {
            _exit(4);
        }
        if (side->steps[i].synced) {
            bring_down(&writer);
        }
    }
    raise(SIGSTOP);
    _exit(5);
}

static void await_stop(pid_t child)
{
    int status;

    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
}

static void kill_and_reap(pid_t child)
{
    int status;

    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void killed_behind_each_record(void **state)
{
    struct fixture *fixture = *state;
    bool torn = false;

    for (size_t s = 0; s < SIDES; s++) {
        for (size_t last = 0; last < sides[s].count; last++) {
            pid_t child = fork();

            if (child == 0) {
                write_until(&sides[s], fixture->path, last);
            }
            assert_true(child > 0);
            await_stop(child);
            kill_and_reap(child);
            assert_int_equal(expect_first(&sides[s], fixture->path, &torn), last + 1);
            go_on(fixture, &sides[s], last + 1);
            assert_int_equal(unlink(fixture->path), 0);
        }
    }
}

/* The kernel lets the file become BYTES long and no longer: the write that would pass that does what fits and ends the process. */
static void write_until_byte(const struct side *side, const char *path, size_t bytes)
{
    struct writer writer = start_writing(path);

    if (setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, bytes}) < 0 ||
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) < 0) {
        _exit(3);
    }
    signal(SIGXFSZ, SIG_DFL);
    for (size_t i = 0; i < side->count; i++) {
        if (!write_record(writer.journal, side, i)) {
            _exit(4);
        }
    }
    _exit(5);
}

/* The whole file of that side, which is then gone. */
static char *whole_file(struct fixture *fixture, const struct side *side, size_t *length)
{
    struct journal *journal;
    struct stat status;
    char *bytes;
    int fd;

    start_syncer(fixture);
    journal = create(fixture);
    for (size_t i = 0; i < side->count; i++) {
        assert_true(write_record(journal, side, i));
    }
    journal_free(journal);
    end_syncer(fixture);
    fd = open(fixture->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &status), 0);
    *length = (size_t)status.st_size;
    bytes = must_alloc(*length);
    assert_int_equal(journal_file_read_start(fd, bytes, *length), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(unlink(fixture->path), 0);
    return bytes;
}

static size_t lines_in(const char *bytes, size_t length)
{
    size_t lines = 0;

    for (size_t i = 0; i < length; i++) {
        lines += bytes[i] == '\n';
    }
    return lines;
}

/* One process each: not at every byte, but around each end of a record at all. */
static bool is_killed_at(const char *bytes, size_t at)
{
    return at % 11 == 0 || bytes[at] == '\n' || bytes[at - 1] == '\n' ||
           (at > 1 && bytes[at - 2] == '\n');
}

static void killed_in_the_middle_of_each_write(void **state)
{
    struct fixture *fixture = *state;

    for (size_t s = 0; s < SIDES; s++) {
        size_t length;
        char *bytes = whole_file(fixture, &sides[s], &length);

        for (size_t at = 0; at < length; at++) {
            size_t lines = lines_in(bytes, at);
            bool torn = at > 0 && bytes[at - 1] != '\n';
            struct stat status;
            pid_t child;
            int end;

            if (!is_killed_at(bytes, at)) {
                continue;
            }
            child = fork();
            if (child == 0) {
                write_until_byte(&sides[s], fixture->path, at);
            }
            assert_true(child > 0);
            assert_int_equal(waitpid(child, &end, 0), child);
            assert_true(WIFSIGNALED(end) && WTERMSIG(end) == SIGXFSZ);
            assert_int_equal(stat(fixture->path, &status), 0);
            assert_int_equal(status.st_size, at);
            assert_int_equal(expect_first(&sides[s], fixture->path, &torn), lines);
            go_on(fixture, &sides[s], lines);
            assert_int_equal(unlink(fixture->path), 0);
        }
        free(bytes);
    }
}

/* As it goes, and says through TOLD how many are on the disk. */
static void write_without_end(const struct side *side, const char *path, int told)
{
    struct writer writer = start_writing(path);

    for (uint32_t i = 0;; i++) {
        if (!write_record(writer.journal, side, i)) {
            _exit(4);
        }
        if (i % 5 == 4) {
            bring_down(&writer);
            if (write(told, &(uint32_t){i + 1}, sizeof i) != sizeof i) {
                _exit(5);
            }
        }
    }
}

static void killed_at_any_moment(void **state)
{
    struct fixture *fixture = *state;

    for (unsigned i = 0; i < 40; i++) {
        const struct side *side = &sides[i % SIDES];
        uint32_t told = 0;
        int pipe_fds[2];
        pid_t child;

        assert_int_equal(pipe(pipe_fds), 0);
        child = fork();
        if (child == 0) {
            write_without_end(side, fixture->path, pipe_fds[1]);
        }
        assert_true(child > 0);
        close(pipe_fds[1]);
        assert_int_equal(read(pipe_fds[0], &told, sizeof told), sizeof told);
        usleep(i * 137 % 3000);
        kill_and_reap(child);
        while (read(pipe_fds[0], &told, sizeof told) == sizeof told) {
            continue;
        }
        close(pipe_fds[0]);
        assert_true(expect_first(side, fixture->path, NULL) >= told);
        go_on(fixture, side, expect_first(side, fixture->path, NULL));
        assert_int_equal(unlink(fixture->path), 0);
    }
}

/* The limit without the death: the writer hears of it, and the piece is taken back. */
static void a_write_cut_short_leaves_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct rlimit before;
    bool torn = false;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t s = 0; s < SIDES; s++) {
        size_t length, first;
        char *bytes = whole_file(fixture, &sides[s], &length);

        first = (size_t)((char *)memchr(bytes, '\n', length) - bytes) + 1;
        for (size_t at = 0; at < first; at += 1 + at / 16) {
            struct journal *journal;

            start_syncer(fixture);
            journal = create(fixture);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){at, before.rlim_max}), 0);
            assert_false(write_record(journal, &sides[s], 0));
            assert_int_equal(expect_first(&sides[s], fixture->path, &torn), 0);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
            assert_true(write_record(journal, &sides[s], 0));
            assert_true(write_record(journal, &sides[s], 1));
            assert_int_equal(expect_first(&sides[s], fixture->path, &torn), 2);
            journal_free(journal);
            end_syncer(fixture);
            assert_int_equal(unlink(fixture->path), 0);
        }
        free(bytes);
    }
    signal(SIGXFSZ, SIG_DFL);
}

/* --- files that were cut or damaged --- */

static int put_file(const char *path, const char *bytes, size_t length)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(journal_file_write(fd, bytes, length, 0), 0);
    return fd;
}

static void cut_at_every_byte(void **state)
{
    struct fixture *fixture = *state;

    for (size_t s = 0; s < SIDES; s++) {
        size_t length;
        char *bytes = whole_file(fixture, &sides[s], &length);
        int fd = put_file(fixture->path, bytes, length);

        for (size_t at = length; at > 0; at--) {
            bool torn = bytes[at - 1] != '\n';

            assert_int_equal(ftruncate(fd, (off_t)at), 0);
            assert_int_equal(expect_first(&sides[s], fixture->path, &torn), lines_in(bytes, at));
        }
        close(fd);
        free(bytes);
        assert_int_equal(unlink(fixture->path), 0);
    }
}

/* Blocks of which only some reached the disk read as zeroes. */
static void zeroes_from_every_byte_on(void **state)
{
    struct fixture *fixture = *state;

    for (size_t s = 0; s < SIDES; s++) {
        size_t length;
        char *bytes = whole_file(fixture, &sides[s], &length);
        int fd = put_file(fixture->path, bytes, length);

        for (size_t at = length; at-- > 0;) {
            bool torn = true;

            assert_int_equal(journal_file_write(fd, "", 1, at), 0);
            assert_int_equal(expect_first(&sides[s], fixture->path, &torn), lines_in(bytes, at));
        }
        close(fd);
        free(bytes);
        assert_int_equal(unlink(fixture->path), 0);
    }
}

static void expect_refused(const char *path, size_t before, size_t at)
{
    struct journal_content content;
    struct error error = {0};

    if (journal_file_read(path, &content, &error)) {
        fail_msg("byte %zu is another, and it was believed", at);
    }
    assert_string_equal(error.id, "journal-damaged");
    assert_non_null(strstr(error.text, path));
    /* For people, what is before it is still there. */
    journal_file_read_some(path, &content);
    assert_int_equal(json_array_size(content.records), before);
    journal_content_clear(&content);
}

static void damage_in_any_byte_before_the_last_record_is_refused(void **state)
{
    struct fixture *fixture = *state;

    for (size_t s = 0; s < SIDES; s++) {
        size_t length, last;
        char *bytes = whole_file(fixture, &sides[s], &length);
        int fd = put_file(fixture->path, bytes, length);
        char *again = must_alloc(length);

        last = length - 1;
        while (bytes[last - 1] != '\n') {
            last--;
        }
        for (size_t at = 0; at < last; at++) {
            char other = (char)(bytes[at] ^ (1 << at % 8));

            assert_int_equal(journal_file_write(fd, &other, 1, at), 0);
            expect_refused(fixture->path, lines_in(bytes, at), at);
            assert_int_equal(journal_file_write(fd, &bytes[at], 1, at), 0);
        }
        /* And nothing was written to it. */
        assert_int_equal(journal_file_read_start(fd, again, length), 0);
        assert_memory_equal(again, bytes, length);
        close(fd);
        free(again);
        free(bytes);
        assert_int_equal(unlink(fixture->path), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_alone, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(killed_behind_each_record),
        TEST(killed_in_the_middle_of_each_write),
        TEST(killed_at_any_moment),
        TEST(a_write_cut_short_leaves_nothing),
        TEST(cut_at_every_byte),
        TEST(zeroes_from_every_byte_on),
        TEST(damage_in_any_byte_before_the_last_record_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

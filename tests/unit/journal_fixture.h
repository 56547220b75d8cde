/*
 * A journal of its own for each test, with the loop and the thread behind it, and what its syncs came to.
 */
#ifndef WATARI_TESTS_UNIT_JOURNAL_FIXTURE_H
#define WATARI_TESTS_UNIT_JOURNAL_FIXTURE_H

#include "agent/daemon/journal.h"

#include "agent/common/journal_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static inline int set_up(void **state)
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

static inline int tear_down(void **state)
{
    struct fixture *fixture = *state;

    journal_syncer_free(fixture->syncer);
    event_base_free(fixture->base);
    unlink(fixture->path);
    assert_int_equal(rmdir(fixture->directory), 0);
    free(fixture);
    return 0;
}

static inline void on_synced(const struct error *error, uint64_t nanoseconds, void *context)
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

static inline void on_too_late(evutil_socket_t fd, short what, void *context)
{
    struct fixture *fixture = context;

    (void)fd;
    (void)what;
    fixture->too_late = true;
}

/* Runs the loop until so many syncs were told. */
static inline void await_syncs(struct fixture *fixture, size_t count)
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

static inline void expect_good_sync(const struct fixture *fixture, size_t which, int number)
{
    if (fixture->syncs[which].failed) {
        fail_msg("%s", fixture->syncs[which].error.text);
    }
    assert_int_equal(fixture->syncs[which].number, number);
}

static inline struct journal *create(struct fixture *fixture)
{
    struct error error = {0};
    struct journal *journal = journal_create(fixture->syncer, fixture->path, &error);

    if (!journal) {
        fail_msg("%s", error.text);
    }
    return journal;
}

static inline void append(struct journal *journal, const char *record, int number)
{
    struct error error = {0};

    if (!journal_append(journal, record, json_pack("{si}", "number", number), &error)) {
        fail_msg("%s", error.text);
    }
}

/* The file's records must be COUNT of the name "step", numbered from 0. */
static inline void expect_steps(const char *path, size_t count)
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

#endif

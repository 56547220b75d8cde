/*
 * An undo list with its journal, loop and QMP connection, and what it said was left, for the tests
 * of agent/daemon/undo.h. For one test program; everything is static, and inline so that not all
 * has to be used.
 */
#ifndef WATARI_TESTS_UNDO_FIXTURE_H
#define WATARI_TESTS_UNDO_FIXTURE_H

#include "agent/daemon/undo.h"

#include "qmp_client.h"

#include <stdlib.h>
#include <unistd.h>

#define PATH_SIZE 160

struct fixture {
    char directory[64];
    char journal_path[PATH_SIZE];
    struct client client;
    struct journal_syncer *syncer;
    struct journal *journal;
    struct undo *undo;
    json_t *left;
    unsigned done;
    bool free_when_done;
};

/* QMP_PATH NULL: a connection that is dead from its first turn on. */
static inline struct fixture *make_fixture(const char *qmp_path)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct error error;

    assert_non_null(fixture);
    strcpy(fixture->directory, "/tmp/test_undo.XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    snprintf(fixture->journal_path, PATH_SIZE, "%s/journal", fixture->directory);
    open_client(&fixture->client, qmp_path ? qmp_path : fixture->directory);
    await_ready(&fixture->client);
    assert_string_equal(fixture->client.error.id, qmp_path ? "" : "qmp-gone");
    fixture->syncer = journal_syncer_new(fixture->client.base, &error);
    assert_non_null(fixture->syncer);
    fixture->journal = journal_create(fixture->syncer, fixture->journal_path, &error);
    assert_non_null(fixture->journal);
    fixture->undo = undo_new(fixture->client.base, fixture->journal);
    return fixture;
}

static inline void free_fixture(struct fixture *fixture)
{
    undo_free(fixture->undo);
    journal_free(fixture->journal);
    journal_syncer_free(fixture->syncer);
    close_client(&fixture->client);
    json_decref(fixture->left);
    unlink(fixture->journal_path);
    assert_int_equal(rmdir(fixture->directory), 0);
    free(fixture);
}

static inline void on_done(const json_t *left, void *context)
{
    struct fixture *fixture = context;

    fixture->done++;
    json_decref(fixture->left);
    fixture->left = json_deep_copy(left);
    if (fixture->free_when_done) {
        undo_free(fixture->undo);
        fixture->undo = NULL;
    }
}

static inline void run(struct fixture *fixture, struct qmp *qmp)
{
    unsigned before = fixture->done;

    undo_run(fixture->undo, qmp, on_done, fixture);
    assert_int_equal(fixture->done, before);
    while (fixture->done == before) {
        turn(&fixture->client);
    }
    assert_int_equal(fixture->done, before + 1);
}

static inline void add(struct fixture *fixture, const char *key, json_t *what)
{
    struct error error = {0};

    assert_non_null(what);
    if (!undo_add(fixture->undo, key, what, &error)) {
        fail_msg("%s", error.text);
    }
}

/* What was left must be of these keys, in this order, NULL at the end. */
static inline void expect_left(const struct fixture *fixture, const char *const *keys)
{
    size_t count = 0;

    for (; keys[count]; count++) {
        const char *text = json_string_value(json_array_get(fixture->left, count));

        if (!text || strncmp(text, keys[count], strlen(keys[count])) != 0) {
            fail_msg("%zu: \"%s\" is left instead of %s", count, text ? text : "nothing",
                     keys[count]);
        }
    }
    assert_int_equal(json_array_size(fixture->left), count);
}

static inline void expect_nothing_left(const struct fixture *fixture)
{
    expect_left(fixture, (const char *const[]){NULL});
}

static inline const char *in(const struct fixture *fixture, const char *name)
{
    static char paths[4][PATH_SIZE];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, PATH_SIZE, "%s/%s", fixture->directory, name);
    return path;
}

/* An entry that will always be left, so that the order can be seen. */
static inline void add_hopeless(struct fixture *fixture, const char *key)
{
    add(fixture, key, json_pack("{ss,si,si}", "file", fixture->journal_path, "dev", 0, "ino", 0));
}

#endif

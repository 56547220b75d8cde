/*
 * The splitter of newline-delimited JSON: however the bytes are cut, the same objects come out.
 */
#include "agent/common/json_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char reason[JSON_LINE_ERROR_SIZE];

static json_int_t next_number(struct json_line *splitter)
{
    json_int_t number;
    json_t *object;

    assert_int_equal(json_line_next(splitter, &object, reason), JSON_LINE_OBJECT);
    number = json_integer_value(json_object_get(object, "n"));
    json_decref(object);
    return number;
}

static enum json_line_step step(struct json_line *splitter)
{
    json_t *object;
    enum json_line_step got = json_line_next(splitter, &object, reason);

    json_decref(object);
    return got;
}

static void feed(struct json_line *splitter, const char *text)
{
    assert_true(json_line_feed(splitter, text, strlen(text)));
}

static void every_cut_gives_the_same_objects(void **state)
{
    const char *text = "{\"n\":1}\r\n\n  \t\r\n{\"n\": 2, \"text\": \"a\\nb\"}\n{\"n\":3}\n";
    size_t length = strlen(text);

    (void)state;
    for (size_t cut = 0; cut <= length; cut++) {
        struct json_line *splitter = json_line_new(100);
        json_int_t wanted = 1;
        json_t *object;

        assert_non_null(splitter);
        for (int part = 0; part < 2; part++) {
            assert_true(
                json_line_feed(splitter, part ? text + cut : text, part ? length - cut : cut));
            while (json_line_next(splitter, &object, reason) == JSON_LINE_OBJECT) {
                assert_int_equal(json_integer_value(json_object_get(object, "n")), wanted++);
                json_decref(object);
            }
            assert_null(object);
        }
        assert_int_equal(wanted, 4);
        json_line_free(splitter);
    }
}

static void bytes_one_by_one(void **state)
{
    const char *text = "{\"n\":7}\n{\"n\":8}\n";
    struct json_line *splitter = json_line_new(10);
    int objects = 0;

    (void)state;
    for (const char *c = text; *c; c++) {
        assert_true(json_line_feed(splitter, c, 1));
        objects += step(splitter) == JSON_LINE_OBJECT;
    }
    assert_int_equal(objects, 2);
    json_line_free(splitter);
}

static void a_bad_line_spoils_only_itself(void **state)
{
    static const char *const bad[] = {"{\"n\":1",
                                      "[1]",
                                      "17",
                                      "\"text\"",
                                      "null",
                                      "nonsense",
                                      "{\"n\":1} {\"n\":2}",
                                      "{\"n\":1,\"n\":2}",
                                      "{\"n\":\"\xff\"}",
                                      "{\"n\":\"\\u0000\"}"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct json_line *splitter = json_line_new(100);

        feed(splitter, bad[i]);
        feed(splitter, "\n{\"n\":5}\n");
        if (step(splitter) != JSON_LINE_BAD) {
            fail_msg("%s was taken", bad[i]);
        }
        assert_true(strlen(reason) > 0);
        assert_int_equal(next_number(splitter), 5);
        assert_int_equal(step(splitter), JSON_LINE_MORE);
        json_line_free(splitter);
    }
}

static void a_nul_in_a_line_is_no_end(void **state)
{
    struct json_line *splitter = json_line_new(100);

    (void)state;
    assert_true(json_line_feed(splitter, "{\"n\":1}\0\n", 9));
    assert_int_equal(step(splitter), JSON_LINE_BAD);
    json_line_free(splitter);
}

static void the_limit_is_exact(void **state)
{
    struct json_line *splitter = json_line_new(7);

    (void)state;
    feed(splitter, "{\"n\":1}\n");
    assert_int_equal(next_number(splitter), 1);
    feed(splitter, "{\"n\":2}");
    assert_int_equal(step(splitter), JSON_LINE_MORE);
    feed(splitter, "\n{\"n\":12}\n{\"n\":3}\n");
    assert_int_equal(next_number(splitter), 2);
    assert_int_equal(step(splitter), JSON_LINE_TOO_LONG);
    assert_non_null(strstr(reason, "7 bytes"));
    /* For good: what follows may be the middle of anything. */
    feed(splitter, "{\"n\":4}\n");
    assert_int_equal(step(splitter), JSON_LINE_TOO_LONG);
    json_line_free(splitter);
}

static void a_line_without_end_is_refused_early(void **state)
{
    struct json_line *splitter = json_line_new(1000);
    char chunk[100];
    int feeds = 0;

    (void)state;
    memset(chunk, ' ', sizeof chunk);
    while (step(splitter) == JSON_LINE_MORE) {
        assert_true(json_line_feed(splitter, chunk, sizeof chunk));
        feeds++;
    }
    assert_int_equal(feeds, 11);
    json_line_free(splitter);
}

static void a_text_is_one_line_and_comes_back(void **state)
{
    json_t *object = json_pack("{s:s,s:i}", "text", "two\nlines \u00e9", "n", 9);
    struct json_line *splitter = json_line_new(100);
    json_t *back;
    size_t length;
    char *text = json_line_text(object, &length);

    (void)state;
    assert_non_null(text);
    assert_int_equal(strlen(text), length);
    assert_ptr_equal(strchr(text, '\n'), text + length - 1);
    feed(splitter, text);
    assert_int_equal(json_line_next(splitter, &back, reason), JSON_LINE_OBJECT);
    assert_true(json_equal(object, back));
    json_decref(back);
    json_decref(object);
    free(text);
    json_line_free(splitter);
}

static void a_string_of_any_bytes_becomes_json(void **state)
{
    json_t *good = json_line_string("caf\u00e9"), *bad = json_line_string("caf\xe9!");

    (void)state;
    assert_string_equal(json_string_value(good), "caf\u00e9");
    assert_string_equal(json_string_value(bad), "caf?!");
    json_decref(good);
    json_decref(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_gives_the_same_objects),
        cmocka_unit_test(bytes_one_by_one),
        cmocka_unit_test(a_bad_line_spoils_only_itself),
        cmocka_unit_test(a_nul_in_a_line_is_no_end),
        cmocka_unit_test(the_limit_is_exact),
        cmocka_unit_test(a_line_without_end_is_refused_early),
        cmocka_unit_test(a_text_is_one_line_and_comes_back),
        cmocka_unit_test(a_string_of_any_bytes_becomes_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * What both tests of `watari resolve` say: command lines split into words, and what watarid's status tells of an undecided migration, in
 * pieces.
 */
#ifndef WATARI_TESTS_UNIT_RESOLVE_WORDS_H
#define WATARI_TESTS_UNIT_RESOLVE_WORDS_H

#include "words.h"

#include <jansson.h>

#define AT_SOURCE \
    "\"id\":\"0a\",\"side\":\"source\",\"vm\":\"web1\",\"peer\":\"east\",\"undecided\":true,"
#define AT_DESTINATION \
    "\"id\":\"0a\",\"side\":\"destination\",\"vm\":\"web1\",\"peer\":\"west\",\"undecided\":true,"
#define PAUSED "\"qemu\":{\"pid\":4711,\"state\":\"paused\"},"
#define RUNNING "\"qemu\":{\"pid\":4711,\"state\":\"running\"},"
#define ENDED "\"qemu\":{\"pid\":4711,\"state\":\"ended\"},"
#define FROM(who, what) "\"awaited_from\":\"" who "\",\"awaited\":\"" what "\","

static json_t *load(const char *text)
{
    json_error_t error;
    json_t *object = json_loads(text, 0, &error);

    if (!object) {
        fail_msg("%s: %s", error.text, text);
    }
    return object;
}

static void expect_part(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("no \"%s\" in: %s", part, text);
    }
}

#endif

/*
 * A command line for tests, made of the words between spaces. getopt reorders its argv, so each test gets one of its own.
 */
#ifndef WATARI_TESTS_UNIT_WORDS_H
#define WATARI_TESTS_UNIT_WORDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MAX_WORDS 16

struct words {
    char *argv[MAX_WORDS + 1];
    int argc;
    char copy[512];
};

static void split(struct words *words, const char *line)
{
    char *save = NULL;

    *words = (struct words){0};
    snprintf(words->copy, sizeof words->copy, "%s", line);
    for (char *word = strtok_r(words->copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        assert_true(words->argc < MAX_WORDS);
        words->argv[words->argc++] = word;
    }
}

#endif

/*
 * A timeline that anything may stand in: its lines are told as `watari report` tells them, and its samples given to the controller. Neither may
 * do harm; what is told holds nothing that steers a terminal.
 */
#include "agent/client/report_text.h"
#include "agent/common/json_line.h"
#include "tests/replay/replay.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static json_t *lines_of(const uint8_t *data, size_t size)
{
    struct json_line *splitter = json_line_new(LINE_MAX_BYTES);
    char error[JSON_LINE_ERROR_SIZE];
    json_t *lines = json_array(), *line;
    enum json_line_step step;

    require(splitter && lines && json_line_feed(splitter, data, size));
    while ((step = json_line_next(splitter, &line, error)) == JSON_LINE_OBJECT ||
           step == JSON_LINE_BAD) {
        if (step == JSON_LINE_OBJECT) {
            json_array_append_new(lines, line);
        }
    }
    json_line_free(splitter);
    return lines;
}

static void tell(const json_t *lines)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    require(out != NULL);
    report_text_print(out, lines);
    require(fclose(out) == 0);
    for (size_t i = 0; i < length; i++) {
        require((uint8_t)text[i] >= 0x20 || text[i] == '\n');
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *lines = lines_of(data, size);
    struct replay result = replay_run(lines, convergence_step, NULL, NULL);

    require(result.samples <= json_array_size(lines));
    tell(lines);
    json_decref(lines);
    return 0;
}

/*
 * The splitter of newline-delimited JSON, fed hostile bytes in pieces of any size. The first byte
 * chooses the line limit and how the rest is cut; what comes out must be objects that survive being
 * written and read again.
 */
#include "agent/common/json_line.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void check_object(json_t *object)
{
    char error[JSON_LINE_ERROR_SIZE];
    struct json_line *again = json_line_new(SIZE_MAX / 4);
    size_t length = 0;
    char *text = json_line_text(object, &length);
    json_t *back;

    require(again && text && json_is_object(object));
    require(memchr(text, '\n', length) == text + length - 1);
    require(json_line_feed(again, text, length));
    require(json_line_next(again, &back, error) == JSON_LINE_OBJECT);
    /* Real numbers may lose their last digit on the way, so the values are not compared. */
    require(json_object_size(back) == json_object_size(object));
    json_decref(back);
    free(text);
    json_line_free(again);
}

/* False when the stream is spoilt. */
static bool drain(struct json_line *splitter)
{
    char error[JSON_LINE_ERROR_SIZE];
    json_t *object;

    for (;;) {
        switch (json_line_next(splitter, &object, error)) {
        case JSON_LINE_OBJECT:
            check_object(object);
            json_decref(object);
            break;
        case JSON_LINE_BAD:
            require(!object && error[0]);
            break;
        case JSON_LINE_TOO_LONG:
            require(json_line_next(splitter, &object, error) == JSON_LINE_TOO_LONG);
            return false;
        case JSON_LINE_MORE:
            return true;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_line *splitter;
    size_t piece;

    if (size == 0) {
        return 0;
    }
    splitter = json_line_new((data[0] & 0xf0) * 4u);
    require(splitter != NULL);
    piece = (size_t)(data[0] & 0x0f) + 1;
    for (size_t at = 1; at < size; at += piece) {
        size_t length = size - at < piece ? size - at : piece;

        require(json_line_feed(splitter, data + at, length));
        if (!drain(splitter)) {
            break;
        }
    }
    json_line_free(splitter);
    return 0;
}

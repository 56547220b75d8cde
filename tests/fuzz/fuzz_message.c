/*
 * The body of a MESSAGE frame. What is accepted must be accepted again when it is written out as
 * JSON, as the same type; what is not must leave a sentence without control characters. The same
 * bytes also make a text.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/message.h"

#define ERROR_SIZE 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void sentence_check(const char *error)
{
    assert(error[0] != '\0' && strlen(error) < ERROR_SIZE);
    for (size_t i = 0; error[i] != '\0'; i++) {
        assert((uint8_t)error[i] >= 0x20 && error[i] != 0x7f);
    }
}

static void accepted_check(const json_t *object, enum message_type type)
{
    char *text = json_dumps(object, JSON_COMPACT);
    assert(text != NULL);
    enum message_type again_type;
    char error[ERROR_SIZE];
    json_t *again =
        message_parse((const uint8_t *)text, strlen(text), &again_type, error, ERROR_SIZE);
    assert(again != NULL && again_type == type && json_equal(again, object));
    json_decref(again);
    free(text);
}

static void text_check(const uint8_t *data, size_t size)
{
    char *bytes = strndup((const char *)data, size);
    assert(bytes != NULL);
    json_t *text = message_text(bytes);
    assert(text != NULL);
    json_t *refuse =
        json_pack("{ss,ss,so}", "type", "aborted", "migration", "0123456789abcdef", "text", text);
    enum message_type type;
    char error[ERROR_SIZE];
    assert(message_check(refuse, &type, error, ERROR_SIZE));
    json_decref(refuse);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum message_type type;
    char error[ERROR_SIZE] = "";
    json_t *object = message_parse(data, size, &type, error, ERROR_SIZE);
    if (object == NULL) {
        sentence_check(error);
    } else {
        accepted_check(object, type);
        json_decref(object);
    }
    text_check(data, size);
    return 0;
}

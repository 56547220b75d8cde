#include "control_arguments.h"

#include <inttypes.h>
#include <string.h>

bool control_arguments_known(json_t *object, const char *const names[], struct error *error)
{
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        size_t i = 0;

        while (names[i] && strcmp(names[i], name) != 0) {
            i++;
        }
        if (!names[i]) {
            return error_set(error, "invalid-argument", "there is no argument \"%.100s\" here",
                             name);
        }
    }
    return true;
}

static bool has_control_character(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

bool control_argument_string(const json_t *object, const char *name, bool required, size_t size,
                             const char **out, struct error *error)
{
    const json_t *value = json_object_get(object, name);

    *out = json_string_value(value);
    if (!value && !required) {
        return true;
    }
    if (!*out || **out == '\0') {
        return error_set(error, "invalid-argument", "\"%s\" must be a string that is not empty",
                         name);
    }
    if (strlen(*out) >= size) {
        return error_set(error, "invalid-argument", "\"%s\" is longer than %zu bytes", name,
                         size - 1);
    }
    if (has_control_character(*out)) {
        return error_set(error, "invalid-argument", "\"%s\" holds a control character", name);
    }
    return true;
}

bool control_argument_integer(const json_t *object, const char *name, int64_t low, int64_t high,
                              int64_t *value, struct error *error)
{
    const json_t *member = json_object_get(object, name);
    json_int_t given;

    if (!member) {
        return true;
    }
    given = json_integer_value(member);
    if (!json_is_integer(member) || given < low || given > high) {
        return error_set(error, "invalid-argument",
                         "\"%s\" must be a whole number from %" PRId64 " to %" PRId64, name, low,
                         high);
    }
    *value = given;
    return true;
}

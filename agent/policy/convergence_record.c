#include "convergence_record.h"

#include <stddef.h>
#include <string.h>

enum kind { KIND_BOOL, KIND_U32, KIND_U64, KIND_MODE };

struct member {
    const char *name;
    size_t offset;
    enum kind kind;
};

#define SAMPLE(name, kind)                                     \
    {                                                          \
#name, offsetof(struct convergence_sample, name), kind \
    }
#define LIMIT(name, kind)                                      \
    {                                                          \
#name, offsetof(struct convergence_limits, name), kind \
    }
#define COUNT(list) (sizeof(list) / sizeof *(list))

static const struct member sample_members[] = {
    SAMPLE(now_ms, KIND_U64),
    SAMPLE(elapsed_ms, KIND_U64),
    SAMPLE(round, KIND_U64),
    SAMPLE(memory_left, KIND_U64),
    SAMPLE(memory_dirty_rate, KIND_U64),
    SAMPLE(in_flight, KIND_U64),
    SAMPLE(in_flight_ms, KIND_U32),
    SAMPLE(memory_rate, KIND_U64),
    SAMPLE(memory_rate_least, KIND_U64),
    SAMPLE(disk_left, KIND_U64),
    SAMPLE(disk_rate, KIND_U64),
    SAMPLE(pass_ms, KIND_U32),
    SAMPLE(fixed_ms, KIND_U32),
    SAMPLE(pass_running, KIND_BOOL),
    SAMPLE(pass_left, KIND_U64),
    SAMPLE(cpu_throttle, KIND_U32),
};
_Static_assert(sizeof(struct convergence_sample) == 15 * sizeof(uint64_t),
               "a member of the sample that came or went is a line above as well");

static const struct member limit_members[] = {
    LIMIT(mode, KIND_MODE),
    LIMIT(max_downtime_ms, KIND_U32),
    LIMIT(max_quick_downtime_ms, KIND_U32),
    LIMIT(deadline_ms, KIND_U32),
    LIMIT(max_throttle, KIND_U32),
    LIMIT(can_throttle_disks, KIND_BOOL),
    LIMIT(can_throttle_cpus, KIND_BOOL),
};
_Static_assert(sizeof(struct convergence_limits) == 6 * sizeof(uint32_t),
               "a member of the limits that came or went is a line above as well");

static const char *const modes[] = {
    [CONVERGENCE_AUTO] = "auto", [CONVERGENCE_LIVE] = "live", [CONVERGENCE_QUICK] = "quick"};

static const char *const verdicts[] = {
    [CONVERGENCE_GO_ON] = "go-on",
    [CONVERGENCE_WAIT] = "wait",
    [CONVERGENCE_THROTTLE_DISKS] = "throttle-disks",
    [CONVERGENCE_THROTTLE_CPUS] = "throttle-cpus",
    [CONVERGENCE_SWITCH_OVER] = "switch-over",
    [CONVERGENCE_FALL_BACK] = "fall-back",
    [CONVERGENCE_GIVE_UP] = "give-up",
};

/* --- writing --- */

static json_t *value_of(const void *place, enum kind kind)
{
    switch (kind) {
    case KIND_BOOL:
        return json_boolean(*(const bool *)place);
    case KIND_U32:
        return json_integer(*(const uint32_t *)place);
    case KIND_U64:
        return json_integer((json_int_t) * (const uint64_t *)place);
    case KIND_MODE:
        break;
    }
    return json_string(modes[*(const enum convergence_mode *)place]);
}

static json_t *record_of(const void *structure, const struct member *members, size_t count)
{
    json_t *record = json_object();

    for (size_t i = 0; i < count; i++) {
        const void *place = (const char *)structure + members[i].offset;

        if (json_object_set_new(record, members[i].name, value_of(place, members[i].kind)) < 0) {
            json_decref(record);
            return NULL;
        }
    }
    return record;
}

json_t *convergence_sample_record(const struct convergence_sample *sample)
{
    return record_of(sample, sample_members, COUNT(sample_members));
}

json_t *convergence_limits_record(const struct convergence_limits *limits)
{
    return record_of(limits, limit_members, COUNT(limit_members));
}

const char *convergence_verdict_name(enum convergence_verdict verdict)
{
    return verdicts[verdict];
}

/* --- reading --- */

/* The index of WORD; false when it is none of LIST. */
static bool find_word(const char *const *list, size_t count, const char *word, size_t *index)
{
    for (size_t i = 0; word && i < count; i++) {
        if (strcmp(list[i], word) == 0) {
            *index = i;
            return true;
        }
    }
    return false;
}

static bool take_mode(const json_t *value, enum convergence_mode *mode)
{
    size_t index;

    if (!find_word(modes, COUNT(modes), json_string_value(value), &index)) {
        return false;
    }
    *mode = (enum convergence_mode)index;
    return true;
}

static bool take_number(const json_t *value, uint64_t most, uint64_t *number)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > most) {
        return false;
    }
    *number = (uint64_t)json_integer_value(value);
    return true;
}

static bool take_value(const json_t *value, void *place, enum kind kind)
{
    uint64_t number;

    switch (kind) {
    case KIND_BOOL:
        *(bool *)place = json_is_true(value);
        return json_is_boolean(value);
    case KIND_U32:
        if (!take_number(value, UINT32_MAX, &number)) {
            return false;
        }
        *(uint32_t *)place = (uint32_t)number;
        return true;
    case KIND_U64:
        return take_number(value, UINT64_MAX, place);
    case KIND_MODE:
        break;
    }
    return take_mode(value, place);
}

static bool take_record(const json_t *record, void *structure, const struct member *members,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(record, members[i].name);

        if (value && !take_value(value, (char *)structure + members[i].offset, members[i].kind)) {
            return false;
        }
    }
    return true;
}

bool convergence_sample_of(const json_t *record, struct convergence_sample *sample)
{
    memset(sample, 0, sizeof *sample);
    return take_record(record, sample, sample_members, COUNT(sample_members));
}

bool convergence_limits_of(const json_t *record, struct convergence_limits *limits)
{
    memset(limits, 0, sizeof *limits);
    return take_record(record, limits, limit_members, COUNT(limit_members));
}

bool convergence_verdict_of(const char *name, enum convergence_verdict *verdict)
{
    size_t index;

    if (!find_word(verdicts, COUNT(verdicts), name, &index)) {
        return false;
    }
    *verdict = (enum convergence_verdict)index;
    return true;
}

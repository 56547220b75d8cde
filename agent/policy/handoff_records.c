#include "handoff_records.h"

#include <stddef.h>

static const char *name_of(const json_t *record)
{
    const char *name = json_string_value(json_object_get(record, "record"));

    return name ? name : "";
}

static uint32_t number(const json_t *record, const char *member)
{
    return (uint32_t)json_integer_value(json_object_get(record, member));
}

static uint32_t flag(const json_t *record, const char *member)
{
    return json_is_true(json_object_get(record, member)) ? 1 : 0;
}

struct handoff_source_journal handoff_source_records(const json_t *records)
{
    struct handoff_source_journal journal = {0};
    const json_t *at;
    size_t i;

    json_array_foreach(records, i, at)
    {
        enum source_record record = handoff_source_record_by_name(name_of(at));

        handoff_source_journal_add(&journal, record,
                                   record == SOURCE_RECORD_ROLLED_BACK ? flag(at, "owes_abort")
                                                                       : number(at, "refusal"));
    }
    return journal;
}

struct handoff_destination_journal handoff_destination_records(const json_t *records)
{
    struct handoff_destination_journal journal = {0};
    const json_t *at;
    size_t i;

    json_array_foreach(records, i, at)
    {
        enum destination_record record = handoff_destination_record_by_name(name_of(at));

        handoff_destination_journal_add(
            &journal, record,
            record == DESTINATION_RECORD_COMMITTED ? flag(at, "forced") : number(at, "refusal"));
    }
    return journal;
}

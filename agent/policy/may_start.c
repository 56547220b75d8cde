#include "may_start.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}

static const json_t *record_named(const json_t *records, const char *name)
{
    for (size_t i = json_array_size(records); i-- > 0;) {
        const json_t *record = json_array_get(records, i);

        if (strcmp(text_of(record, "record"), name) == 0) {
            return record;
        }
    }
    return NULL;
}

/* By name, or by a disk: under the name it had, or the one it was marked with. */
static bool concerns(const json_t *begin, const char *what)
{
    const json_t *disk;
    size_t i;

    if (strcmp(text_of(begin, "vm"), what) == 0) {
        return true;
    }
    json_array_foreach(json_object_get(begin, "disks"), i, disk)
    {
        const char *path = json_is_string(disk) ? json_string_value(disk) : text_of(disk, "path");

        if (strcmp(path, what) == 0 || strcmp(text_of(disk, "mark"), what) == 0) {
            return true;
        }
    }
    return false;
}

enum verdict { SAYS_NOTHING, SAYS_YES, SAYS_NO };

static enum verdict judge_source(const json_t *records, const json_t *begin, char *reason,
                                 size_t size)
{
    const char *peer = text_of(begin, "peer");

    if (record_named(records, "rolled-back")) {
        snprintf(reason, size, "it stayed here: the migration to %s was rolled back", peer);
        return SAYS_YES;
    }
    if (record_named(records, "taken-back")) {
        snprintf(reason, size, "it was taken back from %s", peer);
        return SAYS_YES;
    }
    if (record_named(records, "done")) {
        snprintf(reason, size, "it has moved to %s", peer);
        return SAYS_NO;
    }
    snprintf(reason, size,
             record_named(records, "committed")
                 ? "it has been handed over to %s; the end is undecided here (watari status)"
                 : "a migration to %s is under way (watari status)",
             peer);
    return SAYS_NO;
}

static enum verdict judge_destination(const json_t *records, const json_t *begin, char *reason,
                                      size_t size)
{
    const char *peer = text_of(begin, "peer");

    if (record_named(records, "owned") || record_named(records, "done")) {
        snprintf(reason, size, "it came from %s and belongs to this host", peer);
        return SAYS_YES;
    }
    if (record_named(records, "abandoned")) {
        return SAYS_NOTHING; /* it never was here */
    }
    snprintf(reason, size, "a migration from %s is undecided (watari status)", peer);
    return SAYS_NO;
}

bool may_start(const char *what, const struct may_start_journal *journals, size_t count,
               char *reason, size_t reason_size)
{
    enum verdict verdict = SAYS_NOTHING;
    int64_t latest = INT64_MIN;

    snprintf(reason, reason_size, "no migration of it is known here");
    for (size_t i = 0; i < count; i++) {
        const json_t *begin = record_named(journals[i].records, "begin");
        enum verdict says;
        char why[256];

        if (!begin || !concerns(begin, what)) {
            continue;
        }
        says = strcmp(text_of(begin, "side"), "source") == 0
                   ? judge_source(journals[i].records, begin, why, sizeof why)
                   : judge_destination(journals[i].records, begin, why, sizeof why);
        /* Equal stamps (a clock that stands): the "no" counts. */
        if (says != SAYS_NOTHING &&
            (journals[i].written > latest || (journals[i].written == latest && says == SAYS_NO))) {
            latest = journals[i].written;
            verdict = says;
            snprintf(reason, reason_size, "%s", why);
        }
    }
    return verdict != SAYS_NO;
}

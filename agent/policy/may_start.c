#include "may_start.h"

#include "handoff_records.h"

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

/* Why, in the words for an operator. */
static void give_reason(enum handoff_start says, const char *peer, const char *id, char *reason,
                        size_t size)
{
    switch (says) {
    case START_SAYS_NOTHING:
        break;
    case START_STAYED_HERE:
        snprintf(reason, size, "it stayed here: the migration to %s was rolled back", peer);
        break;
    case START_TAKEN_BACK:
        snprintf(reason, size, "it was taken back from %s", peer);
        break;
    case START_WITHDRAWN:
        snprintf(reason, size, "an operator decided that it runs here, not at %s", peer);
        break;
    case START_CAME_HERE:
        snprintf(reason, size, "it came from %s and belongs to this host", peer);
        break;
    case START_RESUMES:
        snprintf(reason, size,
                 "it is to run here, not at %s, in the QEMU that it has (watari status %s)", peer,
                 id);
        break;
    case START_UNDER_WAY:
        snprintf(reason, size, "a migration to %s is under way (watari status %s)", peer, id);
        break;
    case START_UNDECIDED:
        snprintf(reason, size,
                 "a migration from %s is undecided here (watari status %s, watari resolve %s)",
                 peer, id, id);
        break;
    case START_HANDED_OVER:
        snprintf(
            reason, size,
            "it has been handed over to %s; the end is undecided here (watari status %s, watari resolve %s)",
            peer, id, id);
        break;
    case START_MOVED_AWAY:
        snprintf(reason, size, "it has moved to %s", peer);
        break;
    case START_CONFLICT:
        snprintf(reason, size, "both this host and %s own it (watari status %s, watari resolve %s)",
                 peer, id, id);
        break;
    }
}

static enum handoff_start judge(const struct may_start_journal *from, const json_t *begin)
{
    if (strcmp(text_of(begin, "side"), "source") == 0) {
        const struct handoff_source_journal journal = handoff_source_records(from->records);

        return handoff_source_may_start(&journal, from->qemu_lives);
    }
    const struct handoff_destination_journal journal = handoff_destination_records(from->records);

    return handoff_destination_may_start(&journal);
}

/* An end is wanting: that counts whatever the clocks said when it began. */
static bool is_open(enum handoff_start says)
{
    return !handoff_start_allowed(says) && says != START_MOVED_AWAY;
}

/* When it began. Journals of before that was noted are placed by the time of their last record. */
static int64_t began(const struct may_start_journal *journal, const json_t *begin)
{
    const json_t *noted = json_object_get(begin, "began_s");

    return json_is_integer(noted) ? json_integer_value(noted) : journal->written;
}

bool may_start(const char *what, const struct may_start_journal *journals, size_t count,
               char *reason, size_t reason_size)
{
    int64_t latest = INT64_MIN;
    bool may = true;

    snprintf(reason, reason_size, "no migration of it is known here");
    for (size_t i = 0; i < count; i++) {
        const json_t *begin = record_named(journals[i].records, "begin");
        enum handoff_start says;
        bool allows;
        int64_t at;

        if (!begin || !concerns(begin, what)) {
            continue;
        }
        says = judge(&journals[i], begin);
        allows = handoff_start_allowed(says);
        at = is_open(says) ? INT64_MAX : began(&journals[i], begin);
        /* Equal times (a clock that stands): the "no" counts. */
        if (says != START_SAYS_NOTHING && (at > latest || (at == latest && !allows))) {
            latest = at;
            may = allows;
            give_reason(says, text_of(begin, "peer"), text_of(begin, "migration"), reason,
                        reason_size);
        }
    }
    return may;
}

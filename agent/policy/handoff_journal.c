#include "handoff_journal.h"

#include <stddef.h>
#include <string.h>

static const char *const source_names[SOURCE_RECORD_COUNT] = {
    [SOURCE_RECORD_BEGIN] = "begin",
    [SOURCE_RECORD_PAUSED] = "paused",
    [SOURCE_RECORD_COMMITTED] = "committed",
    [SOURCE_RECORD_TRY_AGAIN] = "try-again",
    [SOURCE_RECORD_TAKING_BACK] = "taking-back",
    [SOURCE_RECORD_TAKEN_BACK] = "taken-back",
    [SOURCE_RECORD_WITHDRAWN] = "withdrawn",
    [SOURCE_RECORD_CONFLICT] = "conflict",
    [SOURCE_RECORD_GIVEN_UP] = "given-up",
    [SOURCE_RECORD_DONE] = "done",
    [SOURCE_RECORD_ROLLED_BACK] = "rolled-back",
    [SOURCE_RECORD_ACKNOWLEDGED] = "acknowledged",
};

static const char *const destination_names[DESTINATION_RECORD_COUNT] = {
    [DESTINATION_RECORD_BEGIN] = "begin",         [DESTINATION_RECORD_LOADED] = "loaded",
    [DESTINATION_RECORD_COMMITTED] = "committed", [DESTINATION_RECORD_OWNED] = "owned",
    [DESTINATION_RECORD_CONFLICT] = "conflict",   [DESTINATION_RECORD_REFUSED] = "refused",
    [DESTINATION_RECORD_ABANDONED] = "abandoned", [DESTINATION_RECORD_DONE] = "done",
};

static size_t find(const char *const *names, size_t count, const char *name)
{
    size_t i = 0;

    while (i < count && strcmp(names[i], name) != 0) {
        i++;
    }
    return i;
}

const char *handoff_source_record_name(enum source_record record)
{
    return source_names[record];
}

enum source_record handoff_source_record_by_name(const char *name)
{
    return (enum source_record)find(source_names, SOURCE_RECORD_COUNT, name);
}

void handoff_source_journal_add(struct handoff_source_journal *journal, enum source_record record,
                                uint32_t value)
{
    switch (record) {
    case SOURCE_RECORD_BEGIN:
        journal->begun = true;
        break;
    case SOURCE_RECORD_PAUSED:
        journal->paused = true;
        break;
    case SOURCE_RECORD_COMMITTED:
        journal->committed = true;
        break;
    case SOURCE_RECORD_TRY_AGAIN:
        journal->taking_back = false;
        journal->tried_again = value;
        break;
    case SOURCE_RECORD_TAKING_BACK:
        journal->taking_back = true;
        break;
    case SOURCE_RECORD_TAKEN_BACK:
        journal->taken_back = true;
        break;
    case SOURCE_RECORD_WITHDRAWN:
        journal->withdrawn = true;
        break;
    case SOURCE_RECORD_CONFLICT:
        journal->conflict = true;
        break;
    case SOURCE_RECORD_GIVEN_UP:
        journal->given_up = true;
        break;
    case SOURCE_RECORD_DONE:
        journal->done = true;
        break;
    case SOURCE_RECORD_ROLLED_BACK:
        journal->rolled_back = true;
        journal->owes_abort = value != 0;
        break;
    case SOURCE_RECORD_ACKNOWLEDGED:
        journal->acknowledged = true;
        break;
    case SOURCE_RECORD_COUNT:
        break;
    }
}

const char *handoff_destination_record_name(enum destination_record record)
{
    return destination_names[record];
}

enum destination_record handoff_destination_record_by_name(const char *name)
{
    return (enum destination_record)find(destination_names, DESTINATION_RECORD_COUNT, name);
}

void handoff_destination_journal_add(struct handoff_destination_journal *journal,
                                     enum destination_record record, uint32_t value)
{
    switch (record) {
    case DESTINATION_RECORD_BEGIN:
        journal->begun = true;
        break;
    case DESTINATION_RECORD_LOADED:
        journal->last = record;
        break;
    case DESTINATION_RECORD_COMMITTED:
        journal->last = record;
        journal->forced = value != 0;
        break;
    case DESTINATION_RECORD_CONFLICT:
        journal->conflict = true;
        break;
    case DESTINATION_RECORD_REFUSED:
        journal->last = record;
        journal->refusals = value;
        break;
    case DESTINATION_RECORD_OWNED:
        journal->owned = true;
        break;
    case DESTINATION_RECORD_ABANDONED:
        journal->abandoned = true;
        break;
    case DESTINATION_RECORD_DONE:
        journal->done = true;
        break;
    case DESTINATION_RECORD_COUNT:
        break;
    }
}

enum handoff_start handoff_source_may_start(const struct handoff_source_journal *journal,
                                            bool qemu_lives)
{
    if (!journal->begun) {
        return START_SAYS_NOTHING;
    }
    if (journal->done) {
        return START_MOVED_AWAY;
    }
    if (journal->rolled_back) {
        return journal->taken_back ? START_TAKEN_BACK : START_STAYED_HERE;
    }
    if (journal->taken_back) {
        return qemu_lives ? START_RESUMES : START_TAKEN_BACK;
    }
    if (journal->conflict) {
        return START_CONFLICT;
    }
    if (journal->withdrawn) {
        return qemu_lives ? START_RESUMES : START_WITHDRAWN;
    }
    return journal->committed ? START_HANDED_OVER : START_UNDER_WAY;
}

enum handoff_start handoff_destination_may_start(const struct handoff_destination_journal *journal)
{
    if (journal->abandoned || !journal->begun) {
        return START_SAYS_NOTHING;
    }
    if (journal->conflict) {
        return START_CONFLICT;
    }
    return journal->owned || journal->done ? START_CAME_HERE : START_UNDECIDED;
}

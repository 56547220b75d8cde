/*
 * What the two journals of a migration say of the handoff: its records by number and name, what a restart concludes from them, and whether
 * they allow an autostart. Pure; any thread. The file format is agent/common/journal_file.h's; undo records concern nobody here.
 *
 *   source        begin · paused · committed · [try-again{refusal} · taking-back · taken-back] · [withdrawn · conflict] · [given-up]
 *                 · done | rolled-back{owes_abort} · acknowledged
 *                 begin · [paused · taking-back] · rolled-back{owes_abort} · acknowledged
 *   destination   begin · loaded · [committed{forced} · owned · conflict] · [refused{refusal}] · abandoned | done
 */
#ifndef WATARI_POLICY_HANDOFF_JOURNAL_H
#define WATARI_POLICY_HANDOFF_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

enum source_record {
    SOURCE_RECORD_BEGIN,
    SOURCE_RECORD_PAUSED, /* the guest is about to be paused: from here on the destination may have all of it */
    SOURCE_RECORD_COMMITTED, /* it never runs here again by itself */
    SOURCE_RECORD_TRY_AGAIN, /* it cannot be resumed here and was not: the destination may try again */
    SOURCE_RECORD_TAKING_BACK,  /* it may run here from now on */
    SOURCE_RECORD_TAKEN_BACK,   /* it is this host's again */
    SOURCE_RECORD_WITHDRAWN,    /* an operator decided for this host: no COMMIT ever again */
    SOURCE_RECORD_CONFLICT,     /* both own it; the copy here was stopped */
    SOURCE_RECORD_GIVEN_UP,     /* an operator gave up the QEMU here */
    SOURCE_RECORD_DONE,         /* the destination owns it */
    SOURCE_RECORD_ROLLED_BACK,  /* everything is as before */
    SOURCE_RECORD_ACKNOWLEDGED, /* the destination knows */
    SOURCE_RECORD_COUNT,
};

struct handoff_source_journal {
    bool begun, paused, committed, withdrawn, conflict, given_up, taken_back, done, rolled_back,
        owes_abort, acknowledged;
    bool taking_back;     /* and no try-again since */
    uint32_t tried_again; /* the refusal of the last try-again */
};

/* VALUE: the refusal's number of a try-again, 1 for a rolled-back that owes an abort, else 0. */
void handoff_source_journal_add(struct handoff_source_journal *journal, enum source_record record,
                                uint32_t value);
const char *handoff_source_record_name(enum source_record record);
/* SOURCE_RECORD_COUNT when it is none of the handoff's. */
enum source_record handoff_source_record_by_name(const char *name);

enum destination_record {
    DESTINATION_RECORD_BEGIN,
    DESTINATION_RECORD_LOADED,    /* a whole copy waits; after COMMITTED: and has not run */
    DESTINATION_RECORD_COMMITTED, /* it may have run */
    DESTINATION_RECORD_OWNED,     /* it is this host's */
    DESTINATION_RECORD_CONFLICT,  /* both own it; the copy here was stopped */
    DESTINATION_RECORD_REFUSED, /* it has not run, and will not unless the source says "try again" */
    DESTINATION_RECORD_ABANDONED, /* it has not run and never will */
    DESTINATION_RECORD_DONE,      /* it is this host's, and the source knows */
    DESTINATION_RECORD_COUNT,
};

struct handoff_destination_journal {
    bool begun, owned, conflict, abandoned, done;
    bool forced;                  /* COMMITTED by an operator */
    enum destination_record last; /* of LOADED, COMMITTED, REFUSED; BEGIN: none yet */
    uint32_t refusals;            /* the number of the latest */
};

/* VALUE: the number of a refused, 1 for a committed by an operator, else 0. */
void handoff_destination_journal_add(struct handoff_destination_journal *journal,
                                     enum destination_record record, uint32_t value);
const char *handoff_destination_record_name(enum destination_record record);
enum destination_record handoff_destination_record_by_name(const char *name);

/* Does a migration with such a journal let this host start the VM by itself? */
enum handoff_start {
    START_SAYS_NOTHING, /* it never was here */
    START_STAYED_HERE,  /* yes */
    START_TAKEN_BACK,   /* yes */
    START_WITHDRAWN,    /* yes: an operator decided so */
    START_CAME_HERE,    /* yes */
    /* No, and so are the rest: it is to run here, in the QEMU that it has, which may not be resumed yet. */
    START_RESUMES,
    START_UNDER_WAY,
    START_UNDECIDED,
    START_HANDED_OVER,
    START_MOVED_AWAY,
    START_CONFLICT,
};
/* QEMU_LIVES: the one that the journal's begin record names. Its image locks are gone in postmigrate: nothing but this answer keeps a second one
 * from starting before it is resumed. */
enum handoff_start handoff_source_may_start(const struct handoff_source_journal *journal,
                                            bool qemu_lives);
enum handoff_start handoff_destination_may_start(const struct handoff_destination_journal *journal);
static inline bool handoff_start_allowed(enum handoff_start start)
{
    return start <= START_CAME_HERE;
}

#endif

/*
 * The last word of a source that the destination has not acknowledged, repeated until it does, over restarts, from the journal:
 *
 *   abort   after a rollback: the destination may hold a whole, paused copy, which only the source's word (or an operator) ends
 *   done    after a handover: the destination keeps its record until it knows that nothing is left at the source
 *
 * Owns itself, and lives as long as it must; farewell_free_all() at the daemon's end. Loop thread only.
 */
#ifndef WATARI_DAEMON_FAREWELL_H
#define WATARI_DAEMON_FAREWELL_H

struct daemon;
struct journal;

enum farewell_word { FAREWELL_ABORT, FAREWELL_DONE };

/* Takes over JOURNAL, in which "acknowledged" will close the matter. */
void farewell_begin(struct daemon *daemon, const char *peer, const char *migration,
                    enum farewell_word word, struct journal *journal);
void farewell_free_all(struct daemon *daemon);

#endif

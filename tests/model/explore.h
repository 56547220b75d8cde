/*
 * Explores every history of the handoff in the world of world.h, breadth first, so that the first history that breaks a rule is one of the
 * shortest. It runs the shipped functions of agent/policy/handoff.h and handoff_journal.h; the model does around them what the daemons do.
 * One exploration at a time and thread.
 *
 * What is modelled. Each host: its daemon (which may die, and be started again), the journal (records that are written, which a dead daemon
 * leaves behind; records that are synced, which a reset leaves behind; of the others any number from the first on), the names of the disks,
 * QEMU, and a VM that was started from the disks by an autostart that asked may-start. The link: the source dials; what goes to the
 * destination arrives in order within a connection, but one message of a broken connection may stay in a buffer and arrive at any time
 * later, before or after those of newer connections; messages arrive twice; either end may lose the connection before the other does.
 * `cont` that is obeyed, refused, or answered by nothing. Clocks in steps of 5 s, one of which may run ahead of the other by one step for
 * each of [SKEWS]. A process that is stopped by SIGSTOP needs no state of its own: every step of a process may come as late as it likes, and
 * time passes before it. What may go wrong is counted, not timed: see main.c for how much at once.
 *
 * The rules (rules.c). In every state: at most one copy runs; a guest never starts from what is older than the newest that ran; no daemon
 * ends the only copy, nor removes the only newest disks; never may both hosts start it; the source commits only when its journal says so
 * and its disks have their new names, both on the disk, and not while it knows that the guest runs there. At the end: it runs, or may be started, at exactly one host, from the newest
 * disks. From every state, with nothing more going wrong, it comes to its end, or to a state in which an operator is needed for a reason
 * that rules_needs_operator() names; and from there, with what an operator may do, to its end.
 *
 * What is not, or not so:
 *   - The check of a COMMIT's age and `cont` are one step, and a live QEMU obeys `cont` within 5 s: a daemon stopped, or a QEMU that hangs,
 *     just between them for longer than HANDOFF_MARGIN_MS is not in it.
 *   - A guest that somebody resumes behind watari's back counts from the moment that its daemon has heard of it and lets it run on. Until
 *     then it is a stray copy: it must be stopped, and what it did is lost.
 *   - An operator at the source who is truthful has looked at the destination: QEMU does not run the guest there, and its journal does not
 *     say that it may have (an exploration of its own has operators who look at QEMU only). One at the destination says --source-is-off
 *     only when nothing runs at the source, and that host's copy has not run since; when it comes back all the same, or an operator at the
 *     source has not looked, two may run until both hosts have talked, and the copy at the source, or the one that was forced, is stopped.
 *   - When the very record cannot be written that a paused guest is about to be resumed here, it is resumed all the same. If then QEMU dies
 *     and the daemon, too, before the destination has heard of it, the old copy there would be taken for the only one.
 *   - An autostart happens only when the VM's old QEMU is gone, and may-start syncs what it reads before it says yes.
 *   - A restarted daemon syncs its journal, and the directories of the names, before it goes by them.
 *   - A VM that was started from its disks is another process: in a conflict the daemon can report it, and cannot stop it. Explorations
 *     with an operator who has not looked have no autostart.
 *   - Data: movers, passes and hashes are one step ("its QEMU has given everything away", "has loaded everything").
 */
#ifndef WATARI_TESTS_MODEL_EXPLORE_H
#define WATARI_TESTS_MODEL_EXPLORE_H

#include "world.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct exploration {
    const char *name;
    struct world_options options;
};

struct exploration_result {
    uint64_t states, transitions;
    unsigned depth;
    bool complete;      /* not stopped by MAX_STATES */
    const char *broken; /* NULL: every rule held */
    unsigned steps;     /* of the history that broke it */
    double seconds;
};

/* Prints the history of a broken rule, and where only an operator ends it. */
struct exploration_result explore(const struct exploration *exploration, uint32_t max_states,
                                  FILE *out);

/* --- telling a history --- */

/* What EVENT did, as a sentence; NAMES are those of the nonces in BEFORE. */
void tell_event(FILE *out, const struct world *before, const struct nonce_names *names,
                enum event event, unsigned argument);
/* What became of it. */
void tell_change(FILE *out, const struct world *before, const struct world *after);
/* All of a state, on a few lines. */
void tell_world(FILE *out, const struct world *world);

#endif

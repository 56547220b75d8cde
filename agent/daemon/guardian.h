/*
 * The guardian: starts watarid again at once when it was killed, where nothing else does. Under systemd (NOTIFY_SOCKET is set, and the unit
 * says Restart=always) there is none. It is the process that was started; the daemon is its child:
 *
 *   guardian ── fork ──> watarid           killed by a signal: forked again
 *            ── SIGTERM, SIGINT, SIGHUP ─>
 *            <── exit code ──              ended by itself, or told to end: the guardian ends alike
 *
 * A guest may stand still, paused and not yet handed over, when the daemon is killed; the first act of the next daemon is to resume it
 * (recover.h). Why a new daemon and not a guardian that resumes the guest itself: that one would have to follow the daemon through every
 * migration, holding QMP, journal and undo list, to know when the guest must not be resumed. It would be a second implementation of recovery
 * that runs only when things go wrong already, and it would restore the guest but nothing else. This one knows nothing, opens nothing and
 * shares nothing with the daemon, so nothing but a signal of its own ends it; the recovery is the one that every start runs, and it
 * restores everything. It takes the time of a fork and of reading the journals, well below the promised 2 s.
 *
 * When the guardian itself is killed, the daemon goes on without it.
 */
#ifndef WATARI_DAEMON_GUARDIAN_H
#define WATARI_DAEMON_GUARDIAN_H

#include <stdbool.h>

/* Whether something outside starts watarid again. */
bool guardian_is_needed(void);

/*
 * To be called first, before there is a thread, an open file or a handler. Returns true in the daemon, once for each of its lives, with
 * signals as they were; and false in the guardian, when all is over: it is to end with *CODE.
 */
bool guardian_start(int *code);

#endif

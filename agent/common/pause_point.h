/*
 * Places where a test can stop the whole process, to kill it or its neighbours just there. Compiled in by -Dpause_points=true only, which no
 * package does; without it a pause point is nothing. Loop thread only.
 *
 * WATARI_PAUSE_AT in the environment: names separated by commas. Where one is reached the process logs it and stops (SIGSTOP), once for
 * each name; whoever set it sees state T in /proc/PID/stat and ends the pause by SIGCONT. SIDE is source or destination:
 *
 *   SIDE-phase-PHASE       a word of policy/phase.h: the phase has been told to those who watch, and nothing of it is done yet
 *   SIDE-STATE[-done]      a state of policy/handoff_names.c: entered, and nothing of it is done; -done: all of it was begun
 *   source-device-state    all of QEMU's stream has come, and the source's mover keeps its last segment back, so that no load completes
 */
#ifndef WATARI_COMMON_PAUSE_POINT_H
#define WATARI_COMMON_PAUSE_POINT_H

#include <stdbool.h>

#define PAUSE_POINT_DEVICE_STATE "source-device-state"

#ifdef WATARI_PAUSE_POINTS
void pause_point(const char *name);
/* Whether the process will stop at NAME. */
bool pause_point_ahead(const char *name);
#else
static inline void pause_point(const char *name)
{
    (void)name;
}
static inline bool pause_point_ahead(const char *name)
{
    (void)name;
    return false;
}
#endif

#endif

/*
 * Places where a test can stop the whole process, to kill it or its neighbours just there. Compiled in by -Dpause_points=true only, which no
 * package does; without it a pause point is nothing. Loop thread only.
 *
 * WATARI_PAUSE_AT in the environment: names separated by commas. Where one is reached the process logs it and stops (SIGSTOP), once for
 * each name; whoever set it sees state T in /proc/PID/stat and ends the pause by SIGCONT.
 */
#ifndef WATARI_COMMON_PAUSE_POINT_H
#define WATARI_COMMON_PAUSE_POINT_H

#ifdef WATARI_PAUSE_POINTS
void pause_point(const char *name);
#else
static inline void pause_point(const char *name)
{
    (void)name;
}
#endif

#endif

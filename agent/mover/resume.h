/*
 * Which RESUMEs are answered. Each concerns the disk thread and the memory thread, and is answered
 * by one RESUMED when both have done their part; while one is not, no lane may be started. A
 * daemon that lost the link again need not wait for the answer before it orders the next: they are
 * answered in order, and a thread may do its part of several at once.
 *
 * Pure; any thread.
 */
#ifndef WATARI_MOVER_RESUME_H
#define WATARI_MOVER_RESUME_H

#include <pthread.h>
#include <stdbool.h>

enum resume_part { RESUME_DISK, RESUME_MEMORY, RESUME_PARTS };

struct resume {
    pthread_mutex_t mutex; /* guards the rest: how many there were since BEGIN */
    unsigned ordered, answered;
    unsigned done[RESUME_PARTS];
};

void resume_init(struct resume *resume);
/* One more was ordered. */
void resume_order(struct resume *resume);
/* PART is done with COUNT more of them. Returns how many RESUMED are to be reported for that. */
unsigned resume_done(struct resume *resume, enum resume_part part, unsigned count);
/* Whether one is not answered. */
bool resume_is_pending(struct resume *resume);

#endif

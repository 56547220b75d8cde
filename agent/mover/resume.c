#include "resume.h"

#include <assert.h>

void resume_init(struct resume *resume)
{
    *resume = (struct resume){0};
    pthread_mutex_init(&resume->mutex, NULL);
}

void resume_order(struct resume *resume)
{
    pthread_mutex_lock(&resume->mutex);
    resume->ordered++;
    pthread_mutex_unlock(&resume->mutex);
}

unsigned resume_done(struct resume *resume, enum resume_part part, unsigned count)
{
    unsigned both, before;

    pthread_mutex_lock(&resume->mutex);
    resume->done[part] += count;
    assert(resume->done[part] <= resume->ordered);
    both = resume->done[RESUME_DISK];
    if (resume->done[RESUME_MEMORY] < both) {
        both = resume->done[RESUME_MEMORY];
    }
    before = resume->answered;
    resume->answered = both;
    pthread_mutex_unlock(&resume->mutex);
    return both - before;
}

bool resume_is_pending(struct resume *resume)
{
    bool pending;

    pthread_mutex_lock(&resume->mutex);
    pending = resume->answered != resume->ordered;
    pthread_mutex_unlock(&resume->mutex);
    return pending;
}

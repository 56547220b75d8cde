#include "mover.h"
#include "agent/common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Puts a FAIL frame before everything else that waits to be sent. Without memory for it the peer
 * only sees the lanes end. */
static void tell_peer(struct mover *mover, const char *text)
{
    size_t length = strnlen(text, FRAME_FAIL_TEXT_MAX);
    struct work *work;

    if (mover->outbox == NULL || length == 0) {
        return;
    }
    work = work_new(FRAME_FAIL, (uint32_t)length);
    if (work == NULL) {
        return;
    }
    memcpy(work->data, text, length);
    outbox_put(mover->outbox, work);
}

bool mover_fail(struct mover *mover, const char *id, const char *text, ...)
{
    char whole[ORDERS_TEXT_SIZE];
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(whole, sizeof whole, text, arguments);
    va_end(arguments);
    if (reporter_fail(&mover->reporter, id, whole)) {
        log_error("%s: %s", id, whole);
        tell_peer(mover, whole);
    }
    return false;
}

bool mover_fail_by_peer(struct mover *mover, const char *text)
{
    char whole[ORDERS_TEXT_SIZE];

    snprintf(whole, sizeof whole, "the mover at the other side gave up: %.400s", text);
    if (reporter_fail(&mover->reporter, "lane", whole)) {
        log_error("lane: %s", whole);
        atomic_store(&mover->fail_sent, true);
    }
    return false;
}

bool mover_fail_memory(struct mover *mover)
{
    return mover_fail(mover, "memory", "the mover is out of memory");
}

void mover_resumed(struct mover *mover, enum resume_part part, unsigned count)
{
    const struct report report = {.type = REPORT_RESUMED};

    for (unsigned due = resume_done(&mover->resume, part, count); due > 0; due--) {
        reporter_put(&mover->reporter, &report);
    }
}

bool mover_start_thread(struct mover *mover, pthread_t *thread, const char *name,
                        void *(*run)(void *), void *argument)
{
    int error = pthread_create(thread, NULL, run, argument);

    if (error != 0) {
        return mover_fail(mover, "memory", "cannot start the %s thread: %s", name, strerror(error));
    }
    pthread_setname_np(*thread, name);
    return true;
}

uint64_t mover_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

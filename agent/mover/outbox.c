#include "outbox.h"

#include <pthread.h>
#include <stdlib.h>

enum work_class { CLASS_SMALL, CLASS_MEMORY, CLASS_DISK, CLASS_COUNT };

struct outbox_lane {
    struct waker waker;
    bool idle;
};

struct outbox {
    pthread_mutex_t mutex;
    struct work_list lists[CLASS_COUNT];
    enum work_class served; /* which of memory and disk was served last */
    size_t lane_count;
    struct outbox_lane lanes[];
};

static enum work_class class_of(enum frame_type type)
{
    if (type == FRAME_SEGMENT) {
        return CLASS_MEMORY;
    }
    if (type == FRAME_EXTENT) {
        return CLASS_DISK;
    }
    return CLASS_SMALL;
}

struct outbox *outbox_new(size_t lanes)
{
    struct outbox *outbox = calloc(1, sizeof *outbox + lanes * sizeof outbox->lanes[0]);

    if (outbox == NULL) {
        return NULL;
    }
    outbox->served = CLASS_DISK;
    pthread_mutex_init(&outbox->mutex, NULL);
    for (outbox->lane_count = 0; outbox->lane_count < lanes; outbox->lane_count++) {
        if (!waker_open(&outbox->lanes[outbox->lane_count].waker)) {
            outbox_free(outbox);
            return NULL;
        }
    }
    return outbox;
}

void outbox_free(struct outbox *outbox)
{
    if (outbox == NULL) {
        return;
    }
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        struct work *work;

        while ((work = work_list_take(&outbox->lists[i])) != NULL) {
            work_unref(work);
        }
    }
    for (size_t i = 0; i < outbox->lane_count; i++) {
        waker_close(&outbox->lanes[i].waker);
    }
    pthread_mutex_destroy(&outbox->mutex);
    free(outbox);
}

/* A lane without work, which then no longer counts as idle; NULL when all are busy: they will come
 * by themselves. */
static struct outbox_lane *pick_idle(struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->lane_count; i++) {
        if (outbox->lanes[i].idle) {
            outbox->lanes[i].idle = false;
            return &outbox->lanes[i];
        }
    }
    return NULL;
}

void outbox_put(struct outbox *outbox, struct work *work)
{
    struct outbox_lane *lane;

    pthread_mutex_lock(&outbox->mutex);
    work_list_put(&outbox->lists[class_of(work->type)], work);
    lane = pick_idle(outbox);
    pthread_mutex_unlock(&outbox->mutex);
    if (lane != NULL) {
        waker_wake(&lane->waker);
    }
}

static struct work *take_in_turn(struct outbox *outbox)
{
    enum work_class other = outbox->served == CLASS_DISK ? CLASS_MEMORY : CLASS_DISK;
    struct work *work = work_list_take(&outbox->lists[CLASS_SMALL]);

    if (work != NULL) {
        return work;
    }
    work = work_list_take(&outbox->lists[other]);
    if (work == NULL) {
        return work_list_take(&outbox->lists[outbox->served]);
    }
    outbox->served = other;
    return work;
}

struct work *outbox_take(struct outbox *outbox, size_t lane, bool will_wait)
{
    struct work *work;

    pthread_mutex_lock(&outbox->mutex);
    work = take_in_turn(outbox);
    outbox->lanes[lane].idle = work == NULL && will_wait;
    pthread_mutex_unlock(&outbox->mutex);
    return work;
}

void outbox_leave(struct outbox *outbox, size_t lane)
{
    struct outbox_lane *other = NULL;
    bool something_waits = false;

    pthread_mutex_lock(&outbox->mutex);
    outbox->lanes[lane].idle = false;
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        something_waits = something_waits || outbox->lists[i].count > 0;
    }
    if (something_waits) {
        other = pick_idle(outbox);
    }
    pthread_mutex_unlock(&outbox->mutex);
    if (other != NULL) {
        waker_wake(&other->waker);
    }
}

void outbox_drop(struct outbox *outbox, enum frame_type type)
{
    struct work_list *list = &outbox->lists[class_of(type)];
    struct work_list all = {0};
    struct work *work;

    pthread_mutex_lock(&outbox->mutex);
    work_list_move(&all, list);
    while ((work = work_list_take(&all)) != NULL) {
        if (work->type == type) {
            work_unref(work);
        } else {
            work_list_put(list, work);
        }
    }
    pthread_mutex_unlock(&outbox->mutex);
}

void outbox_wake(struct outbox *outbox, size_t lane)
{
    waker_wake(&outbox->lanes[lane].waker);
}

const struct waker *outbox_waker(const struct outbox *outbox, size_t lane)
{
    return &outbox->lanes[lane].waker;
}

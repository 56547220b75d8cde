#include "outbox.h"

#include <pthread.h>
#include <stdlib.h>

/* Shares of the link are whole sixteenths: 1 to 15. */
#define SHARES 16u
/* Besides its data a frame has a header; an extent of zeroes has nothing else. */
#define FRAME_COST 40u

enum work_class { CLASS_SMALL, CLASS_MEMORY, CLASS_DISK, CLASS_COUNT };

struct outbox_lane {
    struct waker waker;
    bool idle;
};

struct outbox {
    pthread_mutex_t mutex;
    struct work_list lists[CLASS_COUNT];
    uint64_t left[CLASS_COUNT]; /* bytes; 0: not known */
    /* What each has had, divided by its share: the lower one is next. */
    uint64_t clock[CLASS_COUNT];
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

static uint64_t share_of_memory(const struct outbox *outbox)
{
    uint64_t memory = outbox->left[CLASS_MEMORY], disk = outbox->left[CLASS_DISK];
    uint64_t share;

    if (memory == 0 || disk == 0) {
        return SHARES / 2;
    }
    share = (uint64_t)((double)memory / ((double)memory + (double)disk) * SHARES + 0.5);
    if (share < 1) {
        return 1;
    }
    return share < SHARES ? share : SHARES - 1;
}

/* WORK of CLASS has been taken. */
static void charge(struct outbox *outbox, enum work_class class, const struct work *work)
{
    enum work_class other = class == CLASS_MEMORY ? CLASS_DISK : CLASS_MEMORY;
    uint64_t memory = share_of_memory(outbox);
    uint64_t share = class == CLASS_MEMORY ? memory : SHARES - memory;

    outbox->clock[class] += (FRAME_COST + (uint64_t)work->length) * SHARES / share;
    /* Who has nothing to send saves nothing up. */
    if (outbox->lists[other].count == 0 && outbox->clock[other] < outbox->clock[class]) {
        outbox->clock[other] = outbox->clock[class];
    }
    outbox->left[class] -= work->length < outbox->left[class] ? work->length : outbox->left[class];
}

static struct work *take_in_turn(struct outbox *outbox)
{
    enum work_class next = CLASS_MEMORY;
    struct work *work = work_list_take(&outbox->lists[CLASS_SMALL]);

    if (work != NULL) {
        return work;
    }
    if (outbox->lists[CLASS_MEMORY].count == 0 ||
        (outbox->lists[CLASS_DISK].count > 0 &&
         outbox->clock[CLASS_DISK] < outbox->clock[CLASS_MEMORY])) {
        next = CLASS_DISK;
    }
    work = work_list_take(&outbox->lists[next]);
    if (work != NULL) {
        charge(outbox, next, work);
    }
    return work;
}

void outbox_set_left(struct outbox *outbox, enum frame_type type, uint64_t bytes)
{
    pthread_mutex_lock(&outbox->mutex);
    outbox->left[class_of(type)] = bytes;
    pthread_mutex_unlock(&outbox->mutex);
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

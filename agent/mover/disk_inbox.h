/*
 * What reaches a disk thread: orders from the main thread, in their order and before all else, and
 * work from the lanes.
 *
 * Any thread puts; the disk thread takes and polls the waker.
 */
#ifndef WATARI_MOVER_DISK_INBOX_H
#define WATARI_MOVER_DISK_INBOX_H

#include "orders.h"
#include "waker.h"
#include "work.h"

#include <pthread.h>
#include <stdbool.h>

struct disk_order {
    struct disk_order *next;
    struct order order;
    int fd; /* that came with it, the owner's to close; -1 */
};

struct disk_inbox {
    pthread_mutex_t mutex;
    struct disk_order *first, *last;
    struct work_list work;
    struct waker waker;
};

/* False when there is no descriptor left. */
bool disk_inbox_open(struct disk_inbox *inbox);
/* Takes FD over. False when there is no memory: FD is then closed. */
bool disk_inbox_put_order(struct disk_inbox *inbox, const struct order *order, int fd);
void disk_inbox_put(struct disk_inbox *inbox, struct work *work);
/* All that is there, in one step; orders as a list to be freed one by one. */
void disk_inbox_take(struct disk_inbox *inbox, struct disk_order **orders, struct work_list *work);

#endif

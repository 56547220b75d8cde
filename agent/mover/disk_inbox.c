#include "disk_inbox.h"

#include <stdlib.h>
#include <unistd.h>

bool disk_inbox_open(struct disk_inbox *inbox)
{
    *inbox = (struct disk_inbox){0};
    pthread_mutex_init(&inbox->mutex, NULL);
    return waker_open(&inbox->waker);
}

bool disk_inbox_put_order(struct disk_inbox *inbox, const struct order *order, int fd)
{
    struct disk_order *node = calloc(1, sizeof *node);

    if (node == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    node->order = *order;
    node->fd = fd;
    pthread_mutex_lock(&inbox->mutex);
    if (inbox->last == NULL) {
        inbox->first = node;
    } else {
        inbox->last->next = node;
    }
    inbox->last = node;
    pthread_mutex_unlock(&inbox->mutex);
    waker_wake(&inbox->waker);
    return true;
}

void disk_inbox_put(struct disk_inbox *inbox, struct work *work)
{
    bool was_empty;

    pthread_mutex_lock(&inbox->mutex);
    was_empty = inbox->work.count == 0;
    work_list_put(&inbox->work, work);
    pthread_mutex_unlock(&inbox->mutex);
    if (was_empty) {
        waker_wake(&inbox->waker);
    }
}

void disk_inbox_take(struct disk_inbox *inbox, struct disk_order **orders, struct work_list *work)
{
    /* Before the lists are looked at: what is put after that wakes again. */
    waker_clear(&inbox->waker);
    pthread_mutex_lock(&inbox->mutex);
    *orders = inbox->first;
    inbox->first = inbox->last = NULL;
    work_list_move(work, &inbox->work);
    pthread_mutex_unlock(&inbox->mutex);
}

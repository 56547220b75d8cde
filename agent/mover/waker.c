#include "waker.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool waker_open(struct waker *waker)
{
    waker->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return waker->fd >= 0;
}

void waker_close(struct waker *waker)
{
    if (waker->fd >= 0) {
        close(waker->fd);
    }
    waker->fd = -1;
}

void waker_wake(const struct waker *waker)
{
    const uint64_t one = 1;
    ssize_t done = write(waker->fd, &one, sizeof one);

    /* EAGAIN: the counter is full, so the reader will wake anyway. */
    assert(done == sizeof one || errno == EAGAIN);
    (void)done;
}

void waker_clear(const struct waker *waker)
{
    uint64_t count;
    ssize_t done = read(waker->fd, &count, sizeof count);

    /* EAGAIN: nobody has woken us; clearing is then nothing. */
    assert(done == sizeof count || errno == EAGAIN);
    (void)done;
}

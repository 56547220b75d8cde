/*
 * A waker lets one thread end another one's poll(): an eventfd with two verbs. Any thread may wake;
 * the one that polls clears.
 */
#ifndef WATARI_MOVER_WAKER_H
#define WATARI_MOVER_WAKER_H

#include <stdbool.h>

struct waker {
    int fd; /* readable after a wake until it is cleared; -1 when not open */
};

/* False, with errno set, when there is no descriptor left. */
bool waker_open(struct waker *waker);
void waker_close(struct waker *waker);
/* Never blocks. */
void waker_wake(const struct waker *waker);
void waker_clear(const struct waker *waker);

#endif

/*
 * Reports to the daemon. Data threads put them into a list and go on; only the main thread sends,
 * so a daemon that is slow to read never holds up a data thread.
 */
#ifndef WATARI_MOVER_REPORT_H
#define WATARI_MOVER_REPORT_H

#include "orders.h"
#include "waker.h"

#include <pthread.h>
#include <stdbool.h>

struct report_node;

struct reporter {
    pthread_mutex_t mutex;
    struct report_node *first, *last;
    bool failed; /* FAILURE is set: what ends this mover */
    struct report failure;
    struct waker waker; /* wakes the main thread */
};

/* False when there is no descriptor left. */
bool reporter_open(struct reporter *reporter);

/* Any thread. */
void reporter_put(struct reporter *reporter, const struct report *report);
/* Any thread. False when something else had failed before; that stands. */
bool reporter_fail(struct reporter *reporter, const char *id, const char *text);
bool reporter_has_failed(struct reporter *reporter);

enum reporter_step {
    REPORTER_EMPTY,   /* all sent */
    REPORTER_BLOCKED, /* call again when the socket is writable */
    REPORTER_GONE,    /* the daemon's end is closed */
};

/* Main thread. Sends one report on FD without blocking. */
enum reporter_step report_send(int fd, const struct report *report);
/* Main thread. Sends what waits. BEFORE, called ahead of each PASS_DONE, VERIFIED and MEMORY_DONE,
 * sends a fresh SAMPLE, so that the daemon has the figures that belong to it. */
enum reporter_step reporter_flush(struct reporter *reporter, int fd, void (*before)(void *context),
                                  void *context);

#endif

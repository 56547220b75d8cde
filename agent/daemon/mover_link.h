/*
 * The daemon's end of a mover: starts watari-mover as an unprivileged process with nothing but our socketpair, sends it orders and
 * hands on its reports (agent/mover/orders.h). Owned by a migration; loop thread only.
 */
#ifndef WATARI_DAEMON_MOVER_LINK_H
#define WATARI_DAEMON_MOVER_LINK_H

#include "agent/common/error.h"
#include "agent/mover/orders.h"

#include <sys/types.h>

struct daemon;
struct mover_link;

struct mover_handlers {
    /* LANE_LOST and FAILED come here too. */
    void (*report)(const struct report *report, void *context);
    /* The process has ended without being told to: "mover-died". Orders sent from now on are dropped. */
    void (*ended)(const struct error *error, void *context);
};

/* NULL with an error ("mover-failed"). */
struct mover_link *mover_link_new(struct daemon *daemon, const struct mover_handlers *handlers,
                                  void *context, struct error *error);
/* Queues ORDER with FD (taken over; -1: none). Never calls back from within. */
void mover_link_send(struct mover_link *link, const struct order *order, int fd);
/* Kills it, and calls GONE when all that it had open is closed; perhaps from within. No handler is called any more. LINK is freed as ever. */
void mover_link_end(struct mover_link *link, void (*gone)(void *context), void *context);
/* Closes our end: the mover ends by itself. NULL is fine. */
void mover_link_free(struct mover_link *link);
pid_t mover_link_pid(const struct mover_link *link);

#endif

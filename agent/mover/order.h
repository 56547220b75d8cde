/*
 * Orders from the daemon: received, checked, and carried to whom they concern. The daemon is
 * trusted, but a mover that has misunderstood an order must not go on, so whatever is not as
 * orders.h says ends it.
 *
 * Main thread.
 */
#ifndef WATARI_MOVER_ORDER_H
#define WATARI_MOVER_ORDER_H

#include "mover.h"

enum order_step {
    ORDER_TAKEN,
    ORDER_NONE, /* nothing waits */
    ORDER_GONE, /* the daemon's end is closed */
    ORDER_BAD,  /* after mover_fail */
};

/* Receives one order from ORDERS_FD without blocking and obeys it. */
enum order_step order_take(struct mover *mover);

#endif

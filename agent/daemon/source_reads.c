/*
 * No NBD command of ours in the source QEMU's hands while it drains a disk.
 *
 * `transaction`, block_set_io_throttle, `stop` and the end of an export drain: QEMU waits until all that is under way at a disk is done, and
 * keeps what is new out. In QEMU 7.2 that goes wrong in two ways while an export is read (nbd/server.c, io/channel.c):
 *
 *   - The main thread wakes the export's coroutine that waits for the next command. With the disk in an iothread, a command that comes in just
 *     then has that thread wake it too, and QEMU dies of a null pointer (qio_channel_restart_read() -> aio_co_wake()).
 *   - An answer that nobody reads any more, of a mover that has died, never gets done: QEMU hangs, and the guest with it.
 *
 * So these commands wait for the mover's word that it has nothing under way and begins nothing (READS_HOLD, orders.h). Several may do so at a
 * time; the last one that is through lets it go on. A mover that dies meanwhile is replaced by one that begins held, and answers nobody
 * awaits are given up first (source_passes_again()).
 */
#include "source_state.h"

#include "agent/common/must.h"

#include <stdlib.h>

struct reads_waiter {
    void (*then)(void *context);
    void *context;
    STAILQ_ENTRY(reads_waiter) link;
};

static void order(struct source *source, enum order_type type)
{
    struct order order = {.type = type};

    source_order(source, &order, -1);
}

/* Those that wait now; what they do may add others, which are called at once. */
void source_reads_turn(struct source *source)
{
    struct reads_waiter *waiter;

    while (source->reads.held && source->exports_of_the_dead == 0 &&
           (waiter = STAILQ_FIRST(&source->reads.waiters))) {
        void (*then)(void *context) = waiter->then;
        void *context = waiter->context;

        STAILQ_REMOVE_HEAD(&source->reads.waiters, link);
        free(waiter);
        then(context);
    }
}

void source_reads_hold(struct source *source, void (*then)(void *context), void *context)
{
    struct reads_waiter *waiter;

    if (source->failing) {
        return;
    }
    waiter = must_alloc(sizeof *waiter);
    waiter->then = then;
    waiter->context = context;
    STAILQ_INSERT_TAIL(&source->reads.waiters, waiter, link);
    if (source->reads.holders++ == 0) {
        order(source, ORDER_READS_HOLD);
    } else {
        source_reads_turn(source);
    }
}

void source_reads_go(struct source *source)
{
    if (source->failing || --source->reads.holders > 0) {
        return;
    }
    source->reads.held = false;
    order(source, ORDER_READS_GO);
}

void source_reads_held(struct source *source)
{
    if (source->reads.holders == 0 || source->reads.held) {
        source_fail_text(source, "mover-failed",
                         "the mover of this host says that it holds what it was not told to");
        return;
    }
    source->reads.held = true;
    source_reads_turn(source);
}

void source_reads_new_mover(struct source *source)
{
    source->reads.held = false;
    if (source->reads.holders > 0) {
        order(source, ORDER_READS_HOLD);
    }
}

void source_reads_forget(struct source *source)
{
    struct reads_waiter *waiter;

    while ((waiter = STAILQ_FIRST(&source->reads.waiters))) {
        STAILQ_REMOVE_HEAD(&source->reads.waiters, link);
        free(waiter);
    }
    source->reads.holders = 0;
    source->reads.held = false;
}

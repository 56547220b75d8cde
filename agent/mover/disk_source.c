#include "disk_source.h"
#include "disk_inbox.h"
#include "disk_pass.h"
#include "disk_verify.h"
#include "window.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

/* Bytes of all disks that are on their way at a time: read or being read, sent or not, without a
 * DONE. The window bounds them in time. The most bounds our memory, and what the destination must
 * hold; on a link of 20 ms it is enough for 1 GB/s. */
#define BYTES_OUT_FIRST (4u << 20)
#define BYTES_OUT_MIN WORK_UNIT_MAX
#define BYTES_OUT_MAX (24u << 20)
/* The smallest unit on a slow link: a cluster of qcow2. */
#define UNIT_MIN (64u << 10)
/* Passes whose connections are open, running or not: a daemon that never says RELEASE. */
#define PASSES_MAX 256u

struct disk_source {
    struct mover *mover;
    struct disk_inbox inbox;
    pthread_t thread;
    struct request_table requests;
    struct disk_verify *verify; /* NULL without ORDER_FLAG_VERIFY */
    struct window window;       /* for the bytes of all passes */
    uint64_t acknowledged;      /* bytes that count for it */
    unsigned resumes;           /* RESUMEs to obey when the answers that came before are taken in */
    bool reads_held;            /* no NBD command may begin */
    bool reads_held_told;
    bool disk_known[ORDERS_MAX_DISKS];
    struct order_disk disks[ORDERS_MAX_DISKS];
    struct pass *passes;
    struct pollfd fds[1 + PASSES_MAX];
    struct pass *polled[1 + PASSES_MAX]; /* whose descriptor it is */
};

static struct pass **find_pass(struct disk_source *source, uint32_t disk, uint32_t number)
{
    struct pass **place = &source->passes;

    while (*place != NULL && ((*place)->order.disk != disk || (*place)->order.pass != number)) {
        place = &(*place)->next;
    }
    return place;
}

static unsigned count_passes(const struct disk_source *source, bool running_only)
{
    unsigned count = 0;

    for (const struct pass *pass = source->passes; pass != NULL; pass = pass->next) {
        count += !running_only || pass_is_running(pass);
    }
    return count;
}

static bool disk_is_busy(const struct disk_source *source, uint32_t disk)
{
    for (const struct pass *pass = source->passes; pass != NULL; pass = pass->next) {
        if (pass->order.disk == disk && pass_is_running(pass)) {
            return true;
        }
    }
    return false;
}

static bool order_disk(struct disk_source *source, const struct order_disk *order)
{
    source->disk_known[order->disk] = true;
    source->disks[order->disk] = *order;
    return source->verify == NULL || disk_verify_add(source->verify, order);
}

static bool order_verify(struct disk_source *source)
{
    const char *why = NULL;

    if (source->verify == NULL) {
        why = "BEGIN did not say that there would be one";
    } else if (count_passes(source, true) > 0) {
        why = "a pass still runs";
    }
    if (why != NULL) {
        return mover_fail(source->mover, "orders", "VERIFY: %s", why);
    }
    return disk_verify_freeze(source->verify);
}

static struct stale_map *stale_of(struct disk_source *source, uint32_t disk)
{
    return source->verify != NULL ? disk_verify_stale(source->verify, disk) : NULL;
}

static bool order_pass(struct disk_source *source, const struct order_pass *order, int fd)
{
    struct pass *pass;
    const char *why = NULL;

    if (!source->disk_known[order->disk]) {
        why = "no DISK order came before";
    } else if (order->from > source->disks[order->disk].size) {
        why = "it begins behind the end";
    } else if (disk_is_busy(source, order->disk)) {
        why = "its last pass still runs";
    } else if (*find_pass(source, order->disk, order->pass) != NULL) {
        why = "there was one of that number";
    } else if (count_passes(source, false) == PASSES_MAX) {
        why = "too many passes are not released";
    }
    if (why != NULL) {
        close(fd);
        return mover_fail(source->mover, "orders", "PASS %u of disk %u: %s", order->pass,
                          order->disk, why);
    }
    pass = pass_new(source->mover, &source->requests, stale_of(source, order->disk),
                    &source->disks[order->disk], order, fd);
    if (pass == NULL) {
        return false;
    }
    pass->next = source->passes;
    source->passes = pass;
    return true;
}

static bool order_release(struct disk_source *source, const struct order_pass *order)
{
    struct pass **place = find_pass(source, order->disk, order->pass);
    struct pass *pass = *place;
    const char *why = NULL;

    if (pass == NULL) {
        why = "there is none";
    } else if (pass_is_running(pass)) {
        why = "it still runs";
    } else if (order->pass == 0 && source->verify != NULL &&
               disk_verify_needs(source->verify, order->disk)) {
        why = "the disk is not verified yet";
    }
    if (why != NULL) {
        return mover_fail(source->mover, "orders", "RELEASE of pass %u of disk %u: %s", order->pass,
                          order->disk, why);
    }
    *place = pass->next;
    pass_free(pass);
    return true;
}

static bool obey(struct disk_source *source, const struct order *order, int fd)
{
    switch (order->type) {
    case ORDER_DISK:
        return order_disk(source, &order->disk);
    case ORDER_PASS:
        return order_pass(source, &order->pass, fd);
    case ORDER_RELEASE:
        return order_release(source, &order->pass);
    case ORDER_VERIFY:
        return order_verify(source);
    case ORDER_READS_HOLD:
        source->reads_held = true;
        source->reads_held_told = false;
        return true;
    case ORDER_READS_GO:
        source->reads_held = false;
        return true;
    case ORDER_RESUME:
        source->resumes++;
        return true;
    case ORDER_LIMIT:
        window_rate_changes(&source->window);
        return true;
    default:
        return mover_fail(source->mover, "orders", "order %u is not for the disk thread",
                          (unsigned)order->type);
    }
}

/* The bulk pass tells the comparison its connection, and every pass that there is something new. */
static void pass_may_be_over(struct disk_source *source, const struct pass *pass)
{
    struct pass *bulk = *find_pass(source, pass->order.disk, 0);

    if (source->verify != NULL && bulk != NULL && !pass_is_running(pass)) {
        disk_verify_pass_over(source->verify, pass->order.disk, bulk->link);
    }
}

static bool take_done(struct disk_source *source, struct request *request,
                      const struct frame_done *done)
{
    struct pass *pass = request->pass;

    if (request->length > 0) {
        source->acknowledged += request->length;
        window_received(&source->window, mover_now_us(), request->sent_us, source->acknowledged);
    }
    if (!pass_request_done(pass, request, done->status)) {
        return false;
    }
    pass_may_be_over(source, pass);
    return true;
}

/* A DONE or a DIGEST. */
static bool take_answer(struct disk_source *source, const struct work *answer)
{
    bool is_digest = answer->type == FRAME_DIGEST;
    uint64_t id = is_digest ? answer->digest.request : answer->done.request;
    struct request *request = request_find(&source->requests, id);

    /* Only a VERIFY belongs to no pass. */
    if (request == NULL || is_digest != (request->pass == NULL)) {
        return mover_fail(source->mover, "protocol",
                          "the peer answered request %llu, which was never sent or was answered",
                          (unsigned long long)id);
    }
    return is_digest ? disk_verify_answer(source->verify, request, &answer->digest)
                     : take_done(source, request, &answer->done);
}

static bool take_inbox(struct disk_source *source)
{
    struct disk_order *order;
    struct work_list arrived = {0};
    struct work *work;
    bool is_good = true;

    disk_inbox_take(&source->inbox, &order, &arrived);
    while (order != NULL) {
        struct disk_order *next = order->next;

        is_good = is_good && obey(source, &order->order, order->fd);
        free(order);
        order = next;
    }
    while ((work = work_list_take(&arrived)) != NULL) {
        is_good = is_good && take_answer(source, work);
        work_unref(work);
    }
    return is_good;
}

/* All lanes are over: what has no answer goes out again, for those that come. */
static void send_again(struct disk_source *source)
{
    struct outbox *outbox = source->mover->outbox;
    struct request *request;
    size_t position = 0;

    if (source->resumes == 0) {
        return;
    }
    outbox_drop(outbox, FRAME_EXTENT);
    outbox_drop(outbox, FRAME_FLUSH);
    outbox_drop(outbox, FRAME_VERIFY);
    window_restart(&source->window);
    while ((request = request_next_sent(&source->requests, &position)) != NULL) {
        if (request->pass != NULL) {
            pass_send_again(request->pass, request);
        } else {
            outbox_put(outbox, work_ref(request->work));
        }
    }
    mover_resumed(source->mover, RESUME_DISK, source->resumes);
    source->resumes = 0;
}

/* What is left to be sent of the passes that run, so that the lanes know what to give them. What is
 * under way in them counts too: the little that this is too much does no harm. */
static void tell_left(struct disk_source *source)
{
    uint64_t left = 0;

    for (uint32_t i = 0; i < ORDERS_MAX_DISKS; i++) {
        left += count_get(&source->mover->counters.pass_left[i]);
    }
    outbox_set_left(source->mover->outbox, FRAME_EXTENT, left);
}

/* All passes that run get the same share, so that a slow disk cannot take everything. */
static bool go_on(struct disk_source *source)
{
    unsigned running = count_passes(source, true);
    struct pass_budget budget;
    bool is_full = false;

    if (running == 0) {
        atomic_store_explicit(&source->mover->disk_full, false, memory_order_relaxed);
        return true;
    }
    /* One request of each share is kept for the flush, and some for comparisons. */
    budget.requests = (REQUESTS_MAX - COMPARISONS_MAX) / running - 1;
    budget.bytes = (atomic_load(&source->mover->guest_is_paused) ? BYTES_OUT_MAX
                                                                 : window_limit(&source->window)) /
                   running;
    budget.unit = window_unit(&source->window, UNIT_MIN, WORK_UNIT_MAX);
    for (struct pass *pass = source->passes; pass != NULL; pass = pass->next) {
        if (!pass_go_on(pass, &budget)) {
            return false;
        }
        is_full = is_full || pass_is_full(pass, &budget);
    }
    tell_left(source);
    if (is_full) {
        window_was_full(&source->window);
    }
    atomic_store_explicit(&source->mover->disk_full, is_full, memory_order_relaxed);
    return true;
}

static bool is_reading(const struct disk_source *source)
{
    for (const struct pass *pass = source->passes; pass != NULL; pass = pass->next) {
        if (pass_is_reading(pass)) {
            return true;
        }
    }
    for (uint32_t i = 0; i < ORDERS_MAX_DISKS; i++) {
        if (source->verify != NULL && disk_verify_reads(source->verify, i)) {
            return true;
        }
    }
    return false;
}

static void tell_held(struct disk_source *source)
{
    struct report report = {.type = REPORT_READS_HELD};

    if (!source->reads_held_told && !is_reading(source)) {
        source->reads_held_told = true;
        reporter_put(&source->mover->reporter, &report);
    }
}

/* Begins what may be begun. False after mover_fail. */
static bool begin_more(struct disk_source *source)
{
    if (source->reads_held) {
        tell_held(source);
        return true;
    }
    return go_on(source) && (source->verify == NULL || disk_verify_go_on(source->verify));
}

/* Whether its connection is of interest. An idle one is not polled: QEMU may end it whenever it
 * likes. */
static bool is_polled(const struct disk_source *source, const struct pass *pass)
{
    return pass_is_running(pass) || (pass->order.pass == 0 && source->verify != NULL &&
                                     disk_verify_reads(source->verify, pass->order.disk));
}

static bool turn(struct disk_source *source, struct pass *pass, short revents)
{
    return pass_is_running(pass) ? pass_turn(pass, revents)
                                 : disk_verify_turn(source->verify, pass->order.disk, revents);
}

static nfds_t prepare_poll(struct disk_source *source)
{
    nfds_t count = 1;

    source->fds[0] = (struct pollfd){.fd = source->inbox.waker.fd, .events = POLLIN};
    for (struct pass *pass = source->passes; pass != NULL; pass = pass->next) {
        if (!is_polled(source, pass)) {
            continue;
        }
        source->fds[count] = disk_link_poll(pass->link);
        source->polled[count] = pass;
        count++;
    }
    return count;
}

static void *run(void *argument)
{
    struct disk_source *source = argument;
    bool is_good = true;

    while (is_good) {
        nfds_t count = prepare_poll(source);

        if (poll(source->fds, count, -1) <= 0) {
            continue;
        }
        for (nfds_t i = 1; i < count && is_good; i++) {
            if (source->fds[i].revents != 0) {
                is_good = turn(source, source->polled[i], source->fds[i].revents);
            }
        }
        is_good = is_good && take_inbox(source);
        if (is_good) {
            send_again(source);
            is_good = begin_more(source);
        }
    }
    return NULL;
}

struct disk_source *disk_source_start(struct mover *mover)
{
    const struct window_bounds bounds = {.slack_us = mover->settings.in_flight_ms * 1000u,
                                         .first = BYTES_OUT_FIRST,
                                         .min = BYTES_OUT_MIN,
                                         .max = BYTES_OUT_MAX};
    struct disk_source *source = calloc(1, sizeof *source);

    if (source == NULL || !disk_inbox_open(&source->inbox)) {
        mover_fail_memory(mover);
        return NULL;
    }
    source->mover = mover;
    request_table_init(&source->requests);
    window_init(&source->window, &bounds);
    if ((mover->settings.flags & ORDER_FLAG_VERIFY) != 0) {
        source->verify = disk_verify_new(mover, &source->requests);
        if (source->verify == NULL) {
            return NULL;
        }
    }
    if (!mover_start_thread(mover, &source->thread, "disk", run, source)) {
        return NULL;
    }
    return source;
}

bool disk_source_order(struct disk_source *source, const struct order *order, int fd)
{
    return disk_inbox_put_order(&source->inbox, order, fd) || mover_fail_memory(source->mover);
}

void disk_source_put(struct disk_source *source, struct work *done)
{
    disk_inbox_put(&source->inbox, done);
}

/*
 * watari-mover: carries the disks and the memory of one migration, on one side of it. Started by
 * watarid, unprivileged, with nothing open but /dev/null, the log, and the socket on which it gets
 * its orders and everything it works with (orders.h). It opens no path and no socket of its own.
 *
 * This file is the main thread: it makes the process small, then takes orders, sends reports and
 * every 100 ms a sample.
 */
#include "mover.h"
#include "lane.h"
#include "order.h"
#include "agent/common/log.h"

#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SAMPLE_US 100000u
/* How long a failing mover waits for its FAIL frame to leave, and for a daemon that is slow to
 * read. Longer would only delay the rollback. */
#define FAIL_FRAME_US 300000u
#define LAST_REPORT_MS 1000

enum exit_status { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static bool is_orders_socket(int fd)
{
    int type = 0, domain = 0;
    socklen_t size = sizeof type;

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/* Gives up what this process has no business with. Before other threads exist. */
static bool make_small(struct mover *mover)
{
    if (close_range(ORDERS_FD + 1, ~0u, 0) != 0) {
        return false;
    }
    /* The last path ever opened. Without /proc the samples have no figure for memory, which hurts
     * nobody. */
    mover->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 ||
        signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
        return false;
    }
    /* Units of up to 1 MiB come and go by the thousand, allocated in one thread and freed in
     * another: one arena, which keeps and reuses them, instead of one a thread or a mapping for
     * each. */
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    return true;
}

static uint64_t resident_bytes(const struct mover *mover)
{
    char text[128];
    ssize_t got = pread(mover->statm_fd, text, sizeof text - 1, 0);
    unsigned long long pages = 0;

    if (got <= 0) {
        return 0;
    }
    text[got] = '\0';
    if (sscanf(text, "%*s %llu", &pages) != 1) {
        return 0;
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void fill_sample(struct mover *mover, struct report_sample *sample)
{
    struct counters *counters = &mover->counters;

    sample->wire_sent = mover->ended_sent;
    sample->wire_received = mover->ended_received;
    for (size_t i = 0; i < mover->settings.lanes; i++) {
        uint64_t sent, received;

        if (mover->lanes[i] == NULL) {
            continue;
        }
        lane_wire_bytes(mover->lanes[i], &sent, &received);
        sample->wire_sent += sent;
        sample->wire_received += received;
    }
    sample->disk_bytes = count_get(&counters->disk_bytes);
    sample->disk_acknowledged = count_get(&counters->disk_acknowledged);
    sample->disk_zero_bytes = count_get(&counters->disk_zero_bytes);
    sample->disk_wire_bytes = count_get(&counters->disk_wire_bytes);
    sample->stream_bytes = count_get(&counters->stream_bytes);
    sample->stream_acknowledged = count_get(&counters->stream_acknowledged);
    sample->stream_wire_bytes = count_get(&counters->stream_wire_bytes);
    sample->stream_delay_us = atomic_exchange(&counters->stream_delay_us, 0);
    sample->resent_bytes = count_get(&counters->resent_bytes);
    sample->key_renewals = count_get(&counters->key_renewals);
    sample->pages = count_get(&counters->pages);
    sample->zero_pages = count_get(&counters->zero_pages);
    sample->page_bytes = count_get(&counters->page_bytes);
    sample->same_pages = count_get(&counters->same_pages);
    sample->delta_pages = count_get(&counters->delta_pages);
    for (size_t i = 0; i < ORDERS_MAX_DISKS; i++) {
        sample->pass_left[i] = count_get(&counters->pass_left[i]);
        sample->pass_reached[i] = count_get(&counters->pass_reached[i]);
    }
    sample->compared_bytes = count_get(&counters->compared_bytes);
    sample->reread_bytes = count_get(&counters->reread_bytes);
    sample->comparing_us = count_get(&counters->comparing_us);
    sample->uncompared_bytes = count_get(&counters->uncompared_bytes);
    sample->never_compared = atomic_load_explicit(&counters->never_compared, memory_order_relaxed);
    sample->stream_phase = atomic_load_explicit(&counters->stream_phase, memory_order_relaxed);
    sample->rss_bytes = resident_bytes(mover);
}

/* A sample that the socket does not take now is dropped: the next one says more. */
static void send_sample(void *context)
{
    struct mover *mover = context;
    struct report report = {.type = REPORT_SAMPLE};

    fill_sample(mover, &report.sample);
    (void)report_send(ORDERS_FD, &report);
}

static bool wait_to_write(int timeout_ms)
{
    struct pollfd entry = {.fd = ORDERS_FD, .events = POLLOUT};

    return poll(&entry, 1, timeout_ms) > 0 && (entry.revents & POLLOUT) != 0;
}

/* Something has failed for good: the daemon is told why, and the peer gets a moment to be told. The daemon first, which may say it to the
 * other daemon: that one would else hear only from its own mover that this one gave up. */
static void end_failed(struct mover *mover)
{
    uint64_t deadline = mover_now_us() + FAIL_FRAME_US;

    while (reporter_flush(&mover->reporter, ORDERS_FD, send_sample, mover) == REPORTER_BLOCKED &&
           wait_to_write(LAST_REPORT_MS)) {
        continue;
    }
    while (report_send(ORDERS_FD, &mover->reporter.failure) == REPORTER_BLOCKED &&
           wait_to_write(LAST_REPORT_MS)) {
        continue;
    }
    /* The daemon lets go of us now; the frame leaves all the same. */
    while (atomic_load(&mover->lanes_up) > 0 && !atomic_load(&mover->fail_sent) &&
           mover_now_us() < deadline) {
        (void)poll(NULL, 0, 2);
    }
    _exit(EXIT_FAILED);
}

/* Until the next sample is due: milliseconds for poll(), -1 before BEGIN. */
static int patience(const struct mover *mover, uint64_t next_sample)
{
    uint64_t now = mover_now_us();

    if (mover->settings.role == 0) {
        return -1;
    }
    return now >= next_sample ? 0 : (int)((next_sample - now) / 1000u) + 1;
}

static void serve(struct mover *mover)
{
    uint64_t next_sample = 0;
    bool is_blocked = false; /* reports wait for room in the socket */

    for (;;) {
        struct pollfd fds[2] = {
            {.fd = ORDERS_FD, .events = (short)(is_blocked ? POLLIN | POLLOUT : POLLIN)},
            {.fd = mover->reporter.waker.fd, .events = POLLIN}};
        enum order_step taken = ORDER_NONE;
        enum reporter_step flushed;

        if (poll(fds, 2, patience(mover, next_sample)) > 0) {
            if (fds[1].revents != 0) {
                waker_clear(&mover->reporter.waker);
            }
            if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
                taken = order_take(mover);
            }
        }
        if (taken == ORDER_GONE) {
            return;
        }
        if (reporter_has_failed(&mover->reporter)) {
            end_failed(mover);
        }
        flushed = reporter_flush(&mover->reporter, ORDERS_FD, send_sample, mover);
        if (flushed == REPORTER_GONE) {
            return;
        }
        is_blocked = flushed == REPORTER_BLOCKED;
        if (mover->wants_sample || (mover->settings.role != 0 && mover_now_us() >= next_sample)) {
            send_sample(mover);
            mover->wants_sample = false;
            next_sample = mover_now_us() + SAMPLE_US;
        }
    }
}

int main(int argc, char **argv)
{
    struct mover *mover;

    (void)argv;
    if (argc != 1 || !is_orders_socket(ORDERS_FD)) {
        fprintf(stderr, "watari-mover " WATARI_VERSION ": part of watari, started by watarid only: "
                        "it takes no arguments, and its orders come over a SOCK_SEQPACKET socket "
                        "that must be descriptor 3.\n");
        return EXIT_USAGE;
    }
    mover = calloc(1, sizeof *mover);
    if (mover == NULL || !make_small(mover) || !reporter_open(&mover->reporter)) {
        log_error("watari-mover cannot start");
        return EXIT_FAILED;
    }
    serve(mover);
    /* Threads are not ended one by one: nothing they hold is worth keeping. */
    _exit(EXIT_SUCCESS);
}

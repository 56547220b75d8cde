/*
 * A lane's thread: handshake, then sending and receiving in turn until the connection is over. See
 * lane.h.
 */
#include "lane.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A peer that has not finished its handshake by then is not going to. */
#define HANDSHAKE_US (10u * 1000000u)
/* The kernel takes no more unsent bytes than this from us, two TLS records: what is urgent cannot
 * overtake them (at 10 Mbit/s they take 26 ms). Half of it costs a tenth more CPU, four times as
 * much saves none. */
#define UNSENT_MAX (32 << 10)
/* With nothing to send, probes find out whether the peer's kernel is still there. */
#define PROBE_AFTER_S 2
#define PROBE_EVERY_S 1
/* Only without TCP_USER_TIMEOUT does the kernel count them. */
#define PROBES 3

static void report_lane(struct lane *lane, enum report_type type, const char *text)
{
    struct report report = {.type = type, .lane.index = lane->index};

    snprintf(report.lane.text, sizeof report.lane.text, "%s", text);
    reporter_put(&lane->mover->reporter, &report);
}

/* Waits until TLS can go on, the deadline (0: none) has passed, or the outbox wakes us. False when
 * it passed. */
static bool wait_for(struct lane *lane, short events, uint64_t deadline)
{
    const struct waker *waker = outbox_waker(lane->mover->outbox, lane->index);
    struct pollfd fds[2] = {{.fd = lane->fd, .events = events},
                            {.fd = waker->fd, .events = POLLIN}};
    int timeout = -1;

    /* Nothing wanted of the socket: do not poll it at all, since an error on it would be reported
     * all the same, and at once. */
    if (events == 0) {
        fds[0].fd = -1;
    }
    if (deadline != 0) {
        uint64_t now = mover_now_us();

        if (now >= deadline) {
            return false;
        }
        timeout = (int)((deadline - now) / 1000u) + 1;
    }
    if (poll(fds, 2, timeout) > 0 && (fds[1].revents & POLLIN) != 0) {
        waker_clear(waker);
    }
    return true;
}

/* False, with a sentence, when it failed. */
static bool shake_hands(struct lane *lane, const char **why)
{
    uint64_t deadline = mover_now_us() + HANDSHAKE_US;

    while (!lane_is_stopped(lane)) {
        short events = 0;

        switch (tls_channel_handshake(lane->channel)) {
        case TLS_OK:
            return true;
        case TLS_WANT_READ:
            events = POLLIN;
            break;
        case TLS_WANT_WRITE:
            events = POLLOUT;
            break;
        case TLS_CLOSED:
            *why = "the peer closed the lane during the TLS handshake";
            return false;
        case TLS_FAILED:
            *why = tls_channel_error(lane->channel);
            return false;
        }
        if (!wait_for(lane, events, deadline)) {
            *why = "the TLS handshake was not finished within 10 s";
            return false;
        }
    }
    return false;
}

/* Books the time since the last call. */
static void book(struct lane *lane, enum effort_time what)
{
    uint64_t now = mover_now_us();

    effort_spent(&lane->effort, what, now - lane->clock_us);
    lane->clock_us = now;
}

/* Both ways lead to a bound that the link has not made room in: either what this lane has to send
 * does not go, or nothing is there because the readers wait for what is on its way. */
static enum effort_time reason_to_wait(const struct lane *lane)
{
    return lane->out_sent < lane->out_size || mover_is_full(lane->mover) ? EFFORT_LINK_WAITS
                                                                         : EFFORT_NO_WORK;
}

static void wait_for_more(struct lane *lane)
{
    enum effort_time why = reason_to_wait(lane);

    book(lane, EFFORT_WORKED);
    wait_for(lane, (short)(lane->read_wants | lane->write_wants), lane->pace_until);
    book(lane, why);
}

static void carry(struct lane *lane)
{
    lane->clock_us = mover_now_us();
    while (!lane_is_stopped(lane)) {
        enum lane_step received = lane_receive(lane);
        enum lane_step sent = LANE_WAITS;

        if (received != LANE_LOST) {
            sent = lane_send(lane);
        }
        if (received == LANE_LOST || sent == LANE_LOST) {
            return;
        }
        if (received == LANE_WAITS && sent == LANE_WAITS) {
            wait_for_more(lane);
        }
    }
}

static void *run(void *argument)
{
    struct lane *lane = argument;
    const char *why = "";

    if (shake_hands(lane, &why)) {
        report_lane(lane, REPORT_LANE_UP, tls_channel_cipher(lane->channel));
        atomic_fetch_add(&lane->mover->lanes_up, 1);
        carry(lane);
        atomic_fetch_sub(&lane->mover->lanes_up, 1);
        why = tls_channel_error(lane->channel);
        if (why[0] == '\0') {
            why = "the peer closed the lane";
        }
    }
    /* That it was told to end is no news to the daemon. */
    if (!lane_is_stopped(lane)) {
        report_lane(lane, REPORT_LANE_LOST, why);
    }
    outbox_leave(lane->mover->outbox, lane->index);
    /* The other side shall see it too. */
    shutdown(lane->fd, SHUT_RDWR);
    return NULL;
}

static bool set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

/* What we sent, or a probe, has no acknowledgement for PATIENCE_MS: then the lane is lost. */
static bool set_up_socket(int fd, uint32_t patience_ms)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) &&
           set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_MAX) &&
           set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)patience_ms) &&
           set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
           set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, PROBE_AFTER_S) &&
           set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_EVERY_S) &&
           set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
}

/* Buffers and zstd contexts, for the direction that data takes in this role. */
static bool set_up_buffers(struct lane *lane)
{
    const struct order_begin *settings = &lane->mover->settings;

    lane->out = malloc(LANE_BUFFER_SIZE);
    if (lane->out == NULL) {
        return false;
    }
    if (settings->role == ORDER_DESTINATION) {
        lane->decompressor = ZSTD_createDCtx();
        return lane->decompressor != NULL;
    }
    effort_init(&lane->effort);
    return packer_open(&lane->packer);
}

bool lane_start(struct mover *mover, const struct order_lane *order, int fd)
{
    char error[256] = "";
    struct lane *lane = calloc(1, sizeof *lane);

    if (lane == NULL) {
        return mover_fail_memory(mover);
    }
    lane->mover = mover;
    lane->index = order->index;
    lane->fd = fd;
    mover->lanes[order->index] = lane;
    if (!set_up_socket(fd, mover->settings.patience_ms)) {
        return mover_fail(mover, "orders", "lane %u: not a TCP socket: %s", order->index,
                          strerror(errno));
    }
    if (!set_up_buffers(lane)) {
        return mover_fail_memory(mover);
    }
    lane->channel = tls_channel_new_lane(fd, mover->settings.role == ORDER_DESTINATION,
                                         order->ticket, order->key, error, sizeof error);
    if (lane->channel == NULL) {
        return mover_fail(mover, "memory", "lane %u: cannot set up TLS: %s", order->index, error);
    }
    tls_channel_renew_after(lane->channel, mover->settings.key_bytes);
    return mover_start_thread(mover, &lane->thread, "lane", run, lane);
}

void lane_wire_bytes(const struct lane *lane, uint64_t *sent, uint64_t *received)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;

    *sent = *received = 0;
    if (getsockopt(lane->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
        return;
    }
    *sent = info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
    *received = info.tcpi_bytes_received;
}

void lane_stop(struct lane *lane)
{
    atomic_store_explicit(&lane->stop, true, memory_order_relaxed);
    outbox_wake(lane->mover->outbox, lane->index);
}

void lane_end(struct lane *lane, uint64_t *sent, uint64_t *received)
{
    pthread_join(lane->thread, NULL);
    lane_wire_bytes(lane, sent, received);
    tls_channel_free(lane->channel);
    close(lane->fd);
    packer_close(&lane->packer);
    ZSTD_freeDCtx(lane->decompressor);
    work_unref(lane->undelivered);
    free(lane->body);
    free(lane->out);
    free(lane);
}

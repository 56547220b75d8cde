#include "order.h"
#include "disk_destination.h"
#include "disk_source.h"
#include "lane.h"
#include "memory_destination.h"
#include "memory_source.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zstd.h>

/* Which orders there are, and what must come with them. */
static const struct order_rule {
    const char *name; /* NULL: no such order */
    bool for_source, for_destination;
    bool fd_at_source, fd_at_destination;
} rules[] = {
    [ORDER_BEGIN] = {"BEGIN", true, true, false, false},
    [ORDER_LANE] = {"LANE", true, true, true, true},
    [ORDER_DISK] = {"DISK", true, true, false, true},
    [ORDER_PASS] = {"PASS", true, false, true, false},
    [ORDER_RELEASE] = {"RELEASE", true, false, false, false},
    [ORDER_MEMORY] = {"MEMORY", true, true, true, true},
    [ORDER_HOLD] = {"HOLD", true, false, false, false},
    [ORDER_GO] = {"GO", true, false, false, false},
    [ORDER_QUIESCE] = {"QUIESCE", false, true, false, false},
    [ORDER_RESUME] = {"RESUME", true, true, false, false},
    [ORDER_LEFT] = {"LEFT", true, false, false, false},
    [ORDER_VERIFY] = {"VERIFY", true, false, false, false},
    [ORDER_READS_HOLD] = {"READS_HOLD", true, false, false, false},
    [ORDER_READS_GO] = {"READS_GO", true, false, false, false},
    [ORDER_LIMIT] = {"LIMIT", true, false, false, false},
};

#define RULE_COUNT (sizeof rules / sizeof rules[0])

static enum order_step bad(struct mover *mover, const char *order, const char *why)
{
    mover_fail(mover, "orders", "the daemon's order %s: %s", order, why);
    return ORDER_BAD;
}

/* NULL when ORDER may come now, with or without a descriptor; else the reason. */
static const char *check_rule(const struct mover *mover, const struct order *order, bool has_fd)
{
    const struct order_rule *rule = &rules[order->type];
    bool is_source = mover->settings.role == ORDER_SOURCE;

    if (order->type == ORDER_BEGIN) {
        if (mover->settings.role != 0) {
            return "it came twice";
        }
        return has_fd ? "a descriptor came with it" : NULL;
    }
    if (mover->settings.role == 0) {
        return "it came before BEGIN";
    }
    if (!(is_source ? rule->for_source : rule->for_destination)) {
        return "not for this role";
    }
    if (has_fd != (is_source ? rule->fd_at_source : rule->fd_at_destination)) {
        return has_fd ? "a descriptor came with it" : "no descriptor came with it";
    }
    return NULL;
}

static const char *check_begin(const struct order_begin *begin)
{
    if (begin->role != ORDER_SOURCE && begin->role != ORDER_DESTINATION) {
        return "no such role";
    }
    if (begin->lanes < 1 || begin->lanes > ORDERS_MAX_LANES) {
        return "number of lanes out of range";
    }
    if (begin->level != ORDER_LEVEL_OFF && begin->level != ORDER_LEVEL_AUTO &&
        (begin->level < ZSTD_minCLevel() || begin->level > ZSTD_maxCLevel())) {
        return "no such zstd level";
    }
    if (begin->role == ORDER_SOURCE &&
        (begin->in_flight_ms < 1 || begin->in_flight_ms > ORDERS_MAX_IN_FLIGHT_MS)) {
        return "in-flight time out of range";
    }
    if (begin->patience_ms < 1 || begin->patience_ms > ORDERS_MAX_PATIENCE_MS) {
        return "patience out of range";
    }
    if (begin->key_bytes < ORDERS_MIN_KEY_BYTES || begin->key_bytes > TLS_KEY_BYTES_MAX) {
        return "bytes for one key out of range";
    }
    if ((begin->flags & ~(ORDER_FLAG_HOLD_LAST | ORDER_FLAG_VERIFY)) != 0) {
        return "unknown flags";
    }
    return NULL;
}

static bool is_string(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static const char *check_lane(struct mover *mover, const struct order_lane *lane)
{
    if (lane->index >= mover->settings.lanes) {
        return "no such lane";
    }
    if (mover->lanes[lane->index] != NULL) {
        return "that lane exists";
    }
    /* Its frames would mix with those of the lanes before. */
    return resume_is_pending(&mover->resume) ? "RESUMED was not reported yet" : NULL;
}

static const char *check_limit(const struct order_limit *limit)
{
    return limit->rate > ORDERS_MAX_RATE || limit->paused_rate > ORDERS_MAX_RATE
               ? "a rate is out of range"
               : NULL;
}

static const char *check_fields(struct mover *mover, const struct order *order)
{
    switch (order->type) {
    case ORDER_BEGIN:
        return check_begin(&order->begin);
    case ORDER_LANE:
        return check_lane(mover, &order->lane);
    case ORDER_DISK:
        if (order->disk.disk >= ORDERS_MAX_DISKS) {
            return "disk number out of range";
        }
        return order->disk.size % 512 != 0 ? "size is not a multiple of 512" : NULL;
    case ORDER_PASS:
        if (!is_string(order->pass.export_name, sizeof order->pass.export_name) ||
            !is_string(order->pass.context, sizeof order->pass.context)) {
            return "a string does not end";
        }
        return order->pass.disk >= ORDERS_MAX_DISKS ? "disk number out of range" : NULL;
    case ORDER_RELEASE:
        return order->pass.disk >= ORDERS_MAX_DISKS ? "disk number out of range" : NULL;
    case ORDER_LIMIT:
        return check_limit(&order->limit);
    default:
        return NULL;
    }
}

static bool begin(struct mover *mover, const struct order_begin *settings)
{
    mover->settings = *settings;
    resume_init(&mover->resume);
    pace_init(&mover->pace);
    mover->outbox = outbox_new(settings->lanes);
    if (mover->outbox == NULL) {
        return mover_fail_memory(mover);
    }
    if (settings->role == ORDER_SOURCE) {
        mover->disk_source = disk_source_start(mover);
        mover->memory_source = memory_source_start(mover);
        return mover->disk_source != NULL && mover->memory_source != NULL;
    }
    mover->disk_destination = disk_destination_start(mover);
    mover->memory_destination = memory_destination_start(mover);
    return mover->disk_destination != NULL && mover->memory_destination != NULL;
}

/* Ends all lanes; what they have carried stays in the sums. */
static void end_lanes(struct mover *mover)
{
    for (size_t i = 0; i < mover->settings.lanes; i++) {
        if (mover->lanes[i] != NULL) {
            lane_stop(mover->lanes[i]);
        }
    }
    for (size_t i = 0; i < mover->settings.lanes; i++) {
        uint64_t sent, received;

        if (mover->lanes[i] == NULL) {
            continue;
        }
        lane_end(mover->lanes[i], &sent, &received);
        mover->lanes[i] = NULL;
        mover->ended_sent += sent;
        mover->ended_received += received;
    }
}

/* What the lanes had received is in the other threads' hands before these hear of the RESUME. */
static bool resume(struct mover *mover, const struct order *order)
{
    end_lanes(mover);
    resume_order(&mover->resume);
    if (mover->settings.role == ORDER_SOURCE) {
        return memory_source_order(mover->memory_source, order, -1) &&
               disk_source_order(mover->disk_source, order, -1);
    }
    memory_destination_resume(mover->memory_destination);
    return disk_destination_order(mover->disk_destination, order, -1);
}

/* What was measured without it says nothing of the rate with it. */
static bool limit(struct mover *mover, const struct order *order)
{
    pace_set(&mover->pace, order->limit.rate, order->limit.paused_rate);
    return memory_source_order(mover->memory_source, order, -1) &&
           disk_source_order(mover->disk_source, order, -1);
}

/* FD goes to whoever the order is for. */
static bool obey(struct mover *mover, const struct order *order, int fd)
{
    bool is_source = mover->settings.role == ORDER_SOURCE;

    switch (order->type) {
    case ORDER_BEGIN:
        return begin(mover, &order->begin);
    case ORDER_LANE:
        return lane_start(mover, &order->lane, fd);
    case ORDER_DISK:
    case ORDER_PASS:
    case ORDER_RELEASE:
    case ORDER_QUIESCE:
    case ORDER_VERIFY:
    case ORDER_READS_HOLD:
    case ORDER_READS_GO:
        return is_source ? disk_source_order(mover->disk_source, order, fd)
                         : disk_destination_order(mover->disk_destination, order, fd);
    case ORDER_RESUME:
        return resume(mover, order);
    case ORDER_LEFT:
        outbox_set_left(mover->outbox, FRAME_SEGMENT, order->left.bytes);
        mover->wants_sample = true;
        return true;
    case ORDER_GO:
        if (order->go.last) {
            atomic_store(&mover->guest_is_paused, true);
            pace_pause(&mover->pace);
        }
        return memory_source_order(mover->memory_source, order, fd);
    case ORDER_LIMIT:
        return limit(mover, order);
    case ORDER_MEMORY:
    case ORDER_HOLD:
        return is_source ? memory_source_order(mover->memory_source, order, fd)
                         : memory_destination_attach(mover->memory_destination, fd);
    }
    return false;
}

/* The descriptor that came along, or -1. */
static int take_fd(struct msghdr *message)
{
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    int fd = -1;

    if (control != NULL && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS &&
        control->cmsg_len == CMSG_LEN(sizeof fd)) {
        memcpy(&fd, CMSG_DATA(control), sizeof fd);
    }
    return fd;
}

static enum order_step check_and_obey(struct mover *mover, const struct order *order, int fd)
{
    const char *name = "of unknown type";
    const char *why = "";

    if ((unsigned)order->type < RULE_COUNT && rules[order->type].name != NULL) {
        name = rules[order->type].name;
        why = check_rule(mover, order, fd >= 0);
        if (why == NULL) {
            why = check_fields(mover, order);
        }
        if (why == NULL) {
            return obey(mover, order, fd) ? ORDER_TAKEN : ORDER_BAD;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return bad(mover, name, why);
}

enum order_step order_take(struct mover *mover)
{
    struct order order;
    char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    struct iovec part = {&order, sizeof order};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(ORDERS_FD, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    enum order_step step;

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return ORDER_NONE;
    }
    if (got <= 0) {
        return ORDER_GONE;
    }
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || (size_t)got != sizeof order) {
        return bad(mover, "", "not of the size this build uses, or with too many descriptors");
    }
    step = check_and_obey(mover, &order, take_fd(&message));
    /* It may have held a lane's key. */
    explicit_bzero(&order, sizeof order);
    return step;
}

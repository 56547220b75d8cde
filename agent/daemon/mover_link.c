#include "mover_link.h"

#include "child.h"
#include "daemon.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

/* Reports taken in one turn of the loop. */
#define REPORTS_PER_TURN 32
/* What is killed is gone in milliseconds. One that the kernel holds for longer must not hold everything up. */
#define KILLED_S 2

struct pending {
    struct order order;
    int fd;
    STAILQ_ENTRY(pending) link;
};

struct mover_link {
    struct child *child;
    int fd;
    struct event *readable, *writable;
    STAILQ_HEAD(, pending) pending;
    struct mover_handlers handlers;
    void *context;
    bool ended, exited, freed;
    void (*gone)(void *context); /* once it is being ended */
    struct event *killed;
    unsigned depth;
};

static void pending_free(struct mover_link *link, struct pending *pending)
{
    STAILQ_REMOVE_HEAD(&link->pending, link);
    if (pending->fd >= 0) {
        close(pending->fd);
    }
    /* A lane's key may have been in it. */
    explicit_bzero(pending, sizeof *pending);
    free(pending);
}

static void destroy(struct mover_link *link)
{
    while (!STAILQ_EMPTY(&link->pending)) {
        pending_free(link, STAILQ_FIRST(&link->pending));
    }
    event_free(link->readable);
    event_free(link->writable);
    event_free(link->killed);
    close(link->fd);
    child_free(link->child);
    free(link);
}

void mover_link_free(struct mover_link *link)
{
    if (!link || link->freed) {
        return;
    }
    link->freed = true;
    if (link->depth == 0) {
        destroy(link);
    }
}

static void leave(struct mover_link *link)
{
    if (--link->depth == 0 && link->freed) {
        destroy(link);
    }
}

static void end(struct mover_link *link, const char *text)
{
    struct error error;

    if (link->ended || link->freed) {
        return;
    }
    link->ended = true;
    event_del(link->readable);
    event_del(link->writable);
    error_set(&error, "mover-died", "the mover of this side ended: %s", text);
    link->depth++;
    link->handlers.ended(&error, link->context);
    leave(link);
}

static void tell_gone(struct mover_link *link)
{
    void (*gone)(void *context) = link->gone;

    if (link->freed) {
        return;
    }
    event_del(link->killed);
    link->depth++;
    gone(link->context);
    leave(link);
}

static void on_killed_limit(evutil_socket_t fd, short what, void *context)
{
    struct mover_link *link = context;

    (void)fd;
    (void)what;
    log_warning("the mover %d does not die; going on", (int)mover_link_pid(link));
    tell_gone(link);
}

void mover_link_end(struct mover_link *link, void (*gone)(void *context), void *context)
{
    event_del(link->readable);
    event_del(link->writable);
    link->ended = true;
    link->gone = gone;
    link->context = context;
    if (link->exited) {
        tell_gone(link);
        return;
    }
    child_signal(link->child, SIGKILL);
    event_add(link->killed, &(struct timeval){KILLED_S, 0});
}

static void on_exit_of_child(struct child *child, bool exited, int code, void *context)
{
    struct mover_link *link = context;
    char text[64];

    (void)child;
    link->exited = true;
    if (link->gone) {
        tell_gone(link);
        return;
    }
    snprintf(text, sizeof text, exited ? "exit code %d" : "killed by signal %d", code);
    end(link, text);
}

static bool send_one(struct mover_link *link, const struct pending *pending)
{
    struct iovec bytes = {(void *)&pending->order, sizeof pending->order};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};

    if (pending->fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &pending->fd, sizeof(int));
    }
    if (sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
        return true;
    }
    if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR) {
        event_add(link->writable, NULL);
    }
    /* EPIPE: the child's end tells the rest. */
    return false;
}

static void flush_orders(struct mover_link *link)
{
    struct pending *pending;

    while ((pending = STAILQ_FIRST(&link->pending)) && send_one(link, pending)) {
        pending_free(link, pending);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    flush_orders(context);
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    struct mover_link *link = context;
    struct report report;

    (void)what;
    link->depth++;
    for (int i = 0; i < REPORTS_PER_TURN && !link->freed && !link->ended; i++) {
        ssize_t got = recv((int)fd, &report, sizeof report, MSG_DONTWAIT | MSG_TRUNC);

        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (got <= 0) {
            /* Its exit code comes through the pidfd, with more to say. */
            event_del(link->readable);
            break;
        }
        if (got != (ssize_t)sizeof report) {
            end(link, "it broke the rules of its orders");
            break;
        }
        link->handlers.report(&report, link->context);
    }
    leave(link);
}

struct mover_link *mover_link_new(struct daemon *daemon, const struct mover_handlers *handlers,
                                  void *context, struct error *error)
{
    const char *argv[] = {"watari-mover", NULL};
    struct child_options options = {.path = daemon->config.mover_path,
                                    .argv = argv,
                                    .user = geteuid() == 0 ? daemon->config.mover_user : NULL};
    struct mover_link *link;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        error_set(error, "mover-failed", "no socketpair for the mover: %s", strerror(errno));
        return NULL;
    }
    link = must_alloc(sizeof *link);
    link->fd = pair[0];
    link->handlers = *handlers;
    link->context = context;
    STAILQ_INIT(&link->pending);
    options.pass_fd = pair[1];
    link->child = child_spawn(daemon->base, &options, on_exit_of_child, link, error);
    close(pair[1]);
    if (!link->child) {
        close(pair[0]);
        free(link);
        error_prefix(error, "the mover could not be started: ");
        return NULL;
    }
    link->readable = event_new(daemon->base, link->fd, EV_READ | EV_PERSIST, on_readable, link);
    link->writable = event_new(daemon->base, link->fd, EV_WRITE, on_writable, link);
    link->killed = evtimer_new(daemon->base, on_killed_limit, link);
    event_add(link->readable, NULL);
    return link;
}

void mover_link_send(struct mover_link *link, const struct order *order, int fd)
{
    struct pending *pending = must_alloc(sizeof *pending);

    pending->order = *order;
    pending->fd = fd;
    STAILQ_INSERT_TAIL(&link->pending, pending, link);
    if (link->ended) {
        pending_free(link, pending);
    } else {
        flush_orders(link);
    }
}

pid_t mover_link_pid(const struct mover_link *link)
{
    return child_pid(link->child);
}

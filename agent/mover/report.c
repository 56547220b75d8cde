#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct report_node {
    struct report_node *next;
    struct report report;
};

bool reporter_open(struct reporter *reporter)
{
    pthread_mutex_init(&reporter->mutex, NULL);
    return waker_open(&reporter->waker);
}

void reporter_put(struct reporter *reporter, const struct report *report)
{
    struct report_node *node = calloc(1, sizeof *node);

    if (node == NULL) {
        /* A report left out would leave the daemon waiting for ever; that this process has died it
         * will see. */
        fprintf(stderr, "watari-mover: out of memory\n");
        _exit(1);
    }
    node->report = *report;
    pthread_mutex_lock(&reporter->mutex);
    if (reporter->last == NULL) {
        reporter->first = node;
    } else {
        reporter->last->next = node;
    }
    reporter->last = node;
    pthread_mutex_unlock(&reporter->mutex);
    waker_wake(&reporter->waker);
}

bool reporter_fail(struct reporter *reporter, const char *id, const char *text)
{
    struct report_failure *failure = &reporter->failure.failure;
    bool is_first;

    pthread_mutex_lock(&reporter->mutex);
    is_first = !reporter->failed;
    if (is_first) {
        reporter->failed = true;
        reporter->failure.type = REPORT_FAILED;
        snprintf(failure->id, sizeof failure->id, "%s", id);
        snprintf(failure->text, sizeof failure->text, "%s", text);
    }
    pthread_mutex_unlock(&reporter->mutex);
    waker_wake(&reporter->waker);
    return is_first;
}

bool reporter_has_failed(struct reporter *reporter)
{
    bool failed;

    pthread_mutex_lock(&reporter->mutex);
    failed = reporter->failed;
    pthread_mutex_unlock(&reporter->mutex);
    return failed;
}

enum reporter_step report_send(int fd, const struct report *report)
{
    ssize_t done;

    do {
        done = send(fd, report, sizeof *report, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (done < 0 && errno == EINTR);
    if (done == sizeof *report) {
        return REPORTER_EMPTY;
    }
    if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)) {
        return REPORTER_BLOCKED;
    }
    return REPORTER_GONE;
}

static struct report_node *first_of(struct reporter *reporter)
{
    struct report_node *node;

    pthread_mutex_lock(&reporter->mutex);
    node = reporter->first;
    pthread_mutex_unlock(&reporter->mutex);
    return node;
}

static void remove_first(struct reporter *reporter)
{
    struct report_node *node;

    pthread_mutex_lock(&reporter->mutex);
    node = reporter->first;
    reporter->first = node->next;
    if (reporter->first == NULL) {
        reporter->last = NULL;
    }
    pthread_mutex_unlock(&reporter->mutex);
    free(node);
}

enum reporter_step reporter_flush(struct reporter *reporter, int fd, void (*before)(void *context),
                                  void *context)
{
    struct report_node *node;

    /* Others only append: what first_of returned stays there until we remove it. */
    while ((node = first_of(reporter)) != NULL) {
        enum reporter_step step;

        if (node->report.type == REPORT_PASS_DONE || node->report.type == REPORT_MEMORY_DONE ||
            node->report.type == REPORT_VERIFIED || node->report.type == REPORT_HELD) {
            before(context);
        }
        step = report_send(fd, &node->report);
        if (step != REPORTER_EMPTY) {
            return step;
        }
        remove_first(reporter);
    }
    return REPORTER_EMPTY;
}

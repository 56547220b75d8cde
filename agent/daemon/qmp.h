/*
 * A QMP client on the daemon's loop (QEMU docs/interop/qmp-spec.txt): commands in order, replies and events by callback,
 * descriptors by SCM_RIGHTS (getfd). A QMP server socket serves one client at a time: a connection that gets no greeting within
 * QMP_GREETING_MS is told apart as "qmp-busy".
 *
 * Loop thread only. Callbacks may call anything here, qmp_free() included.
 */
#ifndef WATARI_DAEMON_QMP_H
#define WATARI_DAEMON_QMP_H

#include "agent/common/error.h"

#include <event2/event.h>
#include <jansson.h>

#define QMP_GREETING_MS 3000

struct qmp;

/* ERROR is NULL on success; else VALUE is NULL and error->id is "qmp-error" (QEMU refused), or "qmp-gone" (no answer will come). */
typedef void (*qmp_reply_callback)(json_t *value, const struct error *error, void *context);

struct qmp_handlers {
    /* Once: NULL when the greeting and qmp_capabilities are through; else the connection is dead ("qmp-gone", "qmp-busy"). */
    void (*ready)(const struct error *error, void *context);
    /* May be NULL, as CLOSED may: for owners to whom it makes no difference. */
    void (*event)(const char *name, json_t *data, void *context);
    /* The server closed a connection that had been ready. Replies still due have been failed before. */
    void (*closed)(void *context);
};

/* Connects to the socket PATH. Never NULL; failures come through handlers->ready, also when they are known at once (next turn of the loop). */
struct qmp *qmp_open(struct event_base *base, const char *path, const struct qmp_handlers *handlers,
                     void *context);
/* Closes; callbacks still due are not called any more. NULL is fine. */
void qmp_free(struct qmp *qmp);

/* Sends COMMAND with ARGUMENTS (stolen; may be NULL). FD (-1: none) goes along and is closed by us when sent. CALLBACK may be NULL:
 * then an error is logged. */
void qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, int fd,
                 qmp_reply_callback callback, void *context);
/* No reply to a command of CONTEXT will be told any more; the commands are carried out all the same. For owners that end before QMP. */
void qmp_forget(struct qmp *qmp, const void *context);
const char *qmp_path(const struct qmp *qmp);
/* The greeting's version, as MAJOR*10000 + MINOR*100 + MICRO. */
int qmp_version(const struct qmp *qmp);
/* The same as "7.2.22", in TEXT, which is returned. */
#define QMP_VERSION_SIZE 36
const char *qmp_version_text(const struct qmp *qmp, char text[QMP_VERSION_SIZE]);

#endif

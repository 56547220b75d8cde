/*
 * One NBD connection to the QEMU on this host, over a connected unix socket that the daemon handed
 * in, driven by libnbd's asynchronous calls from the disk thread's poll loop.
 *
 * It never sends NBD_CMD_DISC: QEMU 7.2 with an iothread aborts when a client leaves (DESIGN §11).
 * nbd_close() only closes the socket; the daemon has made sure that QEMU does not see that.
 *
 * The disk thread only.
 */
#ifndef WATARI_MOVER_DISK_LINK_H
#define WATARI_MOVER_DISK_LINK_H

#include "extent_map.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many commands one link has in the server's hands at most, by what is usual there (QEMU's own
 * limit is 16 at a time; what is beyond waits in the socket, and hides the time between them). */
#define DISK_LINK_READS 16u
#define DISK_LINK_WRITES 64u

struct disk_link;

/* One command on its way. Part of the caller's own structure, which must live until the task has
 * come out of disk_link_take_completed() or the link is freed. */
struct disk_task {
    struct disk_task *next;
    struct disk_link *link;
    int64_t cookie;
    bool is_read;
    int error; /* when completed: 0 or an errno */
};

/* A question for block status, and its answer: CONTEXT's is empty when none was asked for. */
struct disk_question {
    struct disk_task task; /* first, so that a completed task is its question */
    struct block_status allocation, context;
};

enum disk_link_state {
    DISK_LINK_CONNECTING, /* negotiating */
    DISK_LINK_READY,
    DISK_LINK_DEAD, /* see disk_link_error(); all tasks complete with an error */
};

/*
 * Takes FD over and begins to negotiate EXPORT_NAME. With ALLOCATION, asks for base:allocation, and
 * for CONTEXT too when it is not "". NULL, with a sentence in ERROR, when that cannot even begin.
 */
struct disk_link *disk_link_new(int fd, const char *export_name, bool allocation,
                                const char *context, char *error, size_t error_size);
/* Closes the connection. Tasks that are not completed never will be: their memory is the caller's
 * again. */
void disk_link_free(struct disk_link *link);

enum disk_link_state disk_link_state(const struct disk_link *link);
/* Why it is dead; "" while it is not. */
const char *disk_link_error(const struct disk_link *link);
/* What to poll for; fd -1 when dead. */
struct pollfd disk_link_poll(const struct disk_link *link);
/* After poll() said REVENTS of it. */
void disk_link_turn(struct disk_link *link, short revents);
/* One that is completed, in the order of completion, or NULL. */
struct disk_task *disk_link_take_completed(struct disk_link *link);

/* When ready: the export's size in bytes; -1 when the server did not say. */
int64_t disk_link_size(const struct disk_link *link);
/* When ready: false, with a sentence, when it lacks what we asked for: the contexts, or (WRITABLE)
 * writes, zeroes and flushes. */
bool disk_link_check(struct disk_link *link, bool writable, char *error, size_t error_size);

/* What to do. False: not begun, TASK->error says why, and it will not come out of
 * take_completed. */
bool disk_link_read(struct disk_link *link, struct disk_task *task, void *buffer, uint32_t length,
                    uint64_t offset);
bool disk_link_write(struct disk_link *link, struct disk_task *task, const void *buffer,
                     uint32_t length, uint64_t offset);
/* May unmap: the destination stays thin. */
bool disk_link_zero(struct disk_link *link, struct disk_task *task, uint64_t length,
                    uint64_t offset);
bool disk_link_flush(struct disk_link *link, struct disk_task *task);
/* Asks for the status of LENGTH bytes from OFFSET on. The answer of before is freed; the new one is
 * there when QUESTION's task has completed without error. */
bool disk_link_ask(struct disk_link *link, struct disk_question *question, uint64_t length,
                   uint64_t offset);
/* Frees the answer. Of a question that is out, only after its link was freed. */
void disk_question_clear(struct disk_question *question);

#endif

#include "disk_link.h"

#include <assert.h>
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALLOCATION "base:allocation"
/* One answer has at most so many entries of one context; QEMU's own limit is 128 Ki. */
#define STATUS_ENTRIES_MAX (1u << 20)

struct disk_link {
    struct nbd_handle *nbd;
    char *context; /* "" when none */
    bool allocation;
    char error[512];
    struct disk_task *first_completed, *last_completed;
};

/* libnbd keeps the last error of each thread as a sentence that begins with the call's name. */
static void set_error(struct disk_link *link)
{
    const char *text = nbd_get_error();

    snprintf(link->error, sizeof link->error, "%s", text != NULL ? text : "unknown error");
}

static bool configure(struct disk_link *link, const char *export_name)
{
    struct nbd_handle *nbd = link->nbd;

    if (nbd_set_export_name(nbd, export_name) == -1) {
        return false;
    }
    if (link->allocation && nbd_add_meta_context(nbd, ALLOCATION) == -1) {
        return false;
    }
    if (link->context[0] != '\0' && nbd_add_meta_context(nbd, link->context) == -1) {
        return false;
    }
    /* Who does not ask for block sizes may use any: then QEMU itself reads and rewrites the ends of
     * what is not aligned to its image, which it can do without racing against other writes and we
     * cannot. */
    if (nbd_set_request_block_size(nbd, false) == -1) {
        return false;
    }
    /* No need to fill each buffer before it is read into: nbd_aio_command_completed tells of
     * answers that are too short. */
    return nbd_set_pread_initialize(nbd, false) != -1;
}

struct disk_link *disk_link_new(int fd, const char *export_name, bool allocation,
                                const char *context, char *error, size_t error_size)
{
    struct disk_link *link = calloc(1, sizeof *link);

    if (link == NULL) {
        goto fail;
    }
    link->allocation = allocation;
    link->context = strdup(context);
    link->nbd = nbd_create();
    if (link->context == NULL || link->nbd == NULL) {
        goto fail;
    }
    if (!configure(link, export_name)) {
        set_error(link);
        goto fail;
    }
    /* From here on the descriptor is libnbd's, also when this fails: the handle is then dead, which
     * the state tells. */
    if (nbd_aio_connect_socket(link->nbd, fd) == -1) {
        set_error(link);
    }
    return link;

fail:
    snprintf(error, error_size, "%s",
             link != NULL && link->error[0] != '\0' ? link->error : "out of memory");
    close(fd);
    disk_link_free(link);
    return NULL;
}

void disk_link_free(struct disk_link *link)
{
    if (link == NULL) {
        return;
    }
    nbd_close(link->nbd);
    free(link->context);
    free(link);
}

enum disk_link_state disk_link_state(const struct disk_link *link)
{
    if (nbd_aio_is_dead(link->nbd) == 1 || nbd_aio_is_closed(link->nbd) == 1 ||
        nbd_aio_is_created(link->nbd) == 1) {
        return DISK_LINK_DEAD;
    }
    if (nbd_aio_is_connecting(link->nbd) == 1) {
        return DISK_LINK_CONNECTING;
    }
    return DISK_LINK_READY;
}

const char *disk_link_error(const struct disk_link *link)
{
    if (link->error[0] == '\0' && disk_link_state(link) == DISK_LINK_DEAD) {
        return "the NBD server closed the connection";
    }
    return link->error;
}

struct pollfd disk_link_poll(const struct disk_link *link)
{
    struct pollfd entry = {.fd = -1};
    unsigned direction;

    if (disk_link_state(link) == DISK_LINK_DEAD) {
        return entry;
    }
    entry.fd = nbd_aio_get_fd(link->nbd);
    direction = nbd_aio_get_direction(link->nbd);
    if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) {
        entry.events |= POLLIN;
    }
    if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
        entry.events |= POLLOUT;
    }
    return entry;
}

void disk_link_turn(struct disk_link *link, short revents)
{
    unsigned direction = nbd_aio_get_direction(link->nbd);
    int result = 0;

    if ((revents & (POLLIN | POLLHUP | POLLERR)) != 0 &&
        (direction & LIBNBD_AIO_DIRECTION_READ) != 0) {
        result = nbd_aio_notify_read(link->nbd);
    } else if ((revents & (POLLOUT | POLLHUP | POLLERR)) != 0 &&
               (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
        result = nbd_aio_notify_write(link->nbd);
    }
    if (result == -1) {
        set_error(link);
    }
}

struct disk_task *disk_link_take_completed(struct disk_link *link)
{
    struct disk_task *task = link->first_completed;

    if (task == NULL) {
        return NULL;
    }
    link->first_completed = task->next;
    if (link->first_completed == NULL) {
        link->last_completed = NULL;
    }
    task->next = NULL;
    /* Only this call notices a server that answered a read with too few bytes, and it retires the
     * command. */
    if (task->is_read && nbd_aio_command_completed(link->nbd, (uint64_t)task->cookie) != 1 &&
        task->error == 0) {
        task->error = nbd_get_errno() != 0 ? nbd_get_errno() : EPROTO;
    }
    return task;
}

int64_t disk_link_size(const struct disk_link *link)
{
    return nbd_get_size(link->nbd);
}

static bool lacks(char *error, size_t error_size, const char *what)
{
    snprintf(error, error_size, "the NBD export does not offer %s", what);
    return false;
}

bool disk_link_check(struct disk_link *link, bool writable, char *error, size_t error_size)
{
    if (link->allocation && nbd_can_meta_context(link->nbd, ALLOCATION) != 1) {
        return lacks(error, error_size, ALLOCATION);
    }
    if (link->context[0] != '\0' && nbd_can_meta_context(link->nbd, link->context) != 1) {
        return lacks(error, error_size, link->context);
    }
    if (!writable) {
        return true;
    }
    if (nbd_is_read_only(link->nbd) != 0) {
        return lacks(error, error_size, "writes");
    }
    if (nbd_can_zero(link->nbd) != 1) {
        return lacks(error, error_size, "write-zeroes");
    }
    if (nbd_can_flush(link->nbd) != 1) {
        return lacks(error, error_size, "flushes");
    }
    return true;
}

/* libnbd calls this within one of its own calls, in which it must not be called again: the task
 * only goes into the list. */
static int on_completion(void *context, int *error)
{
    struct disk_task *task = context;
    struct disk_link *link = task->link;

    task->error = *error;
    task->next = NULL;
    if (link->last_completed == NULL) {
        link->first_completed = task;
    } else {
        link->last_completed->next = task;
    }
    link->last_completed = task;
    /* 1 retires the command; a read stays until disk_link_take_completed() has asked about it. */
    return task->is_read ? 0 : 1;
}

static nbd_completion_callback begin(struct disk_link *link, struct disk_task *task, bool is_read)
{
    *task = (struct disk_task){.link = link, .is_read = is_read};
    return (nbd_completion_callback){.callback = on_completion, .user_data = task};
}

static bool begun(struct disk_task *task, int64_t cookie)
{
    task->cookie = cookie;
    if (cookie != -1) {
        return true;
    }
    task->error = nbd_get_errno() != 0 ? nbd_get_errno() : EIO;
    return false;
}

bool disk_link_read(struct disk_link *link, struct disk_task *task, void *buffer, uint32_t length,
                    uint64_t offset)
{
    nbd_completion_callback completion = begin(link, task, true);

    return begun(task, nbd_aio_pread(link->nbd, buffer, length, offset, completion, 0));
}

bool disk_link_write(struct disk_link *link, struct disk_task *task, const void *buffer,
                     uint32_t length, uint64_t offset)
{
    nbd_completion_callback completion = begin(link, task, false);

    return begun(task, nbd_aio_pwrite(link->nbd, buffer, length, offset, completion, 0));
}

bool disk_link_zero(struct disk_link *link, struct disk_task *task, uint64_t length,
                    uint64_t offset)
{
    nbd_completion_callback completion = begin(link, task, false);

    return begun(task, nbd_aio_zero(link->nbd, length, offset, completion, 0));
}

bool disk_link_flush(struct disk_link *link, struct disk_task *task)
{
    nbd_completion_callback completion = begin(link, task, false);

    return begun(task, nbd_aio_flush(link->nbd, completion, 0));
}

/* Keeps a copy of one context's answer; libnbd's own is gone when this returns. COUNT is of single
 * numbers. */
static int on_extents(void *user_data, const char *context, uint64_t offset, uint32_t *entries,
                      size_t count, int *error)
{
    struct disk_question *question = user_data;
    struct block_status *status;

    (void)offset;
    if (strcmp(context, ALLOCATION) == 0) {
        status = &question->allocation;
    } else if (strcmp(context, question->task.link->context) == 0) {
        status = &question->context;
    } else {
        return 0;
    }
    free(status->entries);
    *status = (struct block_status){0};
    if (count < 2 || count / 2 > STATUS_ENTRIES_MAX) {
        *error = EPROTO;
        return -1;
    }
    status->entries = reallocarray(NULL, count, sizeof entries[0]);
    if (status->entries == NULL) {
        *error = ENOMEM;
        return -1;
    }
    memcpy(status->entries, entries, count * sizeof entries[0]);
    status->count = count / 2;
    return 0;
}

void disk_question_clear(struct disk_question *question)
{
    free(question->allocation.entries);
    free(question->context.entries);
    question->allocation = question->context = (struct block_status){0};
}

bool disk_link_ask(struct disk_link *link, struct disk_question *question, uint64_t length,
                   uint64_t offset)
{
    nbd_extent_callback extents = {.callback = on_extents, .user_data = question};
    nbd_completion_callback completion = begin(link, &question->task, false);

    disk_question_clear(question);
    return begun(&question->task,
                 nbd_aio_block_status(link->nbd, length, offset, extents, completion, 0));
}

#include "disk_destination.h"
#include "disk_digest.h"
#include "disk_inbox.h"
#include "disk_link.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is taken in at a time, over all disks: somewhat more than a source lets out (REQUESTS_MAX,
 * BYTES_OUT_MAX), so that lanes never stand still for an honest one. */
#define TAKEN_MAX 1280u
#define TAKEN_BYTES_MAX (32u << 20)

/* Runs that are being read back at a time, over all disks: each holds DIGEST_READ_MAX bytes. */
#define READS_MAX 16u

/* One request in QEMU's hands: a write, or a run that is read back. */
struct command {
    struct disk_digest digest; /* first, so that a completed task is its command; a write uses only
                                  its task */
    struct work *work;
};

struct target {
    struct disk_link *link; /* NULL: no DISK order came for it */
    uint64_t size;
    bool checked;             /* negotiated, and found to be what DISK said */
    struct work_list waiting; /* writes */
    struct work_list asked;   /* what is to be read back */
    unsigned writes;          /* in QEMU's hands */
};

struct disk_destination {
    struct mover *mover;
    struct disk_inbox inbox;
    pthread_t thread;
    struct target targets[ORDERS_MAX_DISKS];
    uint32_t target_end; /* one past the last that is in use */
    unsigned unfinished; /* taken out of the inbox, without an answer yet */
    unsigned reads;      /* of them, in QEMU's hands to be read back */
    bool quiesce;
    bool quiesced;
    unsigned resumes; /* RESUMEs to answer when nothing is unfinished */

    pthread_mutex_t room_mutex; /* guards the rest */
    unsigned taken;
    uint64_t taken_bytes;
    bool lane_waits[ORDERS_MAX_LANES];
};

bool disk_destination_put(struct disk_destination *destination, uint32_t lane, struct work *work)
{
    bool has_room;

    pthread_mutex_lock(&destination->room_mutex);
    has_room = destination->taken < TAKEN_MAX &&
               destination->taken_bytes + work->length <= TAKEN_BYTES_MAX;
    if (has_room) {
        destination->taken++;
        destination->taken_bytes += work->length;
    } else {
        destination->lane_waits[lane] = true;
    }
    pthread_mutex_unlock(&destination->room_mutex);
    if (has_room) {
        disk_inbox_put(&destination->inbox, work);
    }
    return has_room;
}

/* Gives back the room of one request with LENGTH raw bytes. */
static void give_room(struct disk_destination *destination, uint32_t length)
{
    bool wake[ORDERS_MAX_LANES];

    pthread_mutex_lock(&destination->room_mutex);
    destination->taken--;
    destination->taken_bytes -= length;
    memcpy(wake, destination->lane_waits, sizeof wake);
    memset(destination->lane_waits, 0, sizeof wake);
    pthread_mutex_unlock(&destination->room_mutex);
    for (size_t i = 0; i < destination->mover->settings.lanes; i++) {
        if (wake[i]) {
            outbox_wake(destination->mover->outbox, i);
        }
    }
}

/* The request's own work, made its answer, goes back; it had LENGTH raw bytes. */
static void send_answer(struct disk_destination *destination, struct work *work, uint32_t length)
{
    outbox_put(destination->mover->outbox, work);
    destination->unfinished--;
    give_room(destination, length);
}

static void answer(struct disk_destination *destination, struct work *work, int error)
{
    uint64_t id = work->type == FRAME_FLUSH ? work->flush.request : work->extent.request;
    uint32_t length = work->length;

    work_drop_data(work);
    work->type = FRAME_DONE;
    work->done = (struct frame_done){id, (uint32_t)error};
    send_answer(destination, work, length);
}

static void answer_digest(struct disk_destination *destination, struct work *work, int error,
                          const struct frame_hash *hash)
{
    struct frame_digest digest = {.request = work->verify.request, .status = (uint32_t)error};

    if (error == 0) {
        digest.hash = *hash;
    }
    work->type = FRAME_DIGEST;
    work->digest = digest;
    send_answer(destination, work, 0);
}

static bool fail_disk(struct disk_destination *destination, uint32_t disk, const char *what)
{
    return mover_fail(destination->mover, "disk-write", "disk %u: %s", disk, what);
}

static bool order_disk(struct disk_destination *destination, const struct order_disk *order, int fd)
{
    struct target *target = &destination->targets[order->disk];
    char error[512];
    char name[32];

    if (target->link != NULL) {
        close(fd);
        return mover_fail(destination->mover, "orders", "DISK %u came twice", order->disk);
    }
    snprintf(name, sizeof name, "disk%u", order->disk);
    target->size = order->size;
    target->link = disk_link_new(fd, name, true, "", error, sizeof error);
    if (target->link == NULL) {
        return fail_disk(destination, order->disk, error);
    }
    if (order->disk >= destination->target_end) {
        destination->target_end = order->disk + 1;
    }
    return true;
}

static bool obey(struct disk_destination *destination, const struct order *order, int fd)
{
    switch (order->type) {
    case ORDER_DISK:
        return order_disk(destination, &order->disk, fd);
    case ORDER_QUIESCE:
        destination->quiesce = true;
        return true;
    case ORDER_RESUME:
        destination->resumes++;
        return true;
    default:
        return mover_fail(destination->mover, "orders", "order %u is not for the disk thread",
                          (unsigned)order->type);
    }
}

/* What of a disk a request is about. */
struct place {
    uint32_t disk, length;
    uint64_t offset;
};

static struct place place_of(const struct work *work)
{
    switch (work->type) {
    case FRAME_FLUSH:
        return (struct place){work->flush.disk, 0, 0};
    case FRAME_VERIFY:
        return (struct place){work->verify.disk, work->verify.length, work->verify.offset};
    default:
        return (struct place){work->extent.disk, work->extent.length, work->extent.offset};
    }
}

/* Checks what only this thread can: that the disk exists and the extent or run lies on it. */
static bool accept_work(struct disk_destination *destination, struct work *work)
{
    const struct place place = place_of(work);
    uint32_t disk = place.disk;
    struct target *target;

    if (destination->quiesced) {
        return mover_fail(destination->mover, "protocol",
                          "the peer sent more for disk %u after the disks were closed", disk);
    }
    if (disk >= ORDERS_MAX_DISKS || destination->targets[disk].link == NULL) {
        return mover_fail(destination->mover, "protocol",
                          "the peer sent something for disk %u, which is not there", disk);
    }
    target = &destination->targets[disk];
    if (place.offset > target->size || place.length > target->size - place.offset) {
        return mover_fail(destination->mover, "protocol",
                          "the peer %s %u bytes for offset %" PRIu64 " of disk %u, which has "
                          "only %" PRIu64,
                          work->type == FRAME_VERIFY ? "asked about" : "sent", place.length,
                          place.offset, disk, target->size);
    }
    work_list_put(work->type == FRAME_VERIFY ? &target->asked : &target->waiting, work);
    destination->unfinished++;
    return true;
}

static bool take_inbox(struct disk_destination *destination)
{
    struct disk_order *order;
    struct work_list arrived = {0};
    struct work *work;
    bool is_good = true;

    disk_inbox_take(&destination->inbox, &order, &arrived);
    while (order != NULL) {
        struct disk_order *next = order->next;

        is_good = is_good && obey(destination, &order->order, order->fd);
        free(order);
        order = next;
    }
    while (is_good && (work = work_list_take(&arrived)) != NULL) {
        is_good = accept_work(destination, work);
        if (!is_good) {
            work_unref(work);
        }
    }
    return is_good;
}

static bool begin_write(struct target *target, struct command *command)
{
    const struct work *work = command->work;
    struct disk_task *task = &command->digest.question.task;

    if (work->type == FRAME_FLUSH) {
        return disk_link_flush(target->link, task);
    }
    if (work->extent.kind == FRAME_EXTENT_ZERO) {
        return disk_link_zero(target->link, task, work->extent.length, work->extent.offset);
    }
    return disk_link_write(target->link, task, work->data, work->length, work->extent.offset);
}

static bool begin_writes(struct disk_destination *destination, struct target *target)
{
    while (target->writes < DISK_LINK_WRITES && target->waiting.count > 0) {
        struct command *command = calloc(1, sizeof *command);

        if (command == NULL) {
            return mover_fail_memory(destination->mover);
        }
        command->work = work_list_take(&target->waiting);
        if (begin_write(target, command)) {
            target->writes++;
        } else {
            answer(destination, command->work, command->digest.question.task.error);
            free(command);
        }
    }
    return true;
}

static void finish_write(struct disk_destination *destination, struct target *target,
                         struct command *command)
{
    const struct work *work = command->work;
    struct counters *counters = &destination->mover->counters;
    int error = command->digest.question.task.error;

    target->writes--;
    if (error == 0 && work->type == FRAME_EXTENT) {
        if (work->extent.kind == FRAME_EXTENT_ZERO) {
            count_add(&counters->disk_zero_bytes, work->extent.length);
        } else {
            count_add(&counters->disk_bytes, work->extent.length);
        }
    }
    answer(destination, command->work, error);
    free(command);
}

/* Answers what is read back, and frees COMMAND, unless it has still to wait. */
static void take_step(struct disk_destination *destination, struct command *command,
                      enum digest_step step)
{
    if (step == DIGEST_WAITS) {
        return;
    }
    destination->reads--;
    answer_digest(destination, command->work, step == DIGEST_FAILED ? command->digest.error : 0,
                  &command->digest.hash);
    disk_digest_clear(&command->digest);
    free(command);
}

static bool begin_reads(struct disk_destination *destination, struct target *target)
{
    while (destination->reads < READS_MAX && target->asked.count > 0) {
        struct command *command = calloc(1, sizeof *command);
        const struct frame_verify *verify;

        if (command == NULL) {
            return mover_fail_memory(destination->mover);
        }
        command->work = work_list_take(&target->asked);
        verify = &command->work->verify;
        destination->reads++;
        take_step(
            destination, command,
            disk_digest_begin(&command->digest, target->link, verify->offset, verify->length));
    }
    return true;
}

static void finish(struct disk_destination *destination, struct target *target,
                   struct command *command)
{
    if (command->work->type == FRAME_VERIFY) {
        take_step(destination, command, disk_digest_turn(&command->digest));
    } else {
        finish_write(destination, target, command);
    }
}

static bool check(struct disk_destination *destination, struct target *target, uint32_t disk)
{
    char error[512];
    int64_t size = disk_link_size(target->link);

    if (!disk_link_check(target->link, true, error, sizeof error)) {
        return fail_disk(destination, disk, error);
    }
    if (size < 0 || (uint64_t)size != target->size) {
        snprintf(error, sizeof error, "the export has %" PRId64 " bytes, the disk %" PRIu64, size,
                 target->size);
        return fail_disk(destination, disk, error);
    }
    target->checked = true;
    return true;
}

/* What can be begun with one disk. */
static bool go_on(struct disk_destination *destination, uint32_t disk)
{
    struct target *target = &destination->targets[disk];

    if (target->link == NULL || destination->quiesced) {
        return true;
    }
    switch (disk_link_state(target->link)) {
    case DISK_LINK_DEAD:
        return fail_disk(destination, disk, disk_link_error(target->link));
    case DISK_LINK_CONNECTING:
        return true;
    case DISK_LINK_READY:
        break;
    }
    if (!target->checked && !check(destination, target, disk)) {
        return false;
    }
    return begin_writes(destination, target) && begin_reads(destination, target);
}

static void quiesce_when_still(struct disk_destination *destination)
{
    struct report report = {.type = REPORT_QUIESCED};

    if (!destination->quiesce || destination->quiesced || destination->unfinished > 0) {
        return;
    }
    destination->quiesced = true;
    reporter_put(&destination->mover->reporter, &report);
}

/* The lanes are over, and the source asks again what was not answered: what has not been begun need
 * not hold up the resume. */
static void drop_questions(struct disk_destination *destination)
{
    for (uint32_t i = 0; i < destination->target_end; i++) {
        struct work *work;

        while ((work = work_list_take(&destination->targets[i].asked)) != NULL) {
            work_unref(work);
            destination->unfinished--;
            give_room(destination, 0);
        }
    }
}

/*
 * The lanes are over, and the source sends again whatever it has no DONE for. That may not reach
 * QEMU while a write of the same request is still in its hands: DONE for the second would let the
 * source send newer bytes in its next pass, and the first could land after them. So all is finished
 * before new lanes may come, and the answers, which nobody took or the source will get again, go.
 */
static void resume_when_still(struct disk_destination *destination)
{
    if (destination->resumes == 0 || destination->unfinished > 0) {
        return;
    }
    outbox_drop(destination->mover->outbox, FRAME_DONE);
    outbox_drop(destination->mover->outbox, FRAME_DIGEST);
    mover_resumed(destination->mover, RESUME_DISK, destination->resumes);
    destination->resumes = 0;
}

/* A completed command of a connection that died is no answer to the peer: what it did is not
 * known. */
static bool turn(struct disk_destination *destination, uint32_t disk, short revents)
{
    struct target *target = &destination->targets[disk];
    struct disk_task *task;

    disk_link_turn(target->link, revents);
    if (disk_link_state(target->link) == DISK_LINK_DEAD) {
        return fail_disk(destination, disk, disk_link_error(target->link));
    }
    while ((task = disk_link_take_completed(target->link)) != NULL) {
        finish(destination, target, (struct command *)task);
    }
    return true;
}

/* Entry 1 + N is disk N's. Once quiesced no disk is polled: the exports go away, and that is
 * right. */
static nfds_t prepare_poll(const struct disk_destination *destination, struct pollfd *fds)
{
    fds[0] = (struct pollfd){.fd = destination->inbox.waker.fd, .events = POLLIN};
    for (uint32_t i = 0; i < destination->target_end; i++) {
        const struct target *target = &destination->targets[i];

        fds[1 + i] = (struct pollfd){.fd = -1};
        if (target->link != NULL && !destination->quiesced) {
            fds[1 + i] = disk_link_poll(target->link);
        }
    }
    return 1 + destination->target_end;
}

static bool turn_all(struct disk_destination *destination, const struct pollfd *fds, nfds_t count)
{
    for (nfds_t i = 1; i < count; i++) {
        if (fds[i].revents != 0 && !turn(destination, (uint32_t)i - 1, fds[i].revents)) {
            return false;
        }
    }
    if (!take_inbox(destination)) {
        return false;
    }
    if (destination->resumes > 0) {
        drop_questions(destination);
    }
    for (uint32_t i = 0; i < destination->target_end; i++) {
        if (!go_on(destination, i)) {
            return false;
        }
    }
    resume_when_still(destination);
    quiesce_when_still(destination);
    return true;
}

static void *run(void *argument)
{
    struct disk_destination *destination = argument;
    struct pollfd fds[1 + ORDERS_MAX_DISKS];
    bool is_good = true;

    while (is_good) {
        nfds_t count = prepare_poll(destination, fds);

        if (poll(fds, count, -1) > 0) {
            is_good = turn_all(destination, fds, count);
        }
    }
    return NULL;
}

struct disk_destination *disk_destination_start(struct mover *mover)
{
    struct disk_destination *destination = calloc(1, sizeof *destination);

    if (destination == NULL || !disk_inbox_open(&destination->inbox)) {
        mover_fail_memory(mover);
        return NULL;
    }
    destination->mover = mover;
    pthread_mutex_init(&destination->room_mutex, NULL);
    if (!mover_start_thread(mover, &destination->thread, "disk", run, destination)) {
        return NULL;
    }
    return destination;
}

bool disk_destination_order(struct disk_destination *destination, const struct order *order, int fd)
{
    return disk_inbox_put_order(&destination->inbox, order, fd) ||
           mover_fail_memory(destination->mover);
}

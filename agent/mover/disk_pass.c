#include "disk_pass.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One question for block status; QEMU answers with at most 128 Ki extents, and we ask again. */
#define STATUS_BYTES_MAX (1u << 30)
/* No more questions while so many runs are known: 768 KiB of them. */
#define MAP_EXTENTS_MAX (32u << 10)
/* Samples are no more frequent, and looking through all requests costs something. */
#define REACHED_US 50000u

static bool fail_read(struct pass *pass, const char *what)
{
    return mover_fail(pass->mover, "disk-read", "disk %u, pass %u: %s", pass->order.disk,
                      pass->order.pass, what);
}

/* A command has failed: of a dead connection that says more than the error that all its commands
 * get. */
static const char *reason_of(const struct pass *pass, const struct disk_task *task)
{
    if (disk_link_state(pass->link) == DISK_LINK_DEAD) {
        return disk_link_error(pass->link);
    }
    return strerror(task->error);
}

struct pass *pass_new(struct mover *mover, struct request_table *requests, struct stale_map *stale,
                      const struct order_disk *disk, const struct order_pass *order, int fd)
{
    char error[512];
    struct pass *pass = calloc(1, sizeof *pass);

    if (pass == NULL) {
        close(fd);
        mover_fail_memory(mover);
        return NULL;
    }
    pass->mover = mover;
    pass->requests = requests;
    pass->stale = stale;
    pass->order = *order;
    pass->disk = *disk;
    pass->figures.disk = order->disk;
    pass->figures.pass = order->pass;
    pass->state = PASS_NEGOTIATING;
    pass->mapped = order->from;
    count_set(&mover->counters.pass_reached[order->disk], order->from);
    pass->link = disk_link_new(fd, order->export_name, true, order->context, error, sizeof error);
    if (pass->link == NULL) {
        fail_read(pass, error);
        free(pass);
        return NULL;
    }
    return pass;
}

void pass_free(struct pass *pass)
{
    assert(pass->state == PASS_IDLE);
    disk_link_free(pass->link);
    disk_question_clear(&pass->question);
    extent_map_free(&pass->map);
    free(pass);
}

/* What SAMPLE tells of this pass. Of a bulk pass all that is not yet mapped counts; of a dirty pass
 * nothing does, since most of it will turn out to be clean. */
static void publish_left(struct pass *pass)
{
    uint64_t left = pass->map.data_bytes + pass->bytes_out;

    if (pass->order.context[0] == '\0') {
        left += pass->disk.size - pass->mapped;
    }
    if (pass->state == PASS_IDLE) {
        left = 0;
    }
    count_set(&pass->mover->counters.pass_left[pass->order.disk], left);
}

/* Pieces are begun in the disk's order, and end in any. */
static void publish_reached(struct pass *pass)
{
    uint64_t now = mover_now_us();
    uint64_t reached = pass->mapped;

    if (now - pass->reached_us < REACHED_US) {
        return;
    }
    pass->reached_us = now;
    if (extent_map_count(&pass->map) > 0) {
        reached = pass->map.extents[pass->map.first].offset;
    }
    count_set(&pass->mover->counters.pass_reached[pass->order.disk],
              request_lowest(pass->requests, pass, reached));
}

static bool begin_copying(struct pass *pass)
{
    char error[512];
    int64_t size = disk_link_size(pass->link);

    if (!disk_link_check(pass->link, false, error, sizeof error)) {
        return fail_read(pass, error);
    }
    if (size < 0 || (uint64_t)size != pass->disk.size) {
        snprintf(error, sizeof error, "the export has %" PRId64 " bytes, the disk %" PRIu64, size,
                 pass->disk.size);
        return fail_read(pass, error);
    }
    pass->state = PASS_COPYING;
    return true;
}

/* Block status, ahead of the reads. */
static bool ask(struct pass *pass)
{
    uint64_t length = pass->disk.size - pass->mapped;

    if (pass->asking || length == 0 || extent_map_count(&pass->map) >= MAP_EXTENTS_MAX) {
        return true;
    }
    if (length > STATUS_BYTES_MAX) {
        length = STATUS_BYTES_MAX;
    }
    pass->asking = true;
    pass->asked = length;
    if (!disk_link_ask(pass->link, &pass->question, length, pass->mapped)) {
        return fail_read(pass, reason_of(pass, &pass->question.task));
    }
    return true;
}

static bool take_answer(struct pass *pass)
{
    const struct block_status *allocation = &pass->question.allocation;
    const struct block_status *dirty = &pass->question.context;
    bool all = pass->order.context[0] == '\0';
    uint64_t covered;

    pass->asking = false;
    if (pass->question.task.error != 0) {
        return fail_read(pass, reason_of(pass, &pass->question.task));
    }
    if (!extent_map_add(&pass->map, pass->mapped, pass->asked, allocation, all ? NULL : dirty,
                        &covered)) {
        return mover_fail_memory(pass->mover);
    }
    if (covered == 0) {
        return fail_read(pass, "the NBD server's block status says nothing");
    }
    pass->mapped += covered;
    return true;
}

/* Zeroes of the bulk pass need not travel to an image that reads as zero by itself. */
static bool zeroes_are_there(const struct pass *pass)
{
    return pass->order.pass == 0 && pass->disk.reads_as_zero;
}

static void count_zeroes(struct pass *pass, uint64_t bytes)
{
    pass->figures.zero_bytes += bytes;
    count_add(&pass->mover->counters.disk_zero_bytes, bytes);
}

/* Takes the request off the books. */
static void close_request(struct pass *pass, struct request *request)
{
    pass->requests_out--;
    pass->bytes_out -= request->length;
    request_release(pass->requests, request);
}

/* Hands the request's frame to the lanes, and keeps it until it is answered. */
static void send_request(struct pass *pass, struct request *request)
{
    request->sent = true;
    request->sent_us = mover_now_us();
    pass->figures.extents++;
    outbox_put(pass->mover->outbox, work_ref(request->work));
}

void pass_send_again(struct pass *pass, struct request *request)
{
    /* How long the link was away says nothing about how long a flush takes. */
    if (pass->state == PASS_FLUSHING) {
        pass->flush_started_us = mover_now_us();
    }
    request->sent_us = mover_now_us();
    outbox_put(pass->mover->outbox, work_ref(request->work));
}

static struct request *open_request(struct pass *pass, const struct extent *extent)
{
    uint32_t data = extent->zero ? 0 : (uint32_t)extent->length;
    struct request *request = request_take(pass->requests);

    if (request == NULL) {
        return NULL;
    }
    request->pass = pass;
    request->offset = extent->offset;
    request->length = data;
    request->work = work_new(FRAME_EXTENT, data);
    if (request->work == NULL) {
        request_release(pass->requests, request);
        return NULL;
    }
    request->work->extent = (struct frame_extent){
        .request = request->id,
        .offset = extent->offset,
        .length = (uint32_t)extent->length,
        .disk = (uint16_t)pass->order.disk,
        .kind = extent->zero ? FRAME_EXTENT_ZERO : FRAME_EXTENT_DATA,
    };
    pass->requests_out++;
    pass->bytes_out += data;
    return request;
}

static bool begin_extent(struct pass *pass, const struct extent *extent)
{
    struct request *request;

    /* Before it is read: what a comparison that is under way finds is of before. */
    if (pass->stale != NULL) {
        stale_map_mark(pass->stale, extent->offset, extent->length);
    }
    if (extent->zero) {
        count_zeroes(pass, extent->length);
    }
    if (extent->zero && zeroes_are_there(pass)) {
        return true;
    }
    request = open_request(pass, extent);
    if (request == NULL) {
        return mover_fail_memory(pass->mover);
    }
    if (extent->zero) {
        send_request(pass, request);
        return true;
    }
    pass->reads++;
    if (!disk_link_read(pass->link, &request->task, request->work->data, request->length,
                        extent->offset)) {
        return fail_read(pass, reason_of(pass, &request->task));
    }
    return true;
}

/* A read has come back: what turns out to be zero travels as such, or not at all. */
static bool finish_read(struct pass *pass, struct request *request)
{
    struct work *work = request->work;
    char error[640];

    pass->reads--;
    if (request->task.error != 0) {
        snprintf(error, sizeof error, "reading %u bytes at offset %" PRIu64 ": %s", request->length,
                 request->offset, reason_of(pass, &request->task));
        return fail_read(pass, error);
    }
    if (!bytes_are_zero(work->data, work->length)) {
        pass->figures.data_bytes += work->length;
        count_add(&pass->mover->counters.disk_bytes, work->length);
        send_request(pass, request);
        return true;
    }
    count_zeroes(pass, work->length);
    if (zeroes_are_there(pass)) {
        close_request(pass, request);
        return true;
    }
    pass->bytes_out -= request->length;
    request->length = 0;
    work_drop_data(work);
    work->extent.kind = FRAME_EXTENT_ZERO;
    send_request(pass, request);
    return true;
}

bool pass_turn(struct pass *pass, short revents)
{
    struct disk_task *task;

    disk_link_turn(pass->link, revents);
    while ((task = disk_link_take_completed(pass->link)) != NULL) {
        bool is_good = task == &pass->question.task ? take_answer(pass)
                                                    : finish_read(pass, (struct request *)task);

        if (!is_good) {
            return false;
        }
    }
    return true;
}

static bool may_begin(const struct pass *pass, const struct pass_budget *budget)
{
    return extent_map_count(&pass->map) > 0 && pass->reads < DISK_LINK_READS &&
           pass->requests_out < budget->requests && pass->bytes_out < budget->bytes;
}

bool pass_is_full(const struct pass *pass, const struct pass_budget *budget)
{
    return pass->state == PASS_COPYING && pass->reads == 0 && extent_map_count(&pass->map) > 0 &&
           !may_begin(pass, budget);
}

static bool is_copied(const struct pass *pass)
{
    return pass->mapped == pass->disk.size && extent_map_count(&pass->map) == 0 &&
           pass->requests_out == 0;
}

static bool begin_flush(struct pass *pass)
{
    struct request *request = request_take(pass->requests);
    struct work *work = work_new(FRAME_FLUSH, 0);

    if (request == NULL || work == NULL) {
        work_unref(work);
        return mover_fail_memory(pass->mover);
    }
    request->pass = pass;
    request->sent = true;
    request->work = work;
    work->flush = (struct frame_flush){request->id, (uint16_t)pass->order.disk};
    pass->state = PASS_FLUSHING;
    count_set(&pass->mover->counters.pass_reached[pass->order.disk], pass->disk.size);
    pass->flush_started_us = mover_now_us();
    outbox_put(pass->mover->outbox, work_ref(work));
    return true;
}

bool pass_go_on(struct pass *pass, const struct pass_budget *budget)
{
    struct extent extent;

    if (pass->state == PASS_IDLE || pass->state == PASS_FLUSHING) {
        return true;
    }
    if (disk_link_state(pass->link) == DISK_LINK_DEAD) {
        return fail_read(pass, disk_link_error(pass->link));
    }
    if (pass->state == PASS_NEGOTIATING) {
        if (disk_link_state(pass->link) != DISK_LINK_READY) {
            return true;
        }
        if (!begin_copying(pass)) {
            return false;
        }
    }
    if (!ask(pass)) {
        return false;
    }
    while (may_begin(pass, budget)) {
        extent_map_take(&pass->map, budget->unit, FRAME_ZERO_MAX, &extent);
        if (!begin_extent(pass, &extent)) {
            return false;
        }
    }
    publish_left(pass);
    publish_reached(pass);
    return is_copied(pass) ? begin_flush(pass) : true;
}

static void finish(struct pass *pass)
{
    struct report report = {.type = REPORT_PASS_DONE};

    pass->state = PASS_IDLE;
    pass->figures.flush_ns = (mover_now_us() - pass->flush_started_us) * 1000u;
    publish_left(pass);
    report.pass = pass->figures;
    reporter_put(&pass->mover->reporter, &report);
}

static bool fail_write(struct pass *pass, const struct request *request, uint32_t status)
{
    const char *id = status == ENOSPC ? "no-space" : "disk-write";

    if (pass->state == PASS_FLUSHING) {
        return mover_fail(pass->mover, id, "disk %u, pass %u: the destination could not flush: %s",
                          pass->order.disk, pass->order.pass, strerror((int)status));
    }
    return mover_fail(pass->mover, id,
                      "disk %u, pass %u: the destination could not write at offset %" PRIu64 ": %s",
                      pass->order.disk, pass->order.pass, request->offset, strerror((int)status));
}

bool pass_request_done(struct pass *pass, struct request *request, uint32_t status)
{
    if (status != 0) {
        return fail_write(pass, request, status);
    }
    if (pass->state == PASS_FLUSHING) {
        request_release(pass->requests, request);
        finish(pass);
        return true;
    }
    count_add(&pass->mover->counters.disk_acknowledged, request->length);
    close_request(pass, request);
    return true;
}

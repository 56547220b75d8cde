#include "memory_destination.h"
#include "reorder.h"
#include "stream_hash.h"
#include "protocol/page_cache.h"
#include "protocol/page_operation.h"
#include "protocol/stream_cutter.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* RECEIVED goes out after so many bytes, or this time after the last one: often enough for the
 * source's window to move, seldom enough to cost nothing. */
#define RECEIVED_BYTES (512u << 10)
#define RECEIVED_US 2000u
#define GUEST_PAGE_SIZE 4096u

struct memory_destination {
    struct mover *mover;
    struct waker waker;
    pthread_t thread;

    pthread_mutex_t mutex; /* guards the next four */
    bool has_stream;       /* MEMORY came */
    int new_stream;        /* from MEMORY, until the thread takes it; -1 */
    struct reorder reorder;
    unsigned resumes; /* RESUMEs that the thread has not obeyed yet */

    /* The thread's own. */
    int stream;
    struct stream_cutter *cutter;
    struct page_cache cache;
    struct stream_hash hash;
    uint64_t sequence; /* all below are in QEMU's socket */
    uint64_t bytes;
    uint64_t told_sequence, told_bytes; /* by the last RECEIVED */
    uint64_t told_us;
    bool over; /* END was obeyed: nothing may follow */
};

bool memory_destination_put(struct memory_destination *destination, struct work *work,
                            const char **why)
{
    enum reorder_verdict verdict;

    pthread_mutex_lock(&destination->mutex);
    verdict = reorder_put(&destination->reorder, work);
    pthread_mutex_unlock(&destination->mutex);
    switch (verdict) {
    case REORDER_OK:
        waker_wake(&destination->waker);
        return true;
    case REORDER_OLD:
        /* After a RESUME the source sends again what it does not know to have come. */
        work_unref(work);
        return true;
    case REORDER_BEYOND:
        break;
    }
    *why = "beyond the window";
    return false;
}

/* The next in order, once there is a stream to write it to. */
static struct work *take_next(struct memory_destination *destination)
{
    struct work *work = NULL;

    pthread_mutex_lock(&destination->mutex);
    if (destination->new_stream >= 0) {
        destination->stream = destination->new_stream;
        destination->new_stream = -1;
    }
    if (destination->stream >= 0) {
        work = reorder_take(&destination->reorder);
    }
    pthread_mutex_unlock(&destination->mutex);
    return work;
}

static bool tell_received(struct memory_destination *destination)
{
    struct work *work = work_new(FRAME_RECEIVED, 0);

    if (work == NULL) {
        return mover_fail_memory(destination->mover);
    }
    work->received = (struct frame_received){destination->sequence, destination->bytes};
    outbox_put(destination->mover->outbox, work);
    destination->told_sequence = destination->sequence;
    destination->told_bytes = destination->bytes;
    destination->told_us = mover_now_us();
    return true;
}

static bool has_untold(const struct memory_destination *destination)
{
    return destination->sequence > destination->told_sequence;
}

static bool tell_when_due(struct memory_destination *destination)
{
    if (!has_untold(destination)) {
        return true;
    }
    if (destination->bytes - destination->told_bytes < RECEIVED_BYTES &&
        mover_now_us() - destination->told_us < RECEIVED_US) {
        return true;
    }
    return tell_received(destination);
}

/* Until something is due to be told: milliseconds for poll(), rounded up. */
static int patience(const struct memory_destination *destination)
{
    return has_untold(destination) ? (int)(RECEIVED_US / 1000u) : -1;
}

/* All lanes are over: the RECEIVED frames that they did not take, or did not bring across, are
 * replaced by one for those that come. */
static bool tell_again(struct memory_destination *destination)
{
    unsigned resumes;

    pthread_mutex_lock(&destination->mutex);
    resumes = destination->resumes;
    destination->resumes = 0;
    pthread_mutex_unlock(&destination->mutex);
    if (resumes == 0) {
        return true;
    }
    outbox_drop(destination->mover->outbox, FRAME_RECEIVED);
    if (!tell_received(destination)) {
        return false;
    }
    mover_resumed(destination->mover, RESUME_MEMORY, resumes);
    return true;
}

/* Sleeps until FD (-1: none) says EVENTS, somebody wakes us, or a RECEIVED is due, and sends it. */
static bool wait_for(struct memory_destination *destination, int fd, short events)
{
    struct pollfd fds[2] = {{.fd = destination->waker.fd, .events = POLLIN},
                            {.fd = fd, .events = events}};
    int ready = poll(fds, 2, patience(destination));

    if (ready == 0) {
        return tell_when_due(destination);
    }
    if (ready > 0 && fds[0].revents != 0) {
        waker_clear(&destination->waker);
    }
    return tell_again(destination);
}

static bool write_stream(struct memory_destination *destination, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t done = send(destination->stream, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (done >= 0) {
            bytes += done;
            size -= (size_t)done;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            /* QEMU may take its time; a RESUME need not wait for it. What wakes us besides is found
             * when this segment is through. */
            if (!wait_for(destination, destination->stream, POLLOUT)) {
                return false;
            }
        } else if (errno != EINTR) {
            return mover_fail(destination->mover, "stream",
                              "QEMU took no more of the migration stream after %llu bytes: %s",
                              (unsigned long long)destination->bytes, strerror(errno));
        }
    }
    return true;
}

static void publish(struct memory_destination *destination)
{
    const struct stream_counts *counts = stream_cutter_counts(destination->cutter);
    struct counters *counters = &destination->mover->counters;

    count_set(&counters->stream_bytes, destination->bytes);
    count_set(&counters->pages, counts->pages);
    count_set(&counters->zero_pages, counts->zero_pages);
    count_set(&counters->page_bytes, counts->page_bytes);
    atomic_store_explicit(&counters->stream_phase,
                          (uint32_t)stream_cutter_phase(destination->cutter), memory_order_relaxed);
}

static bool fail_place(struct memory_destination *destination, const char *what, uint64_t offset)
{
    return mover_fail(destination->mover, "protocol",
                      "the peer sent a %s for stream offset %llu, but %llu is the next", what,
                      (unsigned long long)offset, (unsigned long long)destination->bytes);
}

static bool take_segment(struct memory_destination *destination, const struct work *work)
{
    uint32_t size = work->length - work->segment.operations * PAGE_OPERATION_SIZE;
    const char *why;

    if (work->segment.offset != destination->bytes) {
        return fail_place(destination, "segment", work->segment.offset);
    }
    why = page_cache_obey(&destination->cache, work->data, size, work->data + size,
                          work->segment.operations);
    if (why != NULL) {
        return mover_fail(destination->mover, "protocol",
                          "the peer sent %s, in the segment at stream offset %llu", why,
                          (unsigned long long)work->segment.offset);
    }
    stream_hash_feed(&destination->hash, work->data, size);
    stream_cutter_feed(destination->cutter, work->data, size);
    if (!write_stream(destination, work->data, size)) {
        return false;
    }
    destination->bytes += size;
    publish(destination);
    return true;
}

static bool take_mark(struct memory_destination *destination, const struct frame_mark *mark,
                      struct frame_hash hash, const char *what)
{
    if (mark->offset != destination->bytes) {
        return fail_place(destination, what, mark->offset);
    }
    if (!stream_hash_equal(&mark->hash, &hash)) {
        return mover_fail(destination->mover, "hash",
                          "the migration stream differs from what left the source, found at the "
                          "%s at offset %llu",
                          what, (unsigned long long)mark->offset);
    }
    return true;
}

static bool end(struct memory_destination *destination, const struct frame_mark *mark)
{
    struct report report = {.type = REPORT_MEMORY_DONE, .memory.bytes = destination->bytes};

    if (shutdown(destination->stream, SHUT_WR) != 0) {
        return mover_fail(destination->mover, "stream", "ending QEMU's migration stream: %s",
                          strerror(errno));
    }
    destination->over = true;
    memcpy(report.memory.hash, mark->hash.bytes, sizeof report.memory.hash);
    reporter_put(&destination->mover->reporter, &report);
    return true;
}

static bool take_work(struct memory_destination *destination, const struct work *work)
{
    if (destination->over) {
        return mover_fail(destination->mover, "protocol",
                          "the peer sent a %s behind the stream's end",
                          frame_type_name(work->type));
    }
    switch (work->type) {
    case FRAME_SEGMENT:
        if (!take_segment(destination, work)) {
            return false;
        }
        break;
    case FRAME_CHECKPOINT:
        if (!take_mark(destination, &work->mark, stream_hash_end_run(&destination->hash),
                       "checkpoint")) {
            return false;
        }
        break;
    default: /* reorder lets nothing else in but END */
        if (!take_mark(destination, &work->mark, stream_hash_whole(&destination->hash), "end") ||
            !end(destination, &work->mark)) {
            return false;
        }
        break;
    }
    destination->sequence++;
    return work->type == FRAME_END ? tell_received(destination) : tell_when_due(destination);
}

static void *run(void *argument)
{
    struct memory_destination *destination = argument;
    bool is_good = true;

    while (is_good) {
        struct work *work = take_next(destination);

        is_good = work != NULL ? take_work(destination, work) : wait_for(destination, -1, 0);
        work_unref(work);
    }
    return NULL;
}

struct memory_destination *memory_destination_start(struct mover *mover)
{
    struct memory_destination *destination = calloc(1, sizeof *destination);

    if (destination == NULL) {
        goto fail;
    }
    destination->mover = mover;
    destination->new_stream = destination->stream = -1;
    pthread_mutex_init(&destination->mutex, NULL);
    destination->cutter = stream_cutter_new(GUEST_PAGE_SIZE);
    if (destination->cutter == NULL ||
        !page_cache_open(&destination->cache, page_cache_slots(mover->settings.page_cache_bytes)) ||
        !stream_hash_open(&destination->hash) || !waker_open(&destination->waker)) {
        goto fail;
    }
    if (!mover_start_thread(mover, &destination->thread, "memory", run, destination)) {
        return NULL;
    }
    return destination;

fail:
    mover_fail_memory(mover);
    return NULL;
}

bool memory_destination_attach(struct memory_destination *destination, int fd)
{
    bool is_second;

    pthread_mutex_lock(&destination->mutex);
    is_second = destination->has_stream;
    destination->has_stream = true;
    if (!is_second) {
        destination->new_stream = fd;
    }
    pthread_mutex_unlock(&destination->mutex);
    if (is_second) {
        close(fd);
        return mover_fail(destination->mover, "orders", "MEMORY came twice");
    }
    waker_wake(&destination->waker);
    return true;
}

void memory_destination_resume(struct memory_destination *destination)
{
    pthread_mutex_lock(&destination->mutex);
    destination->resumes++;
    pthread_mutex_unlock(&destination->mutex);
    waker_wake(&destination->waker);
}

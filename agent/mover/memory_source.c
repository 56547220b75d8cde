#include "memory_source.h"
#include "kept.h"
#include "page_encoder.h"
#include "stream_hash.h"
#include "window.h"
#include "agent/common/log.h"
#include "protocol/page_operation.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Sequence numbers that one turn may need: a segment, the CHECKPOINT behind it, END. */
#define TURN_SEQUENCES 3u
/* A segment that is not full goes out when the stream has been silent for so long. */
#define IDLE_MS 5
/* Near a HOLD the stream is read in runs of this size, so as not to read much beyond it. */
#define HOLD_RUN (32u << 10)
/* A page record has at least 8 bytes of address and flags. */
#define PAGE_RECORD_MIN 8u
#define GUEST_PAGE_SIZE 4096u
/* The smallest that is worth a frame: smaller ones compress badly. */
#define SEGMENT_MIN (16u << 10)
/* What may be on its way, besides its bound in time. Before anything is known: four large segments.
 * At most 1 Gbit/s over 256 ms, or 10 Gbit/s over 26 ms. */
#define FLIGHT_FIRST (1u << 20)
#define FLIGHT_MIN (2 * SEGMENT_MIN)
#define FLIGHT_MAX (32u << 20)
/* Behind a segment's stream bytes there is room for an operation on each of its whole pages. */
#define OPERATIONS_MOST(segment) ((segment) / (GUEST_PAGE_SIZE + PAGE_RECORD_MIN) + 1)

enum source_state {
    SOURCE_WAITING,   /* for MEMORY */
    SOURCE_READING,   /* or waiting for room in the window */
    SOURCE_HELD,      /* by HOLD */
    SOURCE_LAST_HELD, /* EOF seen, the last segment kept back until GO */
    SOURCE_RELEASED,  /* GO came for it */
    SOURCE_ENDING,    /* END sent, not yet RECEIVED */
    SOURCE_DONE,
};

struct memory_source {
    struct mover *mover;
    struct waker waker;
    pthread_t thread;

    pthread_mutex_t mutex; /* guards what follows, up to KEPT */
    bool has_stream;       /* MEMORY came */
    int new_stream;        /* from MEMORY, until the thread takes it; -1 */
    bool hold;
    uint64_t hold_pages;
    bool go;
    unsigned resumes;     /* RESUMEs that the thread has not obeyed yet */
    struct window window; /* how far OFFSET may be ahead of what is RECEIVED */
    struct kept kept;     /* only the thread puts in */

    /* The thread's own. */
    enum source_state state;
    int stream;
    struct page_encoder *encoder;
    struct stream_hash hash; /* of what is sent */
    bool opaque_logged, reason_logged;
    uint64_t offset;        /* of the segment being filled, in the stream that is sent */
    uint64_t checkpoint;    /* where the last one was */
    struct work *segment;   /* NULL: none begun */
    struct encoded_run run; /* in it */
    uint32_t segment_size;  /* it is full with so many bytes of the stream */
};

static const struct stream_counts *counts_of(const struct memory_source *source)
{
    return stream_cutter_counts(page_encoder_cutter(source->encoder));
}

/* Lane threads only, one at a time: the mutex is held. The main thread takes it and begins anew. */
static void note_delay(struct counters *counters, uint64_t us)
{
    uint64_t longest = atomic_load(&counters->stream_delay_us);

    while (us > longest &&
           !atomic_compare_exchange_weak(&counters->stream_delay_us, &longest, us)) {
    }
}

bool memory_source_received(struct memory_source *source, const struct frame_received *received)
{
    enum kept_verdict verdict;
    uint64_t sent_us;

    pthread_mutex_lock(&source->mutex);
    verdict = kept_received(&source->kept, received, &sent_us);
    if (verdict == KEPT_NEWS) {
        uint64_t now = mover_now_us();

        window_received(&source->window, now, sent_us, received->bytes);
        note_delay(&source->mover->counters, now - sent_us);
        count_set(&source->mover->counters.stream_acknowledged, received->bytes);
    }
    pthread_mutex_unlock(&source->mutex);
    if (verdict == KEPT_NEWS) {
        waker_wake(&source->waker);
    }
    return verdict != KEPT_LIE;
}

/* Gives WORK, at whose end the stream is at END, the next sequence number and sends it. */
static void send_numbered(struct memory_source *source, struct work *work, uint64_t end)
{
    pthread_mutex_lock(&source->mutex);
    kept_put(&source->kept, work, end, mover_now_us());
    pthread_mutex_unlock(&source->mutex);
    outbox_put(source->mover->outbox, work);
}

/* All lanes are over: what the destination has not RECEIVED goes out again, for those that come. */
static void send_again(struct memory_source *source)
{
    struct outbox *outbox = source->mover->outbox;
    uint64_t now = mover_now_us();

    outbox_drop(outbox, FRAME_SEGMENT);
    outbox_drop(outbox, FRAME_CHECKPOINT);
    outbox_drop(outbox, FRAME_END);
    pthread_mutex_lock(&source->mutex);
    window_restart(&source->window);
    for (uint64_t i = source->kept.received; i < source->kept.next; i++) {
        outbox_put(outbox, kept_again(&source->kept, i, now));
    }
    pthread_mutex_unlock(&source->mutex);
}

static bool send_mark(struct memory_source *source, enum frame_type type, struct frame_hash hash)
{
    struct work *work = work_new(type, 0);

    if (work == NULL) {
        return mover_fail_memory(source->mover);
    }
    work->mark.offset = source->offset;
    work->mark.hash = hash;
    send_numbered(source, work, source->offset);
    return true;
}

/* A new one to read into, which begins with the pending bytes of the one before. */
static bool begin_segment(struct memory_source *source)
{
    struct work *work;
    uint32_t size;

    pthread_mutex_lock(&source->mutex);
    size = window_unit(&source->window, SEGMENT_MIN, WORK_UNIT_MAX);
    pthread_mutex_unlock(&source->mutex);
    work = work_new(FRAME_SEGMENT, size);
    if (work == NULL) {
        return mover_fail_memory(source->mover);
    }
    source->segment_size = size - OPERATIONS_MOST(size) * PAGE_OPERATION_SIZE;
    if (source->run.pending > 0) {
        memcpy(work->data, source->run.bytes + source->run.done, source->run.pending);
    }
    source->segment = work;
    source->run.bytes = work->data;
    source->run.done = 0;
    return true;
}

/* Sends what has been read as far as it ends with whole records, and the CHECKPOINT that is due
 * after it. */
static bool send_segment(struct memory_source *source)
{
    struct work *work = source->segment;
    uint8_t operations[OPERATIONS_MOST(WORK_UNIT_MAX) * PAGE_OPERATION_SIZE];

    if (source->run.done == 0) {
        return true;
    }
    work->segment.offset = source->offset;
    work->length = (uint32_t)source->run.done;
    stream_hash_feed(&source->hash, work->data, work->length);
    source->offset += work->length;
    work->segment.operations = page_encoder_finish(source->encoder, &source->run, operations,
                                                   OPERATIONS_MOST(WORK_UNIT_MAX));
    if (!begin_segment(source)) {
        work_unref(work);
        return false;
    }
    /* Only now: the next segment's first bytes stood here. */
    memcpy(work->data + work->length, operations, work->segment.operations * PAGE_OPERATION_SIZE);
    work->length += work->segment.operations * PAGE_OPERATION_SIZE;
    send_numbered(source, work, source->offset);
    if (source->offset - source->checkpoint < FRAME_CHECKPOINT_BYTES) {
        return true;
    }
    source->checkpoint = source->offset;
    return send_mark(source, FRAME_CHECKPOINT, stream_hash_end_run(&source->hash));
}

static bool holds_last(const struct memory_source *source)
{
    return (source->mover->settings.flags & ORDER_FLAG_HOLD_LAST) != 0;
}

/* Whether what was read is less than may be on its way. A segment kept back (HOLD_LAST) may be more
 * than a window that has become narrow since; when nothing else is on its way, only it can widen it
 * again. */
static bool window_has_room(const struct memory_source *source)
{
    uint64_t received = source->kept.received_bytes;
    uint64_t limit =
        atomic_load(&source->mover->guest_is_paused) ? FLIGHT_MAX : window_limit(&source->window);

    return source->offset + source->run.done < received + limit ||
           (holds_last(source) && source->offset == received);
}

static bool has_room(struct memory_source *source)
{
    bool has;

    pthread_mutex_lock(&source->mutex);
    has = kept_has_room(&source->kept, TURN_SEQUENCES) && window_has_room(source);
    if (!has) {
        window_was_full(&source->window);
    }
    pthread_mutex_unlock(&source->mutex);
    return has;
}

static uint64_t pages_read(const struct memory_source *source)
{
    return counts_of(source)->pages;
}

static void report_pages(struct memory_source *source, enum report_type type)
{
    struct report report = {.type = type, .memory.bytes = pages_read(source)};

    reporter_put(&source->mover->reporter, &report);
}

/* Whether a HOLD stands, and at how many pages. */
static bool hold_wanted(struct memory_source *source, uint64_t *pages)
{
    bool wanted;

    pthread_mutex_lock(&source->mutex);
    wanted = source->hold;
    *pages = source->hold_pages;
    pthread_mutex_unlock(&source->mutex);
    return wanted;
}

/* Held as soon as so many pages were read; what has been read goes on its way. */
static bool hold_when_due(struct memory_source *source)
{
    uint64_t pages;

    if (source->state != SOURCE_READING || !hold_wanted(source, &pages) ||
        pages_read(source) < pages) {
        return true;
    }
    source->state = SOURCE_HELD;
    report_pages(source, REPORT_HELD);
    return send_segment(source);
}

static void take_orders(struct memory_source *source)
{
    unsigned resumes;
    bool go;

    pthread_mutex_lock(&source->mutex);
    if (source->new_stream >= 0) {
        source->stream = source->new_stream;
        source->new_stream = -1;
        source->state = SOURCE_READING;
    }
    go = source->go;
    source->go = false;
    resumes = source->resumes;
    source->resumes = 0;
    pthread_mutex_unlock(&source->mutex);
    if (resumes > 0) {
        send_again(source);
        mover_resumed(source->mover, RESUME_MEMORY, resumes);
    }
    if (go && source->state == SOURCE_HELD) {
        source->state = SOURCE_READING;
    }
    if (go && source->state == SOURCE_LAST_HELD) {
        source->state = SOURCE_RELEASED;
    }
}

static void publish(struct memory_source *source)
{
    const struct stream_cutter *cutter = page_encoder_cutter(source->encoder);
    const struct stream_counts *counts = stream_cutter_counts(cutter);
    struct counters *counters = &source->mover->counters;
    enum stream_phase phase = stream_cutter_phase(cutter);
    struct page_encoder_counts saved = page_encoder_counts(source->encoder);
    const char *reason = page_encoder_reason(source->encoder);

    count_set(&counters->stream_bytes, source->offset + source->run.done);
    count_set(&counters->pages, counts->pages);
    count_set(&counters->zero_pages, counts->zero_pages);
    count_set(&counters->page_bytes, counts->page_bytes);
    count_set(&counters->same_pages, saved.same_pages);
    count_set(&counters->delta_pages, saved.delta_pages);
    atomic_store_explicit(&counters->stream_phase, (uint32_t)phase, memory_order_relaxed);
    if (phase == STREAM_OPAQUE && !source->opaque_logged) {
        source->opaque_logged = true;
        log_warning("stream: %s; carried on byte for byte", stream_cutter_reason(cutter));
    }
    if (reason[0] != '\0' && !source->reason_logged) {
        source->reason_logged = true;
        log_warning("stream: %s", reason);
    }
}

/* How many bytes the next read may bring: not beyond the segment, or (by much) a HOLD. */
static size_t next_read(struct memory_source *source)
{
    size_t size = source->segment_size - source->run.done - source->run.pending;
    uint64_t pages;

    if (size > HOLD_RUN && hold_wanted(source, &pages) &&
        pages_read(source) + size / PAGE_RECORD_MIN >= pages) {
        size = HOLD_RUN;
    }
    return size;
}

static bool segment_is_full(const struct memory_source *source)
{
    return source->segment != NULL &&
           source->run.done + source->run.pending == source->segment_size;
}

static void report_stream(struct memory_source *source, enum report_type type)
{
    struct report report = {.type = type, .memory.bytes = source->offset};
    struct frame_hash hash = stream_hash_whole(&source->hash);

    memcpy(report.memory.hash, hash.bytes, sizeof report.memory.hash);
    reporter_put(&source->mover->reporter, &report);
}

static bool send_end(struct memory_source *source)
{
    source->state = SOURCE_ENDING;
    if (!send_segment(source) || !send_mark(source, FRAME_END, stream_hash_whole(&source->hash))) {
        return false;
    }
    report_stream(source, REPORT_MEMORY_SENT);
    return true;
}

static bool end_of_stream(struct memory_source *source)
{
    /* A stream that ends within a record: QEMU over there shall see it end so. */
    source->run.done += source->run.pending;
    source->run.pending = 0;
    publish(source);
    if (!holds_last(source)) {
        return send_end(source);
    }
    source->state = SOURCE_LAST_HELD;
    report_pages(source, REPORT_LAST_HELD);
    return true;
}

enum read_step {
    READ_MOVED,
    READ_NOTHING, /* wait until the stream is readable */
    READ_FAILED,  /* after mover_fail */
};

static enum read_step read_error(struct memory_source *source)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return READ_NOTHING;
    }
    if (errno == EINTR) {
        return READ_MOVED;
    }
    mover_fail(source->mover, "stream", "reading QEMU's migration stream after %llu bytes: %s",
               (unsigned long long)counts_of(source)->bytes, strerror(errno));
    return READ_FAILED;
}

/* With HOLD_LAST a full segment goes only when something follows it: else it is the last. */
static enum read_step send_if_followed(struct memory_source *source)
{
    uint8_t next;
    ssize_t got = recv(source->stream, &next, 1, MSG_PEEK | MSG_DONTWAIT);

    if (got < 0) {
        return read_error(source);
    }
    if (got == 0) {
        return end_of_stream(source) ? READ_MOVED : READ_FAILED;
    }
    return send_segment(source) ? READ_MOVED : READ_FAILED;
}

static enum read_step read_stream(struct memory_source *source)
{
    uint8_t *place;
    ssize_t got;

    if (segment_is_full(source)) {
        return send_if_followed(source);
    }
    if (source->segment == NULL && !begin_segment(source)) {
        return READ_FAILED;
    }
    place = source->run.bytes + source->run.done + source->run.pending;
    got = recv(source->stream, place, next_read(source), MSG_DONTWAIT);
    if (got < 0) {
        return read_error(source);
    }
    if (got == 0) {
        return end_of_stream(source) ? READ_MOVED : READ_FAILED;
    }
    page_encoder_take(source->encoder, &source->run, (size_t)got);
    publish(source);
    if (segment_is_full(source) && !holds_last(source) && !send_segment(source)) {
        return READ_FAILED;
    }
    return READ_MOVED;
}

/* Sleeps until an order, a RECEIVED or (WITH_STREAM) bytes of the stream come. Silence sends a
 * segment that is not full; with HOLD_LAST it stays, since it may be the last. */
static bool wait_for_more(struct memory_source *source, bool with_stream)
{
    struct pollfd fds[2] = {{.fd = source->waker.fd, .events = POLLIN},
                            {.fd = with_stream ? source->stream : -1, .events = POLLIN}};
    bool is_partial = source->run.done > 0 && !holds_last(source);
    bool is_full = source->state == SOURCE_READING && !with_stream;
    int ready;

    atomic_store_explicit(&source->mover->stream_full, is_full, memory_order_relaxed);
    ready = poll(fds, 2, is_partial ? IDLE_MS : -1);
    if (ready == 0) {
        return send_segment(source);
    }
    if (ready > 0 && fds[0].revents != 0) {
        waker_clear(&source->waker);
    }
    return true;
}

static bool read_on(struct memory_source *source)
{
    if (!has_room(source)) {
        return wait_for_more(source, false);
    }
    switch (read_stream(source)) {
    case READ_MOVED:
        return true;
    case READ_NOTHING:
        return wait_for_more(source, true);
    case READ_FAILED:
        break;
    }
    return false;
}

static bool end_when_received(struct memory_source *source)
{
    bool is_received;

    pthread_mutex_lock(&source->mutex);
    is_received = kept_is_empty(&source->kept);
    pthread_mutex_unlock(&source->mutex);
    if (!is_received) {
        return wait_for_more(source, false);
    }
    source->state = SOURCE_DONE;
    report_stream(source, REPORT_MEMORY_DONE);
    return true;
}

static bool turn(struct memory_source *source)
{
    take_orders(source);
    if (!hold_when_due(source)) {
        return false;
    }
    switch (source->state) {
    case SOURCE_READING:
        return read_on(source);
    case SOURCE_RELEASED:
        return send_end(source);
    case SOURCE_ENDING:
        return end_when_received(source);
    case SOURCE_WAITING:
    case SOURCE_HELD:
    case SOURCE_LAST_HELD:
    case SOURCE_DONE:
        break;
    }
    return wait_for_more(source, false);
}

static void *run(void *argument)
{
    struct memory_source *source = argument;

    while (turn(source)) {
        continue;
    }
    return NULL;
}

struct memory_source *memory_source_start(struct mover *mover)
{
    const struct window_bounds bounds = {.slack_us = mover->settings.in_flight_ms * 1000u,
                                         .first = FLIGHT_FIRST,
                                         .min = FLIGHT_MIN,
                                         .max = FLIGHT_MAX};
    const struct page_encoder_settings settings = {.page_size = GUEST_PAGE_SIZE,
                                                   .budget = mover->settings.page_memory_bytes,
                                                   .cache_size = mover->settings.page_cache_bytes};
    struct memory_source *source = calloc(1, sizeof *source);

    if (source == NULL) {
        goto fail;
    }
    source->mover = mover;
    source->new_stream = source->stream = -1;
    pthread_mutex_init(&source->mutex, NULL);
    window_init(&source->window, &bounds);
    source->encoder = page_encoder_new(&settings);
    if (source->encoder == NULL || !stream_hash_open(&source->hash) ||
        !waker_open(&source->waker)) {
        goto fail;
    }
    if (!mover_start_thread(mover, &source->thread, "memory", run, source)) {
        return NULL;
    }
    return source;

fail:
    mover_fail_memory(mover);
    return NULL;
}

bool memory_source_order(struct memory_source *source, const struct order *order, int fd)
{
    bool is_second = false;

    pthread_mutex_lock(&source->mutex);
    switch (order->type) {
    case ORDER_MEMORY:
        is_second = source->has_stream;
        if (!is_second) {
            source->new_stream = fd;
        }
        source->has_stream = true;
        break;
    case ORDER_RESUME:
        source->resumes++;
        break;
    case ORDER_LIMIT:
        window_rate_changes(&source->window);
        break;
    case ORDER_HOLD:
        source->hold = true;
        source->hold_pages = order->hold.pages;
        break;
    default:
        source->hold = false;
        source->go = true;
        break;
    }
    pthread_mutex_unlock(&source->mutex);
    if (is_second) {
        close(fd);
        return mover_fail(source->mover, "orders", "MEMORY came twice");
    }
    waker_wake(&source->waker);
    return true;
}

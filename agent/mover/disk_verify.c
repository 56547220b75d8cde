#include "disk_verify.h"

#include "difference.h"
#include "disk_digest.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A run that differs is compared again in so many parts... */
#define SPLIT_PARTS 16u
/* ...down to this, when it is to be told where: what guests and file systems write at least. */
#define SMALLEST_DIFFERENCE 4096u
/* ...but only so often: a disk that differs everywhere need not be told block by block, and the
 * guest waits. */
#define SPLITS_MAX 64u
/* Three times a run in parts (16 MiB, 1 MiB, 64 KiB) for each comparison. */
#define SUSPECTS_MAX (3u * SPLIT_PARTS * COMPARISONS_MAX)

struct run {
    uint32_t disk;
    uint64_t offset;
    uint32_t length;
};

struct comparison {
    struct disk_digest digest; /* first, so that a completed task is its comparison */
    struct request *request;   /* NULL: this slot is free */
    struct run run;
    bool frozen;  /* begun after VERIFY: a difference is one */
    bool is_void; /* its run is compared by others: what comes out does not matter */
    bool first;   /* of the disk's first round */
    bool read, answered;
    struct frame_hash there;
};

struct compared_disk {
    struct stale_map stale;
    struct disk_link *link; /* NULL before the end of the bulk pass */
    bool known;             /* DISK came for it */
    bool round;             /* under way: up to AT what was stale is being compared */
    bool again;             /* a pass ended meanwhile: another round follows */
    bool first_begun;       /* the first round has begun all its comparisons */
    uint64_t at;
    unsigned reading;    /* comparisons whose digest is not there yet */
    unsigned first_left; /* comparisons of the first round that are not over */
};

struct disk_verify {
    struct mover *mover;
    struct request_table *requests;
    struct compared_disk disks[ORDERS_MAX_DISKS];
    uint32_t disk_end; /* one past the last that is in use */
    uint32_t turn;     /* the disk to be served next */
    struct comparison comparisons[COMPARISONS_MAX];
    unsigned active;
    struct run suspects[SUSPECTS_MAX]; /* parts of runs that differ, last in first out */
    unsigned suspect_count;
    bool frozen, reported;
    unsigned splits; /* done since frozen */
    uint64_t active_since_us;
    struct report report; /* VERIFIED */
};

struct disk_verify *disk_verify_new(struct mover *mover, struct request_table *requests)
{
    struct disk_verify *verify = calloc(1, sizeof *verify);

    if (verify == NULL) {
        mover_fail_memory(mover);
        return NULL;
    }
    verify->mover = mover;
    verify->requests = requests;
    verify->report.type = REPORT_VERIFIED;
    return verify;
}

static bool is_never_compared(const struct compared_disk *disk)
{
    return disk->known && (!disk->first_begun || disk->first_left > 0);
}

/* What SAMPLE tells. */
static void publish(struct disk_verify *verify)
{
    struct counters *counters = &verify->mover->counters;
    uint64_t now = mover_now_us(), bytes = 0;
    bool never_compared = false;

    for (uint32_t i = 0; i < verify->disk_end; i++) {
        bytes += stale_map_bytes(&verify->disks[i].stale);
        never_compared = never_compared || is_never_compared(&verify->disks[i]);
    }
    for (unsigned i = 0; i < COMPARISONS_MAX && verify->active > 0; i++) {
        bytes += verify->comparisons[i].request != NULL ? verify->comparisons[i].run.length : 0;
    }
    for (unsigned i = 0; i < verify->suspect_count; i++) {
        bytes += verify->suspects[i].length;
    }
    count_set(&counters->uncompared_bytes, bytes);
    atomic_store_explicit(&counters->never_compared, never_compared, memory_order_relaxed);
    if (verify->active_since_us != 0) {
        count_add(&counters->comparing_us, now - verify->active_since_us);
    }
    verify->active_since_us = verify->active > 0 ? now : 0;
}

bool disk_verify_add(struct disk_verify *verify, const struct order_disk *order)
{
    struct compared_disk *disk = &verify->disks[order->disk];

    if (disk->known) {
        return mover_fail(verify->mover, "orders", "DISK %u came twice", order->disk);
    }
    if (!stale_map_init(&disk->stale, order->size)) {
        return mover_fail_memory(verify->mover);
    }
    disk->known = true;
    if (order->disk >= verify->disk_end) {
        verify->disk_end = order->disk + 1;
    }
    publish(verify);
    return true;
}

struct stale_map *disk_verify_stale(struct disk_verify *verify, uint32_t disk)
{
    return &verify->disks[disk].stale;
}

static void begin_round(struct compared_disk *disk)
{
    if (disk->round) {
        disk->again = true;
    } else {
        disk->round = true;
        disk->at = 0;
    }
}

void disk_verify_pass_over(struct disk_verify *verify, uint32_t disk, struct disk_link *link)
{
    verify->disks[disk].link = link;
    begin_round(&verify->disks[disk]);
}

/*
 * From now on no two comparisons may be about the same place, or a difference would be told twice.
 * What is under way and was sent again meanwhile is stale: all of it will be compared anew. What
 * else is under way may find that it is equal, which holds; if not it becomes stale then, since the
 * destination may have read it before the last write.
 */
static void settle_live_ones(struct disk_verify *verify)
{
    for (unsigned i = 0; i < COMPARISONS_MAX; i++) {
        struct comparison *comparison = &verify->comparisons[i];
        const struct run *run = &comparison->run;
        struct stale_map *stale = &verify->disks[run->disk].stale;

        if (comparison->request != NULL && stale_map_holds(stale, run->offset, run->length)) {
            stale_map_mark(stale, run->offset, run->length);
            comparison->is_void = true;
        }
    }
    for (unsigned i = 0; i < verify->suspect_count; i++) {
        const struct run *run = &verify->suspects[i];

        stale_map_mark(&verify->disks[run->disk].stale, run->offset, run->length);
    }
    verify->suspect_count = 0;
}

bool disk_verify_freeze(struct disk_verify *verify)
{
    if (verify->frozen) {
        return mover_fail(verify->mover, "orders", "VERIFY came twice");
    }
    verify->frozen = true;
    settle_live_ones(verify);
    for (uint32_t i = 0; i < verify->disk_end; i++) {
        struct compared_disk *disk = &verify->disks[i];

        if (!disk->known) {
            continue;
        }
        if (disk->link == NULL) {
            return mover_fail(verify->mover, "orders",
                              "VERIFY: the bulk pass of disk %u is not over", i);
        }
        begin_round(disk);
    }
    return true;
}

bool disk_verify_needs(const struct disk_verify *verify, uint32_t disk)
{
    return verify->disks[disk].known && !verify->reported;
}

bool disk_verify_reads(const struct disk_verify *verify, uint32_t disk)
{
    return verify->disks[disk].reading > 0;
}

/* --- which runs --- */

static bool take_stale(struct compared_disk *disk, struct run *run)
{
    while (disk->round) {
        if (stale_map_take(&disk->stale, disk->at, FRAME_VERIFY_MAX, &run->offset, &run->length)) {
            disk->at = run->offset + run->length;
            return true;
        }
        disk->first_begun = true;
        disk->round = disk->again;
        disk->again = false;
        disk->at = 0;
    }
    return false;
}

static bool next_run(struct disk_verify *verify, struct run *run)
{
    if (verify->report.verified.more) {
        return false; /* it is known well enough */
    }
    if (verify->suspect_count > 0) {
        *run = verify->suspects[--verify->suspect_count];
        return true;
    }
    for (uint32_t i = 0; i < verify->disk_end; i++) {
        run->disk = verify->turn;
        verify->turn = (verify->turn + 1) % verify->disk_end;
        if (take_stale(&verify->disks[run->disk], run)) {
            return true;
        }
    }
    return false;
}

static bool can_split(const struct disk_verify *verify, const struct run *run, uint32_t smallest)
{
    return run->length > smallest && verify->suspect_count + SPLIT_PARTS <= SUSPECTS_MAX;
}

/* Its parts are compared next, the first one first. */
static void split(struct disk_verify *verify, const struct run *run)
{
    uint32_t unit = run->length > STALE_CHUNK ? STALE_CHUNK : SMALLEST_DIFFERENCE;
    uint32_t sixteenth = (run->length + SPLIT_PARTS - 1) / SPLIT_PARTS;
    uint32_t part = (sixteenth + unit - 1) / unit * unit;

    for (uint32_t start = (run->length - 1) / part * part;; start -= part) {
        uint32_t length = run->length - start < part ? run->length - start : part;

        verify->suspects[verify->suspect_count++] =
            (struct run){run->disk, run->offset + start, length};
        if (start == 0) {
            return;
        }
    }
}

/* The guest runs, or ran when this was begun. */
static void note_live_difference(struct disk_verify *verify, const struct run *run)
{
    struct compared_disk *disk = &verify->disks[run->disk];

    if (!verify->frozen && can_split(verify, run, STALE_CHUNK)) {
        split(verify, run);
        return;
    }
    stale_map_mark(&disk->stale, run->offset, run->length);
    if (verify->frozen) {
        begin_round(disk); /* the last one may have passed this place already */
    }
}

static void note_difference(struct disk_verify *verify, const struct run *run)
{
    struct report_verified *verified = &verify->report.verified;

    if (verify->splits < SPLITS_MAX && can_split(verify, run, SMALLEST_DIFFERENCE)) {
        verify->splits++;
        split(verify, run);
        return;
    }
    difference_add(verified, run->disk, run->offset, run->length);
    /* It is not known where in it, nor what differs besides: enough. */
    verified->more = verified->more || run->length > SMALLEST_DIFFERENCE;
}

/* --- comparing --- */

static bool fail_read(struct disk_verify *verify, const struct comparison *comparison)
{
    const struct run *run = &comparison->run;
    const struct disk_link *link = verify->disks[run->disk].link;
    const char *why = strerror(comparison->digest.error);

    if (disk_link_state(link) == DISK_LINK_DEAD) {
        why = disk_link_error(link);
    }
    return mover_fail(verify->mover, "disk-read",
                      "disk %u: reading back %u bytes at offset %" PRIu64 " to compare them: %s",
                      run->disk, run->length, run->offset, why);
}

static void conclude(struct disk_verify *verify, struct comparison *comparison)
{
    if (!comparison->read || !comparison->answered) {
        return;
    }
    count_add(&verify->mover->counters.compared_bytes, comparison->run.length);
    count_add(&verify->mover->counters.reread_bytes, comparison->digest.read_bytes);
    if (memcmp(&comparison->digest.hash, &comparison->there, sizeof comparison->there) != 0 &&
        !comparison->is_void) {
        if (comparison->frozen) {
            note_difference(verify, &comparison->run);
        } else {
            note_live_difference(verify, &comparison->run);
        }
    }
    request_release(verify->requests, comparison->request);
    comparison->request = NULL;
    verify->disks[comparison->run.disk].first_left -= comparison->first;
    verify->active--;
}

static bool take_step(struct disk_verify *verify, struct comparison *comparison,
                      enum digest_step step)
{
    switch (step) {
    case DIGEST_WAITS:
        return true;
    case DIGEST_FAILED:
        return fail_read(verify, comparison);
    case DIGEST_DONE:
        break;
    }
    comparison->read = true;
    verify->disks[comparison->run.disk].reading--;
    conclude(verify, comparison);
    return true;
}

bool disk_verify_turn(struct disk_verify *verify, uint32_t disk, short revents)
{
    struct disk_link *link = verify->disks[disk].link;
    struct disk_task *task;

    disk_link_turn(link, revents);
    while ((task = disk_link_take_completed(link)) != NULL) {
        struct comparison *comparison = (struct comparison *)task;

        if (!take_step(verify, comparison, disk_digest_turn(&comparison->digest))) {
            return false;
        }
    }
    return true;
}

static struct comparison *comparison_of(struct disk_verify *verify, const struct request *request)
{
    struct comparison *comparison = verify->comparisons;

    while (comparison->request != request) {
        comparison++;
        assert(comparison < verify->comparisons + COMPARISONS_MAX);
    }
    return comparison;
}

bool disk_verify_answer(struct disk_verify *verify, struct request *request,
                        const struct frame_digest *answer)
{
    struct comparison *comparison = comparison_of(verify, request);
    const struct run *run = &comparison->run;

    if (answer->status != 0) {
        return mover_fail(verify->mover, "disk-read",
                          "disk %u: the destination could not read back %u bytes at offset %" PRIu64
                          " to compare them: %s",
                          run->disk, run->length, run->offset, strerror((int)answer->status));
    }
    comparison->there = answer->hash;
    comparison->answered = true;
    request->sent = false; /* no answer may come any more, nor is it asked again */
    conclude(verify, comparison);
    return true;
}

/* Asks the other side. */
static bool open_request(struct disk_verify *verify, struct comparison *comparison)
{
    const struct run *run = &comparison->run;
    struct work *work = work_new(FRAME_VERIFY, 0);
    struct request *request = request_take(verify->requests);

    if (work == NULL || request == NULL) {
        work_unref(work);
        return mover_fail_memory(verify->mover);
    }
    request->sent = true;
    request->work = work;
    work->verify =
        (struct frame_verify){request->id, run->offset, run->length, (uint16_t)run->disk};
    comparison->request = request;
    outbox_put(verify->mover->outbox, work_ref(work));
    return true;
}

static bool begin(struct disk_verify *verify, struct comparison *comparison, const struct run *run)
{
    struct compared_disk *disk = &verify->disks[run->disk];

    comparison->run = *run;
    comparison->frozen = verify->frozen;
    comparison->first = !disk->first_begun;
    comparison->is_void = comparison->read = comparison->answered = false;
    if (!open_request(verify, comparison)) {
        return false;
    }
    verify->active++;
    disk->reading++;
    disk->first_left += comparison->first;
    return take_step(verify, comparison,
                     disk_digest_begin(&comparison->digest, disk->link, run->offset, run->length));
}

static bool report_when_over(struct disk_verify *verify)
{
    if (verify->frozen && verify->active == 0) {
        verify->reported = true;
        reporter_put(&verify->mover->reporter, &verify->report);
    }
    return true;
}

bool disk_verify_go_on(struct disk_verify *verify)
{
    unsigned limit = verify->frozen ? COMPARISONS_MAX : COMPARISONS_LIVE;
    struct run run;

    if (verify->reported) {
        return true;
    }
    for (unsigned i = 0; i < COMPARISONS_MAX && verify->active < limit; i++) {
        if (verify->comparisons[i].request != NULL) {
            continue;
        }
        if (!next_run(verify, &run)) {
            publish(verify);
            return report_when_over(verify);
        }
        if (!begin(verify, &verify->comparisons[i], &run)) {
            return false;
        }
    }
    publish(verify);
    return true;
}

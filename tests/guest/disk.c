/*
 * The load on the guest's disks: see disk.h.
 */
#include "disk.h"

#include "pace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK_BYTES PATTERN_PAGE_SIZE
/* One read of a verification, and what discards are aligned to: a qcow2 cluster, else the disk
 * would keep the ends. */
#define DISK_CHUNK (UINT64_C(64) << 10)
#define BLOCKS_PER_CHUNK (DISK_CHUNK / BLOCK_BYTES)
#define FLUSH_EVERY_NS PACE_SECOND_NS

static struct pattern_place place_of(const struct disk *disk, size_t block)
{
    return (struct pattern_place){.owner = disk->owner, .index = block};
}

static off_t offset_of(const struct disk *disk, size_t block)
{
    return (off_t)(disk->start + (uint64_t)block * BLOCK_BYTES);
}

static uint64_t next_random(struct disk_load *load)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return load->random;
}

static bool transfer_failed(struct disk_load *load, const struct disk *disk, const char *what,
                            size_t block, ssize_t done)
{
    fault_record(&load->fault, "disk %s block %zu (%s: %s)", disk->name, block, what,
                 done < 0 ? strerror(errno) : "short");
    return false;
}

static bool read_blocks(struct disk_load *load, const struct disk *disk, size_t block, size_t count)
{
    ssize_t wanted = (ssize_t)(count * BLOCK_BYTES);
    ssize_t done = pread(disk->fd, load->buffer, (size_t)wanted, offset_of(disk, block));

    return done == wanted || transfer_failed(load, disk, "read", block, done);
}

static void check(struct disk_load *load, const struct disk *disk, size_t block,
                  const void *content)
{
    uint32_t sequence = sequences_get(&disk->expected, block);
    struct pattern_finding finding;
    char found[100];

    if (sequence == SEQUENCE_UNKNOWN)
        return;
    if (sequence == SEQUENCE_ZERO) {
        if (!pattern_is_zero(content))
            fault_record(&load->fault, "disk %s block %zu (expected zero, found other)", disk->name,
                         block);
        return;
    }
    finding = pattern_check(content, place_of(disk, block), sequence);
    if (finding.verdict == PATTERN_INTACT)
        return;
    pattern_describe(&finding, found, sizeof found);
    fault_record(&load->fault, "disk %s block %zu (expected seq %u, %s)", disk->name, block,
                 sequence, found);
}

static bool size_region(struct disk *disk, size_t mib, struct fault *fault)
{
    uint64_t size = 0;
    uint64_t length = (uint64_t)mib << 20;

    if (ioctl(disk->fd, BLKGETSIZE64, &size) < 0) {
        fault_record(fault, "disk %s (size: %s)", disk->name, strerror(errno));
        return false;
    }
    size -= size % BLOCK_BYTES;
    if (length < size)
        disk->start = (size - length) / BLOCK_BYTES * BLOCK_BYTES;
    length = size - disk->start;
    if (length < DISK_CHUNK || !sequences_init(&disk->expected, length / BLOCK_BYTES)) {
        fault_record(fault, "disk %s (too small, or no memory for its table)", disk->name);
        return false;
    }
    return true;
}

static bool add_disk(struct disk_load *load, const char *path, size_t mib)
{
    struct disk *disk = &load->disks[load->count];
    const char *slash = strrchr(path, '/');

    if (load->count == DISK_MAX) {
        fault_record(&load->fault, "disk %s (more than %d disks)", path, DISK_MAX);
        return false;
    }
    snprintf(disk->name, sizeof disk->name, "%.31s", slash ? slash + 1 : path);
    disk->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (disk->fd < 0) {
        fault_record(&load->fault, "disk %s (open: %s)", disk->name, strerror(errno));
        return false;
    }
    load->count++;
    disk->owner = (uint32_t)load->count;
    return size_region(disk, mib, &load->fault);
}

bool disk_init(struct disk_load *load, const char *paths, size_t mib, enum pattern_kind kind,
               uint32_t kib_per_second)
{
    char copy[256];
    char *rest = copy;

    *load = (struct disk_load){.kind = kind, .kib_per_second = kib_per_second, .going = true};
    pthread_mutex_init(&load->lock, NULL);
    load->random = pace_now() | 1;
    load->buffer = aligned_alloc(BLOCK_BYTES, DISK_CHUNK);
    if (load->buffer == NULL) {
        fault_record(&load->fault, "disk (no memory)");
        return false;
    }
    snprintf(copy, sizeof copy, "%.255s", paths);
    for (char *path = strtok_r(copy, ",", &rest); path; path = strtok_r(NULL, ",", &rest)) {
        if (!add_disk(load, path, mib))
            return false;
    }
    return true;
}

/* The block is read and checked before it is overwritten: a fault would otherwise be gone before
 * anybody asked. */
static void write_block(struct disk_load *load, struct disk *disk, size_t block)
{
    uint32_t sequence = sequences_next(&disk->expected, block);
    ssize_t done;

    if (!read_blocks(load, disk, block, 1))
        return;
    check(load, disk, block, load->buffer);
    if (sequence == SEQUENCE_FIRST)
        memset(load->buffer, 0,
               BLOCK_BYTES); /* a pattern of an earlier boot is nothing to build on */
    pattern_write(load->buffer, place_of(disk, block), sequence, load->kind);
    done = pwrite(disk->fd, load->buffer, BLOCK_BYTES, offset_of(disk, block));
    if (done != BLOCK_BYTES) {
        transfer_failed(load, disk, "write", block, done);
        return;
    }
    sequences_set(&disk->expected, block, sequence);
    disk->flush_due = true;
    load->written++;
}

static void write_slice(struct disk_load *load, uint64_t blocks)
{
    pthread_mutex_lock(&load->lock);
    for (; blocks > 0 && load->going && load->count > 0; blocks--) {
        struct disk *disk = &load->disks[load->next];

        write_block(load, disk, (size_t)(next_random(load) % disk->expected.count));
        load->next = (load->next + 1) % load->count;
    }
    pthread_mutex_unlock(&load->lock);
}

static void flush(struct disk_load *load)
{
    pthread_mutex_lock(&load->lock);
    for (size_t i = 0; i < load->count; i++) {
        struct disk *disk = &load->disks[i];

        if (disk->flush_due && fdatasync(disk->fd) < 0)
            fault_record(&load->fault, "disk %s (flush: %s)", disk->name, strerror(errno));
        disk->flush_due = false;
    }
    pthread_mutex_unlock(&load->lock);
}

void *disk_run(void *argument)
{
    struct disk_load *load = argument;
    struct pace pace = {.last_ns = pace_now()};
    uint64_t flushed = pace_now();

    for (;;) {
        uint64_t blocks_per_second;

        pace_sleep();
        pthread_mutex_lock(&load->lock);
        blocks_per_second = (uint64_t)load->kib_per_second * 1024 / BLOCK_BYTES;
        pthread_mutex_unlock(&load->lock);
        write_slice(load, pace_due(&pace, blocks_per_second));
        if (pace_now() - flushed < FLUSH_EVERY_NS)
            continue;
        flush(load);
        flushed = pace_now();
    }
    return NULL;
}

void disk_set_rate(struct disk_load *load, enum pattern_kind kind, uint32_t kib_per_second)
{
    pthread_mutex_lock(&load->lock);
    load->kind = kind;
    load->kib_per_second = kib_per_second;
    pthread_mutex_unlock(&load->lock);
}

void disk_set_going(struct disk_load *load, bool going)
{
    pthread_mutex_lock(&load->lock);
    load->going = going;
    pthread_mutex_unlock(&load->lock);
}

uint64_t disk_written(struct disk_load *load)
{
    uint64_t written;

    pthread_mutex_lock(&load->lock);
    written = load->written;
    pthread_mutex_unlock(&load->lock);
    return written;
}

/* Calls CHECK_OR_SETTLE for each block of [FIRST, END), reading a chunk at a time. */
static void read_range(struct disk_load *load, struct disk *disk, size_t first, size_t end,
                       void (*each)(struct disk_load *, struct disk *, size_t, const void *,
                                    void *),
                       void *context)
{
    while (first < end) {
        size_t count = end - first < BLOCKS_PER_CHUNK ? end - first : BLOCKS_PER_CHUNK;

        if (!read_blocks(load, disk, first, count))
            return;
        for (size_t i = 0; i < count; i++)
            each(load, disk, first + i, load->buffer + i * BLOCK_BYTES, context);
        first += count;
    }
}

static void settle_discarded(struct disk_load *load, struct disk *disk, size_t block,
                             const void *content, void *context)
{
    struct disk_discarded *discarded = context;

    if (pattern_is_zero(content)) {
        sequences_set(&disk->expected, block, SEQUENCE_ZERO);
        discarded->zero++;
        return;
    }
    check(load, disk, block, content);
    discarded->kept++;
}

/* The range keeps away from the region's first and last chunk, so that rounding to chunks of the
 * disk never leaves the region. */
static bool discard_some(struct disk_load *load, struct disk *disk,
                         struct disk_discarded *discarded)
{
    uint64_t chunks = disk->expected.count / BLOCKS_PER_CHUNK;
    uint64_t length = chunks / 8;
    uint64_t range[2];
    size_t first;

    if (length == 0)
        length = 1;
    if (chunks < length + 2)
        return true;
    range[0] = disk->start + (1 + next_random(load) % (chunks - length - 1)) * DISK_CHUNK;
    range[0] -= range[0] % DISK_CHUNK;
    range[1] = length * DISK_CHUNK;
    if (ioctl(disk->fd, BLKDISCARD, range) < 0)
        return false;
    first = (size_t)((range[0] - disk->start) / BLOCK_BYTES);
    read_range(load, disk, first, first + (size_t)(range[1] / BLOCK_BYTES), settle_discarded,
               discarded);
    return true;
}

bool disk_discard(struct disk_load *load, struct disk_discarded *discarded)
{
    bool done = true;

    *discarded = (struct disk_discarded){0};
    pthread_mutex_lock(&load->lock);
    for (size_t i = 0; i < load->count && done; i++)
        done = discard_some(load, &load->disks[i], discarded);
    pthread_mutex_unlock(&load->lock);
    return done;
}

static void check_known(struct disk_load *load, struct disk *disk, size_t block,
                        const void *content, void *context)
{
    (void)context;
    check(load, disk, block, content);
}

static void verify_disk(struct disk_load *load, struct disk *disk)
{
    size_t count = disk->expected.count;

    if (!sequences_intact(&disk->expected))
        fault_record(&load->fault, "disk %s table of expected sequence numbers", disk->name);
    for (size_t first = 0; first < count && !fault_any(&load->fault); first += BLOCKS_PER_CHUNK) {
        size_t end = first + BLOCKS_PER_CHUNK < count ? first + BLOCKS_PER_CHUNK : count;
        size_t block = first;

        while (block < end && sequences_get(&disk->expected, block) == SEQUENCE_UNKNOWN)
            block++;
        read_range(load, disk, block, end, check_known, NULL);
    }
}

void disk_verify(struct disk_load *load, struct fault *fault, size_t *blocks)
{
    *blocks = 0;
    pthread_mutex_lock(&load->lock);
    for (size_t i = 0; i < load->count; i++) {
        verify_disk(load, &load->disks[i]);
        *blocks += load->disks[i].expected.known;
    }
    *fault = load->fault;
    pthread_mutex_unlock(&load->lock);
}

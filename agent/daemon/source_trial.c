/*
 * The trial of a plan: a migration that is never meant to come to its end. It goes its usual way, with real lanes and settings, through some
 * seconds of the bulk pass and some of the first round of memory, and is cancelled then, like one that an operator cancels. What it has shown
 * of the link, of how well memory and disks shrink, and of how fast the disks are written to, is in its result.
 *
 * The guest is not paused. QEMU would do that by itself as soon as it finds next to nothing left, and it runs ahead of what the mover has
 * read by what lies in the stream's socket and in buffers. So the mover holds the stream at half of the memory: what is behind that, even if
 * all of it were zero pages, of which each takes 9 bytes of the stream, is more than fits there. A VM with little memory gets a smaller socket
 * buffer for that, and one with less than MEMORY_MIN goes without the memory's part.
 */
#include "source_state.h"

#include "clock.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define DISK_MS 3000
#define MEMORY_MS 3000
/* So long TCP and zstd may take to find their pace, when there is that long. */
#define SETTLE_MS 1000
/* After the hold: what was read leaves, and the mover's samples tell of it. */
#define HELD_MS 300
#define READS_HELD_MS 10000
/* Less says nothing of a rate. */
#define RATE_WORTH_MS 200
#define RATIO_WORTH_BYTES (256u << 10)
#define PAGE_BYTES 4096u
/* With the kernel's usual buffer of 208 KiB (and as much again in flight) half of this, as zero pages, is 576 KiB of stream. */
#define USUAL_BUFFER_MIN (512ull << 20)
/* Half of this is 144 KiB. The kernel doubles SMALL_BUFFER, and may go beyond it by one write; QEMU's own and the mover's are 32 KiB each. */
#define MEMORY_MIN (128ull << 20)
#define SMALL_BUFFER (16 << 10)

/* From when QEMU began to write its stream until that was held, or now; 0: it has not begun. */
static uint64_t memory_ns(const struct source *source)
{
    const struct source_trial *trial = &source->trial;

    if (!source->memory_started) {
        return 0;
    }
    return (trial->held_ns ? trial->held_ns : clock_monotonic_ns()) - source->memory_began_ns;
}

/* While the link was busy (source_forecast.c), for zero pages leave it waiting; of a short trial there is only the mean. */
static void note_memory(struct source *source)
{
    struct source_trial *trial = &source->trial;
    uint64_t busy = source_link_rate(source), mean = 0;

    trial->memory_ns = memory_ns(source);
    if (trial->memory_ns >= RATE_WORTH_MS * 1000000ull) {
        mean = (uint64_t)((double)(source->sample.wire_sent - trial->memory_wire) * 1e9 /
                          (double)trial->memory_ns);
        trial->memory_rate = source->link.count > 0 || busy > mean ? busy : mean;
    }
}

static void over(void *context)
{
    struct source *source = context;

    source->cancelled = true;
    source_fail_text(source, SOURCE_TRIAL_OVER, "the trial of a plan is over");
}

/* A rollback ends exports and lets the mover go, and the bulk pass may be under way: so it stops reading first (source_reads.c). */
static void end(struct source *source)
{
    if (source->trial.ended_ns == 0) {
        note_memory(source);
        source->trial.ended_ns = clock_monotonic_ns();
        source_limit(source, "the last read of the trial", READS_HELD_MS);
        source_reads_hold(source, over, source);
    }
}

void source_trial_note(struct source *source)
{
    struct source_trial *trial = &source->trial;
    uint64_t now_ns = clock_monotonic_ns();
    bool settled = now_ns - source->bulk_began_ns >= SETTLE_MS * 1000000ull;

    if (!source->bulk_started || source->memory_begun || !source_pass_running(source) ||
        source->sample.disk_wire_bytes == 0) {
        return;
    }
    if (trial->from_ns == 0 || (settled && !trial->settled)) {
        trial->settled = settled;
        trial->from_ns = trial->to_ns = now_ns;
        trial->from_wire = trial->to_wire = source->sample.wire_sent;
        return;
    }
    trial->to_ns = now_ns;
    trial->to_wire = source->sample.wire_sent;
}

static bool has_memory_enough(const struct source *source)
{
    return source->inspection.memory_bytes >= MEMORY_MIN;
}

void source_trial_disk_tick(struct source *source)
{
    uint64_t ms = (clock_monotonic_ns() - source->bulk_began_ns) / 1000000;

    if (source_pass_running(source) && ms < DISK_MS) {
        return;
    }
    if (has_memory_enough(source)) {
        source_memory_begin(source);
    } else {
        end(source);
    }
}

bool source_trial_bound_stream(struct source *source, int fd)
{
    struct order hold = {.type = ORDER_HOLD,
                         .hold = {.pages = source->inspection.memory_bytes / PAGE_BYTES / 2}};
    int size = SMALL_BUFFER;

    if (source->inspection.memory_bytes < USUAL_BUFFER_MIN &&
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) < 0) {
        source_fail_text(source, "socket", "the stream's socket cannot be bounded: %s",
                         strerror(errno));
        return false;
    }
    source_order(source, &hold, -1);
    source->trial.memory_wire = source->sample.wire_sent;
    return true;
}

void source_trial_memory_tick(struct source *source)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t ms = (now_ns - source->memory_began_ns) / 1000000;

    if (source->held && source->trial.held_ns == 0) {
        source->trial.held_ns = now_ns;
    }
    if (ms >= MEMORY_MS ||
        (source->held && now_ns - source->trial.held_ns >= HELD_MS * 1000000ull)) {
        end(source);
    }
}

/* --- what it has shown --- */

static uint64_t flush_ns(const struct source *source)
{
    uint64_t longest = 0;

    for (size_t i = 0; i < source->disk_count; i++) {
        longest = source->disks[i].flush_ns > longest ? source->disks[i].flush_ns : longest;
    }
    return longest;
}

static json_t *ratio(uint64_t wire, uint64_t bytes)
{
    return bytes >= RATIO_WORTH_BYTES ? must_json(json_real((double)wire / (double)bytes))
                                      : json_null();
}

/* Per second; null when NS are too few. */
static json_t *rate(uint64_t bytes, uint64_t ns)
{
    return ns >= RATE_WORTH_MS * 1000000ull
               ? must_json(json_integer((json_int_t)((double)bytes * 1e9 / (double)ns)))
               : json_null();
}

static json_t *disk_object(const struct source *source)
{
    const struct source_trial *trial = &source->trial;
    const struct report_sample *sample = &source->sample;
    /* The first bitmap: nothing was taken out of it. It is looked at while memory goes. */
    bool writes_known = source->memory_started && trial->ended_ns > 0;

    return must_json(json_pack(
        "{sI,so,so,so,so}", "bytes", (json_int_t)sample->disk_bytes, "link_rate",
        rate(trial->to_wire - trial->from_wire, trial->to_ns - trial->from_ns), "ratio",
        ratio(sample->disk_wire_bytes, sample->disk_bytes), "write_rate",
        writes_known ? rate(source_disk_left(source), trial->ended_ns - source->bulk_began_ns)
                     : json_null(),
        "flush_us",
        flush_ns(source) ? must_json(json_integer((json_int_t)(flush_ns(source) / 1000)))
                         : json_null()));
}

static json_t *memory_object(const struct source *source)
{
    const struct report_sample *sample = &source->sample;
    uint64_t bytes = (sample->pages - sample->zero_pages) * PAGE_BYTES;
    uint64_t link = source->trial.memory_rate;

    return must_json(
        json_pack("{sI,sI,sI,so,so,so}", "seen", (json_int_t)(sample->pages * PAGE_BYTES), "bytes",
                  (json_int_t)bytes, "ms", (json_int_t)(source->trial.memory_ns / 1000000),
                  "link_rate", link > 0 ? must_json(json_integer((json_int_t)link)) : json_null(),
                  "ratio", ratio(sample->stream_wire_bytes, bytes), "worst_ratio",
                  source->link.worst_ratio > 0 ? must_json(json_real(source->link.worst_ratio))
                                               : json_null()));
}

json_t *source_trial_object(const struct source *source)
{
    uint64_t disk_ms = (source->trial.to_ns - source->trial.from_ns) / 1000000;

    return must_json(json_pack("{sI,sI,so,so}", "prepare_ms", (json_int_t)source->trial.prepare_ms,
                               "disk_ms", (json_int_t)disk_ms, "disk", disk_object(source),
                               "memory", memory_object(source)));
}

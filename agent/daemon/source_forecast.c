/*
 * What the controller is told: how fast memory and disks leave, as lately measured, and what a pause will cost besides, from what the same
 * things cost before. Rates are those of the link while it was busy, over windows of half a second: the mean of the last few, or of the
 * latest of these where that is less.
 *
 * Wire bytes are what the link counts; how many bytes of memory (in pages that are not zero, whether they go whole, as a difference or not
 * at all) or disk one of them carries is measured beside it. So disks and memory may share the link in any proportion while the rate is taken.
 */
#include "source_state.h"

#include "clock.h"
#include "peer.h"

#define WINDOW_NS 500000000ull
#define PAGE_BYTES 4096u
/* Fewer bytes say nothing of how well they compress. */
#define RATIO_WORTH_BYTES (256u << 10)
/* Between QEMU and the mover: QEMU's own buffer and the socket's. */
#define QEMU_BUFFERED_BYTES (256u << 10)

static struct link_counters counters_of(const struct report_sample *sample)
{
    return (struct link_counters){.wire = sample->wire_sent,
                                  .memory = (sample->pages - sample->zero_pages) * PAGE_BYTES,
                                  .stream_wire = sample->stream_wire_bytes,
                                  .disk = sample->disk_bytes,
                                  .disk_wire = sample->disk_wire_bytes,
                                  .pages = sample->pages,
                                  .zero_pages = sample->zero_pages};
}

static void begin_window(struct link_rate *link, const struct link_counters *now, uint64_t now_ns)
{
    link->begun = *now;
    link->begun_ns = now_ns;
    link->was_held = false;
}

/* The mean of what is known and what was measured; as it is when nothing is known. */
static void note_ratio(double *ratio, uint64_t wire, uint64_t bytes)
{
    if (bytes >= RATIO_WORTH_BYTES) {
        double measured = (double)wire / (double)bytes;

        *ratio = *ratio > 0 ? (*ratio + measured) / 2 : measured;
    }
}

/* The first round shows all of memory, and what will become dirty may be what shrank worst; later ones show what does become dirty. */
static void note_worst(struct link_rate *link, uint64_t wire, uint64_t bytes, bool is_first_round)
{
    double measured = bytes >= RATIO_WORTH_BYTES ? (double)wire / (double)bytes : 0;

    if (measured > link->worst_ratio) {
        link->worst_ratio = measured;
    } else if (measured > 0 && !is_first_round) {
        link->worst_ratio = (link->worst_ratio + measured) / 2;
    }
}

static void end_window(struct link_rate *link, const struct link_counters *now, uint64_t ns,
                       bool is_first_round)
{
    const struct link_counters *begun = &link->begun;
    uint64_t rate = (uint64_t)((double)(now->wire - begun->wire) * 1e9 / (double)ns);
    uint64_t pages = now->pages - begun->pages, zero = now->zero_pages - begun->zero_pages;

    link->peak = rate > link->peak ? rate : link->peak;
    note_ratio(&link->memory_ratio, now->stream_wire - begun->stream_wire,
               now->memory - begun->memory);
    note_worst(link, now->stream_wire - begun->stream_wire, now->memory - begun->memory,
               is_first_round);
    note_ratio(&link->disk_ratio, now->disk_wire - begun->disk_wire, now->disk - begun->disk);
    /* While memory is held back, or is mostly zero, the link waits for QEMU. */
    if (!link->was_held && zero < pages - zero) {
        link->recent[link->next] = rate;
        link->next = (link->next + 1) % LINK_WINDOWS;
        link->count += link->count < LINK_WINDOWS;
    }
}

void source_note_link(struct source *source)
{
    struct link_counters now = counters_of(&source->sample);
    struct link_rate *link = &source->link;
    uint64_t now_ns = clock_monotonic_ns();

    if (!source->memory_started || source->switching) {
        return;
    }
    link->was_held = link->was_held || source->held || source->suspended;
    if (source->sample.stream_delay_us > 0) {
        link->delay_us[link->next_delay] = source->sample.stream_delay_us;
        link->next_delay = (link->next_delay + 1) % LINK_DELAYS;
    }
    if (link->begun_ns == 0) {
        begin_window(link, &now, now_ns);
    } else if (now_ns - link->begun_ns >= WINDOW_NS) {
        end_window(link, &now, now_ns - link->begun_ns, source->round < 2);
        begin_window(link, &now, now_ns);
    }
}

/* Of the last COUNT windows in which the link was busy. */
static double mean_rate(const struct link_rate *link, size_t count)
{
    double sum = 0;

    for (size_t i = 1; i <= count; i++) {
        sum += (double)link->recent[(link->next + LINK_WINDOWS - i) % LINK_WINDOWS];
    }
    return sum / (double)count;
}

/* Of the window that runs. */
static double running_rate(const struct source *source)
{
    uint64_t ns = clock_monotonic_ns() - source->link.begun_ns;

    return source->link.begun_ns && ns
               ? (double)(source->sample.wire_sent - source->link.begun.wire) * 1e9 / (double)ns
               : 0;
}

/* Wire bytes/s. If the link was never busy for a whole window, the most that it was seen to carry. */
static double measured_rate(const struct source *source)
{
    const struct link_rate *link = &source->link;
    double all, latest, running;

    if (link->count == 0) {
        running = running_rate(source);
        return running > (double)link->peak ? running : (double)link->peak;
    }
    all = mean_rate(link, link->count);
    latest = mean_rate(link, (link->count + 1) / 2);
    return all < latest ? all : latest;
}

/* What was measured before a limit was lowered says nothing any more. What it was raised to the link may have or not: that is seen soon. */
static double link_rate(const struct source *source)
{
    double rate = measured_rate(source);
    double limit = (double)source_lowest_rate(source);

    return limit > 0 && rate > limit ? limit : rate;
}

uint64_t source_link_rate(const struct source *source)
{
    return (uint64_t)link_rate(source);
}

static uint64_t payload_rate(const struct source *source, double ratio)
{
    double rate = link_rate(source);

    return (uint64_t)(ratio > 0 ? rate / ratio : rate);
}

void source_note_pass(struct source *source, uint64_t data_bytes, uint64_t ns)
{
    uint64_t rate = payload_rate(source, source->link.disk_ratio);
    double ms = (double)ns / 1e6;

    if (rate > 0) {
        ms -= (double)data_bytes * 1000 / (double)rate;
    }
    ms = ms > 0 ? ms : 0;
    source->pass_ms[source->pass_count++ % RECENT_PASSES] = ms;
}

/* Beside a busy memory a pass also waits for its turn on the link, which is not its own cost: the shortest of the last ones tells it. */
static uint32_t pass_ms(const struct source *source)
{
    size_t count = source->pass_count < RECENT_PASSES ? source->pass_count : RECENT_PASSES;
    double shortest = count > 0 ? source->pass_ms[0] : 0;

    for (size_t i = 1; i < count; i++) {
        shortest = source->pass_ms[i] < shortest ? source->pass_ms[i] : shortest;
    }
    return (uint32_t)shortest;
}

void source_note_answer(struct source *source, uint64_t ns)
{
    source->answer_ns = ns > source->answer_ns ? ns : (7 * source->answer_ns + ns) / 8;
}

/* How long what is on its way will take: as long as such lately took, and what QEMU itself holds back. 0: not known. */
static uint32_t in_flight_ms(const struct link_rate *link, uint64_t memory_rate)
{
    uint64_t sum = 0, count = 0;

    for (size_t i = 0; i < LINK_DELAYS; i++) {
        sum += link->delay_us[i];
        count += link->delay_us[i] > 0;
    }
    if (count == 0 || memory_rate == 0) {
        return 0;
    }
    return (uint32_t)(sum / count / 1000 + (uint64_t)QEMU_BUFFERED_BYTES * 1000 / memory_rate + 1);
}

static uint32_t fixed_ms(const struct source *source)
{
    uint64_t round_trip = source->peer ? peer_round_trip(source->peer) : 0;

    /* The destination's flush is part of the last pass. */
    return source_verify_ms(source) + forecast_fixed_ms(source->journal_sync_ns,
                                                        round_trip == UINT64_MAX ? 0 : round_trip,
                                                        source->answer_ns);
}

void source_sample_convergence(const struct source *source, struct convergence_sample *sample)
{
    const struct report_sample *mover = &source->sample;

    *sample = (struct convergence_sample){
        .now_ms = clock_monotonic_ns() / 1000000,
        .elapsed_ms = clock_boottime_ms() - source->migration.started_ms,
        .round = source->round,
        .memory_left = source->memory_left,
        .memory_dirty_rate = source->memory_dirty_rate,
        .in_flight = mover->stream_bytes - mover->stream_acknowledged + QEMU_BUFFERED_BYTES,
        .in_flight_ms =
            in_flight_ms(&source->link, payload_rate(source, source->link.memory_ratio)),
        .memory_rate = payload_rate(source, source->link.memory_ratio),
        .memory_rate_least = payload_rate(source, source->link.worst_ratio),
        .disk_left = source_disk_left(source),
        .disk_rate = payload_rate(source, source->link.disk_ratio),
        .pass_ms = pass_ms(source),
        .fixed_ms = fixed_ms(source),
        .pass_running = source_pass_running(source),
        .pass_left = source_pass_left(source),
        .cpu_throttle = source->cpu_throttle,
    };
}

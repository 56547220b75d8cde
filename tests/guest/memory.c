/*
 * The load on the guest's memory: see memory.h.
 */
#include "memory.h"

#include "pace.h"

#include <sys/mman.h>

#define OWNER_MEMORY 0
#define PAGES_PER_MIB ((UINT64_C(1) << 20) / PATTERN_PAGE_SIZE)

static struct pattern_place place_of(size_t at)
{
    return (struct pattern_place){.owner = OWNER_MEMORY, .index = at};
}

static void *page_at(const struct memory_load *load, size_t at)
{
    return load->pages + at * PATTERN_PAGE_SIZE;
}

static void check(struct memory_load *load, size_t at)
{
    uint32_t sequence = sequences_get(&load->expected, at);
    struct pattern_finding finding = pattern_check(page_at(load, at), place_of(at), sequence);
    char found[100];

    if (finding.verdict == PATTERN_INTACT)
        return;
    pattern_describe(&finding, found, sizeof found);
    fault_record(&load->fault, "memory page %zu (expected seq %u, %s)", at, sequence, found);
}

static void write_page(struct memory_load *load, size_t at)
{
    uint32_t sequence = sequences_next(&load->expected, at);

    pattern_write(page_at(load, at), place_of(at), sequence, load->kind);
    sequences_set(&load->expected, at, sequence);
}

bool memory_init(struct memory_load *load, size_t mib, enum pattern_kind kind,
                 uint32_t mib_per_second)
{
    size_t count = mib * PAGES_PER_MIB;

    *load = (struct memory_load){.kind = kind, .mib_per_second = mib_per_second, .going = true};
    pthread_mutex_init(&load->lock, NULL);
    if (count == 0)
        return true;
    load->pages = mmap(NULL, count * PATTERN_PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (load->pages == MAP_FAILED || !sequences_init(&load->expected, count))
        return false;
    for (size_t at = 0; at < count; at++)
        write_page(load, at);
    return true;
}

/* Each page is checked before it is overwritten: a fault would otherwise be gone before anybody
 * asked. */
static void write_slice(struct memory_load *load, uint64_t pages)
{
    pthread_mutex_lock(&load->lock);
    for (; pages > 0 && load->going && load->expected.count > 0; pages--) {
        check(load, load->next);
        write_page(load, load->next);
        load->next = (load->next + 1) % load->expected.count;
        load->written++;
    }
    pthread_mutex_unlock(&load->lock);
}

void *memory_run(void *argument)
{
    struct memory_load *load = argument;
    struct pace pace = {.last_ns = pace_now()};

    for (;;) {
        uint64_t rate;

        pace_sleep();
        pthread_mutex_lock(&load->lock);
        rate = load->mib_per_second * PAGES_PER_MIB;
        pthread_mutex_unlock(&load->lock);
        write_slice(load, pace_due(&pace, rate));
    }
    return NULL;
}

void memory_set_rate(struct memory_load *load, enum pattern_kind kind, uint32_t mib_per_second)
{
    pthread_mutex_lock(&load->lock);
    load->kind = kind;
    load->mib_per_second = mib_per_second;
    pthread_mutex_unlock(&load->lock);
}

void memory_set_going(struct memory_load *load, bool going)
{
    pthread_mutex_lock(&load->lock);
    load->going = going;
    pthread_mutex_unlock(&load->lock);
}

uint64_t memory_written(struct memory_load *load)
{
    uint64_t written;

    pthread_mutex_lock(&load->lock);
    written = load->written;
    pthread_mutex_unlock(&load->lock);
    return written;
}

void memory_verify(struct memory_load *load, struct fault *fault, size_t *pages)
{
    pthread_mutex_lock(&load->lock);
    if (!sequences_intact(&load->expected))
        fault_record(&load->fault, "memory table of expected sequence numbers");
    for (size_t at = 0; at < load->expected.count && !fault_any(&load->fault); at++)
        check(load, at);
    *fault = load->fault;
    *pages = load->expected.count;
    pthread_mutex_unlock(&load->lock);
}

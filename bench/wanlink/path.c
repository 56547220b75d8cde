#include "path.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* More than a gigabit link has on its way in two seconds. */
#define HELD_MAX (256u << 20)
/* How late a packet is that others overtake: 25 of 1500 bytes at 100 Mbit/s. */
#define LATE_NS 3000000ull
#define NS_PER_S 1000000000ull
#define ROOM_FIRST 256u

void path_init(struct path *path, uint64_t seed)
{
    *path = (struct path){.random = seed};
    settings_init(&path->settings);
}

void path_clear(struct path *path)
{
    for (size_t i = 0; i < path->count; i++) {
        free(path->heap[i]);
    }
    free(path->heap);
}

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(struct path *path)
{
    uint64_t z = path->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static bool happens(struct path *path, uint32_t ppm)
{
    return ppm > 0 && next_random(path) % WHOLE_PPM < ppm;
}

static bool is_before(const struct packet *one, const struct packet *other)
{
    return one->due_ns < other->due_ns ||
           (one->due_ns == other->due_ns && one->number < other->number);
}

static void swap(struct packet **one, struct packet **other)
{
    struct packet *packet = *one;

    *one = *other;
    *other = packet;
}

static bool push(struct path *path, struct packet *packet)
{
    size_t at = path->count;

    if (path->count == path->room) {
        size_t room = path->room ? 2 * path->room : ROOM_FIRST;
        struct packet **heap = reallocarray(path->heap, room, sizeof(struct packet *));

        if (!heap) {
            return false;
        }
        path->heap = heap;
        path->room = room;
    }
    path->heap[path->count++] = packet;
    path->held_bytes += packet->size;
    while (at > 0 && is_before(path->heap[at], path->heap[(at - 1) / 2])) {
        swap(&path->heap[at], &path->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    return true;
}

static void sink_first(struct path *path)
{
    size_t at = 0;

    while (2 * at + 1 < path->count) {
        size_t child = 2 * at + 1;

        if (child + 1 < path->count && is_before(path->heap[child + 1], path->heap[child])) {
            child++;
        }
        if (!is_before(path->heap[child], path->heap[at])) {
            return;
        }
        swap(&path->heap[child], &path->heap[at]);
        at = child;
    }
}

/* When SIZE bytes have passed the bottleneck. False when too much waits there. */
static bool pass_bottleneck(struct path *path, uint64_t now_ns, size_t size, uint64_t *passed_ns)
{
    const struct settings *settings = &path->settings;
    uint64_t begins = path->free_ns > now_ns ? path->free_ns : now_ns;

    if (settings->rate == 0) {
        *passed_ns = now_ns;
        return true;
    }
    if (begins - now_ns > settings->queue_ns) {
        return false;
    }
    path->free_ns = begins + (uint64_t)size * NS_PER_S / settings->rate;
    *passed_ns = path->free_ns;
    return true;
}

static uint64_t due(struct path *path, uint64_t sent_ns)
{
    const struct settings *settings = &path->settings;
    uint64_t due_ns = sent_ns + settings->delay_ns;

    if (settings->jitter_ns > 0) {
        uint64_t more = next_random(path) % (2 * settings->jitter_ns + 1);
        uint64_t less = settings->jitter_ns;

        due_ns = due_ns + more > sent_ns + less ? due_ns + more - less : sent_ns;
    }
    if (happens(path, settings->reorder_ppm)) {
        return due_ns + LATE_NS;
    }
    if (due_ns < path->last_due_ns) {
        due_ns = path->last_due_ns;
    }
    path->last_due_ns = due_ns;
    return due_ns;
}

static bool hold(struct path *path, uint64_t due_ns, const uint8_t *bytes, size_t size)
{
    struct packet *packet;

    if (path->held_bytes + size > HELD_MAX) {
        return false;
    }
    packet = malloc(sizeof *packet + size);
    if (!packet) {
        return false;
    }
    packet->due_ns = due_ns;
    packet->number = path->numbers++;
    packet->size = size;
    memcpy(packet->bytes, bytes, size);
    if (!push(path, packet)) {
        free(packet);
        return false;
    }
    return true;
}

void path_put(struct path *path, uint64_t now_ns, const uint8_t *bytes, size_t size)
{
    uint64_t passed_ns;

    path->counters.packets++;
    path->counters.bytes += size;
    if (!pass_bottleneck(path, now_ns, size, &passed_ns)) {
        path->counters.dropped++;
    } else if (happens(path, path->settings.loss_ppm)) {
        path->counters.lost++;
    } else if (!hold(path, due(path, passed_ns), bytes, size)) {
        path->counters.dropped++;
    }
}

struct packet *path_take(struct path *path, uint64_t now_ns)
{
    struct packet *packet;

    if (path_next_ns(path) > now_ns) {
        return NULL;
    }
    packet = path->heap[0];
    path->heap[0] = path->heap[--path->count];
    sink_first(path);
    path->held_bytes -= packet->size;
    path->counters.delivered++;
    path->counters.delivered_bytes += packet->size;
    return packet;
}

uint64_t path_next_ns(const struct path *path)
{
    return path->count > 0 ? path->heap[0]->due_ns : UINT64_MAX;
}

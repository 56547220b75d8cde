/*
 * One direction of the link: what becomes of each packet, and when. A packet waits for its turn at
 * the bottleneck, or is dropped where too much waits already; then it is lost, or on its way for as
 * long as the settings say. What is on its way stays so when they change.
 *
 * Pure: packets and times in, packets out. Times are nanoseconds of any steady clock. What is random
 * is the same in every run.
 */
#ifndef WANLINK_PATH_H
#define WANLINK_PATH_H

#include "settings.h"

#include <stddef.h>
#include <stdint.h>

struct packet {
    uint64_t due_ns;
    uint64_t number; /* of those due at the same time the earlier one goes first */
    size_t size;
    uint8_t bytes[];
};

struct path_counters {
    uint64_t packets,
        bytes;              /* that came in; what follows is packets, where it does not say bytes */
    uint64_t lost, dropped; /* by chance; because too much waited */
    uint64_t delivered, delivered_bytes;
};

struct path {
    struct settings settings;
    struct path_counters counters;
    struct packet **heap; /* the next one due is the first */
    size_t count, room;
    size_t held_bytes;
    uint64_t numbers;
    uint64_t free_ns;     /* when the bottleneck has sent what waits there */
    uint64_t last_due_ns; /* of those that keep their order */
    uint64_t random;
};

/* SEED: another one for each path. */
void path_init(struct path *path, uint64_t seed);
void path_clear(struct path *path);
/* Takes a copy. Without memory it is dropped. */
void path_put(struct path *path, uint64_t now_ns, const uint8_t *bytes, size_t size);
/* A packet whose time has come, now the caller's to free(); NULL when there is none. */
struct packet *path_take(struct path *path, uint64_t now_ns);
/* UINT64_MAX when nothing is on its way. */
uint64_t path_next_ns(const struct path *path);

#endif

/*
 * The two hashes of a QEMU stream: of the whole, and of the run since the last checkpoint. Both
 * movers keep them, and they must agree. XXH3-128.
 *
 * One thread at a time.
 */
#ifndef WATARI_MOVER_STREAM_HASH_H
#define WATARI_MOVER_STREAM_HASH_H

#include "protocol/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

struct stream_hash {
    XXH3_state_t *whole, *run;
};

/* False when there is no memory. */
bool stream_hash_open(struct stream_hash *hash);
void stream_hash_close(struct stream_hash *hash);
void stream_hash_feed(struct stream_hash *hash, const uint8_t *bytes, size_t size);
struct frame_hash stream_hash_whole(const struct stream_hash *hash);
/* Of the run that ends here; the next one begins. */
struct frame_hash stream_hash_end_run(struct stream_hash *hash);
bool stream_hash_equal(const struct frame_hash *a, const struct frame_hash *b);

#endif

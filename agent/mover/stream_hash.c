#include "stream_hash.h"

#include <string.h>

bool stream_hash_open(struct stream_hash *hash)
{
    hash->whole = XXH3_createState();
    hash->run = XXH3_createState();
    if (hash->whole == NULL || hash->run == NULL) {
        stream_hash_close(hash);
        return false;
    }
    XXH3_128bits_reset(hash->whole);
    XXH3_128bits_reset(hash->run);
    return true;
}

void stream_hash_close(struct stream_hash *hash)
{
    XXH3_freeState(hash->whole);
    XXH3_freeState(hash->run);
    hash->whole = hash->run = NULL;
}

void stream_hash_feed(struct stream_hash *hash, const uint8_t *bytes, size_t size)
{
    XXH3_128bits_update(hash->whole, bytes, size);
    XXH3_128bits_update(hash->run, bytes, size);
}

static struct frame_hash digest(const XXH3_state_t *state)
{
    struct frame_hash hash;
    XXH128_canonical_t canonical;

    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    memcpy(hash.bytes, canonical.digest, sizeof hash.bytes);
    return hash;
}

struct frame_hash stream_hash_whole(const struct stream_hash *hash)
{
    return digest(hash->whole);
}

struct frame_hash stream_hash_end_run(struct stream_hash *hash)
{
    struct frame_hash run = digest(hash->run);

    XXH3_128bits_reset(hash->run);
    return run;
}

bool stream_hash_equal(const struct frame_hash *a, const struct frame_hash *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

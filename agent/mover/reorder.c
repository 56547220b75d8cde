#include "reorder.h"

#include <assert.h>

uint64_t reorder_sequence(const struct work *work)
{
    if (work->type == FRAME_SEGMENT) {
        return work->segment.sequence;
    }
    assert(work->type == FRAME_CHECKPOINT || work->type == FRAME_END);
    return work->mark.sequence;
}

enum reorder_verdict reorder_put(struct reorder *reorder, struct work *work)
{
    uint64_t sequence = reorder_sequence(work);
    struct work **slot = &reorder->slots[sequence % FRAME_SEGMENT_WINDOW];

    if (sequence < reorder->next) {
        return REORDER_OLD;
    }
    if (sequence - reorder->next >= FRAME_SEGMENT_WINDOW) {
        return REORDER_BEYOND;
    }
    if (*slot != NULL) {
        return REORDER_OLD;
    }
    if (work->length > FRAME_SEGMENT_WINDOW_BYTES - reorder->bytes) {
        return REORDER_BEYOND;
    }
    reorder->bytes += work->length;
    *slot = work;
    return REORDER_OK;
}

struct work *reorder_take(struct reorder *reorder)
{
    struct work **slot = &reorder->slots[reorder->next % FRAME_SEGMENT_WINDOW];
    struct work *work = *slot;

    if (work == NULL) {
        return NULL;
    }
    reorder->bytes -= work->length;
    *slot = NULL;
    reorder->next++;
    return work;
}

#include "kept.h"

#include <assert.h>

static struct kept_frame *frame_at(struct kept *kept, uint64_t sequence)
{
    return &kept->frames[sequence % FRAME_SEGMENT_WINDOW];
}

bool kept_has_room(const struct kept *kept, unsigned count)
{
    return kept->next + count <= kept->received + FRAME_SEGMENT_WINDOW;
}

bool kept_is_empty(const struct kept *kept)
{
    return kept->received == kept->next;
}

void kept_put(struct kept *kept, struct work *work, uint64_t end, uint64_t now_us)
{
    assert(kept_has_room(kept, 1));
    if (work->type == FRAME_SEGMENT) {
        work->segment.sequence = kept->next;
    } else {
        work->mark.sequence = kept->next;
    }
    *frame_at(kept, kept->next) = (struct kept_frame){work_ref(work), end, now_us};
    kept->next++;
}

enum kept_verdict kept_received(struct kept *kept, const struct frame_received *received,
                                uint64_t *sent_us)
{
    const struct kept_frame *last;

    if (received->sequence <= kept->received) {
        return KEPT_OLD;
    }
    last = frame_at(kept, received->sequence - 1);
    if (received->sequence > kept->next || received->bytes != last->end) {
        return KEPT_LIE;
    }
    *sent_us = last->sent_us;
    kept->received_bytes = received->bytes;
    while (kept->received < received->sequence) {
        work_unref(frame_at(kept, kept->received)->work);
        frame_at(kept, kept->received)->work = NULL;
        kept->received++;
    }
    return KEPT_NEWS;
}

struct work *kept_again(struct kept *kept, uint64_t sequence, uint64_t now_us)
{
    struct kept_frame *frame = frame_at(kept, sequence);

    assert(sequence >= kept->received && sequence < kept->next);
    frame->sent_us = now_us;
    return work_ref(frame->work);
}

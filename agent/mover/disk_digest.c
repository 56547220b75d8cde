#include "disk_digest.h"

#include <errno.h>
#include <stdlib.h>

static enum digest_step fail(struct disk_digest *digest, int error)
{
    digest->error = error;
    return DIGEST_FAILED;
}

static enum digest_step ask(struct disk_digest *digest)
{
    digest->reading = false;
    digest->asked = digest->at;
    if (!disk_link_ask(digest->link, &digest->question, digest->end - digest->at, digest->at)) {
        return fail(digest, digest->question.task.error);
    }
    return DIGEST_WAITS;
}

static enum digest_step read_next(struct disk_digest *digest)
{
    digest->reading = true;
    if (!disk_link_read(digest->link, &digest->question.task, digest->buffer, digest->read_length,
                        digest->read_offset)) {
        return fail(digest, digest->question.task.error);
    }
    return DIGEST_WAITS;
}

static enum digest_step go_on(struct disk_digest *digest)
{
    switch (digest_walk_next(&digest->walk, digest->at, digest->end, &digest->read_offset,
                             &digest->read_length)) {
    case DIGEST_READ:
        return read_next(digest);
    case DIGEST_ASK:
        if (digest->read_offset == digest->asked) {
            return fail(digest, EPROTO); /* the server's answer said nothing */
        }
        digest->at = digest->read_offset;
        return ask(digest);
    case DIGEST_OVER:
        break;
    }
    return DIGEST_DONE;
}

enum digest_step disk_digest_begin(struct disk_digest *digest, struct disk_link *link,
                                   uint64_t offset, uint32_t length)
{
    if (digest->buffer == NULL) {
        digest->buffer = malloc(DIGEST_READ_MAX);
        if (digest->buffer == NULL) {
            return fail(digest, ENOMEM);
        }
    }
    digest->link = link;
    digest->at = offset;
    digest->end = offset + length;
    digest->read_bytes = 0;
    digest->hash = (struct frame_hash){0};
    return ask(digest);
}

enum digest_step disk_digest_turn(struct disk_digest *digest)
{
    if (digest->question.task.error != 0) {
        return fail(digest, digest->question.task.error);
    }
    if (digest->reading) {
        digest_add(&digest->hash, digest->read_offset, digest->buffer, digest->read_length);
        digest->at = digest->read_offset + digest->read_length;
        digest->read_bytes += digest->read_length;
    } else {
        digest->walk = (struct digest_walk){&digest->question.allocation, 0, digest->asked};
    }
    return go_on(digest);
}

void disk_digest_clear(struct disk_digest *digest)
{
    disk_question_clear(&digest->question);
    free(digest->buffer);
    digest->buffer = NULL;
}

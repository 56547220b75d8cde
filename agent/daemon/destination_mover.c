/*
 * The destination's part in going on with new movers after one has died (DESIGN §7); what is done and why: source_mover.c.
 *
 * QEMU finishes the NBD writes of a client that is gone, even after those of its successor. So before the next mover may write, all exports
 * are ended, which waits for those writes, and made anew. A QEMU that may have eaten a part of the stream is no good for another one: it is
 * killed, and a fresh one opens the same disks. What the passes before had given was flushed at their ends.
 */
#include "destination_state.h"

#include "batch.h"
#include "child.h"
#include "daemon.h"
#include "listener.h"
#include "mover_link.h"
#include "undo.h"
#include "unix_socket.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* QEMU fails as soon as its stream's writer is gone; that this was the mover's death is known a moment later. */
#define MOVER_WORD_MS 1000

/* --- one has died --- */

void destination_tell_mover_lost(struct destination *destination)
{
    destination_send(
        destination, "mover-lost",
        must_json(json_pack("{sI,so}", "movers", (json_int_t)destination->movers, "text",
                            must_json(message_text(destination->mover_lost.text)))));
}

static void drop_mover(struct destination *destination)
{
    listener_void(destination->migration.daemon->listener, destination);
    destination->wire_before += destination->sample.wire_sent + destination->sample.wire_received;
    memset(&destination->sample, 0, sizeof destination->sample);
    mover_link_free(destination->mover);
    destination->mover = NULL;
    destination->resumes_asked = 0;
    if (destination->later.id[0]) {
        destination->later.id[0] = '\0';
        destination_limit(destination, NULL, 0);
    }
}

void destination_mover_lost(struct destination *destination, const struct error *why)
{
    if (destination->failing || destination->handoff.state != DESTINATION_PREPARING) {
        destination_fail(destination, why);
        return;
    }
    log_warning("migration %s of %s: %s; %s decides how to go on", destination->migration.id,
                destination->migration.vm, why->text, destination->migration.peer);
    drop_mover(destination);
    destination->mover_lost = *why;
    if (destination->accepted) {
        destination_tell_mover_lost(destination);
    }
}

/* --- a fresh QEMU --- */

/* Where the one before has ended. */
static void start_again(struct destination *destination)
{
    char *path = must_format("%s/nbd.sock", destination->run_dir);

    destination_let_go(destination);
    destination->ending_qemu = destination->qemu_over = false;
    destination->memory_begun = destination->memory_ready = false;
    destination->completed = destination->mover_done = destination->sent = false;
    for (size_t i = 0; i < destination->disk_count; i++) {
        struct destination_disk *disk = &destination->disks[i];
        char *key = must_format("fd:watari-%u", disk->index);

        free(disk->node);
        disk->node = NULL;
        undo_forget(destination->undo, key);
        free(key);
    }
    undo_forget(destination->undo, "fd:watari-stream");
    if (unlink(path) < 0 && errno != ENOENT) {
        destination_fail_text(destination, "run-dir", "%s cannot be removed: %s", path,
                              strerror(errno));
    } else {
        destination_start_qemu(destination);
    }
    free(path);
}

bool destination_qemu_failed(struct destination *destination, bool over, const struct error *why)
{
    if (destination->ending_qemu) {
        if (over) {
            start_again(destination);
        }
        return true;
    }
    if (destination->handoff.state != DESTINATION_PREPARING || !destination->memory_begun ||
        destination->quiesced) {
        return false;
    }
    destination->qemu_over = destination->qemu_over || over;
    if (!destination->mover_lost.id[0]) {
        destination->later = *why;
        destination_limit(destination, NULL, MOVER_WORD_MS);
    }
    return true;
}

static void end_qemu(struct destination *destination)
{
    if (destination->qemu_over) {
        start_again(destination);
        return;
    }
    destination->ending_qemu = true;
    child_signal(destination->child, SIGKILL);
}

/* --- the exports --- */

static bool export_disk(struct destination *destination, struct destination_disk *disk,
                        const char *socket_path, struct error *error)
{
    char *id = must_format("watari-%u", disk->index);
    char *name = must_format("disk%u", disk->index);
    int parked;
    bool good = false;

    disk->nbd_fd = unix_socket_connect(socket_path, error);
    if (disk->nbd_fd >= 0 && (parked = unix_socket_duplicate(disk->nbd_fd, error)) >= 0) {
        batch_add_fd(destination->batch, id, parked);
        batch_add(destination->batch, "block-export-add",
                  must_json(json_pack("{ss,ss,ss,ss,sb}", "id", id, "type", "nbd", "node-name",
                                      disk->node, "name", name, "writable", 1)));
        good = true;
    }
    free(id);
    free(name);
    return good;
}

bool destination_export_disks(struct destination *destination, struct error *error)
{
    char *path = must_format("%s/nbd.sock", destination->run_dir);
    bool good = true;

    for (size_t i = 0; good && i < destination->disk_count; i++) {
        good = destination->disks[i].read_only ||
               export_disk(destination, &destination->disks[i], path, error);
    }
    free(path);
    return good;
}

void destination_exports_again(struct destination *destination)
{
    struct error error;

    destination->batch = batch_new(destination->qmp, destination->undo);
    if (!destination_export_disks(destination, &error)) {
        destination_fail(destination, &error);
        return;
    }
    batch_run(destination->batch, destination_on_exports_open, destination);
}

static void on_exports_told(const json_t *replies, const struct error *error, void *context)
{
    struct destination *destination = context;

    (void)replies;
    destination->batch = NULL;
    if (error) {
        destination_fail(destination, error);
    } else if (destination->exports_left == 0) {
        destination_exports_again(destination);
    }
}

/* The parked descriptors go at once, see source_disk.c. BLOCK_EXPORT_DELETED comes when what was in QEMU's hands is written. */
static void end_exports(struct destination *destination)
{
    destination->exports_left = (uint32_t)destination->carried;
    destination->batch = batch_new(destination->qmp, destination->undo);
    for (size_t i = 0; i < destination->carried; i++) {
        char id[32];

        snprintf(id, sizeof id, "watari-%zu", i);
        batch_add(destination->batch, "block-export-del",
                  must_json(json_pack("{ssss}", "id", id, "mode", "hard")));
        batch_add_closefd(destination->batch, id);
    }
    batch_run(destination->batch, on_exports_told, destination);
}

/* --- replacing --- */

void destination_replace(struct destination *destination, uint32_t count)
{
    if (destination->quiesced) {
        destination_fail_text(destination, "peer-protocol",
                              "%s wants new movers after the whole stream was sent",
                              destination->migration.peer);
        return;
    }
    destination->movers = count;
    if (destination->replacing) {
        return; /* the one that is being made will do */
    }
    log_info("migration %s of %s: a new mover takes over%s", destination->migration.id,
             destination->migration.vm,
             destination->memory_begun
                 ? ", and a new QEMU: the old one has had a part of the memory"
                 : "");
    destination->replacing = true;
    destination->mover_lost.id[0] = '\0';
    drop_mover(destination);
    batch_cancel(destination->batch);
    destination->batch = NULL;
    if (destination->memory_begun) {
        end_qemu(destination);
    } else {
        end_exports(destination);
    }
}

void destination_replaced(struct destination *destination)
{
    destination->replacing = false;
    destination_send_resumed(destination);
}

/*
 * What one VM's QEMU says of itself over QMP: state, machine, memory, disks, and what stands in the way of a migration. Asks, changes
 * nothing. Used by `watari list` and by both sides of a migration. Loop thread only.
 */
#ifndef WATARI_DAEMON_INSPECT_H
#define WATARI_DAEMON_INSPECT_H

#include "agent/common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct batch;
struct daemon;
struct qmp;

struct inspected_disk {
    char *device; /* as operators name it: the -device id, or QEMU's device name */
    char *qdev;   /* as query-block names it, for block_set_io_throttle and messages */
    char *
        node; /* the first node below the device that is no filter: bitmaps and exports sit there */
    char *path;            /* of the image */
    char *format;          /* "qcow2", "raw", ... */
    uint64_t size;         /* bytes the guest sees */
    uint64_t allocated;    /* bytes the image takes */
    uint64_t cluster_size; /* 0: the format has none */
    bool read_only;
    bool throttled; /* by limits, a group, or a throttle filter of its own */
};

struct inspection {
    char *status; /* of query-status: "running", "paused", ... */
    bool running;
    char *machine; /* the concrete type: "pc-q35-7.2" */
    uint64_t memory_bytes;
    struct inspected_disk *disks;
    size_t disk_count;
    json_t *capabilities; /* as query-migrate-capabilities and -parameters gave them */
    json_t *parameters;
    json_t *findings; /* array of {"level","id","text"}; level "blocker", "warning" or "note" */
};

struct inspect;
/* INSPECTION is borrowed for the call (inspection_take() keeps it); NULL with an error when QEMU did not answer. */
typedef void (*inspect_callback)(struct inspection *inspection, const struct error *error,
                                 void *context);

/* QMP must be ready. */
struct inspect *inspect_start(struct qmp *qmp, inspect_callback callback, void *context);
/* Gives up; no callback. Before the QMP connection is freed. NULL is fine. */
void inspect_free(struct inspect *inspect);

/* Moves all out of FROM. */
void inspection_take(struct inspection *into, struct inspection *from);
void inspection_clear(struct inspection *inspection);
/* The first blocker as an error (its id and text); false when there is none. */
bool inspection_blocker(const struct inspection *inspection, struct error *error);
/* By device name; NULL when there is none. */
const struct inspected_disk *inspection_disk(const struct inspection *inspection,
                                             const char *device);

/* The "return" object of the control socket's `list`; ownership of RESULT is passed. */
void inspect_all(struct daemon *daemon, void (*done)(json_t *result, void *context), void *context);

#endif

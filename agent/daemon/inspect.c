#include "inspect.h"

#include "batch.h"
#include "qmp.h"

#include "agent/common/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* TCG's dirty tracking loses writes in RAM blocks of such a multiple before QEMU 9.0 (commit 03bfc2188f, physmem). */
#define TCG_BAD_MULTIPLE (256u << 10)
#define TCG_FIXED_VERSION 90000

/* The commands asked, in this order; enum reply indexes their answers. */
static const char *const questions[] = {
    "query-status",
    "query-block",
    "query-named-block-nodes",
    "x-debug-query-block-graph",
    "query-migrate",
    "query-migrate-capabilities",
    "query-migrate-parameters",
    "query-memory-size-summary",
    "query-block-jobs",
    "query-block-exports",
    "query-kvm",
};
enum reply {
    REPLY_STATUS,
    REPLY_BLOCK,
    REPLY_NODES,
    REPLY_GRAPH,
    REPLY_MIGRATE,
    REPLY_CAPABILITIES,
    REPLY_PARAMETERS,
    REPLY_MEMORY,
    REPLY_JOBS,
    REPLY_EXPORTS,
    REPLY_KVM,
    REPLY_MACHINE,
};

struct inspect {
    struct qmp *qmp;
    struct batch *batch;
    inspect_callback callback;
    void *context;
};

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}

static void find(struct inspection *inspection, const char *level, const char *id, const char *text)
{
    json_array_append_new(inspection->findings, must_json(json_pack("{ss,ss,ss}", "level", level,
                                                                    "id", id, "text", text)));
}

static bool is_filter(const char *driver)
{
    static const char *const filters[] = {"throttle",   "copy-on-read", "copy-before-write",
                                          "blkdebug",   "blklogwrites", "blkreplay",
                                          "blkverify",  "preallocate",  "compress",
                                          "mirror_top", "commit_top",   "backup-top"};

    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        if (strcmp(driver, filters[i]) == 0) {
            return true;
        }
    }
    return false;
}

static const json_t *node_named(const json_t *nodes, const char *name)
{
    const json_t *node;
    size_t i;

    json_array_foreach(nodes, i, node)
    {
        if (strcmp(text_of(node, "node-name"), name) == 0) {
            return node;
        }
    }
    return NULL;
}

static const json_t *graph_node(const json_t *graph, const char *key, const json_t *wanted)
{
    const json_t *node;
    size_t i;

    json_array_foreach(json_object_get(graph, "nodes"), i, node)
    {
        if (json_equal(json_object_get(node, key), wanted)) {
            return node;
        }
    }
    return NULL;
}

/* The node that filter NODE passes its requests to: its "file" (or, for some, "target"/"backing") child. */
static const char *filtered_child(const json_t *graph, const char *node)
{
    json_t *name = must_json(json_string(node));
    const json_t *parent = graph_node(graph, "name", name);
    const json_t *edge;
    size_t i;

    json_decref(name);
    json_array_foreach(json_object_get(graph, "edges"), i, edge)
    {
        const char *role = text_of(edge, "name");

        if (json_equal(json_object_get(edge, "parent"), json_object_get(parent, "id")) &&
            (strcmp(role, "file") == 0 || strcmp(role, "backing") == 0)) {
            return text_of(graph_node(graph, "id", json_object_get(edge, "child")), "name");
        }
    }
    return "";
}

/* /machine/peripheral/vd0/virtio-backend -> vd0 */
static char *device_name(const char *qdev, const char *device)
{
    static const char *const places[] = {"/machine/peripheral/", "/machine/peripheral-anon/"};

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        size_t length = strlen(places[i]);

        if (strncmp(qdev, places[i], length) == 0) {
            return must_format("%.*s", (int)strcspn(qdev + length, "/"), qdev + length);
        }
    }
    return must_copy(device[0] ? device : qdev);
}

static void look_into_image(struct inspection *inspection, const struct inspected_disk *disk,
                            const json_t *node)
{
    const json_t *image = json_object_get(node, "image");
    const json_t *bitmap;
    char text[512];
    size_t i;

    if (json_object_get(image, "backing-filename")) {
        snprintf(text, sizeof text,
                 "disk %s has a backing file; at the destination it becomes one image",
                 disk->device);
        find(inspection, "note", "backing-chain", text);
    }
    if (json_array_size(json_object_get(image, "snapshots")) > 0) {
        snprintf(text, sizeof text, "disk %s has internal snapshots, which do not travel",
                 disk->device);
        find(inspection, "warning", "snapshots", text);
    }
    json_array_foreach(json_object_get(node, "dirty-bitmaps"), i, bitmap)
    {
        if (json_is_true(json_object_get(bitmap, "persistent"))) {
            snprintf(text, sizeof text,
                     "disk %s has the persistent bitmap %s, which does not travel", disk->device,
                     text_of(bitmap, "name"));
            find(inspection, "warning", "bitmaps", text);
        }
    }
}

static void add_disk(struct inspection *inspection, const json_t *replies, const json_t *block)
{
    const json_t *inserted = json_object_get(block, "inserted");
    const json_t *node = inserted;
    const json_t *image;
    struct inspected_disk *disk;
    bool throttled = json_object_get(inserted, "group") != NULL;
    char text[512];

    while (node && is_filter(text_of(node, "drv"))) {
        throttled = throttled || strcmp(text_of(node, "drv"), "throttle") == 0;
        node = node_named(
            json_array_get(replies, REPLY_NODES),
            filtered_child(json_array_get(replies, REPLY_GRAPH), text_of(node, "node-name")));
    }
    disk = &inspection->disks[inspection->disk_count++];
    disk->qdev = must_copy(text_of(block, "qdev"));
    disk->device = device_name(disk->qdev, text_of(block, "device"));
    if (!node) {
        snprintf(text, sizeof text, "disk %s: the node below its filter could not be found",
                 disk->device);
        find(inspection, "blocker", "block-graph", text);
        node = inserted;
    }
    image = json_object_get(node, "image");
    disk->node = must_copy(text_of(node, "node-name"));
    disk->path = must_copy(text_of(image, "filename"));
    disk->format = must_copy(text_of(image, "format"));
    disk->size = (uint64_t)json_integer_value(json_object_get(image, "virtual-size"));
    disk->allocated = (uint64_t)json_integer_value(json_object_get(image, "actual-size"));
    disk->cluster_size = (uint64_t)json_integer_value(json_object_get(image, "cluster-size"));
    disk->read_only = json_is_true(json_object_get(inserted, "ro"));
    disk->throttled = throttled;
    look_into_image(inspection, disk, node);
}

static void add_disks(struct inspection *inspection, const json_t *replies)
{
    const json_t *blocks = json_array_get(replies, REPLY_BLOCK);
    const json_t *block;
    size_t i;

    inspection->disks = must_alloc((json_array_size(blocks) + 1) * sizeof *inspection->disks);
    json_array_foreach(blocks, i, block)
    {
        if (json_object_get(block, "inserted")) {
            add_disk(inspection, replies, block);
        }
    }
}

static void judge_state(struct inspection *inspection)
{
    char text[256];

    if (inspection->running) {
        return;
    }
    if (strcmp(inspection->status, "paused") == 0 || strcmp(inspection->status, "prelaunch") == 0) {
        snprintf(
            text, sizeof text,
            "the guest is %s; QEMU cannot migrate it again after a rollback, so resume it first (QMP cont)",
            inspection->status);
    } else if (strcmp(inspection->status, "postmigrate") == 0) {
        snprintf(text, sizeof text, "this QEMU has been migrated away; it is the old copy");
    } else {
        snprintf(text, sizeof text, "the guest is not running but in the state %s",
                 inspection->status);
    }
    find(inspection, "blocker", "vm-not-running", text);
}

static void judge_migration(struct inspection *inspection, const json_t *migrate)
{
    const char *status = text_of(migrate, "status");
    const json_t *reason;
    char text[512];
    size_t i;

    if (strcmp(status, "setup") == 0 || strcmp(status, "active") == 0 ||
        strcmp(status, "pre-switchover") == 0 || strcmp(status, "device") == 0 ||
        strcmp(status, "postcopy-active") == 0 || strcmp(status, "cancelling") == 0) {
        snprintf(text, sizeof text, "QEMU is migrating this guest already (%s)", status);
        find(inspection, "blocker", "migration-active", text);
    }
    json_array_foreach(json_object_get(migrate, "blocked-reasons"), i, reason)
    {
        snprintf(text, sizeof text, "QEMU refuses to migrate this guest: %s",
                 json_string_value(reason) ? json_string_value(reason) : "?");
        find(inspection, "blocker", "qemu-blocker", text);
    }
}

static void judge_block_layer(struct inspection *inspection, const json_t *replies)
{
    char text[256];

    if (json_array_size(json_array_get(replies, REPLY_JOBS)) > 0) {
        find(inspection, "blocker", "block-job",
             "a block job runs on this guest's disks (backup, mirror, commit); wait for its end");
    }
    if (json_array_size(json_array_get(replies, REPLY_EXPORTS)) > 0) {
        find(
            inspection, "blocker", "nbd-server-busy",
            "this QEMU exports disks for something else already (a backup tool?); watari needs its NBD server for itself");
    }
    for (size_t i = 0; i < inspection->disk_count; i++) {
        if (!inspection->disks[i].path[0] || inspection->disks[i].path[0] != '/') {
            snprintf(text, sizeof text, "disk %s is not a local file or device (%s)",
                     inspection->disks[i].device, inspection->disks[i].path);
            find(inspection, "blocker", "disk-not-local", text);
        }
    }
}

static void judge_accelerator(struct inspection *inspection, const json_t *kvm, int version)
{
    if (!json_is_true(json_object_get(kvm, "enabled")) && version < TCG_FIXED_VERSION &&
        inspection->memory_bytes % TCG_BAD_MULTIPLE == 0) {
        find(
            inspection, "warning", "tcg-dirty-tracking",
            "emulated (TCG) guests lose writes while they migrate with QEMU before 9.0 when their RAM is a multiple of "
            "256 KiB; give this guest 64 KiB more or less, or KVM");
    }
}

static void parse(struct inspection *inspection, const json_t *replies, int version)
{
    const json_t *status = json_array_get(replies, REPLY_STATUS);
    const json_t *memory = json_array_get(replies, REPLY_MEMORY);
    const char *machine = json_string_value(json_array_get(replies, REPLY_MACHINE));
    const char *suffix;

    inspection->findings = must_json(json_array());
    inspection->status = must_copy(text_of(status, "status"));
    inspection->running = json_is_true(json_object_get(status, "running"));
    inspection->memory_bytes =
        (uint64_t)(json_integer_value(json_object_get(memory, "base-memory")) +
                   json_integer_value(json_object_get(memory, "plugged-memory")));
    /* QOM calls the type "pc-q35-7.2-machine"; -machine wants it without. */
    suffix = machine ? strstr(machine, "-machine") : NULL;
    inspection->machine =
        suffix ? must_format("%.*s", (int)(suffix - machine), machine) : must_copy("");
    inspection->capabilities = json_incref(json_array_get(replies, REPLY_CAPABILITIES));
    inspection->parameters = json_incref(json_array_get(replies, REPLY_PARAMETERS));
    add_disks(inspection, replies);
    judge_state(inspection);
    judge_migration(inspection, json_array_get(replies, REPLY_MIGRATE));
    judge_block_layer(inspection, replies);
    judge_accelerator(inspection, json_array_get(replies, REPLY_KVM), version);
}

static void on_replies(const json_t *replies, const struct error *error, void *context)
{
    struct inspect *inspect = context;
    struct inspection inspection = {0};
    inspect_callback callback = inspect->callback;
    void *callers = inspect->context;
    int version = qmp_version(inspect->qmp);

    free(inspect);
    if (error) {
        callback(NULL, error, callers);
        return;
    }
    parse(&inspection, replies, version);
    callback(&inspection, NULL, callers);
    inspection_clear(&inspection);
}

struct inspect *inspect_start(struct qmp *qmp, inspect_callback callback, void *context)
{
    struct inspect *inspect = must_alloc(sizeof *inspect);

    inspect->qmp = qmp;
    inspect->callback = callback;
    inspect->context = context;
    inspect->batch = batch_new(qmp, NULL);
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        batch_add(inspect->batch, questions[i], NULL);
    }
    batch_add(inspect->batch, "qom-get",
              must_json(json_pack("{ssss}", "path", "/machine", "property", "type")));
    batch_run(inspect->batch, on_replies, inspect);
    return inspect;
}

void inspect_free(struct inspect *inspect)
{
    if (inspect) {
        batch_cancel(inspect->batch);
        free(inspect);
    }
}

void inspection_take(struct inspection *into, struct inspection *from)
{
    *into = *from;
    memset(from, 0, sizeof *from);
}

void inspection_clear(struct inspection *inspection)
{
    for (size_t i = 0; i < inspection->disk_count; i++) {
        struct inspected_disk *disk = &inspection->disks[i];

        free(disk->device);
        free(disk->qdev);
        free(disk->node);
        free(disk->path);
        free(disk->format);
    }
    free(inspection->disks);
    free(inspection->status);
    free(inspection->machine);
    json_decref(inspection->capabilities);
    json_decref(inspection->parameters);
    json_decref(inspection->findings);
    memset(inspection, 0, sizeof *inspection);
}

bool inspection_blocker(const struct inspection *inspection, struct error *error)
{
    const json_t *finding;
    size_t i;

    json_array_foreach(inspection->findings, i, finding)
    {
        if (strcmp(text_of(finding, "level"), "blocker") == 0) {
            error_set(error, text_of(finding, "id"), "%s", text_of(finding, "text"));
            return true;
        }
    }
    return false;
}

const struct inspected_disk *inspection_disk(const struct inspection *inspection,
                                             const char *device)
{
    for (size_t i = 0; i < inspection->disk_count; i++) {
        if (strcmp(inspection->disks[i].device, device) == 0) {
            return &inspection->disks[i];
        }
    }
    return NULL;
}

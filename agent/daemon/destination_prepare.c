/*
 * The destination's way from an offer to an accept: checks that change nothing (destination_preflight.c), then disks, QEMU, exports, mover,
 * tickets. Whatever is made stands in the undo list before it is made.
 */
#include "destination_state.h"

#include "bandwidth.h"
#include "batch.h"
#include "child.h"
#include "clock.h"
#include "daemon.h"
#include "destination_disks.h"
#include "host_memory.h"
#include "journal.h"
#include "listener.h"
#include "mover_link.h"
#include "peer.h"
#include "qmp.h"
#include "tree.h"
#include "undo.h"
#include "unix_socket.h"
#include "vm.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/process.h"
#include "agent/policy/page_budget.h"
#include "agent/policy/phase.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define QEMU_START_MS 30000
#define QMP_RETRY_MS 20
#define LOG_TAIL_BYTES 400

/* --- QEMU --- */

static void log_tail(const struct destination *destination, char tail[LOG_TAIL_BYTES + 1])
{
    FILE *file = fopen(destination->log_path, "re");
    size_t got = 0;

    if (file) {
        if (fseek(file, -LOG_TAIL_BYTES, SEEK_END) < 0) {
            rewind(file);
        }
        got = fread(tail, 1, LOG_TAIL_BYTES, file);
        fclose(file);
    }
    tail[got] = '\0';
}

static void qemu_ended(struct destination *destination)
{
    char tail[LOG_TAIL_BYTES + 1];
    struct error error;
    bool machine;

    if (destination->failing) {
        return;
    }
    if (destination->recovering) {
        destination_recover_qemu_ended(destination);
        return;
    }
    if (destination->handoff.state == DESTINATION_PREPARING ||
        destination->handoff.state == DESTINATION_LOADING) {
        log_tail(destination, tail);
        machine = strstr(tail, "unsupported machine type") != NULL;
        error_set(&error, machine ? "machine-unknown" : "qemu-ended",
                  "the QEMU of %s at %s ended before it had loaded the VM; it said: %s",
                  destination->migration.vm, destination->migration.daemon->host,
                  tail[0] ? tail : "nothing");
        if (destination_qemu_failed(destination, true, &error)) {
            return;
        }
        destination->error = error;
    } else if (destination->handoff.state != DESTINATION_GIVING_UP) {
        error_set(&destination->error, "qemu-ended", "the QEMU of %s at %s ended (log: %s)",
                  destination->migration.vm, destination->migration.daemon->host,
                  destination->log_path);
    }
    destination_handoff(destination, DESTINATION_IN_QEMU_DEAD, NULL);
}

static void on_child_end(struct child *child, bool exited, int code, void *context)
{
    (void)child;
    (void)exited;
    (void)code;
    qemu_ended(context);
}

void destination_on_qemu_end(pid_t pid, void *context)
{
    (void)pid;
    qemu_ended(context);
}

static void on_event(const char *name, json_t *data, void *context)
{
    destination_event(context, name, data);
}

static void on_closed(void *context)
{
    struct destination *destination = context;

    destination->qmp_ready = false;
    /* The end of the process comes through its pidfd, and says more. */
}

void destination_qmp_open(struct destination *destination,
                          void (*ready)(const struct error *error, void *context))
{
    struct qmp_handlers handlers = {ready, on_event, on_closed};

    qmp_free(destination->qmp);
    destination->qmp = qmp_open(destination->migration.daemon->base, destination->qmp_path,
                                &handlers, destination);
}

/* --- exports, mover, accept --- */

static void send_accept(struct destination *destination)
{
    json_t *tickets = destination_tickets(destination);
    json_t *disks = must_json(json_array());

    if (!tickets) {
        json_decref(disks);
        destination_fail_text(destination, "no-random",
                              "the system gives no random bytes for lane keys");
        return;
    }
    for (size_t i = 0; i < destination->disk_count; i++) {
        json_array_append_new(disks,
                              must_json(json_pack("{ss,sb}", "path", destination->disks[i].path,
                                                  "reads_as_zero", 1)));
    }
    destination->accepted = true;
    migration_phase(&destination->migration, PHASE_PREPARE, "ready for %s from %s",
                    destination->migration.vm, destination->migration.peer);
    destination_send(
        destination, "accept",
        must_json(json_pack(
            "{so,so,sI,si,ss,ss,ss,ss}", "tickets", tickets, "disks", disks, "page_cache_bytes",
            (json_int_t)destination->page_cache_bytes, "pid", (int)destination->pid, "qmp",
            destination->launch.qmp_path ? destination->launch.qmp_path : destination->qmp_path,
            "launch", destination->launch_path, "log", destination->log_path, "host",
            destination->migration.daemon->host)));
    destination_share_bandwidth(destination->migration.daemon);
}

static void on_prepared_synced(const struct error *error, uint64_t nanoseconds, void *context)
{
    struct destination *destination = context;

    (void)nanoseconds;
    if (destination->failing) {
        return;
    }
    if (error) {
        destination_fail(destination, error);
        return;
    }
    send_accept(destination);
    if (destination->mover_lost.id[0]) {
        destination_tell_mover_lost(destination);
    }
}

/* Later `watari start` runs this. One argument a line cannot hold newlines, so JSON. Whole or not there, and synced with the record. */
static bool write_launch(const struct destination *destination, struct error *error)
{
    const char *path = destination->launch_path;
    char *fresh = must_format("%s.new", path), *copy = must_copy(path), *directory = dirname(copy);
    json_t *list = must_json(json_array());
    bool good = true;

    for (size_t i = 0; i < destination->launch.boot_argc; i++) {
        json_array_append_new(list, must_json(json_string(destination->launch.boot_argv[i])));
    }
    if ((mkdir(directory, 0700) < 0 && errno != EEXIST) ||
        json_dump_file(list, fresh, JSON_INDENT(1)) < 0 || rename(fresh, path) < 0) {
        good = error_set(error, "state-dir", "%s cannot be written: %s", path, strerror(errno));
    } else {
        journal_also_sync(destination->journal, path);
        journal_also_sync(destination->journal, directory);
    }
    json_decref(list);
    free(copy);
    free(fresh);
    return good;
}

static void journal_prepared(struct destination *destination)
{
    json_t *sockets = must_json(json_array());
    struct error error;

    for (size_t i = 0; i < destination->launch.socket_count; i++) {
        json_array_append_new(
            sockets, must_json(json_pack("[ss]", destination->launch.sockets[i].private_path,
                                         destination->launch.sockets[i].public_path)));
    }
    if ((!destination->migration.trial && !write_launch(destination, &error)) ||
        !journal_append(
            destination->journal, "prepared",
            must_json(json_pack("{si,so}", "pid", (int)destination->pid, "sockets", sockets)),
            &error)) {
        destination_fail(destination, &error);
        return;
    }
    journal_sync(destination->journal, on_prepared_synced, destination);
}

static void on_mover_ended(const struct error *error, void *context)
{
    struct destination *destination = context;

    if (!destination->quiesced) {
        destination_mover_lost(destination, error);
    }
}

/* As much of the page cache that the source offered as there is memory for: the guest has not touched its own yet. */
static uint64_t grant_page_cache(const struct destination *destination)
{
    const json_t *offer = destination->offer;
    uint64_t offered = (uint64_t)json_integer_value(json_object_get(offer, "page_cache_bytes"));
    uint64_t ram = (uint64_t)json_integer_value(json_object_get(offer, "ram_bytes"));
    uint64_t available = host_memory_available();
    uint64_t budget = page_budget(destination->migration.daemon->config.page_cache, ram,
                                  available > ram ? available - ram : 0);

    return offered < budget ? offered : budget;
}

static void start_mover(struct destination *destination)
{
    static const struct mover_handlers handlers = {destination_report, on_mover_ended};
    struct order begin = {
        .type = ORDER_BEGIN,
        .begin = {.role = ORDER_DESTINATION,
                  .lanes = destination->lanes,
                  .patience_ms = destination->migration.daemon->config.patience_ms,
                  .key_bytes = destination->migration.daemon->config.key_bytes}};
    struct error error;

    destination->page_cache_bytes = grant_page_cache(destination);
    begin.begin.page_cache_bytes = destination->page_cache_bytes;
    destination->mover =
        mover_link_new(destination->migration.daemon, &handlers, destination, &error);
    if (!destination->mover) {
        destination_fail(destination, &error);
        return;
    }
    mover_link_send(destination->mover, &begin, -1);
    for (size_t i = 0; i < destination->disk_count; i++) {
        struct destination_disk *disk = &destination->disks[i];
        struct order order = {.type = ORDER_DISK,
                              .disk = {.disk = disk->index, .size = disk->size}};

        if (!disk->read_only) {
            mover_link_send(destination->mover, &order, disk->nbd_fd);
            disk->nbd_fd = -1;
        }
    }
    if (destination->replacing) {
        destination_replaced(destination);
    } else {
        journal_prepared(destination);
    }
}

void destination_on_exports_open(const json_t *replies, const struct error *error, void *context)
{
    struct destination *destination = context;

    (void)replies;
    destination->batch = NULL;
    if (error) {
        destination_fail(destination, error);
        return;
    }
    start_mover(destination);
}

static json_t *wanted_capabilities(const struct inspection *inspection)
{
    json_t *list = must_json(json_array());
    const json_t *capability;
    size_t i;

    json_array_foreach(inspection->capabilities, i, capability)
    {
        const char *name = json_string_value(json_object_get(capability, "capability"));

        json_array_append_new(list, must_json(json_pack("{ss,sb}", "capability", name, "state",
                                                        strcmp(name, "events") == 0)));
    }
    return list;
}

static void open_exports(struct destination *destination, const struct inspection *inspection)
{
    char *path = must_format("%s/nbd.sock", destination->run_dir);
    struct error error;
    int fd = unix_socket_listen(path, &error);
    bool good = fd >= 0;

    destination->batch = batch_new(destination->qmp, destination->undo);
    if (good) {
        batch_add(destination->batch, "migrate-set-capabilities",
                  must_json(json_pack("{so}", "capabilities", wanted_capabilities(inspection))));
        /* QEMU would announce the guest's addresses when it has loaded, before anybody committed: announce-self does it in time. */
        batch_add(destination->batch, "migrate-set-parameters",
                  must_json(json_pack("{si,si,ss}", "announce-rounds", 0, "max-bandwidth", 0,
                                      "tls-creds", "")));
        batch_add_fd(destination->batch, "watari-nbd", fd);
        batch_add(destination->batch, "nbd-server-start",
                  must_json(json_pack("{s{sss{ss}}}", "addr", "type", "fd", "data", "str",
                                      "watari-nbd")));
        batch_add_forget(destination->batch, "fd:watari-nbd");
    }
    good = good && destination_export_disks(destination, &error);
    free(path);
    if (!good) {
        destination_fail(destination, &error);
        return;
    }
    batch_run(destination->batch, destination_on_exports_open, destination);
}

static bool map_disks(struct destination *destination, const struct inspection *inspection,
                      struct error *error)
{
    for (size_t i = 0; i < destination->disk_count; i++) {
        struct destination_disk *disk = &destination->disks[i];

        if (disk->read_only) {
            continue;
        }
        for (size_t j = 0; j < inspection->disk_count; j++) {
            if (strcmp(inspection->disks[j].path, disk->path) == 0) {
                disk->node = must_copy(inspection->disks[j].node);
                if (inspection->disks[j].size != disk->size) {
                    return error_set(error, "disk-size",
                                     "disk %s has %llu bytes at the source, %llu here", disk->name,
                                     (unsigned long long)disk->size,
                                     (unsigned long long)inspection->disks[j].size);
                }
            }
        }
        if (!disk->node) {
            return error_set(
                error, "disk-unmapped",
                "the started QEMU does not show disk %s (%s); was it added while the VM ran? "
                "Devices that are not on the command line do not travel",
                disk->name, disk->path);
        }
    }
    return true;
}

static void on_inspected(struct inspection *inspection, const struct error *error, void *context)
{
    struct destination *destination = context;
    const char *machine = json_string_value(json_object_get(destination->offer, "machine"));
    uint64_t memory =
        (uint64_t)json_integer_value(json_object_get(destination->offer, "ram_bytes"));
    struct error own;

    destination->inspect = NULL;
    if (error) {
        destination_fail(destination, error);
    } else if (strcmp(inspection->machine, machine) != 0) {
        destination_fail_text(destination, "machine-differs",
                              "the machine type is %s at the source, %s here", machine,
                              inspection->machine);
    } else if (inspection->memory_bytes != memory) {
        destination_fail_text(
            destination, "memory-differs",
            "the VM has %llu bytes of memory at the source, %llu here (memory that was "
            "plugged in later does not travel)",
            (unsigned long long)memory, (unsigned long long)inspection->memory_bytes);
    } else if (!map_disks(destination, inspection, &own)) {
        destination_fail(destination, &own);
    } else {
        open_exports(destination, inspection);
    }
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct destination *destination = context;

    if (error) {
        /* Not there yet: QEMU is starting. Its end, or the limit, ends this. */
        event_add(destination->retry, &(struct timeval){0, QMP_RETRY_MS * 1000});
        return;
    }
    destination->qmp_ready = true;
    destination_limit(destination, NULL, 0);
    destination->inspect = inspect_start(destination->qmp, on_inspected, destination);
}

void destination_on_retry(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    destination_qmp_open(context, on_qmp_ready);
}

void destination_start_qemu(struct destination *destination)
{
    struct child_options options = {.path = destination->launch.argv[0],
                                    .argv = (const char *const *)destination->launch.argv,
                                    .log_path = destination->log_path,
                                    .pass_fd = -1,
                                    .detach = true};
    struct error error;

    if (!undo_add(destination->undo, "qemu",
                  must_json(json_pack("{ss}", "process", destination->qmp_path)), &error)) {
        destination_fail(destination, &error);
        return;
    }
    destination->child = child_spawn(destination->migration.daemon->base, &options, on_child_end,
                                     destination, &error);
    if (!destination->child) {
        destination_fail(destination, &error);
        return;
    }
    destination->pid = child_pid(destination->child);
    destination_limit(destination, "starting QEMU", QEMU_START_MS);
    destination_qmp_open(destination, on_qmp_ready);
}

static bool make_directory(struct destination *destination, const char *path, struct error *error)
{
    char *key = must_format("directory:%s", path);
    bool good = undo_add(destination->undo, key, must_json(json_pack("{ss}", "tree", path)), error);

    if (good && mkdir(path, 0700) < 0) {
        good = error_set(error, "run-dir", "%s cannot be made: %s", path, strerror(errno));
    }
    free(key);
    return good;
}

static void on_disks_made(struct destination *destination)
{
    char *private = must_format("%s/private", destination->vm_dir);
    struct error error;
    bool good;

    /* What an earlier VM of this name left in its run directory: none runs, destination_may_offer() looked. */
    good = tree_remove(destination->vm_dir) == 0 ||
           error_set(&error, "run-dir", "%s cannot be emptied: %s", destination->vm_dir,
                     strerror(errno));
    good = good && make_directory(destination, destination->vm_dir, &error) &&
           make_directory(destination, private, &error) &&
           make_directory(destination, destination->run_dir, &error);
    free(private);
    if (!good) {
        destination_fail(destination, &error);
        return;
    }
    destination_start_qemu(destination);
}

static json_t *begin_record(const struct destination *destination)
{
    json_t *files = must_json(json_array());
    char boot_id[PROCESS_BOOT_ID_SIZE] = "";

    process_boot_id(boot_id);
    for (size_t i = 0; i < destination->disk_count; i++) {
        json_array_append_new(files, must_json(json_string(destination->disks[i].path)));
    }
    return must_json(json_pack("{ss,sI,ss,ss,ss,ss,ss,sb,so}", "side", "destination", "began_s",
                               (json_int_t)migration_begins(destination->migration.daemon),
                               "migration", destination->migration.id, "vm",
                               destination->migration.vm, "peer", destination->migration.peer,
                               "qmp", destination->qmp_path, "boot_id", boot_id, "trial",
                               destination->migration.trial, "disks", files));
}

void destination_prepare_begin(struct destination *destination)
{
    struct daemon *daemon = destination->migration.daemon;
    char *path = must_format("%s/journal/%s.destination", daemon->config.state_dir,
                             destination->migration.id);
    struct error error;

    migration_phase(&destination->migration, PHASE_PREPARE, "%s offers %s",
                    destination->migration.peer, destination->migration.vm);
    destination->journal = journal_create(daemon->syncer, path, &error);
    free(path);
    if (!destination->journal) {
        destination_refuse_early(destination, &error);
        return;
    }
    destination->undo = undo_new(daemon->base, destination->journal);
    if (!destination_disks_plan(destination, &error) ||
        !destination_plan_launch(destination, &error) ||
        !destination_check_files(destination, &error) ||
        !journal_append(destination->journal, "begin", begin_record(destination), &error)) {
        destination_fail(destination, &error);
        return;
    }
    destination_disks_make(destination, on_disks_made);
}

/*
 * `watari list`: inspects every VM of this host, all at the same time, each with its own QMP connection and limit of time.
 */
#include "inspect.h"

#include "daemon.h"
#include "migration.h"
#include "qmp.h"
#include "vm.h"

#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>

struct round {
    json_t *vms;
    size_t left;
    void (*done)(json_t *result, void *context);
    void *context;
};

struct visit {
    struct round *round;
    json_t *entry; /* borrowed from round->vms */
    struct qmp *qmp;
    struct inspect *inspect;
};

static void round_step(struct round *round)
{
    if (--round->left > 0) {
        return;
    }
    round->done(must_json(json_pack("{so}", "vms", round->vms)), round->context);
    free(round);
}

static void visit_end(struct visit *visit)
{
    struct round *round = visit->round;

    inspect_free(visit->inspect);
    qmp_free(visit->qmp);
    free(visit);
    round_step(round);
}

static void cannot(json_t *entry, const char *id, const char *text)
{
    json_object_set_new(entry, "migratable", json_false());
    json_object_set_new(
        entry, "findings",
        must_json(json_pack("[{ss,ss,ss}]", "level", "blocker", "id", id, "text", text)));
}

static json_t *describe_disk(const struct inspected_disk *disk)
{
    return must_json(json_pack("{ss,ss,ss,ss,sI,sI,sb}", "device", disk->device, "node", disk->node,
                               "path", disk->path, "format", disk->format, "size",
                               (json_int_t)disk->size, "allocated", (json_int_t)disk->allocated,
                               "read_only", disk->read_only));
}

static void on_inspected(struct inspection *inspection, const struct error *error, void *context)
{
    struct visit *visit = context;
    struct error blocker;
    json_t *disks;

    visit->inspect = NULL;
    if (error) {
        cannot(visit->entry, error->id, error->text);
        visit_end(visit);
        return;
    }
    disks = must_json(json_array());
    for (size_t i = 0; i < inspection->disk_count; i++) {
        json_array_append_new(disks, describe_disk(&inspection->disks[i]));
    }
    json_object_update_new(
        visit->entry, must_json(json_pack("{ss,ss,sI,so,sb,sO}", "status", inspection->status,
                                          "machine", inspection->machine, "memory_bytes",
                                          (json_int_t)inspection->memory_bytes, "disks", disks,
                                          "migratable", !inspection_blocker(inspection, &blocker),
                                          "findings", inspection->findings)));
    visit_end(visit);
}

static void on_ready(const struct error *error, void *context)
{
    struct visit *visit = context;

    if (error) {
        cannot(visit->entry, error->id, error->text);
        visit_end(visit);
        return;
    }
    visit->inspect = inspect_start(visit->qmp, on_inspected, visit);
}

static void visit_vm(struct daemon *daemon, struct round *round, const struct vm *vm)
{
    /* A close fails the replies still due, which ends the visit. */
    static const struct qmp_handlers handlers = {on_ready, NULL, NULL};
    struct visit *visit;
    json_t *entry = must_json(
        json_pack("{ss,si,ss?}", "name", vm->name, "pid", (int)vm->pid, "qmp", vm->qmp_path));

    json_array_append_new(round->vms, entry);
    if (migration_of_vm(daemon, vm->name)) {
        /* The migration holds this VM's monitor. */
        cannot(entry, "migration-active", "a migration of this VM is under way (watari status)");
        return;
    }
    if (!vm->qmp_path) {
        cannot(entry, "vm-no-qmp",
               "this QEMU has no QMP socket (start it with -qmp unix:PATH,server=on,wait=off)");
        return;
    }
    visit = must_alloc(sizeof *visit);
    visit->round = round;
    visit->entry = entry;
    round->left++;
    visit->qmp = qmp_open(daemon->base, vm->qmp_path, &handlers, visit);
}

void inspect_all(struct daemon *daemon, void (*done)(json_t *result, void *context), void *context)
{
    struct round *round = must_alloc(sizeof *round);
    struct vm_list list;

    round->vms = must_json(json_array());
    round->left = 1;
    round->done = done;
    round->context = context;
    if (vm_scan(&list) == 0) {
        for (size_t i = 0; i < list.count; i++) {
            visit_vm(daemon, round, &list.vms[i]);
        }
        vm_list_clear(&list);
    }
    round_step(round);
}

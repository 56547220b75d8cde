#include "offer.h"

#include "agent/common/must.h"

#include <string.h>
#include <unistd.h>

#define DEFAULT_LANES_MAX 8
#define DEFAULT_LANES_MIN 2

static uint32_t default_lanes(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    return cores > DEFAULT_LANES_MAX   ? DEFAULT_LANES_MAX
           : cores < DEFAULT_LANES_MIN ? DEFAULT_LANES_MIN
                                       : (uint32_t)cores;
}

uint32_t offer_lanes(const struct migrate_request *request)
{
    return request->lanes ? request->lanes : default_lanes();
}

static const char *wanted_target(const struct migrate_request *request, const char *device)
{
    for (size_t i = 0; i < request->disk_count; i++) {
        if (strcmp(request->disks[i].device, device) == 0) {
            return request->disks[i].target;
        }
    }
    return NULL;
}

static json_t *offered_disks(const struct inspection *inspection,
                             const struct migrate_request *request)
{
    json_t *list = must_json(json_array());

    for (size_t i = 0; i < inspection->disk_count; i++) {
        const struct inspected_disk *disk = &inspection->disks[i];
        const char *target = wanted_target(request, disk->device);
        json_t *entry = must_json(
            json_pack("{ss,ss,ss,ss,sI,sI,sb}", "name", disk->device, "node", disk->node, "path",
                      disk->path, "format", disk->format, "size", (json_int_t)disk->size,
                      "allocated", (json_int_t)disk->allocated, "read_only", disk->read_only));

        if (disk->cluster_size) {
            json_object_set_new(entry, "cluster_size",
                                json_integer((json_int_t)disk->cluster_size));
        }
        if (target) {
            json_object_set_new(entry, "target", must_json(json_string(target)));
        }
        json_array_append_new(list, entry);
    }
    return list;
}

/* Arguments that are not UTF-8 cannot be told in JSON. */
static json_t *launch_vector(const struct vm *vm)
{
    json_t *list = must_json(json_array());

    for (size_t i = 0; i < vm->argc; i++) {
        json_t *argument = json_string(i == 0 && vm->binary ? vm->binary : vm->argv[i]);

        if (!argument) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, argument);
    }
    return list;
}

json_t *offer_build(const struct vm *vm, const struct inspection *inspection,
                    const struct migrate_request *request, const char *qemu_version, uint32_t lanes,
                    uint64_t page_cache_bytes)
{
    json_t *launch = launch_vector(vm);

    if (!launch) {
        return NULL;
    }
    return must_json(json_pack(
        "{ss,ss,ss,ss,sI,sI,so,si,sI,sI,sb,so}", "vm", vm->name, "mode",
        request->mode == MIGRATION_QUICK ? "quick" : "live", "machine", inspection->machine,
        "qemu_version", qemu_version, "ram_bytes", (json_int_t)inspection->memory_bytes,
        "page_cache_bytes", (json_int_t)page_cache_bytes, "launch", launch, "lanes", (int)lanes,
        "paused_limit_ms", (json_int_t)request->max_quick_downtime_ms, "reconnect_timeout_ms",
        (json_int_t)request->reconnect_timeout_ms, "trial", request->trial, "disks",
        offered_disks(inspection, request)));
}

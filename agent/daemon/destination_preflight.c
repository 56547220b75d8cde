/*
 * What a destination looks at before it makes anything: the launch rules, the files that QEMU will want. An offer goes through these checks
 * and ends at the first objection; a preflight, of `watari plan` at the source, goes through all of them and tells every one. Nothing is
 * made, started or kept for it.
 */
#include "destination_state.h"

#include "daemon.h"
#include "destination_disks.h"
#include "host_memory.h"
#include "peer.h"

#include "agent/common/must.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- one by one --- */

bool destination_plan_launch(struct destination *destination, struct error *error)
{
    const struct config *config = &destination->migration.daemon->config;
    const json_t *vector = json_object_get(destination->offer, "launch");
    size_t argc = json_array_size(vector);
    const char **argv = must_alloc((argc + 1) * sizeof *argv);
    struct launch_disk *disks = must_alloc((destination->disk_count + 1) * sizeof *disks);
    char reason[LAUNCH_ERROR_SIZE];
    struct launch_rules rules = {
        .binaries = (const char *const *)config->binaries,
        .binary_count = config->binary_count,
        .allowed_paths = (const char *const *)config->allowed_paths,
        .allowed_path_count = config->allowed_path_count,
        .vm_directory = destination->vm_dir,
        .machine = json_string_value(json_object_get(destination->offer, "machine")),
    };
    bool good;

    for (size_t i = 0; i < argc; i++) {
        argv[i] = json_string_value(json_array_get(vector, i));
    }
    for (size_t i = 0; i < destination->disk_count; i++) {
        if (!destination->disks[i].read_only) {
            disks[rules.disk_count].source_path = destination->disks[i].source_path;
            disks[rules.disk_count].format = destination->disks[i].format;
            disks[rules.disk_count++].target_path = destination->disks[i].path;
        }
    }
    rules.disks = disks;
    good = launch_build(argv, argc, &rules, &destination->launch, reason);
    if (!good) {
        error_set(error, "launch-refused", "%s will not start this QEMU: %s",
                  destination->migration.daemon->host, reason);
    }
    free(argv);
    free(disks);
    return good;
}

/* The rules have judged the name; a symbolic link must not lead out of what they allow. */
static bool check_file(const struct destination *destination, const char *path, struct error *error)
{
    const struct config *config = &destination->migration.daemon->config;
    char *real = realpath(path, NULL);
    bool good = false;

    if (!real || access(real, R_OK) < 0) {
        error_set(error, "file-missing", "%s, which the VM's QEMU names, is not at %s: %s", path,
                  config->host_name, strerror(errno));
        free(real);
        return false;
    }
    for (size_t i = 0; i < config->allowed_path_count && !good; i++) {
        char *allowed = realpath(config->allowed_paths[i], NULL);
        size_t length = allowed ? strlen(allowed) : 0;

        good = allowed && strncmp(real, allowed, length) == 0 &&
               (real[length] == '/' || real[length] == '\0');
        free(allowed);
    }
    if (!good) {
        error_set(error, "launch-refused", "%s leads to %s, which no allow-path of %s covers", path,
                  real, config->host_name);
    }
    free(real);
    return good;
}

bool destination_check_files(const struct destination *destination, struct error *error)
{
    const char *host = destination->migration.daemon->host;

    if (access(destination->launch.argv[0], X_OK) < 0) {
        return error_set(error, "qemu-missing", "the QEMU binary %s is not at %s: %s",
                         destination->launch.argv[0], host, strerror(errno));
    }
    for (size_t i = 0; i < destination->launch.required_file_count; i++) {
        if (!check_file(destination, destination->launch.required_files[i], error)) {
            return false;
        }
    }
    return true;
}

/* --- all of them --- */

static void find(json_t *findings, const char *level, const struct error *error)
{
    json_array_append_new(findings,
                          must_json(json_pack("{ss,ss,so}", "level", level, "id", error->id, "text",
                                              must_json(message_text(error->text)))));
}

static bool all_disks_have_places(const struct destination *destination)
{
    size_t offered = json_array_size(json_object_get(destination->offer, "disks"));

    for (size_t i = 0; i < destination->disk_count; i++) {
        if (!destination->disks[i].path) {
            return false;
        }
    }
    return destination->disk_count == offered;
}

/* No reason to refuse: what is available now need not be what will be, and there may be swap. */
static void look_at_memory(const struct destination *destination, json_t *findings)
{
    uint64_t wanted =
        (uint64_t)json_integer_value(json_object_get(destination->offer, "ram_bytes"));
    uint64_t available = host_memory_available();
    struct error error;

    if (wanted > available) {
        error_set(&error, "memory-short",
                  "the VM has %llu MiB of memory, and %s has %llu MiB available",
                  (unsigned long long)(wanted >> 20), destination->migration.daemon->host,
                  (unsigned long long)(available >> 20));
        find(findings, "warning", &error);
    }
}

static void look(struct destination *destination, json_t *findings)
{
    struct error error;

    if (!destination_disks_plan(destination, &error)) {
        find(findings, "blocker", &error);
    }
    if (all_disks_have_places(destination)) {
        if (!destination_plan_launch(destination, &error) ||
            !destination_check_files(destination, &error)) {
            find(findings, "blocker", &error);
        }
    }
    look_at_memory(destination, findings);
}

json_t *destination_findings(struct daemon *daemon, const struct peer *peer, json_t *preflight)
{
    const char *id = json_string_value(json_object_get(preflight, "migration"));
    const char *vm = json_string_value(json_object_get(preflight, "vm"));
    json_t *findings = must_json(json_array());
    struct destination *destination;
    struct error error;

    if (!destination_may_offer(daemon, peer, id, vm, &error)) {
        find(findings, "blocker", &error);
        if (strcmp(error.id, "peer-not-allowed") == 0 || strcmp(error.id, "vm-name") == 0) {
            return findings; /* no more is told to whom may not send, and no more can be with such a name */
        }
    }
    destination = destination_new(daemon, id, vm, peer_name(peer));
    destination->offer = json_incref(preflight);
    look(destination, findings);
    migration_clear(&destination->migration);
    destination->migration.ops->free(&destination->migration);
    return findings;
}

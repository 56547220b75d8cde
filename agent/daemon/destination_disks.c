#include "destination_disks.h"

#include "child.h"
#include "daemon.h"
#include "journal.h"
#include "undo.h"

#include "agent/common/must.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Beyond the data: image metadata, the journal, what other writers of the pool take meanwhile. */
#define POOL_RESERVE_BYTES (64ull << 20)

static bool has_dots(const char *path)
{
    const char *at = path;

    while ((at = strstr(at, ".."))) {
        bool before = at == path || at[-1] == '/';
        bool after = at[2] == '\0' || at[2] == '/';

        if (before && after) {
            return true;
        }
        at += 2;
    }
    return false;
}

static bool inside(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 && path[length] == '/' && path[length + 1];
}

/* POOL, an absolute path inside a pool, or nothing: the first pool. */
static bool choose_path(struct destination *destination, struct destination_disk *disk,
                        const char *target, struct error *error)
{
    const struct config *config = &destination->migration.daemon->config;
    const char *slash = strrchr(disk->source_path, '/');
    const char *name = slash ? slash + 1 : disk->source_path;
    const struct config_pool *pool;

    if (target && target[0] == '/') {
        for (size_t i = 0; i < config->pool_count; i++) {
            if (inside(target, config->pools[i].directory) && !has_dots(target)) {
                disk->path = must_copy(target);
                return true;
            }
        }
        return error_set(error, "disk-target", "%s lies in no pool of %s", target,
                         destination->migration.daemon->host);
    }
    pool = target ? config_pool(config, target) : config->pool_count ? &config->pools[0] : NULL;
    if (!pool) {
        return error_set(error, "pool-missing",
                         target ? "%s has no pool %s ([pools] in its watarid.conf)"
                                : "%s has no pool%s ([pools] in its watarid.conf)",
                         destination->migration.daemon->host, target ? target : "");
    }
    if (!name[0] || has_dots(name)) {
        return error_set(error, "disk-target", "%s is no name for an image", disk->source_path);
    }
    disk->path = must_format("%s/%s", pool->directory, name);
    return true;
}

static bool check_place(const struct destination *destination, const struct destination_disk *disk,
                        struct error *error)
{
    const char *host = destination->migration.daemon->host;
    char *copy = must_copy(disk->path);
    const char *directory = dirname(copy);
    struct stat status;
    bool good = true;

    if (stat(directory, &status) < 0 || !S_ISDIR(status.st_mode)) {
        good = error_set(error, "pool-missing", "the directory %s is not there at %s", directory,
                         host);
    } else if (access(directory, W_OK) < 0) {
        good = error_set(error, errno == EROFS ? "pool-read-only" : "pool-missing",
                         "the directory %s at %s cannot be written: %s", directory, host,
                         strerror(errno));
    } else if (lstat(disk->path, &status) == 0) {
        good = error_set(
            error, "disk-exists",
            "%s is there already at %s; move it away, or choose another place with --disk %s=PATH",
            disk->path, host, disk->name);
    }
    free(copy);
    return good;
}

/* What all disks that share DISK's file system need. */
static bool check_space(const struct destination *destination, const struct destination_disk *disk,
                        struct error *error)
{
    char *copy = must_copy(disk->path);
    const char *directory = dirname(copy);
    uint64_t needed = POOL_RESERVE_BYTES;
    struct statvfs space;
    struct stat here, there;
    bool good = true;

    if (statvfs(directory, &space) < 0 || stat(directory, &here) < 0) {
        good = error_set(error, "pool-missing", "%s: %s", directory, strerror(errno));
    }
    for (size_t i = 0; good && i < destination->disk_count; i++) {
        char *other = must_copy(destination->disks[i].path);

        if (!destination->disks[i].read_only && stat(dirname(other), &there) == 0 &&
            there.st_dev == here.st_dev) {
            needed += destination->disks[i].allocated;
        }
        free(other);
    }
    if (good && (uint64_t)space.f_bavail * space.f_frsize < needed) {
        good = error_set(error, "pool-full",
                         "%s at %s has %llu MiB free, the disks take %llu MiB (and some reserve)",
                         directory, destination->migration.daemon->host,
                         (unsigned long long)((uint64_t)space.f_bavail * space.f_frsize >> 20),
                         (unsigned long long)(needed >> 20));
    }
    free(copy);
    return good;
}

static bool take_disk(struct destination *destination, const json_t *offered, struct error *error)
{
    struct destination_disk *disk = &destination->disks[destination->disk_count++];

    disk->nbd_fd = -1;
    disk->name = must_copy(json_string_value(json_object_get(offered, "name")));
    disk->source_path = must_copy(json_string_value(json_object_get(offered, "path")));
    disk->format = must_copy(json_string_value(json_object_get(offered, "format")));
    disk->size = (uint64_t)json_integer_value(json_object_get(offered, "size"));
    disk->allocated = (uint64_t)json_integer_value(json_object_get(offered, "allocated"));
    disk->cluster_size = (uint64_t)json_integer_value(json_object_get(offered, "cluster_size"));
    disk->read_only = json_is_true(json_object_get(offered, "read_only"));
    if (disk->read_only) {
        disk->path = must_copy(disk->source_path);
        return true;
    }
    disk->index = (uint32_t)destination->carried++;
    if (strcmp(disk->format, "qcow2") != 0 && strcmp(disk->format, "raw") != 0) {
        return error_set(error, "format-unsupported",
                         "disk %s is of format %s; qcow2 and raw can be made at the destination",
                         disk->name, disk->format);
    }
    return choose_path(destination, disk, json_string_value(json_object_get(offered, "target")),
                       error);
}

bool destination_disks_plan(struct destination *destination, struct error *error)
{
    const json_t *list = json_object_get(destination->offer, "disks");
    const json_t *offered;
    size_t i;

    destination->disks = must_alloc((json_array_size(list) + 1) * sizeof *destination->disks);
    json_array_foreach(list, i, offered)
    {
        if (!take_disk(destination, offered, error)) {
            return false;
        }
    }
    for (i = 0; i < destination->disk_count; i++) {
        if (!destination->disks[i].read_only &&
            (!check_place(destination, &destination->disks[i], error) ||
             !check_space(destination, &destination->disks[i], error))) {
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(destination->disks[i].path, destination->disks[j].path) == 0) {
                return error_set(
                    error, "disk-exists",
                    "disks %s and %s would both become %s; give one another place with --disk",
                    destination->disks[j].name, destination->disks[i].name,
                    destination->disks[i].path);
            }
        }
    }
    return true;
}

/* --- making --- */

struct making {
    struct destination *destination;
    void (*done)(struct destination *destination);
};

/* An empty file of that name, ours for certain: O_EXCL, and its inode in the journal before anything is put into it. */
static bool claim_file(struct destination *destination, const struct destination_disk *disk,
                       struct error *error)
{
    char *key = must_format("file:%s", disk->path);
    bool good =
        undo_add(destination->undo, key, must_json(json_pack("{ss}", "file", disk->path)), error);
    struct stat status;
    int fd = -1;

    if (good) {
        fd = open(disk->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0) {
            undo_forget(destination->undo, key);
            good = error_set(error, errno == EEXIST ? "disk-exists" : "disk-create", "%s: %s",
                             disk->path, strerror(errno));
        }
    }
    if (good && fstat(fd, &status) < 0) {
        good = error_set(error, "disk-create", "%s: %s", disk->path, strerror(errno));
    }
    if (good) {
        good = undo_add(
            destination->undo, key,
            must_json(json_pack("{ss,sI,sI}", "file", disk->path, "dev", (json_int_t)status.st_dev,
                                "ino", (json_int_t)status.st_ino)),
            error);
    }
    if (good && strcmp(disk->format, "raw") == 0 && ftruncate(fd, (off_t)disk->size) < 0) {
        good = error_set(error, errno == ENOSPC ? "pool-full" : "disk-create", "%s: %s", disk->path,
                         strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    free(key);
    return good;
}

static void sync_later(struct destination *destination, const struct destination_disk *disk)
{
    char *copy = must_copy(disk->path);

    journal_also_sync(destination->journal, dirname(copy));
    free(copy);
}

static void on_image_made(struct child *child, bool exited, int code, void *context)
{
    struct making *making = context;
    struct destination *destination = making->destination;
    struct destination_disk *disk = &destination->disks[destination->disk_at];
    void (*done)(struct destination *) = making->done;

    free(making);
    destination->maker = NULL;
    if (destination->failing) {
        destination_undo(destination);
    } else if (!exited || code != 0) {
        destination_fail_text(destination, "disk-create", "qemu-img could not make %s: %.300s",
                              disk->path, child_output(child));
    }
    child_free(child);
    if (destination->failing) {
        return;
    }
    sync_later(destination, disk);
    destination->disk_at++;
    destination_disks_make(destination, done);
}

static void run_qemu_img(struct destination *destination, const struct destination_disk *disk,
                         void (*done)(struct destination *destination))
{
    char size[32], options[64] = "";
    const char *argv[] = {"qemu-img", "create", "-q", "-f", disk->format,
                          disk->path, size,     NULL, NULL, NULL};
    struct child_options child_options = {
        .path = "/usr/bin/qemu-img", .argv = argv, .capture = true, .pass_fd = -1};
    struct making *making = must_alloc(sizeof *making);
    struct error error;

    making->destination = destination;
    making->done = done;
    snprintf(size, sizeof size, "%llu", (unsigned long long)disk->size);
    if (disk->cluster_size) {
        snprintf(options, sizeof options, "cluster_size=%llu",
                 (unsigned long long)disk->cluster_size);
        argv[7] = "-o";
        argv[8] = options;
    }
    destination->maker = child_spawn(destination->migration.daemon->base, &child_options,
                                     on_image_made, making, &error);
    if (!destination->maker) {
        free(making);
        destination_fail(destination, &error);
    }
}

void destination_disks_make(struct destination *destination,
                            void (*done)(struct destination *destination))
{
    struct error error;

    for (; destination->disk_at < destination->disk_count; destination->disk_at++) {
        const struct destination_disk *disk = &destination->disks[destination->disk_at];

        if (disk->read_only) {
            continue;
        }
        if (!claim_file(destination, disk, &error)) {
            destination_fail(destination, &error);
            return;
        }
        if (strcmp(disk->format, "raw") != 0) {
            run_qemu_img(destination, disk, done);
            return;
        }
        sync_later(destination, disk);
    }
    done(destination);
}

#include "timeline.h"

#include "agent/common/json_line.h"
#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/timeline_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Gathered lines are written when the first of them is so old, whatever their length: `watari report` shows what goes on. */
#define GATHER_MS 1000
#define THIN_MS 1000

struct timeline {
    char *path;
    int fd;          /* -1: it has ended */
    uint64_t length; /* of the file */
    char *gathered;
    size_t gathered_length, gathered_room;
    uint64_t gathered_since_ms;
    bool thinned, cut;
    uint64_t sample_ms; /* of the last one that was kept */
};

/* --- what is there --- */

struct old_file {
    char name[NAME_MAX + 1];
    uint64_t bytes;
    struct timespec written;
};

struct old_files {
    struct old_file *list;
    size_t count;
};

static void note_file(struct old_files *files, int directory, const char *name)
{
    char id[TIMELINE_ID_SIZE];
    struct stat status;
    struct old_file *file;

    if (!timeline_file_is_name(name, id) ||
        fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        return;
    }
    files->list = must_resize(files->list, (files->count + 1) * sizeof *files->list);
    file = &files->list[files->count++];
    strcpy(file->name, name);
    file->bytes = (uint64_t)status.st_size;
    file->written = status.st_mtim;
}

static int newest_first(const void *a, const void *b)
{
    const struct timespec *one = &((const struct old_file *)a)->written;
    const struct timespec *other = &((const struct old_file *)b)->written;

    if (one->tv_sec != other->tv_sec) {
        return one->tv_sec < other->tv_sec ? 1 : -1;
    }
    return (one->tv_nsec < other->tv_nsec) - (one->tv_nsec > other->tv_nsec);
}

/* The newest may stay as long as they are few and small together, the one at PATH in any case. */
static void remove_oldest(const struct old_files *files, int directory, const char *path)
{
    uint64_t bytes = 0;
    size_t kept = 0;

    for (size_t i = 0; i < files->count; i++) {
        const struct old_file *file = &files->list[i];

        if (strcmp(strrchr(path, '/') + 1, file->name) == 0) {
            continue;
        }
        bytes += file->bytes;
        if (++kept < TIMELINE_KEEP_FILES && bytes < TIMELINE_KEEP_BYTES) {
            continue;
        }
        if (unlinkat(directory, file->name, 0) < 0) {
            log_warning("the old timeline %s cannot be removed: %s", file->name, strerror(errno));
        }
    }
}

static void make_room(const char *directory, const char *path)
{
    struct old_files files = {0};
    DIR *names = opendir(directory);
    struct dirent *name;

    if (!names) {
        return; /* nor can a new one be made, and that is said */
    }
    while ((name = readdir(names))) {
        note_file(&files, dirfd(names), name->d_name);
    }
    if (files.count > 0) {
        qsort(files.list, files.count, sizeof *files.list, newest_first);
    }
    remove_oldest(&files, dirfd(names), path);
    free(files.list);
    closedir(names);
}

/* --- writing --- */

static void end(struct timeline *timeline, const char *why)
{
    log_warning("the timeline %s ends here, the migration does not: %s", timeline->path, why);
    close(timeline->fd);
    timeline->fd = -1;
    timeline->gathered_length = 0;
}

static bool has_room(const struct timeline *timeline)
{
    struct statvfs status;

    return fstatvfs(timeline->fd, &status) < 0 ||
           (uint64_t)status.f_bavail * status.f_frsize >= TIMELINE_LEAVE_BYTES;
}

/* Everything or nothing: a line is not cut short by a full disk. */
static void write_gathered(struct timeline *timeline)
{
    size_t length = timeline->gathered_length;
    ssize_t written;

    if (timeline->fd < 0 || length == 0) {
        return;
    }
    if (!has_room(timeline)) {
        end(timeline, "its file system has hardly any room left");
        return;
    }
    written = write(timeline->fd, timeline->gathered, length);
    if (written < 0 || (size_t)written < length) {
        const char *why = written < 0 ? strerror(errno) : strerror(ENOSPC);

        if (written > 0 && ftruncate(timeline->fd, (off_t)timeline->length) < 0) {
            log_warning("%s ends with a piece of a line: %s", timeline->path, strerror(errno));
        }
        end(timeline, why);
        return;
    }
    timeline->length += length;
    timeline->gathered_length = 0;
}

static void gather(struct timeline *timeline, const char *text, size_t length, uint64_t at_ms)
{
    size_t needed = timeline->gathered_length + length;

    if (needed > timeline->gathered_room) {
        timeline->gathered = must_resize(timeline->gathered, needed);
        timeline->gathered_room = needed;
    }
    if (timeline->gathered_length == 0) {
        timeline->gathered_since_ms = at_ms;
    }
    memcpy(timeline->gathered + timeline->gathered_length, text, length);
    timeline->gathered_length = needed;
}

static void gather_line(struct timeline *timeline, const char *event, uint64_t at_ms,
                        const json_t *members)
{
    json_t *line = must_json(json_pack("{ss,sI}", "event", event, "at_ms", (json_int_t)at_ms));
    size_t length;
    char *text;

    json_object_update_missing(line, (json_t *)members);
    text = json_line_text(line, &length);
    json_decref(line);
    if (!text) {
        log_warning("a line of the timeline %s cannot be written as JSON", timeline->path);
        return;
    }
    gather(timeline, text, length, at_ms);
    free(text);
}

/* Says once that from here on not everything is kept. */
static bool passes(struct timeline *timeline, uint64_t bytes, bool *told, const char *event,
                   uint64_t at_ms)
{
    if (timeline->length + timeline->gathered_length < bytes) {
        return false;
    }
    if (!*told) {
        *told = true;
        gather_line(timeline, event, at_ms, NULL);
    }
    return true;
}

static bool is_kept(struct timeline *timeline, enum timeline_kind kind, uint64_t at_ms)
{
    if (kind != TIMELINE_RESULT &&
        passes(timeline, TIMELINE_CUT_BYTES, &timeline->cut, "cut", at_ms)) {
        return false;
    }
    if (kind != TIMELINE_SAMPLE) {
        return true;
    }
    if (passes(timeline, TIMELINE_FULL_BYTES, &timeline->thinned, "thinned", at_ms) &&
        at_ms - timeline->sample_ms < THIN_MS) {
        return false;
    }
    timeline->sample_ms = at_ms;
    return true;
}

void timeline_add(struct timeline *timeline, enum timeline_kind kind, const char *event,
                  uint64_t at_ms, const json_t *members)
{
    if (timeline->fd < 0 || !is_kept(timeline, kind, at_ms)) {
        return;
    }
    gather_line(timeline, event, at_ms, members);
    if (kind >= TIMELINE_EVENT || timeline->gathered_length >= TIMELINE_GATHER_BYTES ||
        at_ms - timeline->gathered_since_ms >= GATHER_MS) {
        write_gathered(timeline);
    }
}

/* --- opening --- */

/* After a daemon that was killed: what it wrote last may be half a line. */
static void go_on_behind(struct timeline *timeline)
{
    char last = '\n';

    if (timeline->length > 0 && pread(timeline->fd, &last, 1, (off_t)timeline->length - 1) == 1 &&
        last != '\n') {
        gather(timeline, "\n", 1, 0);
    }
}

struct timeline *timeline_open(const char *state_dir, const char *id, const char *side)
{
    struct timeline *timeline = must_alloc(sizeof *timeline);
    char *directory = must_format("%s/" TIMELINE_DIRECTORY, state_dir);
    struct stat status;

    timeline->path = must_format("%s/%s.%s", directory, id, side);
    make_room(directory, timeline->path);
    free(directory);
    timeline->fd = open(timeline->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (timeline->fd < 0 || fstat(timeline->fd, &status) < 0) {
        log_warning("the migration goes on without its timeline %s: %s", timeline->path,
                    strerror(errno));
        if (timeline->fd >= 0) {
            close(timeline->fd);
            timeline->fd = -1;
        }
        return timeline;
    }
    timeline->length = (uint64_t)status.st_size;
    go_on_behind(timeline);
    return timeline;
}

void timeline_free(struct timeline *timeline)
{
    if (!timeline) {
        return;
    }
    write_gathered(timeline);
    if (timeline->fd >= 0) {
        close(timeline->fd);
    }
    free(timeline->gathered);
    free(timeline->path);
    free(timeline);
}

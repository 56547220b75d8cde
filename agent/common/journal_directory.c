#include "journal_directory.h"

#include "must.h"
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_journal(const char *name)
{
    const char *end = strrchr(name, '.');

    return end && (strcmp(end, ".source") == 0 || strcmp(end, ".destination") == 0);
}

/* What a killed daemon wrote may be in memory only: a "yes" must not rest on what a power failure takes away. */
static bool bring_down(const char *path, struct error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    int reason = errno;

    if (fd >= 0) {
        close(fd);
    }
    return good || error_set(error, "journal-unreadable", "%s cannot be brought to disk: %s", path,
                             strerror(reason));
}

static bool read_one(struct journal_directory *out, const char *path, struct error *error)
{
    struct journal_directory_entry *entry;
    struct stat status;

    if (stat(path, &status) < 0) {
        return error_set(error, "journal-unreadable", "%s: %s", path, strerror(errno));
    }
    out->entries = must_resize(out->entries, (out->count + 1) * sizeof *out->entries);
    entry = &out->entries[out->count];
    if (!journal_file_read(path, &entry->content, error)) {
        return false;
    }
    entry->written = (int64_t)status.st_mtime;
    entry->qemu_lives = process_of_record_alive(journal_content_last(&entry->content, "begin"));
    out->count++;
    return bring_down(path, error);
}

static bool read_all(struct journal_directory *out, const char *state_dir, const char *path,
                     struct error *error)
{
    DIR *entries = opendir(path);
    struct dirent *entry;
    struct stat status;
    bool good = true;

    if (!entries) {
        int reason = errno;

        return (reason == ENOENT && stat(state_dir, &status) < 0 && errno == ENOENT) ||
               error_set(error, "journal-unreadable", "%s: %s", path, strerror(reason));
    }
    while (good && (entry = readdir(entries))) {
        if (is_journal(entry->d_name)) {
            char *file = must_format("%s/%s", path, entry->d_name);

            good = read_one(out, file, error);
            free(file);
        }
    }
    closedir(entries);
    return good && bring_down(path, error);
}

bool journal_directory_read(const char *state_dir, struct journal_directory *out,
                            struct error *error)
{
    char *path = must_format("%s/journal", state_dir);
    bool good;

    memset(out, 0, sizeof *out);
    good = read_all(out, state_dir, path, error);
    free(path);
    return good;
}

void journal_directory_clear(struct journal_directory *directory)
{
    for (size_t i = 0; i < directory->count; i++) {
        journal_content_clear(&directory->entries[i].content);
    }
    free(directory->entries);
    memset(directory, 0, sizeof *directory);
}

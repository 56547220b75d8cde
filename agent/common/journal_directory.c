#include "journal_directory.h"

#include "must.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_journal(const char *name)
{
    const char *end = strrchr(name, '.');

    return end && (strcmp(end, ".source") == 0 || strcmp(end, ".destination") == 0);
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
    out->count++;
    return true;
}

static bool read_all(struct journal_directory *out, const char *path, struct error *error)
{
    DIR *entries = opendir(path);
    struct dirent *entry;
    bool good = true;

    if (!entries) {
        return errno == ENOENT ||
               error_set(error, "journal-unreadable", "%s: %s", path, strerror(errno));
    }
    while (good && (entry = readdir(entries))) {
        if (is_journal(entry->d_name)) {
            char *file = must_format("%s/%s", path, entry->d_name);

            good = read_one(out, file, error);
            free(file);
        }
    }
    closedir(entries);
    return good;
}

bool journal_directory_read(const char *state_dir, struct journal_directory *out,
                            struct error *error)
{
    char *path = must_format("%s/journal", state_dir);
    bool good;

    memset(out, 0, sizeof *out);
    good = read_all(out, path, error);
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

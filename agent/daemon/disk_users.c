#include "disk_users.h"

#include "agent/common/must.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_file(const struct stat *one, const struct stat *other)
{
    return S_ISBLK(one->st_mode) ? S_ISBLK(other->st_mode) && one->st_rdev == other->st_rdev
                                 : one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* proc(5): the line "flags:" of fdinfo is octal, as open(2) was given them. */
static bool opened_for_writing(const char *process, const char *fd)
{
    char *path = must_format("/proc/%s/fdinfo/%s", process, fd);
    FILE *file = fopen(path, "re");
    char line[128];
    unsigned flags = 0;

    free(path);
    if (!file) {
        return false;
    }
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "flags: %o", &flags) == 1) {
            break;
        }
    }
    fclose(file);
    return (flags & O_ACCMODE) != O_RDONLY;
}

static bool process_writes(const char *process, const struct stat *disk)
{
    char *directory = must_format("/proc/%s/fd", process);
    DIR *entries = opendir(directory);
    struct dirent *entry;
    bool writes = false;

    free(directory);
    if (!entries) {
        return false;
    }
    while (!writes && (entry = readdir(entries))) {
        struct stat found;

        writes = isdigit((unsigned char)entry->d_name[0]) &&
                 fstatat(dirfd(entries), entry->d_name, &found, 0) == 0 &&
                 same_file(disk, &found) && opened_for_writing(process, entry->d_name);
    }
    closedir(entries);
    return writes;
}

pid_t disk_writer(const char *path)
{
    struct stat disk;
    struct dirent *entry;
    DIR *processes;
    pid_t writer = 0;

    if (stat(path, &disk) < 0) {
        return 0;
    }
    processes = opendir("/proc");
    if (!processes) {
        return 0;
    }
    while (!writer && (entry = readdir(processes))) {
        if (isdigit((unsigned char)entry->d_name[0]) && process_writes(entry->d_name, &disk)) {
            writer = (pid_t)strtol(entry->d_name, NULL, 10);
        }
    }
    closedir(processes);
    return writer;
}

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Longer than a line of /proc/PID/stat can be. */
#define STAT_SIZE 4096

/* What one read gives of a small file of /proc, NUL-terminated: its length, or a negative errno. */
static ssize_t read_small(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0) {
        return -errno;
    }
    do {
        length = read(fd, text, size - 1);
    } while (length < 0 && errno == EINTR);
    if (length < 0) {
        length = -errno;
    } else {
        text[length] = '\0';
    }
    close(fd);
    return length;
}

int process_start_time(pid_t pid, uint64_t *start_time)
{
    char path[64], text[STAT_SIZE], state = '\0';
    const char *at;
    ssize_t length;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    length = read_small(path, text, sizeof text);
    if (length < 0) {
        return length == -ENOENT ? -ESRCH : (int)length;
    }
    at = strrchr(text, ')'); /* the process's name before it may hold anything */
    if (!at || sscanf(at + 1,
                      " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                      "%*s %" SCNu64,
                      &state, start_time) != 2) {
        return -EPROTO;
    }
    return strchr("ZXx", state) ? -ESRCH : 0;
}

bool process_alive(pid_t pid, uint64_t start_time)
{
    uint64_t now;

    return process_start_time(pid, &now) == 0 && now == start_time;
}

uint64_t process_memory(pid_t pid)
{
    static const char *const names[] = {"RssAnon:", "RssShmem:", "VmSwap:", "HugetlbPages:"};
    char path[64], line[256];
    uint64_t kib = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    file = fopen(path, "re");
    if (!file) {
        return 0;
    }
    while (fgets(line, sizeof line, file)) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (strncmp(line, names[i], strlen(names[i])) == 0) {
                kib += strtoull(line + strlen(names[i]), NULL, 10);
            }
        }
    }
    fclose(file);
    return kib << 10;
}

int process_boot_id(char out[PROCESS_BOOT_ID_SIZE])
{
    char text[PROCESS_BOOT_ID_SIZE];
    ssize_t length = read_small("/proc/sys/kernel/random/boot_id", text, sizeof text);

    if (length < 0) {
        return (int)length;
    }
    if (length < PROCESS_BOOT_ID_SIZE - 1) {
        return -EPROTO;
    }
    memcpy(out, text, PROCESS_BOOT_ID_SIZE);
    return 0;
}

bool process_of_record_alive(const json_t *begin)
{
    const char *noted = json_string_value(json_object_get(begin, "boot_id"));
    uint64_t then = (uint64_t)json_integer_value(json_object_get(begin, "start_time")), now;
    char boot_id[PROCESS_BOOT_ID_SIZE];
    int status;

    if (!noted) {
        return false;
    }
    if (process_boot_id(boot_id) == 0 && strcmp(noted, boot_id) != 0) {
        return false;
    }
    status = process_start_time((pid_t)json_integer_value(json_object_get(begin, "pid")), &now);
    return status == 0 ? now == then : status != -ESRCH;
}

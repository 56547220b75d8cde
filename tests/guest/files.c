/*
 * Real files and their list: see files.h.
 */
#include "files.h"

#include "crc32.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE (256u << 10)

struct reader {
    struct crc32_tables tables;
    uint8_t *buffer;
    const char *root;
    struct fault *fault;
};

static void check_file(struct reader *reader, uint32_t crc, unsigned long long size,
                       const char *path)
{
    char full[4096];
    uint32_t found = 0;
    unsigned long long length = 0;
    ssize_t got;
    int fd;

    snprintf(full, sizeof full, "%s/%s", reader->root, path);
    fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fault_record(reader->fault, "file %.120s (%s)", path, strerror(errno));
        return;
    }
    while ((got = read(fd, reader->buffer, READ_SIZE)) > 0) {
        found = crc32_extend(&reader->tables, found, reader->buffer, (size_t)got);
        length += (unsigned long long)got;
    }
    if (got < 0)
        fault_record(reader->fault, "file %.120s (%s)", path, strerror(errno));
    else if (found != crc || length != size)
        fault_record(reader->fault, "file %.120s (expected %08x, found %08x)", path, crc, found);
    close(fd);
}

static bool check_end(struct reader *reader, const char *line, uint32_t crc, size_t files)
{
    unsigned expected = 0;
    size_t count = 0;

    if (sscanf(line, "end %x %zu", &expected, &count) != 2)
        return false;
    if (expected != crc || count != files)
        fault_record(reader->fault, "file list");
    return true;
}

/* Each line is "CRC SIZE PATH"; the path is the rest of the line, blanks and all. */
static bool check_line(struct reader *reader, char *line)
{
    unsigned crc;
    unsigned long long size;
    int path = 0;

    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%x %llu %n", &crc, &size, &path) != 2 || path == 0)
        return false;
    check_file(reader, crc, size, line + path);
    return true;
}

static void check_list(struct reader *reader, FILE *list, size_t *files)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    uint32_t crc = 0;
    bool ended = false;

    while (!ended && !fault_any(reader->fault) && (length = getline(&line, &room, list)) > 0) {
        ended = check_end(reader, line, crc, *files);
        if (ended)
            break;
        crc = crc32_extend(&reader->tables, crc, line, (size_t)length);
        if (!check_line(reader, line))
            fault_record(reader->fault, "file list (a line that is none)");
        (*files)++;
    }
    if (!ended)
        fault_record(reader->fault, "file list (no end)");
    free(line);
}

void files_verify(const char *root, struct fault *fault, size_t *files)
{
    struct reader *reader = calloc(1, sizeof *reader);
    char path[4096];
    FILE *list;

    *files = 0;
    snprintf(path, sizeof path, "%s/.manifest", root);
    list = fopen(path, "re");
    if (reader == NULL || list == NULL || (reader->buffer = malloc(READ_SIZE)) == NULL) {
        fault_record(fault, "file list (%s)", strerror(errno));
        goto out;
    }
    reader->root = root;
    reader->fault = fault;
    crc32_tables_init(&reader->tables);
    check_list(reader, list, files);
out:
    if (list != NULL)
        fclose(list);
    if (reader != NULL)
        free(reader->buffer);
    free(reader);
}

/*
 * Small files, read with care and replaced whole. See file.h.
 */
#include "file.h"
#include "error.h"

#include <openssl/crypto.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_file(int fd, const char *path, size_t max, mode_t forbidden, size_t *size,
                      char *error, size_t error_size)
{
    struct stat status;

    if (fstat(fd, &status) < 0) {
        int code = -errno;
        return tls_error(error, error_size, code, "%s: %s", path, strerror(-code));
    }
    if (!S_ISREG(status.st_mode)) {
        return tls_error(error, error_size, -EINVAL, "%s is not a regular file", path);
    }
    if (status.st_uid != geteuid() && status.st_uid != 0) {
        return tls_error(error, error_size, -EPERM, "%s belongs to another user (uid %u)", path,
                         (unsigned)status.st_uid);
    }
    if ((status.st_mode & forbidden) != 0) {
        return tls_error(error, error_size, -EPERM,
                         "%s has mode %04o, which lets other users at it: chmod %04o it", path,
                         (unsigned)status.st_mode & 07777u,
                         (unsigned)(status.st_mode & 07777u & ~forbidden));
    }
    if ((unsigned long long)status.st_size > max) {
        return tls_error(error, error_size, -EFBIG, "%s is larger than %zu bytes", path, max);
    }
    *size = (size_t)status.st_size;
    return 0;
}

/* Fills BUFFER until SIZE bytes or the end of the file; what it got in *done. */
static int read_fully(int fd, char *buffer, size_t size, size_t *done)
{
    *done = 0;
    while (*done < size) {
        ssize_t got = read(fd, buffer + *done, size - *done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        *done += (size_t)got;
    }
    return 0;
}

int tls_file_read(const char *path, size_t max, mode_t forbidden, char **data, size_t *size,
                  char *error, size_t error_size)
{
    char *buffer = NULL;
    size_t expected = 0;
    int code;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* never hangs on a FIFO put there */

    if (fd < 0) {
        code = -errno;
        return tls_error(error, error_size, code, "%s: %s", path, strerror(-code));
    }
    code = check_file(fd, path, max, forbidden, &expected, error, error_size);
    if (code < 0) {
        goto out;
    }
    buffer = malloc(expected + 1);
    if (buffer == NULL) {
        code = tls_error(error, error_size, -ENOMEM, "%s: out of memory", path);
        goto out;
    }
    code = read_fully(fd, buffer, expected, size);
    if (code < 0) {
        OPENSSL_cleanse(buffer, expected);
        free(buffer);
        tls_error(error, error_size, code, "%s: %s", path, strerror(-code));
        goto out;
    }
    buffer[*size] = '\0';
    *data = buffer;
out:
    close(fd);
    return code;
}

static int write_fully(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t put = write(fd, bytes, size);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return -errno;
        }
        bytes += put;
        size -= (size_t)put;
    }
    return 0;
}

static int fill_file(int fd, const void *data, size_t size, mode_t mode)
{
    int code = write_fully(fd, data, size);

    if (code < 0) {
        return code;
    }
    if (fchmod(fd, mode) < 0 || fsync(fd) < 0) {
        return -errno;
    }
    return 0;
}

int tls_file_write_beside(const char *path, const void *data, size_t size, mode_t mode,
                          char **temporary, char *error, size_t error_size)
{
    char *name = NULL;
    int code;
    int fd;

    *temporary = NULL;
    if (asprintf(&name, "%s.XXXXXX", path) < 0) {
        return tls_error(error, error_size, -ENOMEM, "%s: out of memory", path);
    }
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) {
        code = -errno;
        free(name);
        return tls_error(error, error_size, code, "cannot make a file beside %s: %s", path,
                         strerror(-code));
    }
    code = fill_file(fd, data, size, mode);
    if (close(fd) < 0 && code == 0) {
        code = -errno;
    }
    if (code < 0) {
        tls_error(error, error_size, code, "cannot write %s: %s", name, strerror(-code));
        unlink(name);
        free(name);
        return code;
    }
    *temporary = name;
    return 0;
}

/* The directory that holds PATH, opened for fsync; or a negative errno. */
static int open_directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *name = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    int fd;

    if (name == NULL) {
        return -ENOMEM;
    }
    fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        fd = -errno;
    }
    free(name);
    return fd;
}

static int sync_failed(const char *path, int code, char *error, size_t error_size)
{
    return tls_error(error, error_size, code, "cannot sync the directory of %s: %s", path,
                     strerror(-code));
}

int tls_file_sync_directory(const char *path, char *error, size_t error_size)
{
    int code = 0;
    int fd = open_directory_of(path);

    if (fd < 0) {
        return sync_failed(path, fd, error, error_size);
    }
    if (fsync(fd) < 0) {
        code = sync_failed(path, -errno, error, error_size);
    }
    close(fd);
    return code;
}

int tls_file_replace(const char *path, const void *data, size_t size, mode_t mode, char *error,
                     size_t error_size)
{
    char *temporary = NULL;
    int code;
    int directory =
        open_directory_of(path); /* first: after the rename nothing but fsync may fail */

    if (directory < 0) {
        return tls_error(error, error_size, directory, "cannot open the directory of %s: %s", path,
                         strerror(-directory));
    }
    code = tls_file_write_beside(path, data, size, mode, &temporary, error, error_size);
    if (code < 0) {
        goto out;
    }
    if (rename(temporary, path) < 0) {
        code = -errno;
        tls_error(error, error_size, code, "cannot replace %s: %s", path, strerror(-code));
        unlink(temporary);
        goto out;
    }
    if (fsync(directory) < 0) {
        code = sync_failed(path, -errno, error, error_size);
    }
out:
    free(temporary);
    close(directory);
    return code;
}

#include "unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* QEMU's NBD server takes up to 100 connections; we make one a disk and pass. */
#define BACKLOG 64

static int fail(int fd, const char *what, const char *path, int reason, struct error *error)
{
    if (fd >= 0) {
        close(fd);
    }
    error_set(error, "socket-failed", "%s %s: %s", what, path, strerror(reason));
    return -1;
}

static bool fill_address(struct sockaddr_un *address, const char *path)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) {
        return false;
    }
    strcpy(address->sun_path, path);
    return true;
}

int unix_socket_listen(const char *path, struct error *error)
{
    struct sockaddr_un address;
    int fd;

    if (!fill_address(&address, path)) {
        return fail(-1, "listening on", path, ENAMETOOLONG, error);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, BACKLOG) < 0) {
        return fail(fd, "listening on", path, errno, error);
    }
    return fd;
}

int unix_socket_connect(const char *path, struct error *error)
{
    struct sockaddr_un address;
    int fd;

    if (!fill_address(&address, path)) {
        return fail(-1, "connecting to", path, ENAMETOOLONG, error);
    }
    /* Non-blocking only for connect(): a full backlog must not stop the loop. */
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        fcntl(fd, F_SETFL, 0) < 0) {
        return fail(fd, "connecting to", path, errno, error);
    }
    return fd;
}

int unix_socket_duplicate(int fd, struct error *error)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    return copy < 0 ? fail(-1, "duplicating", "a socket", errno, error) : copy;
}

bool unix_socket_pair(int pair[2], struct error *error)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        fail(-1, "making", "a socketpair", errno, error);
        return false;
    }
    return true;
}

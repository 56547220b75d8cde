#include "control_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 16

static bool fail(struct error *error, const char *path, const char *what)
{
    return error_set(error, "control-socket", "control socket %s: %s: %s", path, what,
                     strerror(errno));
}

/* Looks who is at PATH; a socket that nobody answers is what a daemon that was killed leaves
 * behind. */
static bool clear_way(const struct sockaddr_un *address, struct error *error)
{
    const char *path = address->sun_path;
    struct stat found;
    int fd, result;

    if (lstat(path, &found) < 0) {
        return errno == ENOENT || fail(error, path, "cannot be looked at");
    }
    /* connect() says "refused" of ordinary files, too. */
    if (!S_ISSOCK(found.st_mode)) {
        return error_set(error, "control-socket",
                         "control socket %s: there is a file that is no socket", path);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(error, path, "no socket");
    }
    result = connect(fd, (const struct sockaddr *)address, sizeof *address);
    if (result < 0 && errno == ECONNREFUSED) {
        close(fd);
        return unlink(path) == 0 || errno == ENOENT || fail(error, path, "stale, but stays");
    }
    /* EAGAIN is a full backlog: somebody is there, and busy. */
    if (result < 0 && errno != EAGAIN) {
        fail(error, path, "cannot be tried");
    } else {
        error_set(error, "control-socket",
                  "control socket %s: another watarid is running on this control socket", path);
    }
    close(fd);
    return false;
}

bool control_socket_open(struct control_socket *out, const char *path, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path) {
        return error_set(error, "control-socket",
                         "control socket %s: too long for the path of a unix socket", path);
    }
    strcpy(address.sun_path, path);
    out->path = path;
    out->fd = -1;
    if (!clear_way(&address, error)) {
        return false;
    }
    out->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (out->fd < 0) {
        return fail(error, path, "no socket");
    }
    if (bind(out->fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        fail(error, path, "cannot be made");
        goto fail_fd;
    }
    if (chmod(path, 0600) < 0 || lstat(path, &out->made) < 0 || listen(out->fd, BACKLOG) < 0) {
        fail(error, path, "cannot be listened on");
        goto fail_file;
    }
    return true;
fail_file:
    unlink(path);
fail_fd:
    close(out->fd);
    out->fd = -1;
    return false;
}

void control_socket_remove(const struct control_socket *control_socket)
{
    struct stat found;

    if (lstat(control_socket->path, &found) == 0 && found.st_dev == control_socket->made.st_dev &&
        found.st_ino == control_socket->made.st_ino) {
        unlink(control_socket->path);
    }
}

bool control_socket_allows(int fd, uid_t *user)
{
    struct ucred who;
    socklen_t size = sizeof who;

    *user = (uid_t)-1;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0) {
        return false;
    }
    *user = who.uid;
    return who.uid == 0 || who.uid == geteuid();
}

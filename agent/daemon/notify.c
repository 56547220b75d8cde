#include "notify.h"

#include "agent/common/log.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify_systemd(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = path ? strlen(path) : 0;
    socklen_t size;
    int fd;

    if (length == 0) {
        return;
    }
    if ((path[0] != '/' && path[0] != '@') || length >= sizeof address.sun_path) {
        log_warning("NOTIFY_SOCKET is not the address of a unix socket: %s", path);
        return;
    }
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') {
        address.sun_path[0] =
            '\0'; /* Linux's abstract namespace: the length counts, there is no NUL at the end */
    }
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address,
                         size) < 0) {
        log_warning("systemd could not be told %s: %s", state, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

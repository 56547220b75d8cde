#include "tun.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static bool fail(struct error *error, const char *what)
{
    return error_set(error, "tun", "%s: %s", what, strerror(errno));
}

static struct ifreq request_for(const struct tun_wanted *wanted)
{
    struct ifreq request = {0};

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", wanted->device);
    return request;
}

static bool set_address(int control, const struct tun_wanted *wanted, struct error *error)
{
    struct ifreq request = request_for(wanted);
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;

    address->sin_family = AF_INET;
    if (inet_pton(AF_INET, wanted->address, &address->sin_addr) != 1) {
        return error_set(error, "tun", "\"%s\" is not an IPv4 address", wanted->address);
    }
    if (ioctl(control, SIOCSIFADDR, &request) < 0) {
        return fail(error, "its address");
    }
    address->sin_addr.s_addr = htonl(wanted->prefix > 0 ? UINT32_MAX << (32 - wanted->prefix) : 0);
    return ioctl(control, SIOCSIFNETMASK, &request) == 0 || fail(error, "its netmask");
}

static bool bring_up(const struct tun_wanted *wanted, struct error *error)
{
    struct ifreq request = request_for(wanted);
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool good;

    if (control < 0) {
        return fail(error, "socket");
    }
    request.ifr_mtu = wanted->mtu;
    good = ioctl(control, SIOCSIFMTU, &request) == 0 || fail(error, "its MTU");
    good = good && set_address(control, wanted, error);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    good = good && (ioctl(control, SIOCSIFFLAGS, &request) == 0 || fail(error, "bringing it up"));
    close(control);
    return good;
}

static int make(const struct tun_wanted *wanted, struct error *error)
{
    struct ifreq request = request_for(wanted);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0) {
        fail(error, "/dev/net/tun");
        return -1;
    }
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        fail(error, "making it");
        close(fd);
        return -1;
    }
    if (!bring_up(wanted, error)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool enter(const char *namespace, struct error *error)
{
    int fd = open(namespace, O_RDONLY | O_CLOEXEC);
    bool entered = fd >= 0 && setns(fd, CLONE_NEWNET) == 0;

    if (!entered) {
        fail(error, namespace);
    }
    if (fd >= 0) {
        close(fd);
    }
    return entered;
}

int tun_open(const struct tun_wanted *wanted, struct error *error)
{
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int fd = -1;

    if (home < 0) {
        fail(error, "/proc/self/ns/net");
        return -1;
    }
    if (enter(wanted->namespace, error)) {
        fd = make(wanted, error);
        if (setns(home, CLONE_NEWNET) < 0) {
            fail(error, "back to the first namespace");
            if (fd >= 0) {
                close(fd);
            }
            fd = -1;
        }
    }
    close(home);
    if (fd < 0) {
        error_prefix(error, "device %s in %s: ", wanted->device, wanted->namespace);
    }
    return fd;
}

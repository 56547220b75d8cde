/*
 * One end of the link: a TUN device in a network namespace, with its address, up. It is there as long
 * as its descriptor is.
 */
#ifndef WANLINK_TUN_H
#define WANLINK_TUN_H

#include "agent/common/error.h"

#include <stdbool.h>

struct tun_wanted {
    const char *namespace; /* a path, as /proc/PID/ns/net */
    const char *device;
    const char *address; /* IPv4, numeric */
    int prefix;          /* bits of its network */
    int mtu;
};

/* A descriptor that never blocks; each read and write is one IP packet. -1 with an error. Before other
 * threads exist: this one goes into the namespace and comes back. */
int tun_open(const struct tun_wanted *wanted, struct error *error);

#endif

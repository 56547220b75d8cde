/*
 * The link as a whole: two ends and a path each way. Shared by main.c, which moves the packets, and
 * control.c, which changes the settings; one thread.
 */
#ifndef WANLINK_LINK_H
#define WANLINK_LINK_H

#include "path.h"

struct end {
    const char *name;
    int tun;
    struct path path; /* from here to the other end */
};

struct wanlink {
    struct end ends[2];
};

#endif

/*
 * Which process has a disk open for writing: asked after a restart, when the QEMU that the journal names is gone. An autostart that did not
 * ask `watari may-start` may have started the VM again. Reads /proc; any thread.
 */
#ifndef WATARI_DAEMON_DISK_USERS_H
#define WATARI_DAEMON_DISK_USERS_H

#include <sys/types.h>

/* The first such process, 0 when there is none (or PATH does not exist). Processes that may not be looked at are passed over: watarid runs as root. */
pid_t disk_writer(const char *path);

#endif

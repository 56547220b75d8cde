/*
 * How much memory this host has to give. Main thread.
 */
#ifndef WATARI_DAEMON_HOST_MEMORY_H
#define WATARI_DAEMON_HOST_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes that can be had without swapping: MemAvailable of /proc/meminfo (Linux 3.14). 0, after a
 * line in the log, when it does not say. */
uint64_t host_memory_available(void);

/* The same of TEXT, which is laid out as /proc/meminfo; false when it is not there. */
bool host_memory_parse(const char *text, uint64_t *bytes);

#endif

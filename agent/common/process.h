/*
 * A process known for good: its pid may be another's later, and its start time another's after a reboot; with the boot id they name no other.
 * Any thread; no state.
 */
#ifndef WATARI_COMMON_PROCESS_H
#define WATARI_COMMON_PROCESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESS_BOOT_ID_SIZE 37 /* 36 characters and NUL */

/* Field 22 of /proc/PID/stat, clock ticks: 0 and *START_TIME, or a negative errno (-ESRCH: it is gone, or a zombie, which runs nothing any
 * more and holds no file). */
int process_start_time(pid_t pid, uint64_t *start_time);
/* Is this very process still there? */
bool process_alive(pid_t pid, uint64_t start_time);
/* Bytes of its memory that were ever written, in RAM, swapped out or on huge pages, but for maps of ordinary files (/proc/PID/status: RssAnon,
 * RssShmem, VmSwap, HugetlbPages); 0 when that cannot be read. */
uint64_t process_memory(pid_t pid);
/* The kernel's boot id (/proc/sys/kernel/random/boot_id): 0 or a negative errno. */
int process_boot_id(char out[PROCESS_BOOT_ID_SIZE]);

/* The one that a source's begin record names with "boot_id", "pid" and "start_time". What cannot be found out counts as alive. */
bool process_of_record_alive(const json_t *begin);

#endif

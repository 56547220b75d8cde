/*
 * How finely the source records what a guest writes: the bytes of a disk that one bit of its dirty bitmap stands for. Fine is better, since
 * all that a bit stands for is sent when any of it was written: with 64 KiB a guest's scattered 4 KiB writes cost 6.5 times what they are.
 * But the bitmaps are QEMU's memory, so all disks of a VM share one budget.
 *
 * Pure.
 */
#ifndef WATARI_POLICY_GRANULARITY_H
#define WATARI_POLICY_GRANULARITY_H

#include <stdint.h>

/* What guests write at least. */
#define GRANULARITY_MIN 4096u
/* Of the bitmaps that record, for a whole VM: 1 TiB in steps of 4 KiB. While a pass runs there is a second one of each disk. */
#define GRANULARITY_BUDGET_BYTES (32u << 20)

/* For each disk of a VM whose disks have TOTAL_BYTES in all: a power of two, in bytes. */
uint64_t granularity_of(uint64_t total_bytes);

#endif

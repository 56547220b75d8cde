/*
 * The runs of disks in which the two sides differ, as VERIFIED reports them (orders.h): in order,
 * joined where they touch, the first few of them and a count of bytes.
 *
 * Pure; one thread at a time.
 */
#ifndef WATARI_MOVER_DIFFERENCE_H
#define WATARI_MOVER_DIFFERENCE_H

#include "orders.h"

#include <stdint.h>

/* A run that no run added before overlaps. */
void difference_add(struct report_verified *report, uint32_t disk, uint64_t offset,
                    uint64_t length);

#endif

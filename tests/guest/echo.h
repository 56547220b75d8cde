/*
 * The guest's sign of life on its network, for whoever measures a downtime from outside: each
 * UDP datagram to port 7 is answered with itself, followed by the number of answers given so far
 * and the guest's CLOCK_MONOTONIC in nanoseconds (8 bytes each, big-endian). A number that comes
 * twice means that two copies of the guest are running. One thread of its own.
 */
#ifndef WATARI_GUEST_ECHO_H
#define WATARI_GUEST_ECHO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct echo {
    int fd;
    _Atomic uint64_t answers;
};

/* False with errno when the port cannot be had. */
bool echo_init(struct echo *echo);

/* Thread body; returns only when the socket fails, which no guest survives unnoticed: it answers
 * no more. */
void *echo_run(void *echo);

#endif

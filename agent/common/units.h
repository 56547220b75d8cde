/*
 * Times, sizes and rates as operators write them and as they read them. Pure; any thread.
 *
 *   time   300ms  30s  5min  2h  1.5s      a unit is a must: a bare number says nothing
 *   size   4096  64K  512M  4G  1T         bytes; K, M, G and T are powers of 1024
 *   rate   10M  100Mbit  1.5Gbit           bytes a second, as sizes; ending in "bit": bits a
 *                                          second, powers of 1000
 *
 * The prefixes of sizes and rates may be written small. Every parser takes the whole text or
 * refuses it with the error "bad-time", "bad-size" or "bad-rate", which repeats the text and shows
 * the form that is wanted.
 */
#ifndef WATARI_COMMON_UNITS_H
#define WATARI_COMMON_UNITS_H

#include "error.h"

#include <stdbool.h>
#include <stdint.h>

/* Holds every text made here. */
#define UNITS_TEXT_SIZE 32

/* Whole milliseconds only: "0.5ms" is refused. */
bool units_parse_time(const char *text, uint64_t *milliseconds, struct error *error);
/* A fraction of a byte is refused ("1.3" and such; "1.5K" is 1536). */
bool units_parse_size(const char *text, uint64_t *bytes, struct error *error);
/* A fraction of a byte a second, as 100bit has, is cut off. */
bool units_parse_rate(const char *text, uint64_t *bytes_per_second, struct error *error);

/* For people; each writes into BUFFER and returns it. */
/* "640 B", "1.5 KiB", "12 MiB", "4.0 GiB". */
const char *units_size(char buffer[UNITS_TEXT_SIZE], uint64_t bytes);
/* "11.9 MiB/s". */
const char *units_rate(char buffer[UNITS_TEXT_SIZE], uint64_t bytes_per_second);
/* "0.4 ms", "312 ms", "4.2 s", "3 min 20 s", "1 h 05 min"; a negative time counts as 0. */
const char *units_time(char buffer[UNITS_TEXT_SIZE], double milliseconds);

#endif

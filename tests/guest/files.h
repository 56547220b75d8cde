/*
 * Real files on a file system that the host made: their list (/.manifest: CRC-32 in hexadecimal,
 * size, path, one file a line; the list's own CRC-32 in its last line as "end HEX COUNT"), and
 * whether they are what the list says. Reading them fills the guest's page cache, as a working
 * guest's would be. The console's thread only.
 */
#ifndef WATARI_GUEST_FILES_H
#define WATARI_GUEST_FILES_H

#include "fault.h"

#include <stddef.h>

/* Reads every file below ROOT and counts them. Fills in the first fault, which includes a list
 * that cannot be read. */
void files_verify(const char *root, struct fault *fault, size_t *files);

#endif

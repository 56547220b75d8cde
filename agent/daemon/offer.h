/*
 * What a source says of a VM to the destination: the members of "offer", and of "preflight", which asks what would be said to one
 * (protocol/SPEC.md §4.2). Owns nothing; loop thread only.
 */
#ifndef WATARI_DAEMON_OFFER_H
#define WATARI_DAEMON_OFFER_H

#include "inspect.h"
#include "migration.h"
#include "vm.h"

/* Why there can be no offer. */
#define OFFER_NOT_UTF8 "launch-not-utf8"
#define OFFER_NOT_UTF8_TEXT "the command line of this QEMU has an argument that is not UTF-8"

/* As many as were asked for, else the default: min(cores, 8), at least 2. */
uint32_t offer_lanes(const struct migrate_request *request);
/* All members but "type" and "migration", the caller's reference; NULL: OFFER_NOT_UTF8. QEMU_VERSION as qmp_version_text() gives it. */
json_t *offer_build(const struct vm *vm, const struct inspection *inspection,
                    const struct migrate_request *request, const char *qemu_version, uint32_t lanes,
                    uint64_t page_cache_bytes);

#endif

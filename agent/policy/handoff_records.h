/*
 * A journal's records (agent/common/journal_file.h: an array of objects) as what they say of the handoff. Records that are none of the
 * handoff's are passed over. Pure; any thread. Needs jansson.
 */
#ifndef WATARI_POLICY_HANDOFF_RECORDS_H
#define WATARI_POLICY_HANDOFF_RECORDS_H

#include "handoff_journal.h"

#include <jansson.h>

struct handoff_source_journal handoff_source_records(const json_t *records);
struct handoff_destination_journal handoff_destination_records(const json_t *records);

#endif

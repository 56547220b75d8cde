/*
 * What the controller (convergence.h) is told and what it says, as JSON members of a timeline's lines (agent/common/timeline_file.h): written
 * by watarid, read by `watari report` and by the replay of a timeline. Pure.
 *
 * Every member of struct convergence_sample and of struct convergence_limits is written under its own name: a replay sees what the
 * controller saw.
 */
#ifndef WATARI_POLICY_CONVERGENCE_RECORD_H
#define WATARI_POLICY_CONVERGENCE_RECORD_H

#include "convergence.h"

#include <jansson.h>

/* Caller's reference; NULL: no memory. */
json_t *convergence_sample_record(const struct convergence_sample *sample);
json_t *convergence_limits_record(const struct convergence_limits *limits);
/* Members that RECORD has not are 0, as they were before there were such; false when one is no number of its kind. */
bool convergence_sample_of(const json_t *record, struct convergence_sample *sample);
bool convergence_limits_of(const json_t *record, struct convergence_limits *limits);

/* "go-on", "throttle-disks", ... */
const char *convergence_verdict_name(enum convergence_verdict verdict);
/* False when no verdict has that name; NAME may be NULL. */
bool convergence_verdict_of(const char *name, enum convergence_verdict *verdict);

#endif

/*
 * Private to control*.c: the command "plan": its arguments, and the plan's events to the client. Those of "migrate" (control_migrate.h) say
 * which migration is meant; besides,
 *
 *   trial       boolean, default true: measure the link with a few seconds of a migration
 *   link_rate   bytes/s that the link is said to carry; 0 or absent: not said
 */
#ifndef WATARI_DAEMON_CONTROL_PLAN_H
#define WATARI_DAEMON_CONTROL_PLAN_H

#include "control_call.h"

void control_plan(struct daemon *daemon, struct control_call *call, json_t *arguments);

#endif

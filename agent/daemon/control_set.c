#include "control_set.h"

#include "bandwidth.h"
#include "control_resolve.h"
#include "daemon.h"
#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

static void log_host_limit(uint64_t rate)
{
    char text[UNITS_TEXT_SIZE];

    if (rate == BANDWIDTH_NO_LIMIT) {
        log_info("this host's migrations have no common limit any more");
    } else {
        log_info("this host's migrations together may send, and get, %s from now on",
                 units_rate(text, rate));
    }
}

static bool set_host(struct daemon *daemon, const json_t *arguments, struct error *error)
{
    if (!json_object_get(arguments, "max_bandwidth") ||
        json_object_get(arguments, "switchover_bandwidth")) {
        return error_set(error, "invalid-argument",
                         "without \"migration\", \"max_bandwidth\" alone can be set");
    }
    if (!bandwidth_argument(arguments, "max_bandwidth", &daemon->max_bandwidth, error)) {
        return false;
    }
    log_host_limit(daemon->max_bandwidth);
    source_share_bandwidth(daemon);
    destination_share_bandwidth(daemon);
    return true;
}

static bool set_migration(struct migration *migration, const json_t *arguments, struct error *error)
{
    if (migration->result) {
        return error_set(error, "too-late", "migration %s of VM %s has ended already",
                         migration->id, migration->vm);
    }
    return migration->ops->set(migration, arguments, error);
}

void control_set(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    struct error error;
    bool good;

    if (!json_object_get(arguments, "migration")) {
        good = set_host(daemon, arguments, &error);
    } else {
        struct migration *migration = control_find_migration(daemon, call, arguments);

        if (!migration) {
            return;
        }
        good = set_migration(migration, arguments, &error);
    }
    if (good) {
        control_answer(call, must_json(json_object()));
    } else {
        control_refuse(call, &error);
    }
}

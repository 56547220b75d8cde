/*
 * What a source may send: see bandwidth.h.
 */
#include "source_state.h"

#include "bandwidth.h"
#include "daemon.h"

#include "agent/common/must.h"

#include <stdlib.h>

bool bandwidth_argument(const json_t *arguments, const char *name, uint64_t *rate,
                        struct error *error)
{
    const json_t *value = json_object_get(arguments, name);
    json_int_t given = json_integer_value(value);

    if (!value) {
        return true;
    }
    if (!json_is_integer(value) || given < 0 ||
        (given != 0 && !bandwidth_is_limit((uint64_t)given))) {
        return error_set(
            error, "invalid-argument",
            "\"%s\" must be 0 (no limit), or from %u (1mbit) to %llu (8tbit) bytes a second", name,
            BANDWIDTH_MIN, (unsigned long long)BANDWIDTH_MAX);
    }
    *rate = (uint64_t)given;
    return true;
}

static bool carries(const struct migration *migration)
{
    return migration->side == MIGRATION_SOURCE && source_of((struct migration *)migration)->mover;
}

/* In the pause the operator may allow what neither he nor this host allows else; the destination's host is another's. */
static uint64_t paused_rate(const struct source *source)
{
    return source->request.switchover_bandwidth == SWITCHOVER_AS_EVER
               ? source->rate
               : bandwidth_lower(source->request.switchover_bandwidth, source->peer_bandwidth);
}

static void allow(struct source *source, uint64_t rate)
{
    struct order order = {.type = ORDER_LIMIT};
    uint64_t before = source->rate, paused_before = source->paused_rate;

    source->rate = rate;
    source->paused_rate = paused_rate(source);
    if (source->rate == before && source->paused_rate == paused_before) {
        return;
    }
    order.limit.rate = source->rate;
    order.limit.paused_rate = source->paused_rate;
    source_order(source, &order, -1);
}

void source_share_bandwidth(struct daemon *daemon)
{
    struct migration *migration;
    size_t count = 0, at = 0;
    uint64_t *own;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        count += carries(migration);
    }
    own = must_alloc((count + 1) * sizeof *own);
    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (carries(migration)) {
            const struct source *source = source_of(migration);

            own[at++] = bandwidth_lower(source->request.max_bandwidth, source->peer_bandwidth);
        }
    }
    at = 0;
    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (carries(migration)) {
            allow(source_of(migration), bandwidth_share(daemon->max_bandwidth, own, count, at++));
        }
    }
    free(own);
}

void source_mover_begins(struct source *source)
{
    source->rate = source->paused_rate = BANDWIDTH_NO_LIMIT;
    source_share_bandwidth(source->migration.daemon);
}

void source_peer_limit(struct source *source, const json_t *message)
{
    uint64_t rate = (uint64_t)json_integer_value(json_object_get(message, "bandwidth"));

    if (rate != BANDWIDTH_NO_LIMIT && !bandwidth_is_limit(rate)) {
        source_fail_text(source, "peer-protocol", "%s set a limit of %llu bytes a second",
                         source->migration.peer, (unsigned long long)rate);
        return;
    }
    source->peer_bandwidth = rate;
    source_share_bandwidth(source->migration.daemon);
}

uint64_t source_lowest_rate(const struct source *source)
{
    return bandwidth_lower(source->rate, source->paused_rate);
}

bool source_set(struct migration *migration, const json_t *settings, struct error *error)
{
    struct migrate_request *request = &source_of(migration)->request;
    uint64_t max_bandwidth = request->max_bandwidth;
    uint64_t switchover_bandwidth = request->switchover_bandwidth;

    if (!bandwidth_argument(settings, "max_bandwidth", &max_bandwidth, error) ||
        !bandwidth_argument(settings, "switchover_bandwidth", &switchover_bandwidth, error)) {
        return false;
    }
    request->max_bandwidth = max_bandwidth;
    request->switchover_bandwidth = switchover_bandwidth;
    source_share_bandwidth(migration->daemon);
    return true;
}

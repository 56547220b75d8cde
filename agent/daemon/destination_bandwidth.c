/*
 * What may come to this host: see bandwidth.h.
 */
#include "destination_state.h"

#include "bandwidth.h"
#include "daemon.h"
#include "peer.h"

#include "agent/common/must.h"

static bool carries(const struct migration *migration)
{
    const struct destination *destination = destination_of((struct migration *)migration);

    return migration->side == MIGRATION_DESTINATION && destination->accepted &&
           destination->mover && !destination->failing;
}

static void tell(struct destination *destination, uint64_t rate)
{
    if (!destination->peer || destination->told_bandwidth == rate) {
        return;
    }
    destination->told_bandwidth = rate;
    destination_send(destination, "limit",
                     must_json(json_pack("{sI}", "bandwidth", (json_int_t)rate)));
}

void destination_share_bandwidth(struct daemon *daemon)
{
    struct migration *migration;
    size_t count = 0;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        count += carries(migration);
    }
    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (carries(migration)) {
            /* What their own hosts allow them is not known here: all get as much. */
            tell(destination_of(migration), daemon->max_bandwidth / count);
        }
    }
}

void destination_bandwidth_forgotten(struct destination *destination)
{
    destination->told_bandwidth = UINT64_MAX;
    destination_share_bandwidth(destination->migration.daemon);
}

bool destination_set(struct migration *migration, const json_t *settings, struct error *error)
{
    (void)settings;
    return error_set(
        error, "set-elsewhere",
        "%s comes from %s: what may be sent for it is set there. `watari set --host max-bandwidth=RATE` here limits all "
        "that comes to this host",
        migration->vm, migration->peer);
}

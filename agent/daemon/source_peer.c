/*
 * The source's control connection: what the destination says, what becomes of a lost connection, and dialling (again).
 */
#include "source_state.h"

#include "clock.h"
#include "daemon.h"
#include "peer.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>

/* After the commit the destination is dialled again so often until it answers. */
#define REDIAL_MS 500

/* D has compared already; it is asked to repeat what it compared, so that a D which did not is found out as well. */
static void take_loaded(struct source *source, const json_t *object)
{
    bool recovered = source->handoff.state == SOURCE_COMMITTED;

    if (!recovered &&
        ((uint64_t)json_integer_value(json_object_get(object, "bytes")) != source->stream_bytes ||
         strcmp(json_string_value(json_object_get(object, "hash")), source->stream_hash) != 0)) {
        source_fail_text(source, "hash", "%s has loaded another memory stream than was sent",
                         source->migration.peer);
        return;
    }
    source->hash_agreed = true;
    source_handoff(source, SOURCE_IN_LOADED, json_string_value(json_object_get(object, "nonce")));
}

static void on_peer_message(struct peer *peer, enum message_type type, json_t *object,
                            void *context)
{
    struct source *source = context;
    const char *id = json_string_value(json_object_get(object, "migration"));

    (void)peer;
    if (!id || strcmp(id, source->migration.id) != 0) {
        source_fail_text(source, "peer-protocol", "%s answered about another migration",
                         source->migration.peer);
        return;
    }
    switch (type) {
    case MESSAGE_ACCEPT:
        source_accepted(source, object);
        break;
    case MESSAGE_REFUSE:
        if (source->failing) {
            source->peer_undone = source->peer_acknowledged = true;
            source_tidy_end(source);
            break;
        }
        source->refused = true;
        source_fail_text(source, json_string_value(json_object_get(object, "error")),
                         "%s refused: %s", source->migration.peer,
                         json_string_value(json_object_get(object, "text")));
        break;
    case MESSAGE_MEMORY_READY:
        source_memory_ready(source);
        break;
    case MESSAGE_LOADED:
        take_loaded(source, object);
        break;
    case MESSAGE_OWNED:
        source_owned(source, object);
        break;
    case MESSAGE_REFUSED:
        error_set(&source->error, "destination-refused", "%s could not run it: %s",
                  source->migration.peer, json_string_value(json_object_get(object, "text")));
        source_handoff(source, SOURCE_IN_REFUSED, NULL);
        break;
    case MESSAGE_ABORT:
        source_fail_text(source, json_string_value(json_object_get(object, "error")), "%s: %s",
                         source->migration.peer,
                         json_string_value(json_object_get(object, "text")));
        break;
    case MESSAGE_ABORTED:
        source->peer_undone = source->peer_acknowledged = true;
        if (source->failing) {
            source_tidy_end(source);
        }
        break;
    case MESSAGE_UNKNOWN:
        log_error(
            "migration %s of %s: %s knows nothing of it, and this host has given up the right to run it: undecided",
            source->migration.id, source->migration.vm, source->migration.peer);
        break;
    case MESSAGE_DONE_ACK:
        source->peer_acknowledged = true;
        source_done_acknowledged(source);
        break;
    default:
        source_fail_text(source, "peer-protocol", "%s sent %s, which a destination does not",
                         source->migration.peer, message_type_name(type));
        break;
    }
}

static void on_redial(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    source_dial(context);
}

static void tell_undecided(struct source *source)
{
    struct error *error = &source->error;

    if (source->undecided_told ||
        clock_boottime_ms() - source->committed_ms < source->request.reconnect_timeout_ms) {
        return;
    }
    source->undecided_told = true;
    error_set(
        error, "undecided",
        "%s has been handed over to %s, which has not answered since: it runs there or stands still there, never here. "
        "This host goes on asking; look with `watari status` at both hosts",
        source->migration.vm, source->migration.peer);
    migration_undecided(&source->migration, source_result(source, "undecided", error->id));
}

static void lost_peer(struct source *source, const struct error *error)
{
    if (source->peer) {
        source->control_bytes += peer_wire_bytes(source->peer);
        peer_free(source->peer);
        source->peer = NULL;
    }
    if (source->failing) {
        source->peer_undone = true;
        source_tidy_end(source);
        return;
    }
    if (source->handoff.state == SOURCE_ENDED) {
        source_done_acknowledged(source); /* it will be, later: farewell.h */
        return;
    }
    if (source->handoff.state == SOURCE_COMMITTED || source->handoff.state == SOURCE_COMMITTING) {
        tell_undecided(source);
        if (!source->redial) {
            source->redial = evtimer_new(source->migration.daemon->base, on_redial, source);
        }
        event_add(source->redial, &(struct timeval){0, REDIAL_MS * 1000});
        return;
    }
    source_fail(source, error);
}

static void on_peer_lost(struct peer *peer, const struct error *error, void *context)
{
    (void)peer;
    lost_peer(context, error);
}

static void on_peer_ready(struct peer *peer, const struct error *error, void *context)
{
    struct source *source = context;

    (void)peer;
    if (error) {
        struct error copy = *error;

        lost_peer(source, &copy);
    } else if (source->handoff.state == SOURCE_OPEN) {
        source_prepare_begin(source);
    } else {
        source_handoff(source, SOURCE_IN_LINK_UP, NULL);
    }
}

void source_dial(struct source *source)
{
    static const struct peer_handlers handlers = {on_peer_ready, on_peer_message, on_peer_lost};
    const struct tls_peer *known =
        tls_trust_by_name(source->migration.daemon->trust, source->migration.peer);

    if (!known) {
        struct error error;

        error_set(&error, "peer-unknown",
                  "no peer is trusted under the name %s (watari trust list)",
                  source->migration.peer);
        lost_peer(source, &error);
        return;
    }
    source->peer = peer_dial(source->migration.daemon, known, &handlers, source);
}

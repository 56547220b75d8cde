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
#define MOVER_WORD_MS 1000

/* D has compared already; it is asked to repeat what it compared, so that a D which did not is found out as well. */
static void take_loaded(struct source *source, const json_t *object)
{
    struct handoff_word word = {.nonce = json_string_value(json_object_get(object, "nonce"))};

    if (!source->recovered &&
        ((uint64_t)json_integer_value(json_object_get(object, "bytes")) != source->stream_bytes ||
         strcmp(json_string_value(json_object_get(object, "hash")), source->stream_hash) != 0)) {
        source_fail_text(source, "hash", "%s has loaded another memory stream than was sent",
                         source->migration.peer);
        return;
    }
    if (!source->hash_agreed) {
        source_record_mark(source, "loaded");
    }
    source->hash_agreed = true;
    /* Nothing is left to be sent, whether the mover here has heard so already or not. */
    source->suspended = false;
    source->stream_done = true;
    source_handoff(source, SOURCE_IN_LOADED, &word);
}

static void take_refused(struct source *source, const json_t *object)
{
    struct handoff_word word = {
        .refusal = (uint32_t)json_integer_value(json_object_get(object, "refusal")),
        .copy = json_is_true(json_object_get(object, "copy"))};

    error_set(&source->error, "destination-refused", "%s could not run it: %s",
              source->migration.peer, json_string_value(json_object_get(object, "text")));
    source_handoff(source, SOURCE_IN_REFUSED, &word);
}

/* It tells also what it could not undo. */
static void take_aborted(struct source *source, const json_t *object)
{
    const char *text = json_string_value(json_object_get(object, "text"));
    struct error error;

    source->peer_undone = source->peer_acknowledged = true;
    if (source->failing) {
        source_tidy_end(source);
        return;
    }
    error_set(&error, "destination-abandoned", "%s has let go of its copy%s%s",
              source->migration.peer, *text ? ": " : "", text);
    if (!handoff_source_can_roll_back(&source->handoff)) {
        source->error = error;
    }
    source_abandoned(source, &error);
}

static void take_unknown(struct source *source)
{
    struct error error;

    error_set(&error, "destination-unknown", "%s knows nothing of this migration",
              source->migration.peer);
    if (source->handoff.state == SOURCE_COMMITTED) {
        if (!source->unknown_told) {
            log_error(
                "migration %s of %s: %s knows nothing of it, and this host has given up the right to run it: "
                "undecided. If the VM does not run there: watari resolve %s --run-here",
                source->migration.id, source->migration.vm, source->migration.peer,
                source->migration.id);
        }
        source->unknown_told = true;
    } else {
        source->error = error;
    }
    source_handoff(source, SOURCE_IN_UNKNOWN, NULL);
}

/* What it said last is what an operator wants to know when it says nothing more. */
static void note_word(struct source *source, enum message_type type)
{
    static const char *const words[MESSAGE_TYPE_COUNT] = {
        [MESSAGE_ACCEPT] = "accepted: its QEMU waits for the data",
        [MESSAGE_LOADED] = "loaded: a whole copy waits there for the commit",
        [MESSAGE_OWNED] = "owned: it runs there, or has run there",
        [MESSAGE_REFUSED] = "refused: it did not run it and will not",
        [MESSAGE_ABORT] = "abort: it gives the migration up",
        [MESSAGE_ABORTED] = "aborted: it has let go of its copy",
        [MESSAGE_UNKNOWN] = "unknown: it knows nothing of this migration",
    };

    if (words[type]) {
        source->peer_word = words[type];
        source->peer_word_ms = clock_boottime_ms();
    }
}

/* "lane" means that our own mover gave up, and told the other one first: its own word for it says more, and is not far. */
static void take_abort(struct source *source, const struct error *error)
{
    if (strcmp(error->id, "lane") == 0 && source->mover && !source->failing) {
        source->peer_abort = *error;
        source_limit(source, "the mover's own word", MOVER_WORD_MS);
        return;
    }
    source_abandoned(source, error);
}

static void take_mover_lost(struct source *source, const json_t *object)
{
    struct error error;

    if ((uint32_t)json_integer_value(json_object_get(object, "movers")) != source->movers) {
        return; /* one that is replaced already */
    }
    error_set(&error, "mover-died", "%s: %s", source->migration.peer,
              json_string_value(json_object_get(object, "text")));
    source_mover_lost(source, &error);
}

static void on_peer_message(struct peer *peer, enum message_type type, json_t *object,
                            void *context)
{
    struct source *source = context;
    const char *id = json_string_value(json_object_get(object, "migration"));
    struct error error;

    (void)peer;
    if (!id || strcmp(id, source->migration.id) != 0) {
        source_fail_text(source, "peer-protocol", "%s answered about another migration",
                         source->migration.peer);
        return;
    }
    note_word(source, type);
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
    case MESSAGE_LIMIT:
        source_peer_limit(source, object);
        break;
    case MESSAGE_MOVER_LOST:
        take_mover_lost(source, object);
        break;
    case MESSAGE_RESUMED:
        source_resumed(source, object);
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
        take_refused(source, object);
        break;
    case MESSAGE_ABORT:
        error_set(&error, json_string_value(json_object_get(object, "error")), "%s: %s",
                  source->migration.peer, json_string_value(json_object_get(object, "text")));
        take_abort(source, &error);
        break;
    case MESSAGE_ABORTED:
        take_aborted(source, object);
        break;
    case MESSAGE_UNKNOWN:
        take_unknown(source);
        break;
    case MESSAGE_CONFLICT:
        log_error("%s says: %s", source->migration.peer,
                  json_string_value(json_object_get(object, "text")));
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
    struct source *source = context;

    (void)fd;
    (void)what;
    if (!source->peer && !source->failing &&
        (source->suspended || handoff_source_wants_link(&source->handoff))) {
        source_dial(source);
    }
}

static void tell_undecided(struct source *source)
{
    struct error *error = &source->error;

    if (source->undecided_told || source->committed_ms == 0 ||
        clock_boottime_ms() - source->committed_ms < source->request.reconnect_timeout_ms) {
        return;
    }
    source->undecided_told = true;
    error_set(
        error, "undecided",
        "%s has been handed over to %s, which has not answered since: it runs there or stands still there, never here. "
        "This host goes on asking. Look with `watari status` at both hosts; `watari resolve %s` decides by hand",
        source->migration.vm, source->migration.peer, source->migration.id);
    migration_undecided(&source->migration, source_result(source, "undecided", error->id));
}

void source_redial(struct source *source)
{
    if (!source->redial) {
        source->redial = evtimer_new(source->migration.daemon->base, on_redial, source);
    }
    event_add(source->redial, &(struct timeval){0, REDIAL_MS * 1000});
}

void source_drop_peer(struct source *source)
{
    if (source->peer) {
        source->control_bytes += peer_wire_bytes(source->peer);
        peer_free(source->peer);
        source->peer = NULL;
    }
    source->peer_up = false;
}

static void lost_peer(struct source *source, const struct error *error)
{
    source_drop_peer(source);
    if (source->failing) {
        source->peer_undone = true;
        source_tidy_end(source);
    } else if (source->handoff.state == SOURCE_ENDED) {
        source_done_acknowledged(source); /* it will be, later: farewell.h */
    } else if (handoff_source_wants_link(&source->handoff)) {
        tell_undecided(source);
        source_redial(source);
    } else if (!source_suspend(source, error)) {
        source_fail(source, error);
    }
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
        return;
    }
    source->peer_up = true;
    if (source->suspended) {
        source_resume(source);
    } else if (source->handoff.state == SOURCE_OPEN) {
        source_prepare_begin(source);
    } else {
        source_handoff(source, SOURCE_IN_LINK_UP, NULL);
    }
}

void source_dial(struct source *source)
{
    static const struct peer_handlers handlers = {on_peer_ready, on_peer_message, on_peer_lost};
    const struct tls_peer *known;

    if (!source->migration.daemon->trust) {
        source_redial(source); /* recovery comes before everything that can fail to load */
        return;
    }
    known = tls_trust_by_name(source->migration.daemon->trust, source->migration.peer);
    if (!known) {
        struct error error;

        error_set(&error, "peer-unknown",
                  "no peer is trusted under the name %s (watari trust list)",
                  source->migration.peer);
        lost_peer(source, &error);
        return;
    }
    source->attempt_ms = clock_boottime_ms();
    source->peer = peer_dial(source->migration.daemon, known, &handlers, source);
}

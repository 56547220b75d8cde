#include "farewell.h"

#include "daemon.h"
#include "journal.h"
#include "peer.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/handoff.h"

#include <stdlib.h>
#include <sys/queue.h>

#define RETRY_MIN_S 1
#define RETRY_MAX_S 30

struct farewell {
    struct daemon *daemon;
    char *peer_name, *migration;
    enum farewell_word word;
    struct journal *journal;
    struct peer *peer;
    bool up; /* PEER is */
    struct event *retry;
    int wait_s;
    LIST_ENTRY(farewell) link;
};

static void farewell_free(struct farewell *farewell)
{
    LIST_REMOVE(farewell, link);
    peer_free(farewell->peer);
    journal_free(farewell->journal);
    event_free(farewell->retry);
    free(farewell->peer_name);
    free(farewell->migration);
    free(farewell);
}

static void try_later(struct farewell *farewell)
{
    peer_free(farewell->peer);
    farewell->peer = NULL;
    farewell->up = false;
    event_add(farewell->retry, &(struct timeval){farewell->wait_s, 0});
    farewell->wait_s = farewell->wait_s * 2 > RETRY_MAX_S ? RETRY_MAX_S : farewell->wait_s * 2;
}

static void say(struct farewell *farewell)
{
    if (farewell->word == FAREWELL_DONE) {
        peer_send(farewell->peer, must_json(json_pack("{ss,ss}", "type", "done", "migration",
                                                      farewell->migration)));
    } else {
        peer_send(farewell->peer,
                  must_json(json_pack("{ss,ss,ss,ss}", "type", "abort", "migration",
                                      farewell->migration, "error", "rolled-back", "text",
                                      "the source has rolled this migration back")));
    }
    /* A destination that is just deciding says nothing to it, and would wait for ever. */
    event_add(farewell->retry,
              &(struct timeval){HANDOFF_TIME_MS / 1000, HANDOFF_TIME_MS % 1000 * 1000});
}

static void on_ready(struct peer *peer, const struct error *error, void *context)
{
    struct farewell *farewell = context;

    (void)peer;
    if (error) {
        try_later(farewell);
        return;
    }
    farewell->up = true;
    say(farewell);
}

static void on_message(struct peer *peer, enum message_type type, json_t *object, void *context)
{
    struct farewell *farewell = context;
    struct error error;

    (void)peer;
    if (type == MESSAGE_CONFLICT || type == MESSAGE_OWNED) {
        log_error("conflict: migration %s has ended here, and %s owns the VM all the same%s%s",
                  farewell->migration, farewell->peer_name, type == MESSAGE_CONFLICT ? ": " : "",
                  type == MESSAGE_CONFLICT ? json_string_value(json_object_get(object, "text"))
                                           : "");
    }
    if (type != MESSAGE_ABORTED && type != MESSAGE_DONE_ACK && type != MESSAGE_UNKNOWN) {
        return;
    }
    if (!journal_append(farewell->journal, "acknowledged", NULL, &error)) {
        log_warning("%s", error.text);
    }
    log_info("migration %s: %s knows how it ended", farewell->migration, farewell->peer_name);
    farewell_free(farewell);
}

static void on_lost(struct peer *peer, const struct error *error, void *context)
{
    (void)peer;
    (void)error;
    try_later(context);
}

static void dial(struct farewell *farewell)
{
    static const struct peer_handlers handlers = {on_ready, on_message, on_lost};
    const struct tls_peer *known;

    if (!farewell->daemon->trust) {
        try_later(farewell); /* recovery comes before everything that can fail to load */
        return;
    }
    known = tls_trust_by_name(farewell->daemon->trust, farewell->peer_name);
    if (!known) {
        /* The operator has removed the peer; if it comes back under this name, it is told. */
        try_later(farewell);
        return;
    }
    farewell->peer = peer_dial(farewell->daemon, known, &handlers, farewell);
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    struct farewell *farewell = context;

    (void)fd;
    (void)what;
    if (farewell->up) {
        say(farewell);
    } else {
        dial(farewell);
    }
}

void farewell_begin(struct daemon *daemon, const char *peer, const char *migration,
                    enum farewell_word word, struct journal *journal)
{
    struct farewell *farewell = must_alloc(sizeof *farewell);

    farewell->daemon = daemon;
    farewell->peer_name = must_copy(peer);
    farewell->migration = must_copy(migration);
    farewell->word = word;
    farewell->journal = journal;
    farewell->wait_s = RETRY_MIN_S;
    farewell->retry = evtimer_new(daemon->base, on_retry, farewell);
    LIST_INSERT_HEAD(&daemon->farewells, farewell, link);
    event_add(farewell->retry, &(struct timeval){0, 0});
}

void farewell_free_all(struct daemon *daemon)
{
    while (!LIST_EMPTY(&daemon->farewells)) {
        farewell_free(LIST_FIRST(&daemon->farewells));
    }
}

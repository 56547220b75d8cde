/*
 * `watari trust check`: dials a trusted peer, waits for its hello and one round trip, and says what was found.
 */
#include "peer.h"

#include "daemon.h"

#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>

/* After the hello a pong is due within a round trip. */
#define PONG_WAIT_MS 2000
#define PONG_POLL_MS 5

struct check {
    struct daemon *daemon;
    struct peer *peer;
    struct event *timer;
    unsigned polls;
    void (*done)(json_t *result, const struct error *error, void *context);
    void *context;
};

static void end(struct check *check, json_t *result, const struct error *error)
{
    void (*done)(json_t *, const struct error *, void *) = check->done;
    void *context = check->context;

    event_free(check->timer);
    peer_free(check->peer);
    free(check);
    done(result, error, context);
    json_decref(result);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct check *check = context;
    uint64_t round_trip = peer_round_trip(check->peer);

    (void)fd;
    (void)what;
    if (round_trip == UINT64_MAX && ++check->polls < PONG_WAIT_MS / PONG_POLL_MS) {
        event_add(check->timer, &(struct timeval){0, PONG_POLL_MS * 1000});
        return;
    }
    end(check,
        must_json(json_pack("{sb,sb,ss,so}", "reachable", 1, "authenticated", 1, "host",
                            peer_host(check->peer), "rtt_us",
                            round_trip == UINT64_MAX
                                ? json_null()
                                : json_integer((json_int_t)(round_trip / 1000)))),
        NULL);
}

static void on_ready(struct peer *peer, const struct error *error, void *context)
{
    struct check *check = context;

    (void)peer;
    if (error) {
        struct error copy = *error;

        end(check, NULL, &copy);
        return;
    }
    event_add(check->timer, &(struct timeval){0, PONG_POLL_MS * 1000});
}

static void on_message(struct peer *peer, enum message_type type, json_t *object, void *context)
{
    /* Nothing was asked; what a peer says unasked on this connection means nothing. */
    (void)peer;
    (void)type;
    (void)object;
    (void)context;
}

static void on_lost(struct peer *peer, const struct error *error, void *context)
{
    struct error copy = *error;

    (void)peer;
    end(context, NULL, &copy);
}

static const struct peer_handlers check_handlers = {on_ready, on_message, on_lost};

void peer_check(struct daemon *daemon, const char *name,
                void (*done)(json_t *result, const struct error *error, void *context),
                void *context)
{
    const struct tls_peer *known = tls_trust_by_name(daemon->trust, name);
    struct check *check;
    struct error error;

    if (!known) {
        error_set(&error, "peer-unknown", "no peer is trusted under the name %s", name);
        done(NULL, &error, context);
        return;
    }
    if (strcmp(known->address, "-") == 0) {
        error_set(&error, "peer-unreachable",
                  "%s has no address here: it dials this host; run `watari trust check` over there",
                  name);
        done(NULL, &error, context);
        return;
    }
    check = must_alloc(sizeof *check);
    check->daemon = daemon;
    check->done = done;
    check->context = context;
    check->timer = evtimer_new(daemon->base, on_timer, check);
    check->peer = peer_dial(daemon, known, &check_handlers, check);
}

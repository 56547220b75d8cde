/*
 * The source's lanes, and going on after the link was lost (DESIGN §7): the QEMUs stay connected to their movers, which keep what is under
 * way; here the peer is dialled again, the session's next epoch asked for, and new lanes opened with its tickets.
 */
#include "source_state.h"

#include "clock.h"
#include "daemon.h"
#include "dial.h"
#include "peer.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "protocol/preamble.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* How long one attempt to connect may take, so that a link that is back is found within two of them; TCP alone would wait ever longer. */
#define CONNECT_MS 1500
/* And the destination's answer with the lanes after it: its QEMU finishes old writes first. */
#define RESUME_MS 10000
/* Bytes that a lane may have on its way: nearly half of what a mover has of disks and memory together at most (agent/mover), for lanes are
 * two or more. */
#define SEND_BUFFER (24 << 20)
/* With new movers it also makes all exports anew, or starts another QEMU. */
#define REPLACE_MS 120000

/* --- opening --- */

/* TCP lets a lane's buffer grow by itself only as far as net.ipv4.tcp_wmem says, 4 MiB as a rule: two lanes fill a third of a gigabit over
 * 150 ms then. How much is on its way the mover decides; this is only room for it. Without the right to it (CAP_NET_ADMIN) TCP goes by its
 * own rules. */
static void make_room(int fd)
{
    static const int size = SEND_BUFFER;

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
}

static void on_lane_dialled(int fd, const struct sockaddr *address, socklen_t length,
                            const struct error *error, void *context)
{
    struct lane_dial *lane = context;
    struct source *source = lane->source;
    struct order order = {.type = ORDER_LANE, .lane = {.index = lane->index}};

    (void)address;
    (void)length;
    lane->dial = NULL;
    if (error) {
        struct error copy = *error;

        if (!source_suspend(source, &copy)) {
            source_fail(source, &copy);
        }
        return;
    }
    memcpy(order.lane.ticket, lane->ticket, sizeof lane->ticket);
    memcpy(order.lane.key, lane->key, sizeof lane->key);
    make_room(fd);
    source_order(source, &order, fd);
    explicit_bzero(&order, sizeof order);
    explicit_bzero(lane->key, sizeof lane->key);
}

static bool from_hex(const char *hex, uint8_t *out, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (sscanf(hex + 2 * i, "%2hhx", &out[i]) != 1) {
            return false;
        }
    }
    return true;
}

static void dial_lane(struct source *source, uint32_t index, const json_t *ticket)
{
    struct lane_dial *lane = &source->lane_dials[index];
    struct preamble greeting = {.kind = PREAMBLE_LANE,
                                .version_min = PROTOCOL_VERSION_MIN,
                                .version_max = PROTOCOL_VERSION_MAX};
    uint8_t raw[PREAMBLE_SIZE];
    const struct sockaddr *address;
    socklen_t length;

    lane->source = source;
    lane->index = index;
    if (!from_hex(json_string_value(json_object_get(ticket, "ticket")), lane->ticket,
                  sizeof lane->ticket) ||
        !from_hex(json_string_value(json_object_get(ticket, "key")), lane->key, sizeof lane->key)) {
        source_fail_text(source, "peer-protocol", "%s gave a ticket that is no hexadecimal",
                         source->migration.peer);
        return;
    }
    memcpy(greeting.ticket, lane->ticket, sizeof greeting.ticket);
    preamble_encode(&greeting, raw);
    address = peer_address(source->peer, &length);
    lane->dial =
        dial_address(source->migration.daemon, address, length, raw, on_lane_dialled, lane);
}

void source_open_lanes(struct source *source, const json_t *tickets)
{
    const json_t *ticket;
    size_t i;

    source->lanes_up = 0;
    if (!source->lane_dials) {
        source->lane_dials = must_alloc(source->lanes * sizeof *source->lane_dials);
    }
    json_array_foreach(tickets, i, ticket)
    {
        if (source->failing) {
            return;
        }
        dial_lane(source, (uint32_t)i, ticket);
    }
}

void source_end_lane_dials(struct source *source)
{
    for (uint32_t i = 0; source->lane_dials && i < source->lanes; i++) {
        dial_free(source->lane_dials[i].dial);
        source->lane_dials[i].dial = NULL;
    }
}

/* --- the link is lost --- */

bool source_suspend(struct source *source, const struct error *why)
{
    bool can = source->mover && !source->request.trial &&
               (source->bulk_started || source->replacing) && !source->failing &&
               handoff_source_can_roll_back(&source->handoff) && !source->qmp_lost;

    if (!can) {
        return false;
    }
    source_end_lane_dials(source);
    if (!source->suspended) {
        source->suspended = true;
        source->suspended_ms = clock_boottime_ms();
        log_warning("migration %s of %s: %s", source->migration.id, source->migration.vm,
                    why->text);
        migration_publish(
            &source->migration, "warning",
            must_json(json_pack(
                "{ss,so,ss}", "what", "link-lost", "why", must_json(message_text(why->text)),
                "text",
                "the link to the destination is lost: it goes on where it was as soon as that is back")));
    }
    if (source->peer && source->peer_up) {
        source_resume(source);
    } else if (!source->peer) {
        source_redial(source);
    }
    return true;
}

void source_lane_lost(struct source *source, const struct report_lane *lane)
{
    struct error error;

    /* After the last segment nothing needs a lane any more; the destination's mover leaves then. */
    if (source->stream_done || source->mover_resumes || source->failing) {
        return;
    }
    error_set(&error, "link-lost", "lane %u to %s was lost: %s", lane->index,
              source->migration.peer, lane->text);
    if (source->suspended && source->lanes_up == 0) {
        return; /* one of those that are given up already */
    }
    if (!source_suspend(source, &error)) {
        source_fail(source, &error);
    }
}

/* --- going on --- */

void source_resume(struct source *source)
{
    source->attempt_ms = clock_boottime_ms();
    source->lanes_up = 0;
    json_decref(source->tickets);
    source->tickets = NULL;
    source->epoch++;
    source_send(source, "resume",
                must_json(json_pack("{sI,sI}", "epoch", (json_int_t)source->epoch, "movers",
                                    (json_int_t)source->movers)));
}

void source_resumed(struct source *source, const json_t *message)
{
    struct order order = {.type = ORDER_RESUME};
    json_t *tickets = json_object_get(message, "tickets");

    if (!source->suspended || source->failing ||
        json_integer_value(json_object_get(message, "epoch")) != (json_int_t)source->epoch) {
        return; /* the answer to an attempt that was given up */
    }
    if (json_array_size(tickets) != source->lanes) {
        source_fail_text(source, "peer-protocol", "%s gave another number of tickets than of lanes",
                         source->migration.peer);
        return;
    }
    json_decref(source->tickets);
    source->tickets = json_incref(tickets);
    json_object_set(source->accepted, "pid", json_object_get(message, "pid"));
    source->attempt_ms = clock_boottime_ms();
    source->mover_resumes = true;
    source_order(source, &order, -1);
}

void source_mover_resumed(struct source *source)
{
    json_t *tickets = source->tickets;

    source->mover_resumes = false;
    source->tickets = NULL;
    if (tickets && source->peer && source->peer_up) {
        source_open_lanes(source, tickets);
    }
    json_decref(tickets);
}

/* What the control connection lost. */
static void say_again(struct source *source)
{
    if (source->memory_asked) {
        source_send(source, "memory", NULL);
    }
    if (source->stream_sent) {
        source_send_sent(source);
    }
}

static void went_on(struct source *source)
{
    char text[128];

    snprintf(text, sizeof text, "%s after %.1f s: going on",
             source->replacing ? "new movers are there" : "the link is back",
             (double)(clock_boottime_ms() - source->suspended_ms) / 1000);
    source->suspended = source->replacing = false;
    source->resumed++;
    migration_publish(&source->migration, "warning",
                      must_json(json_pack("{ss,ss}", "what", "resumed", "text", text)));
    say_again(source);
}

void source_lane_up(struct source *source)
{
    if (++source->lanes_up < source->lanes) {
        return;
    }
    if (source->suspended) {
        went_on(source);
    }
    if (!source->nbd_started) {
        source_limit(source, NULL, 0);
        source_start_nbd(source);
    }
}

void source_suspended_tick(struct source *source)
{
    uint64_t now = clock_boottime_ms();
    uint64_t attempt = !source->peer_up ? CONNECT_MS : source->replacing ? REPLACE_MS : RESUME_MS;

    if (now - source->suspended_ms > source->request.reconnect_timeout_ms) {
        source_fail_text(
            source, "link-lost",
            "the link to %s was lost and did not come back within %llu s (--reconnect-timeout)",
            source->migration.peer,
            (unsigned long long)source->request.reconnect_timeout_ms / 1000);
    } else if (source->peer && now - source->attempt_ms > attempt) {
        source_drop_peer(source);
        source_redial(source);
    }
}

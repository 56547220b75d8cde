/*
 * The destination's lanes: tickets for them, and the session's next epoch after the link was lost (DESIGN §7). Meanwhile QEMU and mover stay
 * as they are; the source dials.
 */
#include "destination_state.h"

#include "clock.h"
#include "daemon.h"
#include "listener.h"
#include "mover_link.h"
#include "peer.h"

#include "agent/common/log.h"
#include "agent/common/must.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The source gives up by itself after its --reconnect-timeout, and says so when it can; a source that is gone for good never will. */
#define SOURCE_GONE_MORE_MS 60000

static void on_lane(uint32_t index, int fd, const uint8_t ticket[TLS_TICKET_SIZE],
                    const uint8_t key[TLS_LANE_KEY_SIZE], void *context)
{
    struct destination *destination = context;
    struct order order = {.type = ORDER_LANE, .lane = {.index = index}};

    if (!destination->mover) {
        close(fd); /* it has died; the source is told */
        return;
    }
    memcpy(order.lane.ticket, ticket, sizeof order.lane.ticket);
    memcpy(order.lane.key, key, sizeof order.lane.key);
    mover_link_send(destination->mover, &order, fd);
    explicit_bzero(&order, sizeof order);
}

static void to_hex(const uint8_t *bytes, size_t size, char *hex)
{
    for (size_t i = 0; i < size; i++) {
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    }
}

json_t *destination_tickets(struct destination *destination)
{
    json_t *list = must_json(json_array());

    for (uint32_t i = 0; i < destination->lanes; i++) {
        uint8_t ticket[TLS_TICKET_SIZE], key[TLS_LANE_KEY_SIZE];
        char ticket_hex[2 * sizeof ticket + 1], key_hex[2 * sizeof key + 1];

        if (!listener_ticket(destination->migration.daemon->listener, i, ticket, key, on_lane,
                             destination)) {
            json_decref(list);
            return NULL;
        }
        to_hex(ticket, sizeof ticket, ticket_hex);
        to_hex(key, sizeof key, key_hex);
        json_array_append_new(
            list, must_json(json_pack("{ss,ss}", "ticket", ticket_hex, "key", key_hex)));
        explicit_bzero(key, sizeof key);
        explicit_bzero(key_hex, sizeof key_hex);
    }
    return list;
}

void destination_link_lost(struct destination *destination, const struct error *error)
{
    log_warning("migration %s of %s: %s", destination->migration.id, destination->migration.vm,
                error->text);
    destination->lost_ms = clock_boottime_ms();
}

void destination_resume(struct destination *destination, const json_t *message)
{
    struct order order = {.type = ORDER_RESUME};
    uint32_t movers = (uint32_t)json_integer_value(json_object_get(message, "movers"));

    if (destination->handoff.state != DESTINATION_PREPARING) {
        destination_handoff(destination, DESTINATION_IN_LINK_UP, NULL);
        return;
    }
    destination->epoch = json_integer_value(json_object_get(message, "epoch"));
    if (movers > destination->movers) {
        destination_replace(destination, movers);
        return;
    }
    if (destination->mover_lost.id[0]) {
        destination_tell_mover_lost(destination);
        return;
    }
    if (!destination->mover) {
        return; /* it is being replaced, or all has arrived and is being loaded: that is said when it is done */
    }
    listener_void(destination->migration.daemon->listener, destination);
    destination->resumes_asked++;
    mover_link_send(destination->mover, &order, -1);
}

void destination_mover_resumed(struct destination *destination)
{
    if (--destination->resumes_asked == 0) {
        destination_send_resumed(destination); /* else an attempt that the source has given up */
    }
}

void destination_send_resumed(struct destination *destination)
{
    json_t *tickets;

    if (!destination->peer) {
        return; /* the source asks again */
    }
    tickets = destination_tickets(destination);
    if (!tickets) {
        destination_fail_text(destination, "random",
                              "the system gives no random bytes for lane keys");
        return;
    }
    destination_send(destination, "resumed",
                     must_json(json_pack("{sI,sI,so}", "epoch", destination->epoch, "pid",
                                         (json_int_t)destination->pid, "tickets", tickets)));
}

void destination_watch_link(struct destination *destination)
{
    if (destination->handoff.state != DESTINATION_PREPARING || destination->peer ||
        destination->lost_ms == 0 || destination->failing) {
        return;
    }
    if (clock_boottime_ms() - destination->lost_ms >
        destination->reconnect_timeout_ms + SOURCE_GONE_MORE_MS) {
        destination->told_by_source = true; /* there is nobody to tell */
        destination_fail_text(destination, "link-lost", "%s was lost and did not come back",
                              destination->migration.peer);
    }
}

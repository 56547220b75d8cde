/*
 * The one daemon object: what every part of watarid may reach. Made by main.c, handed down by pointer; loop thread only.
 */
#ifndef WATARI_DAEMON_DAEMON_H
#define WATARI_DAEMON_DAEMON_H

#include "config.h"
#include "migration.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <sys/queue.h>

struct control;
struct farewell;
struct journal_syncer;
struct listener;
struct peer_list;
struct tls_identity;
struct tls_trust;

struct daemon {
    struct config config;
    struct event_base *base;
    struct evdns_base *dns;
    struct tls_identity *identity;
    struct tls_trust *trust;
    struct migration_list migrations;
    LIST_HEAD(farewell_list, farewell) farewells; /* aborts that are not acknowledged yet */
    struct peer_list *peers;                      /* control connections, by peer.c */
    struct listener *listener;
    struct control *control;
    struct journal_syncer *syncer;
    json_t *plans;          /* what was predicted last: plan.h; NULL: nothing yet */
    json_t *unreadable;     /* journals that cannot be read: recover.h */
    int64_t latest_begun_s; /* migration_begins() */
    uint64_t max_bandwidth; /* of all migrations together, each way, bytes/s; 0: no limit */
    char host[256];         /* this host's name, for messages */
};

#endif

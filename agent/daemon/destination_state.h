/*
 * The destination's state, shared by the files that hold its steps, and by nobody else:
 *
 *   destination.c          visitors, offers, failures, abandoning, end
 *   destination_preflight.c  what is looked at before anything is made
 *   destination_bandwidth.c  what may come
 *   destination_prepare.c  disks, QEMU, exports, mover
 *   destination_lanes.c    tickets, and going on after the link was lost
 *   destination_load.c     memory in, exports away, LOADED
 *   destination_handoff.c  what policy/handoff.h decides, done
 *   destination_resolve.c  status, evidence and the operator's decision
 *   destination_recover.c  after a restart of the daemon
 *
 * Until LOADED anything that goes wrong calls destination_fail(), which removes everything this migration made. From LOADED on only the
 * source's word (or an operator) does.
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_DESTINATION_STATE_H
#define WATARI_DAEMON_DESTINATION_STATE_H

#include "destination.h"
#include "inspect.h"
#include "migration.h"

#include "agent/mover/orders.h"
#include "agent/policy/handoff.h"
#include "agent/policy/launch.h"
#include "protocol/message.h"

#include <event2/event.h>

struct batch;
struct child;
struct journal;
struct mover_link;
struct peer;
struct process_watch;
struct qmp;
struct undo;

struct destination_disk {
    char *name, *source_path, *path, *format;
    uint64_t size, cluster_size, allocated;
    bool read_only; /* not carried: the same path must be there and allowed */
    uint32_t index; /* among the carried ones */
    char *node;     /* in our QEMU */
    int nbd_fd;
};

struct destination {
    struct migration migration; /* first: ops cast it back */
    struct peer *peer;
    json_t *offer; /* NULL after a recovery */
    uint32_t lanes;
    json_int_t epoch;       /* of the session: the source's latest resume */
    unsigned resumes_asked; /* RESUME orders that the mover has not answered */
    uint64_t
        lost_ms; /* CLOCK_BOOTTIME: when the source's connection was lost; counts while there is none */
    uint64_t reconnect_timeout_ms; /* the source's */
    struct journal *journal;
    struct undo *undo;
    struct destination_disk *disks;
    size_t disk_count, disk_at; /* DISK_AT: the one being made */
    size_t carried;
    struct launch launch;
    char *vm_dir, *qmp_path, *log_path, *run_dir, *launch_path;
    struct child *maker;           /* qemu-img, while it runs */
    struct child *child;           /* QEMU, while it is our child */
    struct process_watch *process; /* QEMU, from when its QMP answers */
    pid_t pid;
    struct qmp *qmp;
    bool qmp_ready;
    unsigned qmp_tries;
    struct inspect *inspect;
    struct batch *batch;
    struct mover_link *mover;
    uint32_t movers; /* how often the movers of both sides were replaced: the source counts */
    struct error
        mover_lost; /* id "": it has not. Why it has ended; the source is to have both replaced */
    bool
        replacing; /* exports, perhaps QEMU, and the mover are made anew; then the source's resume is answered */
    bool ending_qemu; /* so that a fresh one takes its place */
    bool qemu_over;   /* QEMU has ended with the stream that a dead mover was giving it */
    struct error
        later; /* id "": none. A failure that a mover's death explains better, if its word comes in a moment */
    struct event *retry; /* QMP not there yet */
    struct event *limit;
    const char *limit_what;
    struct event *handoff_time; /* HANDOFF_TIME_MS */

    bool accepted, memory_begun, memory_ready;
    bool completed, mover_done, sent, quiesced, exports_gone;
    uint32_t exports_left;
    uint64_t page_cache_bytes; /* granted to the source */
    uint64_t told_bandwidth;   /* what the source was told last; UINT64_MAX: nobody knows */
    uint64_t stream_bytes, sent_bytes;
    uint64_t
        sourceless_ms; /* CLOCK_BOOTTIME: since when the source is known to send no more; 0: it may */
    char stream_hash[33], sent_hash[33];
    struct report_sample sample;
    uint64_t wire_before; /* bytes that movers before took and gave */

    struct handoff_destination handoff;
    struct handoff_destination_journal recovered_journal;
    struct event *recover_retry;
    bool recovering;     /* QEMU has not said yet how it stands: what the source says waits */
    uint64_t loaded_ms;  /* CLOCK_BOOTTIME: since when the copy waits */
    uint64_t resumed_ns; /* CLOCK_MONOTONIC, of RESUME */

    bool failing, cancelled;
    bool told_by_source; /* its abort, so it needs none of ours */
    json_t *left;        /* what abandoning could not remove; NULL: it has not come to its end */
    bool abandoned_appended,
        abandon_again; /* the record is in the journal; it is to be tried again */
    struct error error;
};

static inline struct destination *destination_of(struct migration *migration)
{
    return (struct destination *)migration;
}

/* --- destination.c --- */
struct destination *destination_new(struct daemon *daemon, const char *id, const char *vm,
                                    const char *peer);
/* It is the trial of a plan: never loaded, and nothing that an earlier VM of that name left here is touched. Before anything is made. */
void destination_is_trial(struct destination *destination);
void destination_fail(struct destination *destination, const struct error *error);
void destination_fail_text(struct destination *destination, const char *id, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
void destination_limit(struct destination *destination, const char *what, uint32_t ms);
void destination_send(struct destination *destination, const char *type, json_t *members);
/* From a visitor to the migration it asked for. */
void destination_bind(struct destination *destination, struct peer *peer);
void destination_finish(struct destination *destination, const char *result);
/* Lets go of QEMU without touching it. */
void destination_let_go(struct destination *destination);
void destination_abandon_begin(struct destination *destination);
/* If the record of it could not be brought to disk: once more. */
void destination_abandon_again(struct destination *destination);
/* Abandoning, once nothing of ours writes to the files any more. */
void destination_undo(struct destination *destination);
/* There is not even a journal: nothing was made. */
void destination_refuse_early(struct destination *destination, const struct error *error);

/* --- destination_bandwidth.c --- */
/* On a new connection: what was said on the old one may have been lost. */
void destination_bandwidth_forgotten(struct destination *destination);
bool destination_set(struct migration *migration, const json_t *settings, struct error *error);

/* What can be told from an offer's header alone. */
bool destination_may_offer(struct daemon *daemon, const struct peer *peer, const char *id,
                           const char *vm, struct error *error);

/* --- destination_preflight.c --- */
/* By the launch rules, what is to be started; the disks have their places. */
bool destination_plan_launch(struct destination *destination, struct error *error);
/* QEMU's binary and the files it is to open. */
bool destination_check_files(const struct destination *destination, struct error *error);
/* What would stand in the way of an offer with the members of PREFLIGHT: array of {"level","id","text"}, the caller's reference. */
json_t *destination_findings(struct daemon *daemon, const struct peer *peer, json_t *preflight);

/* --- destination_prepare.c --- */
void destination_prepare_begin(struct destination *destination);
/* Opens QMP to our QEMU: READY is called once. */
void destination_qmp_open(struct destination *destination,
                          void (*ready)(const struct error *error, void *context));
void destination_on_qemu_end(pid_t pid, void *context);
/* With nothing left of one before; ends in a mover, see destination_mover_started(). */
void destination_start_qemu(struct destination *destination);
/* The exports of destination_export_disks() are open. */
void destination_on_exports_open(const json_t *replies, const struct error *error, void *context);
/* Timer: QEMU's QMP socket was not there yet. */
void destination_on_retry(evutil_socket_t fd, short what, void *context);

/* --- destination_mover.c --- */
/* The mover has ended without being told to. */
void destination_mover_lost(struct destination *destination, const struct error *why);
/* Adds to destination->batch a parked client and a writable export for each carried disk; the client's other copy is in its nbd_fd. */
bool destination_export_disks(struct destination *destination, struct error *error);
/* The source goes on with new movers, for the COUNTth time. */
void destination_replace(struct destination *destination, uint32_t count);
/* While replacing: the old exports are gone. */
void destination_exports_again(struct destination *destination);
/* The new mover has its orders: answers the source. */
void destination_replaced(struct destination *destination);
/* QEMU failed or ended (OVER) while memory came in. True when it is not this that fails the migration, or not yet. */
bool destination_qemu_failed(struct destination *destination, bool over, const struct error *why);
void destination_tell_mover_lost(struct destination *destination);

/* --- destination_lanes.c --- */
/* "resumed", with tickets for lanes to the mover that is there. */
void destination_send_resumed(struct destination *destination);
/* As many tickets as lanes, as accept and resumed carry them. NULL when the system has no random bytes. */
json_t *destination_tickets(struct destination *destination);
void destination_link_lost(struct destination *destination, const struct error *error);
/* The source wants to go on, over the connection that it has now. */
void destination_resume(struct destination *destination, const json_t *message);
void destination_mover_resumed(struct destination *destination);
/* Now and then: a source that does not come back. */
void destination_watch_link(struct destination *destination);

/* --- destination_load.c --- */
void destination_memory(struct destination *destination);
void destination_sent(struct destination *destination, const json_t *message);
/* SENDING: the source still has what it sends. Without that, what has not come by now or soon never will. */
void destination_queried(struct destination *destination, bool sending);
void destination_report(const struct report *report, void *context);
void destination_event(struct destination *destination, const char *name, json_t *data);

/* --- destination_handoff.c --- */
/* Carries out what policy/handoff.h says about INPUT; WORD may be NULL where it has none. */
void destination_handoff(struct destination *destination, enum destination_input input,
                         const struct handoff_word *word);
/* The same for the first actions of a recovery. */
void destination_handoff_begin(struct destination *destination, unsigned actions);
/* Timer. */
void destination_on_handoff_time(evutil_socket_t fd, short what, void *context);
/* The VM is this host's: nothing of it is undone any more, and its own sockets appear at their places. May be repeated. */
void destination_settle(struct destination *destination);

/* --- destination_recover.c --- */
/* QEMU ended while it was being asked how it stands. */
void destination_recover_qemu_ended(struct destination *destination);
/* To a peer that asks about a migration which is not under way here (any more). */
void destination_answer_ended(struct daemon *daemon, struct peer *peer, enum message_type type,
                              const json_t *object);

/* --- destination_resolve.c --- */
void destination_describe(const struct migration *migration, json_t *into);
void destination_evidence(const struct migration *migration, json_t *into);
bool destination_resolve(struct migration *migration, enum resolve_decision decision,
                         bool source_is_off, struct error *error);

#endif

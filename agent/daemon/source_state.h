/*
 * The source's state, shared by the files that hold its steps, and by nobody else:
 *
 *   source.c          start, watch over time and failures, rollback, end
 *   source_peer.c     the control connection to the destination
 *   source_prepare.c  VM and peer looked at, offer, mover, exports
 *   source_lanes.c    lanes, and going on after the link was lost
 *   source_mover.c    going on with new movers after one has died
 *   source_bandwidth.c  what its lanes may send
 *   source_disk.c     bulk pass and dirty passes of each disk
 *   source_passes.c   when the next one is due
 *   source_reads.c    nothing of ours in QEMU's hands while it drains a disk
 *   source_verify.c   --verify: the disks compared with the destination's
 *   source_memory.c   rounds, the decision to switch over, the pause
 *   source_forecast.c what the decision is made from
 *   source_trial.c    the trial of a plan, which ends before there is anything to decide
 *   source_throttle.c slowing the guest down
 *   source_handoff.c  what policy/handoff.h decides, done
 *   source_take_back.c  taking the VM back after the commit
 *   source_resolve.c  status, evidence and the operator's decision
 *   source_result.c   what the operator is told
 *   source_timeline.c what the timeline is told
 *
 * The way of a migration is one direction through prepare -> bulk -> passes -> memory -> paused -> handoff -> cleanup; each step ends in a
 * call of the next one's begin function. Anything that goes wrong calls source_fail(), which ends every step under way.
 * Loop thread only.
 */
#ifndef WATARI_DAEMON_SOURCE_STATE_H
#define WATARI_DAEMON_SOURCE_STATE_H

#include "migration.h"
#include "source.h"
#include "vm.h"
#include "inspect.h"

#include "agent/common/journal_file.h"
#include "agent/mover/orders.h"
#include "agent/policy/convergence.h"
#include "agent/policy/handoff.h"
#include "protocol/message.h"

#include <event2/event.h>
#include <sys/queue.h>

struct batch;
struct dial;
struct inspect;
struct journal;
struct mover_link;
struct peer;
struct process_watch;
struct qmp;
struct undo;

#define LINK_WINDOWS 4
#define LINK_DELAYS 4
#define RECENT_PASSES 8

enum pass_state {
    PASS_IDLE,
    PASS_STARTING, /* bitmaps exchanged, export made, the mover told */
    PASS_RUNNING,  /* the mover reads and sends */
    PASS_ENDING,   /* export, descriptor and bitmap are taken away */
    PASS_REOPENING, /* its mover has died: the export is made anew, for the next one to read it all again */
};

struct source_disk {
    struct source *source;
    uint32_t index; /* in the offer */
    char *device, *node, *path,
        *mark; /* MARK: the name the image gets when the VM has moved; NULL for block devices */
    uint64_t size;
    bool reads_as_zero; /* at the destination */
    uint32_t bitmap;    /* number of the bitmap that records now */
    uint32_t frozen;    /* number of the one that the pass under way reads */
    int nbd_fd;         /* on its way to the mover; -1 else */
    enum pass_state state;
    bool export_gone; /* in PASS_REOPENING: the dead mover's */
    bool last;        /* the pass under way is the one in the pause */
    bool last_done;
    uint32_t passes; /* done */
    uint64_t pass_started_ns;
    uint64_t reached; /* the bulk pass: all below has been acknowledged to a mover that is gone */
    uint32_t bulk_mover,
        pass_mover; /* SOURCE.movers when the pass was given to one: to which its connection belongs */
    uint64_t dirty;      /* bytes, as of the last look */
    uint64_t data_bytes; /* sent as data, all passes */
    uint64_t flush_ns;   /* the destination's flush at the end of the last pass */
    struct batch *batch;
};

struct source {
    struct migration migration; /* first: ops cast it back */
    struct migrate_request request;
    struct vm vm;
    struct qmp *qmp;
    bool qmp_ready, qmp_lost; /* LOST: it was ready, and closed */
    struct process_watch *process;
    struct inspect *inspect;
    struct inspection inspection;
    struct batch *batch; /* the step under way, when it is one of QMP commands */
    struct peer *peer;
    struct journal *journal;
    uint64_t journal_sync_ns;
    struct undo *undo;
    struct mover_link *mover;
    uint32_t movers; /* how often the movers of both sides were replaced */
    bool replacing;  /* the new ones' lanes are not up yet */
    struct error
        later; /* id "": none. A failure that a mover's death explains better, if its word comes in a moment */
    uint64_t peer_bandwidth;    /* what the destination's host allows, bytes/s; 0: no limit */
    uint64_t rate, paused_rate; /* what the mover was told, while the guest runs and in the pause */
    uint32_t lanes, lanes_up;
    struct lane_dial {
        struct source *source;
        uint32_t index;
        uint8_t ticket[16], key[32];
        struct dial *dial;
    } * lane_dials;
    uint32_t epoch;   /* of the session: grows with each resume asked for */
    uint32_t resumed; /* how often it went on */
    bool suspended;   /* the link was lost: SUSPENDED_MS (CLOCK_BOOTTIME) says since when */
    uint64_t suspended_ms;
    uint64_t attempt_ms; /* CLOCK_BOOTTIME: when the running attempt to go on began */
    bool peer_up;        /* the control connection is ready */
    bool mover_resumes;  /* RESUME was ordered, RESUMED is awaited */
    json_t *tickets;     /* of the next epoch, until the mover has said RESUMED */
    struct source_disk *disks;
    size_t disk_count;
    uint32_t keeps_left;          /* exports that stayed open and are being ended */
    uint32_t exports_of_the_dead; /* that QEMU has not been told yet to end */
    struct {
        uint32_t holders; /* they wait, or are through and have not said that it may go on */
        bool held;        /* the mover has said so */
        STAILQ_HEAD(, reads_waiter) waiters;
    } reads;                            /* source_reads.c */
    uint64_t bulk_bytes, bulk_began_ns; /* allocated then */
    uint32_t pass_rounds;               /* before memory */
    uint64_t last_pass_left;            /* dirty bytes when the last of them began */
    struct report_sample sample;        /* with what movers before had counted */
    struct report_sample sample_before;
    uint64_t mover_disk_bytes; /* of the passes that the mover has done */
    uint64_t
        lost_disk_bytes; /* read by movers that died, in passes that they did not get through */
    json_t *accepted;    /* the accept message: where the VM will be */
    json_t *planned;     /* what the last plan of it predicted; null: nothing */
    char *run_dir;       /* RUN/migrations/ID */
    char *journal_path;  /* NULL before there is one */
    bool offered;        /* the peer has heard of it */

    struct event *tick;  /* progress, and the controller while memory moves */
    struct event *limit; /* the step under way must end by then */
    const char *limit_what;
    struct event *pause_clock;
    struct event *redial;
    struct event *handoff_time; /* HANDOFF_TIME_MS */

    /* memory */
    struct convergence convergence;
    enum convergence_verdict recorded_verdict; /* the last one, in the timeline */
    bool nbd_started;                          /* or being started */
    bool bulk_started;                         /* the disks' exports are open or being opened */
    bool memory_begun;                         /* the destination was told */
    bool memory_asked;                         /* and has not answered yet */
    bool memory_started;                       /* `migrate` was accepted */
    bool memory_ending; /* and is being cancelled, because the movers are replaced */
    bool asking_end;    /* whether it is */
    bool asking;        /* a question whose answer decides is under way */
    uint64_t asked_ns,
        answer_ns;       /* since when; how long QEMU lately took to answer, the longest fading */
    bool held;           /* the mover holds the stream back */
    bool switching;      /* the pause was decided, or QEMU began it */
    bool fell_back;      /* from live to quick */
    bool falling_back;   /* that is what the pause that was decided is for */
    uint64_t decided_ns; /* CLOCK_MONOTONIC: when it was decided */
    struct batch *throttling;
    uint32_t cpu_throttle; /* per cent, as QEMU says */
    bool disks_frozen;     /* the guest stands still: nothing writes any more */
    bool verifying;        /* in the pause: the mover compares what is left to be compared */
    bool disks_equal, disks_differ; /* what it found; neither: it has not said */
    bool disks_done, pre_switchover, continued;
    uint64_t page_memory_bytes; /* what our mover may take for pages sent again */
    uint64_t round, held_round;
    uint64_t memory_left, memory_dirty_rate;
    uint64_t memory_began_ns; /* when `migrate` was accepted */
    uint64_t progress_ns;     /* when progress was last published */
    uint64_t control_bytes;   /* of the control connection, when it has been closed */
    struct rate_window {
        uint64_t at_ns, bytes;
        uint64_t rate; /* bytes/s over the last whole window */
    } wire_rate;
    struct link_rate {
        struct link_counters {
            uint64_t wire, memory, stream_wire, disk, disk_wire, pages, zero_pages;
        } begun;           /* when the running window began */
        uint64_t begun_ns; /* 0: none runs yet */
        bool was_held;
        uint64_t recent[LINK_WINDOWS]; /* wire bytes/s of windows in which the link was busy */
        size_t next, count;
        uint64_t peak;                   /* of all windows */
        double memory_ratio, disk_ratio; /* wire bytes for each byte; 0: not known yet */
        double worst_ratio;              /* of memory, lately */
        uint64_t delay_us[LINK_DELAYS];  /* of the stream, in the last samples that had one */
        size_t next_delay;
    } link;
    struct source_trial {
        uint64_t prepare_ms;         /* until the bulk pass began */
        uint64_t from_ns, to_ns;     /* in the bulk pass, CLOCK_MONOTONIC: the time that counts, */
        uint64_t from_wire, to_wire; /* and wire_sent then */
        bool settled;                /* FROM is after the link has found its pace */
        uint64_t memory_wire;        /* wire_sent when memory began */
        uint64_t held_ns;            /* the stream was held at its half */
        uint64_t memory_ns, memory_rate; /* how long it moved; bytes/s on the wire, 0: not known */
        uint64_t ended_ns;
    } trial;
    double pass_ms[RECENT_PASSES]; /* what the last disk passes cost besides their data */
    size_t pass_count;
    uint64_t disk_rate; /* bytes/s of the last pass that was large enough to tell; 0: none was */
    uint64_t stream_bytes;
    char stream_hash[33];
    bool stream_sent; /* all of it, with END, is with the lanes */
    bool stream_done; /* and is at the destination */

    struct handoff_source handoff;
    uint64_t paused_ns, resumed_ns; /* CLOCK_MONOTONIC of this host */
    uint64_t downtime_error_ns;
    uint64_t committed_ms;
    bool undecided_told, unknown_told;
    bool hash_agreed;
    bool ended_there; /* the destination owns it, and its QEMU there has ended already */
    struct handoff_source_journal recovered_journal;
    struct event *recover_retry; /* QEMU did not answer after a restart; NULL: it was not asked */
    bool recovered;              /* from a journal: what was sent is not known any more */
    bool taking_back;            /* under way */
    bool take_back_again;        /* it ended without an answer */
    const char
        *peer_word; /* the destination's latest about the handoff, for the operator; NULL: none */
    uint64_t peer_word_ms; /* CLOCK_BOOTTIME */

    bool failing, cancelled, refused, lost;
    struct error error;       /* the first that went wrong */
    struct error peer_abort;  /* id "": none that waits for this host's own mover to say more */
    json_t *left;             /* what rollback could not put back */
    bool undone, peer_undone; /* PEER_UNDONE: or not worth waiting for */
    bool awaits_qemu_end; /* all is undone, but QMP closed: whether QEMU ends decides what to say */
    bool peer_acknowledged; /* it said so */
};

static inline struct source *source_of(struct migration *migration)
{
    return (struct source *)migration;
}

/* --- source.c --- */
/* The migration ends for this reason, unless it is too late or it is ending already. Safe to call from any callback. */
void source_fail(struct source *source, const struct error *error);
void source_fail_text(struct source *source, const char *id, const char *text, ...)
    __attribute__((format(printf, 3, 4)));
/* WHAT must be over within MS; 0 takes the limit off. */
void source_limit(struct source *source, const char *what, uint32_t ms);
/* Sends {"type":TYPE,"migration":ID, ...MEMBERS}; MEMBERS is stolen, may be NULL. */
void source_send(struct source *source, const char *type, json_t *members);
void source_order(struct source *source, const struct order *order, int fd);
/* Carries out what policy/handoff.h says about INPUT. */
void source_handoff(struct source *source, enum source_input input,
                    const struct handoff_word *word);
/* The same for the first actions of a recovery. */
void source_handoff_begin(struct source *source, unsigned actions);
void source_release(struct migration *migration);
struct source *source_new(struct daemon *daemon, const char *id, const char *vm, const char *peer);
/* Everything is put back, or nothing had been changed: the result. */
void source_finish(struct source *source);
/* A step of a rollback has ended; the last one gives the result. */
void source_tidy_end(struct source *source);
/* The destination's word that it has not and will not run it. */
void source_abandoned(struct source *source, const struct error *error);
/* Puts everything back, over a QMP connection that works; then the result. */
void source_roll_back(struct source *source);
/* Its process is gone. */
void source_forget_qemu(struct source *source);
void source_on_qemu_end(pid_t pid, void *context);
/* Lets go of the mover and of the peer. */
void source_hang_up(struct source *source);

/* --- source_peer.c --- */
void source_dial(struct source *source);
/* In a moment. */
void source_redial(struct source *source);
void source_drop_peer(struct source *source);

/* --- source_prepare.c --- */
void source_prepare_begin(struct source *source);
void source_accepted(struct source *source, json_t *accept);
void source_start_nbd(struct source *source);
/* A mover that knows the disks, in place of none. False after source_fail(). */
bool source_start_mover(struct source *source);
/* A connection to our NBD server in that QEMU, parked there by getfd as NAME (added to BATCH) so that it never sees EOF; -1 with an error. */
int source_nbd_connect(struct source *source, struct batch *batch, const char *name,
                       struct error *error);

/* --- source_lanes.c --- */
/* Dials one lane for each of TICKETS, which are as many as LANES. */
void source_open_lanes(struct source *source, const json_t *tickets);
void source_end_lane_dials(struct source *source);
void source_lane_up(struct source *source);
void source_lane_lost(struct source *source, const struct report_lane *lane);
/* The link is lost and will be waited for; false when there is nothing that could go on: then it is a failure. */
bool source_suspend(struct source *source, const struct error *why);
/* While suspended: the control connection is up. */
void source_resume(struct source *source);
/* The destination's answer. */
void source_resumed(struct source *source, const json_t *message);
void source_mover_resumed(struct source *source);
/* Every tick while suspended: attempts that hang, and the time that is allowed. */
void source_suspended_tick(struct source *source);

/* --- source_mover.c --- */
/* The mover of this side, or (by its word) that of the destination, has ended: both are replaced, or the migration fails for it. */
void source_mover_lost(struct source *source, const struct error *why);
void source_take_sample(struct source *source, const struct report_sample *sample);
/* `migrate` was answered while it is already to end. */
void source_memory_end(struct source *source);
/* Every tick: whether QEMU has ended a migration that was cancelled. */
void source_memory_end_tick(struct source *source);

/* --- source_bandwidth.c --- */
/* The mover is a new one, and has been told nothing yet. */
void source_mover_begins(struct source *source);
/* The destination's word: limit. */
void source_peer_limit(struct source *source, const json_t *message);
/* Bytes/s that a forecast may count on, whatever the link was seen to carry; 0: no limit. */
uint64_t source_lowest_rate(const struct source *source);
bool source_set(struct migration *migration, const json_t *settings, struct error *error);

/* --- source_disk.c --- */
void source_bulk_begin(struct source *source);
/* Gives passes that a dead mover had under way to the one that is there now. */
void source_passes_again(struct source *source);
void source_pass_done(struct source *source, const struct report_pass *report);
/* The dirty extents of an idle disk; LAST: the pass of the pause. */
void source_start_pass(struct source_disk *disk, bool last);
/* QMP event BLOCK_EXPORT_DELETED. */
void source_export_deleted(struct source *source, const char *id);
/* Ends the exports that stayed open, then calls source_disks_done(). */
void source_exports_end(struct source *source);

/* --- source_passes.c --- */
/* Starts passes where enough is dirty; LAST: one for each disk, whatever is dirty. */
void source_passes(struct source *source, bool last);
bool source_pass_running(const struct source *source);
/* Between bulk and memory: the next passes, or source_memory_begin(). */
void source_disk_tick(struct source *source);
/* Takes each disk's dirty count from query-named-block-nodes. */
void source_note_dirty(struct source *source, const json_t *nodes);
uint64_t source_disk_left(const struct source *source);
/* Of the passes that run: bytes that are not there yet. */
uint64_t source_pass_left(const struct source *source);

/* --- source_reads.c --- */
/* Calls back, perhaps at once, when the mover has no NBD command under way and begins none until source_reads_go(), which each call needs.
 * Not at all after source_fail(). */
void source_reads_hold(struct source *source, void (*then)(void *context), void *context);
void source_reads_go(struct source *source);
/* The mover's word. */
void source_reads_held(struct source *source);
/* Calls back those whose time has come. */
void source_reads_turn(struct source *source);
/* After a mover has died, before its successor gets any other order. */
void source_reads_new_mover(struct source *source);
/* Nobody waits any more. */
void source_reads_forget(struct source *source);

/* --- source_verify.c --- */
/* The first comparison of the disks is not through; never without --verify. */
bool source_comparing(const struct source *source);
/* What a comparison of all that is left would take in the pause; 0 without --verify. */
uint32_t source_verify_ms(const struct source *source);
/* All last passes are through: has the mover compare what is left, if that is wanted, then ends the exports. */
void source_disks_sent(struct source *source);
void source_verified(struct source *source, const struct report_verified *report);

/* --- source_memory.c --- */
void source_memory_begin(struct source *source);
void source_memory_ready(struct source *source);
void source_memory_tick(struct source *source);
void source_memory_event(struct source *source, const char *name, json_t *data);
void source_memory_held(struct source *source);
/* The mover keeps the stream's last segment back; it was told to, for a test. */
void source_memory_last_held(struct source *source);
/* The word that the whole stream has left. */
void source_send_sent(struct source *source);
void source_memory_sent(struct source *source, const struct report_memory *report);
void source_memory_done(struct source *source);
void source_disks_done(struct source *source);
/* Forgets that memory had begun, and has QEMU end it: it begins again. */
void source_memory_forget(struct source *source);
/* Starts them as soon as the guest stands still and no earlier pass runs. */
void source_last_passes(struct source *source);
/* The pause is, or would be, one of quick: asked for, or fallen back to. */
bool source_is_quick(const struct source *source);
struct convergence_limits source_convergence_limits(const struct source *source);

/* --- source_forecast.c --- */
/* Each sample of the mover. */
void source_note_link(struct source *source);
/* A pass of DATA_BYTES took NS. */
void source_note_pass(struct source *source, uint64_t data_bytes, uint64_t ns);
/* QEMU took NS to answer what the controller has to know. */
void source_note_answer(struct source *source, uint64_t ns);
void source_sample_convergence(const struct source *source, struct convergence_sample *sample);

/* Bytes/s on the wire while the link was busy with memory; 0: not known. */
uint64_t source_link_rate(const struct source *source);

/* --- source_trial.c: only for a trial --- */
/* Each sample of the mover. */
void source_trial_note(struct source *source);
/* In place of what follows the bulk pass. */
void source_trial_disk_tick(struct source *source);
/* The stream that QEMU is to write into FD is held before QEMU can come to its end. False after source_fail(). */
bool source_trial_bound_stream(struct source *source, int fd);
/* In place of a decision. */
void source_trial_memory_tick(struct source *source);
/* The result's "trial". Caller's reference. */
json_t *source_trial_object(const struct source *source);

/* --- source_throttle.c --- */
bool source_can_throttle_cpus(const struct source *source);
bool source_can_throttle_disks(const struct source *source);
/* Migration parameters for auto-converge to wait; {} where it is not used. Caller's reference. */
json_t *source_parked_throttle(const struct source *source);
/* To what the controller says. */
void source_throttle_cpus(struct source *source);
void source_throttle_disks(struct source *source);

/* --- source_handoff.c --- */
/* Timer. */
void source_on_handoff_time(evutil_socket_t fd, short what, void *context);
/* Renames the images, so that nothing starts them; those that are renamed already are fine. */
bool source_mark_disks(struct source *source, struct error *error);
void source_journal_paused(struct source *source);
void source_owned(struct source *source, const json_t *message);
/* The destination knows that we are done, or will be told later: the end. */
void source_done_acknowledged(struct source *source);
/* The old QEMU has ended. */
void source_qemu_gone(struct source *source);

/* --- source_take_back.c --- */
/* Ends in SOURCE_IN_RESUMED or SOURCE_IN_NOT_RESUMED. */
void source_take_back(struct source *source);
/* If an attempt ended without an answer. */
void source_take_back_again(struct source *source);

/* --- source_resolve.c --- */
void source_describe_handoff(const struct source *source, json_t *into);
void source_evidence(const struct migration *migration, json_t *into);
bool source_resolve(struct migration *migration, enum resolve_decision decision, bool source_is_off,
                    struct error *error);

/* --- source_timeline.c --- */
/* The request, first of all. */
void source_record_begin(struct source *source);
/* The VM, once it was looked at. */
void source_record_vm(struct source *source);
/* The controller was begun with LIMITS. */
void source_record_limits(struct source *source, const struct convergence_limits *limits);
/* The controller has judged SAMPLE. */
void source_record_sample(struct source *source, const struct convergence_sample *sample,
                          enum convergence_verdict verdict);
/* A moment of the pause: agent/common/timeline_file.h has the words. */
void source_record_mark(struct source *source, const char *what);

/* --- source_result.c --- */
/* "auto", "live", "quick": what was asked for. */
const char *source_mode_word(const struct source *source);
json_t *source_result(const struct source *source, const char *result, const char *reason);
void source_progress(struct source *source);
void source_describe(const struct migration *migration, json_t *into);
/* Bytes/s of a counter, from its growth over windows of about half a second. */
void rate_window_note(struct rate_window *window, uint64_t bytes, uint64_t now_ns);

#endif

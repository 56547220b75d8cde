/*
 * What watarid and its watari-mover say to each other, over one SOCK_SEQPACKET socketpair (the
 * mover's end is descriptor 3). One message is one struct order or struct report, whole; an order
 * may carry one descriptor (SCM_RIGHTS). Same host, same build: the structs go as they are in
 * memory. Any message of another size, an unknown type, MSG_TRUNC or MSG_CTRUNC is an error and
 * ends the mover (or, read by the daemon, the migration).
 *
 *   daemon                                     source mover
 *     | -- BEGIN{role, lanes, level, ...} --->  |
 *     | -- LANE{index, ticket, key} + TCP ---->  |  TLS as client
 *     | <----------------- LANE_UP{index} -----  |  LANE_LOST{index, text}: see RESUME
 *     | -- DISK{disk, size, ...} ------------->  |
 *     | -- PASS{disk, pass, context} + NBD --->  |  reads extents, sends them, then a FLUSH
 *     | <-------- PASS_DONE{disk, pass, ...} --  |  all acknowledged and flushed over there
 *     | -- RELEASE{disk, pass} --------------->  |  QEMU has deleted the export: close it
 *     | -- READS_HOLD ----------------------->  |  begin no NBD command
 *     | <------------------------ READS_HELD --  |  none is in QEMU's hands any more
 *     | -- READS_GO ------------------------->  |  go on
 *     | -- VERIFY ---------------------------->  |  all passes are done, the guest stands still:
 *     | <------------------- VERIFIED{...} ----  |  compares the disks; see below
 *     | -- MEMORY + stream socket ------------>  |  reads until EOF
 *     | -- HOLD{pages} ----------------------->  |  stop reading at so many page records
 *     | <---------------------- HELD{pages} ---  |
 *     | -- GO{last} -------------------------->  |  read on (takes a HOLD back)
 *     | -- LIMIT{rate, paused_rate} ---------->  |  no more than that over all lanes, from now on
 *     | -- LEFT{bytes} ---------------------->  |  so much memory is still to come, for QEMU: the
 *     |                                          |  disks get the link in proportion. A SAMPLE follows
 *     | <--------- MEMORY_SENT{bytes, hash} ---  |  EOF seen, END is on its way
 *     | <--------- MEMORY_DONE{bytes, hash} ---  |  all RECEIVED by the other side
 *     | <---------------------- SAMPLE{...} ---  |  every 100 ms from BEGIN on, and before
 *     |                                          |  HELD, PASS_DONE, VERIFIED and MEMORY_DONE
 *
 *   daemon                                     destination mover
 *     | -- BEGIN ----------------------------->  |
 *     | -- DISK{disk, size, ...} + NBD ------->  |  the writable export
 *     | -- LANE + TCP ------------------------>  |  TLS as server (the preamble has been read)
 *     | -- MEMORY + stream socket ------------>  |  may come after segments have: they wait
 *     | <--------- MEMORY_DONE{bytes, hash} ---  |  END seen, hash agrees, all is in QEMU, write
 *     |                                          |  end shut
 *     | -- QUIESCE --------------------------->  |  no write may follow; the exports are about to
 *     |                                          |  vanish under it
 *     | <------------------------- QUIESCED ---  |  nothing in flight (later extents are an error)
 *     | <---------------------- SAMPLE{...} ---  |  as above
 *
 *   daemon                                     destination mover, then source mover
 *     | <---------- LANE_LOST{index, text} ----  |  or the daemon itself gives the lanes up
 *     | -- RESUME ---------------------------->  |  all lanes so far are over
 *     | <------------------------- RESUMED ----  |
 *     | -- LANE{index, ticket, key} + TCP ---->  |  new ones, under the same indexes
 *
 * Either mover: FAILED{id, text} is its last message, then it exits 1. It exits 0 when the daemon's
 * end closes.
 *
 * A lane that is lost fails nothing. The other lanes go on, what was in the lost one waits for
 * RESUME, and so in the end does everything: a source reads on until what is not acknowledged has
 * filled its bounds (the window of the stream, the requests of the disks) and keeps it. Passes,
 * holds, orders that are under way all stay as they are. RESUME may come at any time after BEGIN,
 * with all lanes lost or none, in any number, also before the one before was answered; each is
 * answered by one RESUMED, in order. Until all are, LANE is an error. At RESUME the mover ends what
 * lanes it has; for these there is no LANE_LOST, but one (or a LANE_UP) of a lane of before may
 * still come ahead of RESUMED, never after it.
 *
 * RESUMED of a destination: of the frames that old lanes brought whole, those for the disks are
 * done with (QEMU has answered every write, and so it may take as long as QEMU does) and those of
 * the stream are with the memory thread; whatever else old lanes held is dropped, and so are the
 * DONEs that no lane took. RECEIVED is said again over the new lanes at once.
 * RESUMED of a source: every frame that the destination has not acknowledged, of the stream from
 * the first not RECEIVED on, of the disks each without a DONE, waits for the new lanes, once.
 *
 * So the daemons order RESUME at the destination first, and hand out tickets for new lanes only
 * when it has said RESUMED: what the source sends again must not overtake, in QEMU's hands, its own
 * first copy. The destination writes a request that comes again once more (the same bytes, in the
 * same pass), and drops what comes again of the stream.
 *
 * With flag ORDER_FLAG_VERIFY a source mover compares the disks with the destination's, by digests
 * that both sides make of what they read back from their QEMUs (SPEC.md §6), over the connection of
 * the bulk pass. Each time that a pass of a disk is done it begins with what was sent since it was
 * last compared, at first with everything. What differs then may be what the guest has just
 * written, and is compared again after the next pass. SAMPLE tells how far it is. VERIFY, once,
 * when all passes are done and the guest stands still, makes it compare what is left, and now a
 * difference is one: VERIFIED names them. When very much differs it stops early. The mover has not
 * failed then; what follows is the daemon's decision. RELEASE of a bulk pass must not come before.
 *
 * Between READS_HELD and READS_GO the mover sends nothing over its NBD connections, whatever it is
 * ordered meanwhile, but negotiates new ones: QEMU 7.2 with an iothread dies when a command comes in
 * just while it drains the disk (agent/daemon/source_reads.c).
 *
 * With flag ORDER_FLAG_HOLD_LAST (tests) a source mover keeps back the stream's last segment (all
 * that came since the last full one when EOF is seen), says LAST_HELD and waits for GO.
 */
#ifndef WATARI_MOVER_ORDERS_H
#define WATARI_MOVER_ORDERS_H

#include <stdbool.h>
#include <stdint.h>

#define ORDERS_FD 3
#define ORDERS_MAX_LANES 64
#define ORDERS_MAX_DISKS 64
#define ORDERS_MAX_IN_FLIGHT_MS 10000
#define ORDERS_MAX_PATIENCE_MS 120000u
#define ORDERS_MAX_RATE 1000000000000u /* 8 Tbit/s */
#define ORDERS_MIN_KEY_BYTES (1u << 20)
#define ORDERS_TEXT_SIZE 512
#define ORDERS_ID_SIZE 32
#define ORDERS_CONTEXT_SIZE 256
#define ORDERS_HASH_SIZE 16
#define ORDERS_MAX_DIFFERENCES 8

enum order_type {
    ORDER_BEGIN = 1,
    ORDER_LANE,
    ORDER_DISK,
    ORDER_PASS,
    ORDER_RELEASE,
    ORDER_MEMORY,
    ORDER_HOLD,
    ORDER_GO,
    ORDER_QUIESCE,
    ORDER_RESUME, /* no fields, no descriptor */
    ORDER_LEFT,
    ORDER_VERIFY,     /* no fields, no descriptor */
    ORDER_READS_HOLD, /* likewise */
    ORDER_READS_GO,   /* likewise */
    ORDER_LIMIT,
};

enum order_role { ORDER_SOURCE = 1, ORDER_DESTINATION = 2 };

#define ORDER_FLAG_HOLD_LAST 1u
#define ORDER_FLAG_VERIFY 2u /* source */

struct order_begin {
    enum order_role role;
    uint32_t lanes;
    /* zstd level, negative ones too; ORDER_LEVEL_OFF sends everything raw, ORDER_LEVEL_AUTO by what
     * each lane finds itself waiting for (effort.h). */
    int32_t level;
    /* So much of the stream, and as much of the disks, may be read and not yet acknowledged: in
     * milliseconds of the measured rate, besides the path's own delay. Source; 1 to
     * ORDERS_MAX_IN_FLIGHT_MS. */
    uint32_t in_flight_ms;
    /* A lane whose other end is silent for so long is lost. 1 to ORDERS_MAX_PATIENCE_MS. */
    uint32_t patience_ms;
    uint32_t flags;
    /* What a source may take to make less of pages that were sent before: their hashes, the page
     * cache, and the choice what is in it. 0: nothing is left out and no difference sent. */
    uint64_t page_memory_bytes;
    /* Of the destination's page cache, and at most that of the source's; 0: none. The same at both
     * sides: the destination's daemon grants it. */
    uint64_t page_cache_bytes;
    /* A lane renews its sending key after so many bytes: tls_channel_renew_after(). From
     * ORDERS_MIN_KEY_BYTES to TLS_KEY_BYTES_MAX of tls/channel.h. */
    uint64_t key_bytes;
};
#define ORDER_LEVEL_OFF INT32_MIN
#define ORDER_LEVEL_AUTO INT32_MAX

struct order_lane {
    uint32_t index;
    uint8_t ticket[16];
    uint8_t key[32];
};

struct order_disk {
    uint32_t disk;
    uint64_t size; /* bytes, as the guest sees it */
    /* The destination's image is known to read as zero: holes of the bulk pass need no frame
     * (source). */
    bool reads_as_zero;
};

struct order_pass {
    uint32_t disk;
    uint32_t pass; /* 0: bulk, by base:allocation; from 1: the dirty extents of CONTEXT */
    uint64_t from; /* where it begins, bytes: what another mover has done of it already */
    char export_name[64];
    char context[ORDERS_CONTEXT_SIZE]; /* "qemu:dirty-bitmap:NAME"; "" for the bulk pass */
};

struct order_hold {
    uint64_t pages; /* counted over the whole stream, as HELD and SAMPLE do */
};

struct order_go {
    /* The guest stands still, and everything that is left goes now: no bound in time any more. */
    bool last;
};

struct order_left {
    uint64_t bytes;
};

/* Bytes a second of TCP payload, while the guest runs and from GO with LAST on; 0: no limit. Up to
 * ORDERS_MAX_RATE. */
struct order_limit {
    uint64_t rate, paused_rate;
};

struct order {
    enum order_type type;
    union {
        struct order_begin begin;
        struct order_lane lane;
        struct order_disk disk; /* destination: the export's name is "disk<N>" */
        struct order_pass pass; /* RELEASE: only disk and pass count */
        struct order_hold hold;
        struct order_go go;
        struct order_left left;
        struct order_limit limit;
    };
};

enum report_type {
    REPORT_LANE_UP = 1,
    REPORT_LANE_LOST,
    REPORT_PASS_DONE,
    REPORT_HELD,
    REPORT_LAST_HELD,
    REPORT_MEMORY_DONE,
    REPORT_QUIESCED,
    REPORT_RESUMED, /* no fields */
    REPORT_SAMPLE,
    REPORT_FAILED,
    REPORT_VERIFIED,
    REPORT_READS_HELD, /* no fields */
    REPORT_MEMORY_SENT,
};

struct report_lane {
    uint32_t index;
    char text[ORDERS_TEXT_SIZE]; /* UP: cipher; LOST: why */
};

struct report_pass {
    uint32_t disk;
    uint32_t pass;
    uint64_t data_bytes; /* guest bytes read and sent as data (holes not counted) */
    uint64_t zero_bytes;
    uint64_t extents;
    uint64_t flush_ns; /* the destination's last flush, seen from here: round trip included */
};

struct report_memory {
    uint64_t bytes; /* HELD: page records read so far */
    uint8_t hash[ORDERS_HASH_SIZE];
};

struct report_difference {
    uint32_t disk;
    uint64_t offset, length; /* bytes; of blocks that hold a difference */
};

struct report_verified {
    uint64_t different_bytes; /* 0: both sides are equal */
    uint32_t count;           /* of RUNS, which are in order */
    bool more;                /* there are others beyond these, or may be: it stopped early */
    struct report_difference runs[ORDERS_MAX_DIFFERENCES];
};

/* Everything counted since BEGIN, over all lanes that there were. What is said to be sent or taken
 * on the wire includes what was sent more than once, as RESENT_BYTES tells. */
struct report_sample {
    uint64_t wire_sent, wire_received; /* TCP payload of the lanes, bytes */
    /* Data bytes sent, each once (source), or written, after a RESUME some twice (destination). */
    uint64_t disk_bytes;
    uint64_t disk_acknowledged; /* data bytes the other side has acknowledged (source) */
    uint64_t disk_zero_bytes;
    uint64_t disk_wire_bytes; /* the share of wire_sent or _received that extents took */
    /* Of the stream as it is sent: made of what was read from QEMU (source), or handed to it
     * (destination). */
    uint64_t stream_bytes;
    uint64_t stream_acknowledged; /* RECEIVED by the other side (source) */
    uint64_t stream_wire_bytes;
    /* The longest that a part of the stream answered since the sample before had taken, from when it
     * was handed to the lanes; 0: none was answered (source). */
    uint64_t stream_delay_us;
    /* Frames of any kind that were given to a lane again after a RESUME, bytes (source). Those that
     * no lane had taken before do not count. */
    uint64_t resent_bytes;
    uint64_t key_renewals; /* of the lanes' sending keys */
    /* Page records: as QEMU wrote them (source), or as they arrived (destination). */
    uint64_t pages, zero_pages, page_bytes;
    /* Of PAGES: left out because the other side has them already, and sent as a difference from what
     * it has (source). */
    uint64_t same_pages, delta_pages;
    /* Data bytes of the running pass not yet acknowledged, by disk; 0 when none runs. Where the
     * block status is not known yet, a bulk pass counts all and a later one nothing. */
    uint64_t pass_left[ORDERS_MAX_DISKS];
    /* The disk's running pass, or the last that ran: all that it has to do below this offset has been
     * acknowledged (source). 0 before there was one. */
    uint64_t pass_reached[ORDERS_MAX_DISKS];
    /* With ORDER_FLAG_VERIFY, else 0. Compared, some of it more than once; what of that was read
     * (the rest are holes); the time in which comparisons were under way. */
    uint64_t compared_bytes, reread_bytes, comparing_us;
    uint64_t uncompared_bytes; /* still to be compared, or compared again */
    bool never_compared;       /* a disk has not been gone through once */
    uint32_t stream_phase;     /* enum stream_phase of protocol/stream_cutter.h */
    uint64_t rss_bytes;
};

struct report_failure {
    /* Stable word: "lane" (the mover at the other side gave up), "disk-read", "disk-write",
     * "no-space", "stream", "hash", "protocol", "memory", "orders". */
    char id[ORDERS_ID_SIZE];
    char text[ORDERS_TEXT_SIZE];
};

struct report {
    enum report_type type;
    union {
        struct report_lane lane;
        struct report_pass pass;
        struct report_memory memory;
        struct report_verified verified;
        struct report_sample sample;
        struct report_failure failure;
    };
};

#endif

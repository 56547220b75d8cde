/*
 * The control socket: where watari, and whatever else root runs, talks to watarid. A unix stream
 * socket of mode 0600; who connects must be root or the daemon's own user. Newline-delimited JSON,
 * as QMP speaks it:
 *
 *   watarid                                                  watari
 *     | -- {"watari":{"version":"0.1.0","host":NAME}} ------>  |  at once
 *     | <-- {"execute":COMMAND,"arguments":{...},"id":ANY} --  |
 *     | -- {"return":{...},"id":ANY} ----------------------->  |  or {"error":{"class","desc"}}
 *     | -- {"event":NAME,...} ------------------------------>  |  after "watch", the last "result"
 *
 * Requests of one connection are answered one after the other. COMMAND is one of
 *
 *   list                            {"vms":[...]} (inspect.h)
 *   id                              {"fingerprint","host","listen"}
 *   trust-add {name,address,fingerprint,allow?}    the peer as it is kept
 *   trust-list                      {"peers":[{"name","address","fingerprint",
 *                                   "allow":["send","receive"]}]}
 *   trust-check {name}              {"reachable","authenticated",...} (peer.h)
 *   trust-remove {name}             {}
 *   plan {vm,peer,...}              {}, then "plan-step" events and "plan" (control_plan.h); a
 *                                   client that leaves ends it
 *   migrate {vm,peer,...}           {"migration":ID} (control_migrate.h)
 *   status {migration?}             {"migrations":[...]}, running ones first
 *   watch {migration}               {"migration":ID}, then events; of a finished one its result
 *   cancel {migration}              {}: it was asked for; the outcome is the migration's result
 *   set {migration?,max_bandwidth?,...}            see control_set.h
 *   resolve {migration,decision?,source_is_off?}   see control_resolve.h
 *   start {name}                    {"vm","pid","qmp","log","already"}: when its QMP answers (start.h)
 *
 * A migration is named by its id, or by its VM when only one of that VM is under way. It is described by
 *
 *   id, side ("source", "destination"), vm, peer, mode ("trial": of a plan), phase, text, elapsed_ms, and when it has ended result; else
 *   undecided (bool), handoff (a state of policy/handoff_names.h), awaited (what), awaited_from (a peer, "this host",
 *   "an operator", null), connected (bool: to the peer), peer_word, peer_word_age_ms, commit_age_ms, pause_age_ms,
 *   qemu{pid,state} (of this host; "running", "paused", "ended"), held (why no COMMIT is sent), advice (what to do), and
 *   rate_limit (at a source: what its lanes may send now, bytes a second),
 *   what else the side knows. One whose journal cannot be read has phase "unreadable", text and journal (its path).
 *
 * Events, each with "id" and "vm", in bytes, bytes a second, milliseconds. What does not apply is
 * null:
 *
 *   phase      phase, text
 *   progress   phase, elapsed_ms, disk{total,done,left,pass,uncompared},
 *              memory{round,left,bytes,dirty_rate}, wire_bytes, wire_rate, eta_ms, predicted_downtime_ms
 *   warning    text
 *   result     schema (1), mode_requested, mode_used, result ("done", "failed", "refused",
 *              "undecided", "cancelled", "lost"), reason (a stable word), error{id,text}, total_ms,
 *              downtime_ms, downtime_error_ms, wire_bytes, disk{bytes,wire_bytes,passes},
 *              memory{rounds,pages,zero,same,delta,bytes,wire_bytes},
 *              predicted{total_ms,downtime_ms}, planned (what the last plan of it predicted, as there), verified{memory,disk}, resumed (bool),
 *              resent_bytes, key_renewals, where{host,pid,qmp,disks,launch,log}
 *
 * Of a plan, with "vm" and in the same units:
 *
 *   plan-step  text: what it does now
 *   plan       schema (1), peer, migratable (bool: no finding is a blocker),
 *              findings[{side ("source", "destination"), level ("blocker", "warning", "note"), id, text}],
 *              measured{memory{bytes,used,dirty[{ms,bytes}]}, disk{bytes,allocated,write_rate,flush_us},
 *              link{rate,how ("trial", "given"),round_trip_us,disk_rate,memory_ratio,disk_ratio}, sync_us},
 *              RATIO being bytes on the wire for each byte; trial{total_ms,wire_bytes,disk_bytes,memory_bytes}, what that cost,
 *              predicted{live,throttled,quick}, each {ends (bool),total_ms,downtime_ms,rounds,wire_bytes} or null, quick
 *              with longest_ms: downtime_ms at worst;
 *              THROTTLED is live with all of max_throttle in force. Where it does not end, downtime_ms is the shortest pause
 *              there would be. confidence{word ("none", "low", "fair", "good"),reason},
 *              recommendation{word (agent/policy/plan.h), reason, command}. All but findings is null with a blocker
 *
 * A client that does not read is dropped when OUTPUT_LIMIT (control.c) waits for it; nothing here
 * ever waits for a client. Loop thread only.
 */
#ifndef WATARI_DAEMON_CONTROL_H
#define WATARI_DAEMON_CONTROL_H

#include "agent/common/error.h"

struct control;
struct daemon;

/* Listens at daemon->config.control_path. NULL with "control-socket": also when another watarid
 * answers there. */
struct control *control_new(struct daemon *daemon, struct error *error);
/* Drops all clients and removes the socket file. NULL is fine. */
void control_free(struct control *control);

#endif

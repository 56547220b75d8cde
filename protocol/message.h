/*
 * Messages: the JSON objects that two daemons exchange in MESSAGE frames (SPEC.md §4). S dials D;
 * the source of a VM is always S.
 *
 *   S                                                    D
 *   | -- hello ---------------------------------------->  |
 *   | <---------------------------------------- hello --  |
 *   | -- ping{sent} / <- pong{sent,received} each second  |   either side may ping
 *   | -- offer{migration, vm, launch, disks, ...} ----->  |   preflight, disks, QEMU, exports
 *   | <---- accept{migration, tickets, disks, ...} -----  |   or refuse{migration, error, text}
 *   |    (lanes: own connections, bulk pass, passes)      |
 *   | -- memory{migration} ---------------------------->  |   D: migrate-incoming
 *   | <----------------------- memory-ready{migration} -  |
 *   |    (rounds; pause; last pass; migrate-continue)     |
 *   | -- sent{migration, bytes, hash} ----------------->  |   the whole stream has left S
 *   | <-------------- loaded{migration, nonce, ...} ----  |   D keeps the paused copy from now on
 *   | -- commit{migration, nonce} --------------------->  |   S has given up the right to run
 *   | <-- owned{migration, running, resumed_at, ...} ---  |   or refused{migration, refusal, copy, text}
 *   | -- done{migration} ------------------------------>  |   S has journaled DONE
 *   | <--------------------------- done-ack{migration} -  |
 *
 *   instead of an offer: S -> preflight{as an offer}; D -> findings{migration, findings}: what would stand in its way. Nothing is made.
 *   any time before commit, either way: abort{migration, error, text}; answered by
 *   aborted{migration, text} when undone.
 *   after refused:  S -> taken-back{migration} or try-again{migration, refusal}.
 *   after a lost connection or lane, before loaded: S -> resume{migration, epoch, movers}; D, when nothing of the old lanes can be acted
 *   on any more: resumed{migration, epoch, pid, tickets}. With one more in "movers" than before both sides go on with new movers.
 *   whenever what D's host allows for this migration changes: D -> limit{migration, bandwidth}.
 *   when the mover of D has died: mover-lost{migration, movers, text}; S resumes with one more.
 *   after a reconnection, and every 5 s while it is undecided: S -> query{migration}; D answers with loaded (new nonce), owned, refused,
 *   aborted (it has let go of its copy) or unknown{migration}.
 *   when both own it, by an operator's decision: conflict{migration, text}, either way.
 *
 * message_parse() is the edge: what it lets through has every required field with its type and
 * range; optional fields, where present, too. Unknown fields are ignored (a newer peer may add
 * some), unknown types refused.
 *
 * Pure; any thread. Needs jansson.
 */
#ifndef WATARI_PROTOCOL_MESSAGE_H
#define WATARI_PROTOCOL_MESSAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum message_type {
    MESSAGE_HELLO,
    MESSAGE_PING,
    MESSAGE_PONG,
    MESSAGE_PREFLIGHT,
    MESSAGE_FINDINGS,
    MESSAGE_OFFER,
    MESSAGE_ACCEPT,
    MESSAGE_REFUSE,
    MESSAGE_LIMIT,
    MESSAGE_MOVER_LOST,
    MESSAGE_RESUME,
    MESSAGE_RESUMED,
    MESSAGE_MEMORY,
    MESSAGE_MEMORY_READY,
    MESSAGE_SENT,
    MESSAGE_LOADED,
    MESSAGE_COMMIT,
    MESSAGE_OWNED,
    MESSAGE_REFUSED,
    MESSAGE_TAKEN_BACK,
    MESSAGE_TRY_AGAIN,
    MESSAGE_DONE,
    MESSAGE_DONE_ACK,
    MESSAGE_ABORT,
    MESSAGE_ABORTED,
    MESSAGE_CONFLICT,
    MESSAGE_QUERY,
    MESSAGE_UNKNOWN,
    MESSAGE_TYPE_COUNT,
};

/* A migration's id: 16 lower-case hexadecimal digits. */
#define MESSAGE_ID_LENGTH 16

/* "loaded", ...; the "type" member on the wire. */
const char *message_type_name(enum message_type type);

/*
 * Parses and checks BODY (not NUL-terminated; depth, size and UTF-8 are checked by jansson,
 * duplicates refused). Returns the object (caller's reference) and its type, or NULL with a
 * sentence in ERROR that names the message and the field.
 */
json_t *message_parse(const uint8_t *body, size_t length, enum message_type *type, char *error,
                      size_t error_size);

/* Checks OBJECT as message_parse does: what we send is held to the same rules. */
bool message_check(const json_t *object, enum message_type *type, char *error, size_t error_size);

/*
 * A JSON string of kind text from BYTES, wherever they come from (an errno's words, what QEMU wrote
 * to its log): control characters and bytes that are not UTF-8 become '?', and what is too long is
 * cut. The caller's; NULL without memory.
 */
json_t *message_text(const char *bytes);

/* One line a field, "TYPE FIELD KIND required|optional": the table behind message_check, for the
 * test that compares it with SPEC.md. Index from 0; false past the end. */
bool message_describe(size_t index, const char **type, const char **field, const char **kind,
                      bool *required);

#endif

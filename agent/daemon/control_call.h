/*
 * Private to control*.c: one request of a control client, from its line to its answer. A call
 * outlives its connection: what answers later need not know whether the client is still there. Each
 * call is answered exactly once and is gone then. Loop thread only.
 */
#ifndef WATARI_DAEMON_CONTROL_CALL_H
#define WATARI_DAEMON_CONTROL_CALL_H

#include "agent/common/error.h"

#include <jansson.h>

struct control_call;
struct control_stream;
struct daemon;
struct migration;

/* VALUE is stolen. */
void control_answer(struct control_call *call, json_t *value);
void control_refuse(struct control_call *call, const struct error *error);
/* Answers with the migration's id, then sends its events to this client until the result. */
void control_answer_watch(struct control_call *call, struct migration *migration);

/*
 * Answers with VALUE (stolen), and keeps a way to this client for events (with a member "event") until control_stream_end(). GONE is called, once
 * and on a later turn of the loop, when the client has left before that: the stream is no more then. NULL when it has left already.
 */
struct control_stream *control_answer_stream(struct control_call *call, json_t *value,
                                             void (*gone)(void *context), void *context);
/* EVENT is borrowed. */
void control_stream_send(struct control_stream *stream, const json_t *event);
/* Nothing more will come. */
void control_stream_end(struct control_stream *stream);

/* Carries out COMMAND; ARGUMENTS is an object, borrowed. Answers now or later. */
void control_command(struct daemon *daemon, struct control_call *call, const char *command,
                     json_t *arguments);

#endif

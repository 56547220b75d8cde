#include "batch.h"

#include "qmp.h"
#include "undo.h"

#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

struct command {
    char *name;        /* NULL: only KEY is forgotten here */
    json_t *arguments; /* may be NULL */
    char *key;         /* with UNDO: added before; without: forgotten after */
    json_t *undo;
    int fd;
    STAILQ_ENTRY(command) link;
};

struct batch {
    struct qmp *qmp;
    struct undo *undo;
    STAILQ_HEAD(, command) commands;
    json_t *replies;
    batch_done_callback callback;
    void *context;
};

static void command_free(struct command *command)
{
    if (command->fd >= 0) {
        close(command->fd);
    }
    json_decref(command->arguments);
    json_decref(command->undo);
    free(command->name);
    free(command->key);
    free(command);
}

static void batch_free(struct batch *batch)
{
    struct command *command;

    while ((command = STAILQ_FIRST(&batch->commands))) {
        STAILQ_REMOVE_HEAD(&batch->commands, link);
        command_free(command);
    }
    json_decref(batch->replies);
    free(batch);
}

struct batch *batch_new(struct qmp *qmp, struct undo *undo)
{
    struct batch *batch = must_alloc(sizeof *batch);

    batch->qmp = qmp;
    batch->undo = undo;
    STAILQ_INIT(&batch->commands);
    batch->replies = must_json(json_array());
    return batch;
}

static struct command *add(struct batch *batch, const char *name, json_t *arguments)
{
    struct command *command = must_alloc(sizeof *command);

    command->name = must_copy(name);
    command->arguments = arguments;
    command->fd = -1;
    STAILQ_INSERT_TAIL(&batch->commands, command, link);
    return command;
}

void batch_add(struct batch *batch, const char *command, json_t *arguments)
{
    add(batch, command, arguments);
}

void batch_add_change(struct batch *batch, const char *key, json_t *what, const char *command,
                      json_t *arguments)
{
    struct command *added = add(batch, command, arguments);

    added->key = must_copy(key);
    added->undo = what;
}

void batch_add_fd(struct batch *batch, const char *name, int fd)
{
    struct command *added = add(batch, "getfd", must_json(json_pack("{ss}", "fdname", name)));

    added->key = must_format("fd:%s", name);
    added->undo = must_json(json_pack("{sss{ss}}", "qmp", "closefd", "arguments", "fdname", name));
    added->fd = fd;
}

void batch_add_closefd(struct batch *batch, const char *name)
{
    struct command *added = add(batch, "closefd", must_json(json_pack("{ss}", "fdname", name)));

    added->key = must_format("fd:%s", name);
}

void batch_add_forget(struct batch *batch, const char *key)
{
    add(batch, NULL, NULL)->key = must_copy(key);
}

static void end(struct batch *batch, const struct error *error)
{
    batch_done_callback callback = batch->callback;
    void *context = batch->context;
    json_t *replies = json_incref(batch->replies);

    batch_free(batch);
    callback(replies, error, context);
    json_decref(replies);
}

static void run(struct batch *batch);

static void on_reply(json_t *value, const struct error *error, void *context)
{
    struct batch *batch = context;
    struct command *command = STAILQ_FIRST(&batch->commands);

    if (error) {
        /* Refused is not done: its inverse would undo somebody else's doing (an NBD server that ran before). */
        if (command->undo && strcmp(error->id, "qmp-error") == 0) {
            undo_forget(batch->undo, command->key);
        }
        end(batch, error);
        return;
    }
    json_array_append(batch->replies, value);
    if (command->key && !command->undo) {
        undo_forget(batch->undo, command->key);
    }
    STAILQ_REMOVE_HEAD(&batch->commands, link);
    command_free(command);
    run(batch);
}

static void run(struct batch *batch)
{
    struct command *command;
    struct error error;

    while ((command = STAILQ_FIRST(&batch->commands)) && !command->name) {
        undo_forget(batch->undo, command->key);
        json_array_append_new(batch->replies, json_null());
        STAILQ_REMOVE_HEAD(&batch->commands, link);
        command_free(command);
    }
    if (!command) {
        end(batch, NULL);
        return;
    }
    if (command->undo && !undo_add(batch->undo, command->key, json_incref(command->undo), &error)) {
        end(batch, &error);
        return;
    }
    qmp_execute(batch->qmp, command->name, json_incref(command->arguments), command->fd, on_reply,
                batch);
    command->fd = -1;
}

void batch_run(struct batch *batch, batch_done_callback callback, void *context)
{
    batch->callback = callback;
    batch->context = context;
    run(batch);
}

void batch_cancel(struct batch *batch)
{
    if (batch) {
        qmp_forget(batch->qmp, batch);
        batch_free(batch);
    }
}

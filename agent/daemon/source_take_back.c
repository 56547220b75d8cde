/*
 * Taking the VM back at the source after the commit: the destination will not run it, or an operator decided for this host. Names and guest
 * as before; when QEMU is dead the names only, and the VM starts from its disks.
 */
#include "source_state.h"

#include "daemon.h"
#include "journal.h"
#include "qmp.h"
#include "undo.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/policy/phase.h"

#include <stdlib.h>

/* Not resumed after all: the names of a VM that moves, again, before the destination may try again. */
static void not_resumed(struct source *source)
{
    struct error error;

    if (source->handoff.state == SOURCE_TAKING_BACK && !source_mark_disks(source, &error)) {
        log_error("%s", error.text);
    }
    source_handoff(source, SOURCE_IN_NOT_RESUMED, NULL);
}

static void on_undone(const json_t *left, void *context)
{
    struct source *source = context;

    source->taking_back = false;
    if (source->handoff.qemu_dead || !undo_left(left, "migration")) {
        source_handoff(source, SOURCE_IN_RESUMED, NULL);
    } else if (source->qmp_ready) {
        log_error("%s could not be resumed here", source->migration.vm);
        not_resumed(source);
    } else {
        /* `cont` without an answer may have been obeyed: QEMU's end, or a new connection to it, will tell. */
        source->take_back_again = true;
    }
}

static void on_qmp_ready(const struct error *error, void *context)
{
    struct source *source = context;

    if (error) {
        log_error("%s: taking it back: %s", source->migration.vm, error->text);
        source->taking_back = false;
        source->take_back_again = true;
        return;
    }
    source->qmp_ready = true;
    undo_run(source->undo, source->qmp, on_undone, source);
}

static void on_qmp_event(const char *name, json_t *data, void *context)
{
    (void)name;
    (void)data;
    (void)context;
}

static void on_qmp_closed(void *context)
{
    struct source *source = context;

    source->qmp_ready = false;
}

void source_take_back(struct source *source)
{
    static const struct qmp_handlers handlers = {on_qmp_ready, on_qmp_event, on_qmp_closed};
    struct error error;

    source->take_back_again = false;
    if (source->taking_back) {
        return; /* under way: with QEMU dead its commands fail one by one, and the names come back all the same */
    }
    source->taking_back = true;
    migration_phase(&source->migration, PHASE_ROLLBACK, "taking %s back: %s", source->migration.vm,
                    source->error.text);
    if (source->handoff.qemu_dead) {
        undo_run(source->undo, NULL, on_undone, source);
        return;
    }
    /* An earlier attempt has used up the entry that resumes the guest. */
    if (!undo_has(source->undo, "migration") &&
        !undo_add(source->undo, "migration", must_json(json_pack("{sb}", "resume", 1)), &error)) {
        log_warning("%s", error.text);
        source->taking_back = false;
        source->take_back_again = true;
        return;
    }
    if (source->qmp_ready) {
        undo_run(source->undo, source->qmp, on_undone, source);
        return;
    }
    qmp_free(source->qmp);
    source->qmp = qmp_open(source->migration.daemon->base, source->vm.qmp_path, &handlers, source);
}

void source_take_back_again(struct source *source)
{
    if (source->take_back_again) {
        source_take_back(source);
    }
}

#include "control_plan.h"

#include "control_arguments.h"
#include "control_migrate.h"
#include "plan.h"

#include "agent/common/must.h"

#include <stdlib.h>

/* One client's plan. It ends with the client, or with its last event. */
struct planned {
    struct planning *planning;
    struct control_stream *stream;
};

static void on_step(const json_t *event, void *context)
{
    const struct planned *planned = context;

    control_stream_send(planned->stream, event);
}

static void on_done(const json_t *plan, void *context)
{
    struct planned *planned = context;

    control_stream_send(planned->stream, plan);
    control_stream_end(planned->stream);
    free(planned);
}

static void on_gone(void *context)
{
    struct planned *planned = context;

    plan_cancel(planned->planning);
    free(planned);
}

/* What is said of the migration that is meant is checked where that of one that begins is. */
static bool parse(const json_t *arguments, struct plan_request *out, struct error *error)
{
    json_t *rest = must_json(json_copy((json_t *)arguments));
    const json_t *trial = json_object_get(arguments, "trial");
    int64_t link_rate = 0;
    bool good = control_argument_integer(arguments, "link_rate", 0, INT64_MAX, &link_rate, error);

    json_object_del(rest, "link_rate");
    json_object_del(rest, "trial");
    if (good && trial && !json_is_boolean(trial)) {
        good = error_set(error, "invalid-argument", "\"trial\" must be true or false");
    }
    good = good && control_migrate_parse(rest, &out->migrate, error);
    out->trial = !trial || json_is_true(trial);
    out->link_rate = (uint64_t)link_rate;
    json_decref(rest);
    return good;
}

void control_plan(struct daemon *daemon, struct control_call *call, json_t *arguments)
{
    static const struct plan_handlers handlers = {on_step, on_done};
    struct plan_request request = {0};
    struct planned *planned = must_alloc(sizeof *planned);
    struct error error;

    if (parse(arguments, &request, &error)) {
        planned->planning = plan_start(daemon, &request, &handlers, planned, &error);
    }
    if (!planned->planning) {
        control_refuse(call, &error);
        free(planned);
        return;
    }
    planned->stream = control_answer_stream(call, must_json(json_object()), on_gone, planned);
    if (!planned->stream) {
        on_gone(planned);
    }
}

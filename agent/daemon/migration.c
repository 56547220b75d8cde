#include "migration.h"

#include "clock.h"
#include "daemon.h"

#include "agent/common/log.h"
#include "agent/common/must.h"
#include "agent/common/pause_point.h"
#include "agent/common/timeline_file.h"
#include "protocol/message.h"

#include <openssl/rand.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void migrate_request_clear(struct migrate_request *request)
{
    for (size_t i = 0; i < request->disk_count; i++) {
        free(request->disks[i].device);
        free(request->disks[i].target);
    }
    free(request->disks);
    free(request->vm);
    free(request->peer);
    memset(request, 0, sizeof *request);
}

struct migrate_request migrate_request_copy(const struct migrate_request *request)
{
    struct migrate_request copy = *request;

    copy.vm = must_copy(request->vm);
    copy.peer = must_copy(request->peer);
    copy.disks = must_alloc((request->disk_count + 1) * sizeof *copy.disks);
    for (size_t i = 0; i < request->disk_count; i++) {
        copy.disks[i].device = must_copy(request->disks[i].device);
        copy.disks[i].target = must_copy(request->disks[i].target);
    }
    return copy;
}

void migration_init(struct migration *migration, struct daemon *daemon, enum migration_side side,
                    const char *id, const char *vm, const char *peer)
{
    migration->daemon = daemon;
    migration->side = side;
    snprintf(migration->id, sizeof migration->id, "%s", id);
    migration->vm = must_copy(vm);
    migration->peer = must_copy(peer);
    migration->phase = "preflight";
    migration->started_ms = clock_boottime_ms();
    LIST_INIT(&migration->watchers);
}

void migration_clear(struct migration *migration)
{
    free(migration->vm);
    free(migration->peer);
    free(migration->phase_text);
    json_decref(migration->result);
    timeline_free(migration->timeline);
}

static void release(struct migration *migration)
{
    TAILQ_REMOVE(&migration->daemon->migrations, migration, link);
    migration_clear(migration);
    migration->ops->free(migration);
}

static void drop_oldest_finished(struct daemon *daemon)
{
    struct migration *migration, *oldest = NULL;
    size_t finished = 0;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (migration->result) {
            finished++;
            oldest = oldest ? oldest : migration;
        }
    }
    if (finished > MIGRATION_KEEP_FINISHED) {
        release(oldest);
    }
}

static const char *side_word(const struct migration *migration)
{
    return migration->side == MIGRATION_SOURCE ? "source" : "destination";
}

void migration_register(struct migration *migration)
{
    struct daemon *daemon = migration->daemon;

    drop_oldest_finished(daemon);
    TAILQ_INSERT_TAIL(&daemon->migrations, migration, link);
    if (!migration->trial) {
        migration->timeline =
            timeline_open(daemon->config.state_dir, migration->id, side_word(migration));
    }
}

/* --- its timeline --- */

static void record(struct migration *migration, enum timeline_kind kind, const char *event,
                   const json_t *members)
{
    if (migration->timeline) {
        timeline_add(migration->timeline, kind, event, clock_boottime_ms() - migration->started_ms,
                     members);
    }
}

void migration_record(struct migration *migration, enum timeline_kind kind, const char *event,
                      json_t *members)
{
    record(migration, kind, event, members);
    json_decref(members);
}

void migration_record_begin(struct migration *migration, const char *event, json_t *members)
{
    time_t now = time(NULL);
    struct tm parts;
    char text[32] = "";
    json_t *line;

    if (gmtime_r(&now, &parts)) {
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    line = must_json(json_pack("{si,ss,sI,ss,ss,so,ss,ss,ss}", "schema", TIMELINE_SCHEMA, "time",
                               text, "began_s", (json_int_t)now, "id", migration->id, "side",
                               side_word(migration), "vm", must_json(message_text(migration->vm)),
                               "host", migration->daemon->host, "peer", migration->peer, "watari",
                               WATARI_VERSION));
    json_object_update(line, members);
    json_decref(members);
    migration_record(migration, TIMELINE_EVENT, event, line);
}

struct migration *migration_find(struct daemon *daemon, const char *id_or_vm)
{
    struct migration *migration, *found = NULL;
    size_t same_vm = 0;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (strcmp(migration->id, id_or_vm) == 0) {
            return migration;
        }
        if (!migration->result && strcmp(migration->vm, id_or_vm) == 0) {
            found = migration;
            same_vm++;
        }
    }
    return same_vm == 1 ? found : NULL;
}

struct migration *migration_of_vm(struct daemon *daemon, const char *vm)
{
    struct migration *migration;

    TAILQ_FOREACH(migration, &daemon->migrations, link)
    {
        if (!migration->result && !migration->decided && strcmp(migration->vm, vm) == 0) {
            return migration;
        }
    }
    return NULL;
}

void migration_new_id(char id[MIGRATION_ID_SIZE])
{
    uint64_t number = 0;

    /* An id must not repeat; that it can be guessed would do no harm. */
    if (RAND_bytes((uint8_t *)&number, sizeof number) != 1) {
        number = clock_monotonic_ns();
    }
    snprintf(id, MIGRATION_ID_SIZE, "%016llx", (unsigned long long)number);
}

int64_t migration_begins(struct daemon *daemon)
{
    int64_t now = time(NULL);

    daemon->latest_begun_s = now > daemon->latest_begun_s ? now : daemon->latest_begun_s + 1;
    return daemon->latest_begun_s;
}

void migration_note_begun(struct daemon *daemon, int64_t begun_s)
{
    if (begun_s > daemon->latest_begun_s) {
        daemon->latest_begun_s = begun_s;
    }
}

json_t *migration_describe(const struct migration *migration)
{
    static const char *const modes[] = {"auto", "live", "quick"};
    json_t *object = must_json(json_pack(
        "{ss,ss,ss,ss,ss,ss,so,sI}", "id", migration->id, "side",
        side_word(migration), "vm", migration->vm, "peer",
        migration->peer, "mode", migration->trial ? "trial" : modes[migration->mode], "phase",
        migration->phase, "text",
        must_json(message_text(migration->phase_text ? migration->phase_text : "")), "elapsed_ms",
        (json_int_t)(clock_boottime_ms() - migration->started_ms)));

    if (migration->result) {
        json_object_set(object, "result", migration->result);
    } else {
        migration->ops->describe(migration, object);
    }
    return object;
}

static void tell(struct migration *migration, const json_t *event, bool last)
{
    struct migration_watcher *watcher = LIST_FIRST(&migration->watchers);

    while (watcher) {
        struct migration_watcher *next = LIST_NEXT(watcher, link);

        if (last) {
            LIST_REMOVE(watcher, link);
            watcher->link.le_prev = NULL;
        }
        watcher->callback(event, last, watcher->context);
        watcher = next;
    }
}

void migration_publish(struct migration *migration, const char *event, json_t *members)
{
    json_t *object = must_json(
        json_pack("{ss,ss,ss}", "event", event, "id", migration->id, "vm", migration->vm));
    const char *text = json_string_value(json_object_get(members, "text"));

    json_object_update(object, members);
    if (text) {
        log_info("migration %s of %s: %s: %s", migration->id, migration->vm, event, text);
    }
    if (strcmp(event, "progress") != 0 && strcmp(event, "decision") != 0) {
        record(migration, TIMELINE_EVENT, event, members);
    }
    tell(migration, object, false);
    json_decref(members);
    json_decref(object);
}

static void pause_at_phase(const struct migration *migration)
{
    char name[64];

    snprintf(name, sizeof name, "%s-phase-%s", side_word(migration), migration->phase);
    pause_point(name);
}

void migration_phase(struct migration *migration, const char *phase, const char *text, ...)
{
    char sentence[512];
    va_list arguments;

    va_start(arguments, text);
    vsnprintf(sentence, sizeof sentence, text, arguments);
    va_end(arguments);
    migration->phase = phase;
    free(migration->phase_text);
    migration->phase_text = must_copy(sentence);
    migration_publish(
        migration, "phase",
        must_json(json_pack("{ss,so}", "phase", phase, "text", must_json(message_text(sentence)))));
    pause_at_phase(migration);
}

static void log_result(const struct migration *migration, const json_t *result)
{
    const char *text = json_string_value(json_object_get(json_object_get(result, "error"), "text"));

    log_info("migration %s of %s: %s%s%s", migration->id, migration->vm,
             json_string_value(json_object_get(result, "result")), text ? ": " : "",
             text ? text : "");
}

void migration_undecided(struct migration *migration, json_t *result)
{
    log_result(migration, result);
    record(migration, TIMELINE_EVENT, "undecided", result);
    tell(migration, result, true);
    json_decref(result);
}

void migration_finish(struct migration *migration, json_t *result)
{
    migration->result = result;
    migration->phase = "ended";
    log_result(migration, result);
    record(migration, TIMELINE_RESULT, "result", result);
    timeline_free(migration->timeline);
    migration->timeline = NULL;
    tell(migration, result, true);
}

void migration_free_all(struct daemon *daemon)
{
    while (!TAILQ_EMPTY(&daemon->migrations)) {
        release(TAILQ_FIRST(&daemon->migrations));
    }
}

void migration_watch(struct migration *migration, struct migration_watcher *watcher)
{
    LIST_INSERT_HEAD(&migration->watchers, watcher, link);
}

void migration_unwatch(struct migration_watcher *watcher)
{
    if (watcher->link.le_prev) {
        LIST_REMOVE(watcher, link);
        watcher->link.le_prev = NULL;
    }
}

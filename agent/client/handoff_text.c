#include "handoff_text.h"

#include "terminal.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

#include <stdlib.h>
#include <string.h>

#define LABEL_WIDTH 13

static const char *word(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static const char *word_or(const json_t *object, const char *name, const char *otherwise)
{
    const char *text = word(object, name);

    return text ? text : otherwise;
}

bool handoff_text_undecided(const json_t *migration)
{
    return json_is_true(json_object_get(migration, "undecided"));
}

bool handoff_text_unreadable(const json_t *migration)
{
    return strcmp(word_or(migration, "phase", ""), "unreadable") == 0;
}

const char *handoff_text_qemu(const json_t *migration)
{
    return word_or(json_object_get(migration, "qemu"), "state", "");
}

static bool is_source(const json_t *migration)
{
    return strcmp(word_or(migration, "side", ""), "source") == 0;
}

/* --- lines --- */

static void line(FILE *out, const char *label, const char *text)
{
    terminal_line(out, "    %-*s %s", LABEL_WIDTH, label, text);
}

/* "2 min 10 s ago", or NULL. free() it. */
static char *age(const json_t *migration, const char *name)
{
    const json_t *value = json_object_get(migration, name);
    char buffer[UNITS_TEXT_SIZE];

    return json_is_number(value)
               ? must_format("%s ago", units_time(buffer, json_number_value(value)))
               : NULL;
}

static void print_heading(FILE *out, const json_t *migration)
{
    const char *id = word_or(migration, "id", "?"), *vm = word_or(migration, "vm", "?"),
               *peer = word_or(migration, "peer", "?");
    bool source = is_source(migration);

    if (handoff_text_unreadable(migration)) {
        terminal_line(out, "%s of VM %s: its journal cannot be read", id, vm);
    } else if (handoff_text_undecided(migration)) {
        terminal_line(out, "%s is undecided: VM %s, %s %s", id, vm, source ? "to" : "from", peer);
    } else {
        terminal_line(out, "%s of VM %s, %s %s:", id, vm, source ? "to" : "from", peer);
    }
}

static void print_awaited(FILE *out, const json_t *migration)
{
    const char *what = word(migration, "awaited"), *from = word(migration, "awaited_from");

    if (what && from) {
        char *text = must_format("from %s: %s", from, what);

        line(out, "awaited", text);
        free(text);
    }
}

static void print_qemu(FILE *out, const json_t *migration)
{
    const char *state = handoff_text_qemu(migration);
    json_int_t pid = json_integer_value(json_object_get(json_object_get(migration, "qemu"), "pid"));

    if (*state && pid > 0) {
        char *text = must_format("pid %lld, %s", (long long)pid, state);

        line(out, "QEMU here", text);
        free(text);
    } else if (*state) {
        line(out, "QEMU here", state);
    }
}

static void print_pause(FILE *out, const json_t *migration)
{
    const json_t *value = json_object_get(migration, "pause_age_ms");
    char buffer[UNITS_TEXT_SIZE];

    if (json_is_number(value) && strcmp(handoff_text_qemu(migration), "running") != 0) {
        char *text = must_format("for %s", units_time(buffer, json_number_value(value)));

        line(out, "paused", text);
        free(text);
    }
}

/* The peer under its own name. */
static void print_peer(FILE *out, const json_t *migration)
{
    const json_t *connected = json_object_get(migration, "connected");
    const char *said = word(migration, "peer_word");
    char *since = age(migration, "peer_word_age_ms");
    char *text = must_copy(json_is_true(connected)    ? "connected"
                           : json_is_false(connected) ? "not connected"
                                                      : "");

    if (said) {
        char *longer = must_format("%s%sits last word was \"%s\"", text, *text ? "; " : "", said);

        free(text);
        text = longer;
    }
    if (said && since) {
        char *longer = must_format("%s, %s", text, since);

        free(text);
        text = longer;
    }
    if (*text) {
        line(out, word_or(migration, "peer", "the peer"), text);
    }
    free(since);
    free(text);
}

static void print_commit(FILE *out, const json_t *migration)
{
    char *sent = age(migration, "commit_age_ms");
    const char *held = word(migration, "held");

    if (sent) {
        line(out, "last COMMIT", sent);
    }
    if (held) {
        char *text = must_format("no COMMIT is sent: %s", held);

        line(out, "held", text);
        free(text);
    }
    free(sent);
}

static void print_disk(FILE *out, const json_t *disk)
{
    const char *path = word(disk, "path"), *mark = word(disk, "mark");

    if (path && mark && json_is_true(json_object_get(disk, "marked"))) {
        char *text = must_format("%s, named %s now", path, mark);

        line(out, "disk here", text);
        free(text);
    } else if (path) {
        line(out, "disk here", path);
    }
}

static void print_text(FILE *out, const json_t *migration, const char *name, const char *label)
{
    const char *text = word(migration, name);

    if (text && *text) {
        line(out, label, text);
    }
}

/* The table of them: what is printed, and what is then told. */
bool handoff_text_tells(const char *name)
{
    static const char *const names[] = {
        "id",      "vm",           "side",          "peer",      "undecided",        "text",
        "handoff", "awaited",      "awaited_from",  "connected", "peer_word",        "advice",
        "qemu",    "pause_age_ms", "commit_age_ms", "held",      "peer_word_age_ms", "disks",
        "journal", "log"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

void handoff_text_print(FILE *out, const json_t *migration)
{
    const json_t *disk;
    size_t index;

    print_heading(out, migration);
    print_text(out, migration, "text", "what happened");
    print_text(out, migration, "handoff", "state here");
    print_awaited(out, migration);
    print_qemu(out, migration);
    print_pause(out, migration);
    print_peer(out, migration);
    print_commit(out, migration);
    json_array_foreach(json_object_get(migration, "disks"), index, disk)
    {
        print_disk(out, disk);
    }
    print_text(out, migration, "journal", "journal");
    print_text(out, migration, "log", "QEMU's log");
}

void handoff_text_print_advice(FILE *out, const json_t *migration)
{
    print_text(out, migration, "advice", "what to do");
}

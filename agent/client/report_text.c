#include "report_text.h"

#include "event_text.h"
#include "terminal.h"
#include "agent/common/error.h"
#include "agent/common/must.h"
#include "agent/common/units.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *word(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

static double number(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static uint64_t bytes(const json_t *object, const char *name)
{
    double value = number(object, name);

    return value > 0 && value < 1e18 ? (uint64_t)value : 0;
}

static bool is_event(const json_t *line, const char *event)
{
    return strcmp(word(line, "event"), event) == 0;
}

/* The last one of that name, borrowed; NULL when there is none. */
static const json_t *last_of(const json_t *lines, const char *event)
{
    for (size_t i = json_array_size(lines); i-- > 0;) {
        const json_t *line = json_array_get(lines, i);

        if (is_event(line, event)) {
            return line;
        }
    }
    return NULL;
}

static const char *time_of(char buffer[UNITS_TEXT_SIZE], const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return json_is_number(value) ? units_time(buffer, json_number_value(value)) : "unknown";
}

static void print_heading(FILE *out, const char *text)
{
    terminal_line(out, "%s", "");
    terminal_line(out, "%s", text);
}

/* --- what was asked for --- */

static void print_asked(FILE *out, const json_t *begin)
{
    const json_t *request = json_object_get(begin, "request"), *value;
    const json_t *compress = json_object_get(request, "compress");
    char downtime[UNITS_TEXT_SIZE], quick[UNITS_TEXT_SIZE], deadline[UNITS_TEXT_SIZE];
    const char *device;

    if (!request) {
        terminal_line(out, "  asked for     by %s, %s", word(begin, "peer"), word(begin, "mode"));
        return;
    }
    terminal_line(out, "  asked for     %s; a pause of %s at most, of %s for quick; deadline %s",
                  word(request, "mode"), time_of(downtime, request, "max_downtime_ms"),
                  time_of(quick, request, "max_quick_downtime_ms"),
                  number(request, "deadline_ms") > 0 ? time_of(deadline, request, "deadline_ms")
                                                     : "none");
    terminal_line(out, "                guest slowed by %.0f %% at most; disks compared: %s",
                  number(request, "max_throttle"),
                  json_is_true(json_object_get(request, "verify")) ? "yes" : "no");
    if (json_is_integer(compress)) {
        terminal_line(out, "                compression level %lld",
                      (long long)json_integer_value(compress));
    } else {
        terminal_line(out, "                compression %s", word(request, "compress"));
    }
    json_object_foreach((json_t *)json_object_get(request, "disks"), device, value)
    {
        terminal_line(out, "                disk %s to %s", device, json_string_value(value));
    }
}

static void print_vm(FILE *out, const json_t *vm)
{
    char buffer[UNITS_TEXT_SIZE], allocated[UNITS_TEXT_SIZE];
    const json_t *disk;
    size_t i;

    if (!vm) {
        return;
    }
    terminal_line(out, "  the VM        %s of memory, %s, QEMU %s",
                  units_size(buffer, bytes(vm, "memory_bytes")), word(vm, "machine"),
                  word(vm, "qemu"));
    json_array_foreach(json_object_get(vm, "disks"), i, disk)
    {
        terminal_line(out, "                disk %s: %s, %s of them allocated%s",
                      word(disk, "device"), units_size(buffer, bytes(disk, "size")),
                      units_size(allocated, bytes(disk, "allocated")),
                      json_is_true(json_object_get(disk, "throttled")) ? ", with limits of its own"
                                                                       : "");
    }
}

static void print_head(FILE *out, const json_t *begin, const json_t *vm)
{
    bool is_source = strcmp(word(begin, "side"), "source") == 0;

    terminal_line(out, "Migration %s of VM %s from %s to %s, as %s saw it", word(begin, "id"),
                  word(begin, "vm"), word(begin, is_source ? "host" : "peer"),
                  word(begin, is_source ? "peer" : "host"), word(begin, "host"));
    terminal_line(out, "  began         %s (by this host's clock, UTC)", word(begin, "time"));
    print_asked(out, begin);
    print_vm(out, vm);
}

/* --- what happened --- */

/* What a line tells; free() it. NULL: nothing that belongs into the story. REASON: of the decision before it, which need not be said twice. */
static char *told_by(const json_t *line, const char *reason)
{
    const char *text = word(line, "text"), *why = word(line, "why");

    if (is_event(line, "phase")) {
        return must_copy(*reason && strcmp(text, reason) == 0 ? "as decided" : text);
    }
    if (is_event(line, "warning")) {
        return must_format("%s%s%s%s", text, *why ? " (" : "", why, *why ? ")" : "");
    }
    if (is_event(line, "decision")) {
        return must_format("%s: %s", word(line, "verdict"), word(line, "reason"));
    }
    if (is_event(line, "restart")) {
        return must_format("watarid %s was started again at %s; times count from here",
                           word(line, "watari"), word(line, "time"));
    }
    if (is_event(line, "thinned")) {
        return must_copy("so much was recorded that from here on it is one sample a second");
    }
    if (is_event(line, "cut")) {
        return must_copy("so much was recorded that from here on it is the result alone");
    }
    if (is_event(line, "undecided") || is_event(line, "result")) {
        const char *id = word(line, "reason");

        return must_format("%s%s%s", word(line, "result"), *id ? ": " : "", id);
    }
    return NULL;
}

static void print_story(FILE *out, const json_t *lines)
{
    static const char *const headings[] = {"AT, s", "WHAT", ""};
    struct terminal_table *table = terminal_table_new(3, headings);
    const char *reason = "";
    const json_t *line;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        char *text = told_by(line, reason);
        const char *phase = word(line, "phase");

        if (text) {
            terminal_table_cell(table, "%.3f", number(line, "at_ms") / 1000);
            terminal_table_cell(table, "%s", *phase ? phase : word(line, "event"));
            terminal_table_cell(table, "%s", text);
            free(text);
        }
        reason = is_event(line, "decision") ? word(line, "reason") : reason;
    }
    print_heading(out, "What happened");
    terminal_table_print(table, out);
}

/* --- the pause --- */

static const char *moment_text(const char *what)
{
    static const struct {
        const char *what, *text;
    } moments[] = {
        {"guest-stopped", "QEMU confirms that the guest stands still"},
        {"disk-passes-done", "the last disk passes are through, and flushed at the destination"},
        {"disks-done", "the disks' exports are closed"},
        {"pre-switchover", "QEMU has given its memory to the mover"},
        {"completed", "QEMU has given the device state to the mover"},
        {"stream-sent", "all of the stream has left this host"},
        {"stream-done", "all of the stream has arrived"},
        {"loaded", "the destination has loaded everything"},
        {"resumed", "the word that the guest runs at the destination has come back"},
    };

    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        if (strcmp(moments[i].what, what) == 0) {
            return moments[i].text;
        }
    }
    return what;
}

static void print_pause(FILE *out, const json_t *lines)
{
    static const char *const headings[] = {"AFTER", "SENT", ""};
    struct terminal_table *table = NULL;
    char buffer[UNITS_TEXT_SIZE];
    uint64_t before = 0;
    const json_t *line;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        if (!is_event(line, "mark") || !json_object_get(line, "paused_us")) {
            continue;
        }
        if (!table) {
            table = terminal_table_new(3, headings);
            before = bytes(line, "wire_sent");
        }
        terminal_table_cell(table, "%s", units_time(buffer, number(line, "paused_us") / 1000));
        terminal_table_cell(table, "%s", units_size(buffer, bytes(line, "wire_sent") - before));
        terminal_table_cell(table, "%s", moment_text(word(line, "what")));
    }
    if (table) {
        print_heading(out,
                      "The pause, since QEMU stopped the guest, and what the link carried in it");
        terminal_table_print(table, out);
    }
}

/* --- what came of it --- */

static void add_prediction(struct terminal_table *table, const char *what, const json_t *predicted,
                           const char *most, const json_t *result, const char *name)
{
    char buffer[UNITS_TEXT_SIZE];

    terminal_table_cell(table, "%s", what);
    terminal_table_cell(table, "%s", time_of(buffer, predicted, name));
    terminal_table_cell(table, "%s", most);
    terminal_table_cell(table, "%s", time_of(buffer, result, name));
}

/* DECISION: the last one, which ended the rounds. */
static void print_predicted(FILE *out, const json_t *result, const json_t *decision)
{
    static const char *const headings[] = {"", "PREDICTED", "AT MOST", "MEASURED"};
    const json_t *predicted = json_object_get(result, "predicted");
    struct terminal_table *table;
    char most[UNITS_TEXT_SIZE];

    if (!predicted) {
        return;
    }
    table = terminal_table_new(4, headings);
    add_prediction(table, "downtime", predicted, time_of(most, decision, "longest_downtime_ms"),
                   result, "downtime_ms");
    add_prediction(table, "total time", predicted, "-", result, "total_ms");
    print_heading(out, "Predicted (the downtime when it began, the total when the first round had "
                       "ended) and measured");
    terminal_table_print(table, out);
}

static void print_moved(FILE *out, const json_t *result)
{
    const json_t *disk = json_object_get(result, "disk");
    const json_t *memory = json_object_get(result, "memory");
    char buffer[UNITS_TEXT_SIZE], wire[UNITS_TEXT_SIZE];
    uint64_t pages = bytes(memory, "pages"), zero = bytes(memory, "zero"),
             same = bytes(memory, "same"), delta = bytes(memory, "delta");

    print_heading(out, "Moved");
    if (disk && memory) {
        terminal_line(out, "  disks         %s in %llu passes, %s on the wire",
                      units_size(buffer, bytes(disk, "bytes")),
                      (unsigned long long)bytes(disk, "passes"),
                      units_size(wire, bytes(disk, "wire_bytes")));
        terminal_line(out, "  memory        %s in %llu rounds, %s on the wire",
                      units_size(buffer, bytes(memory, "bytes")),
                      (unsigned long long)bytes(memory, "rounds"),
                      units_size(wire, bytes(memory, "wire_bytes")));
        terminal_line(
            out,
            "  pages         %llu: %llu zero, %llu unchanged, %llu as a difference, "
            "%llu whole",
            (unsigned long long)pages, (unsigned long long)zero, (unsigned long long)same,
            (unsigned long long)delta,
            (unsigned long long)(pages > zero + same + delta ? pages - zero - same - delta : 0));
    }
    if (json_is_true(json_object_get(result, "resumed"))) {
        terminal_line(out, "  sent again    %s, after a lost link or mover",
                      units_size(buffer, bytes(result, "resent_bytes")));
    }
    terminal_line(out, "  all           %s on the wire",
                  units_size(buffer, bytes(result, "wire_bytes")));
}

static void print_end(FILE *out, const json_t *begin, const json_t *result)
{
    char text[2 * ERROR_TEXT_SIZE];

    print_heading(out, "How it ended");
    if (!result) {
        terminal_line(out,
                      "  No end is recorded: it goes on, or the record of it ended first. "
                      "Look with `watari status %s`",
                      word(begin, "id"));
        return;
    }
    if (strcmp(word(begin, "side"), "destination") == 0 &&
        strcmp(word(result, "result"), "done") == 0) {
        terminal_line(out, "  VM %s belongs to this host, %s.", word(begin, "vm"),
                      word(begin, "host"));
        return;
    }
    event_text_outcome(text, sizeof text, result);
    terminal_line(out, "  %s", text);
}

void report_text_print(FILE *out, const json_t *lines)
{
    const json_t *first = json_array_get(lines, 0);
    const json_t *result = last_of(lines, "result");

    print_head(out, first, last_of(lines, "vm"));
    print_story(out, lines);
    report_rounds_print(out, lines);
    print_pause(out, lines);
    if (result) {
        print_predicted(out, result, last_of(lines, "decision"));
        print_moved(out, result);
    }
    print_end(out, first, result);
}

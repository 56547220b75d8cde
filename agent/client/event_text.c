#include "event_text.h"

#include "terminal.h"
#include "agent/common/units.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct text {
    char *bytes;
    size_t size, used;
    size_t start; /* of a list of parts, behind the words before it */
};

static void add_list(struct text *text, const char *format, va_list arguments)
{
    int length = vsnprintf(text->bytes + text->used, text->size - text->used, format, arguments);

    if (length > 0) {
        text->used += (size_t)length;
    }
    if (text->used >= text->size) {
        text->used = text->size - 1;
    }
}

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *text, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    add_list(text, format, arguments);
    va_end(arguments);
}

/* One of several: with what stands between them. */
static void add_part(struct text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add_part(struct text *text, const char *format, ...)
{
    va_list arguments;

    if (text->used > 0) {
        add(text, text->used == text->start ? ": " : ", ");
    }
    va_start(arguments, format);
    add_list(text, format, arguments);
    va_end(arguments);
}

static const char *word(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* False when there is no such number. */
static bool number(const json_t *object, const char *name, double *out)
{
    const json_t *value = json_object_get(object, name);

    *out = json_number_value(value);
    return json_is_number(value);
}

static uint64_t bytes(const json_t *object, const char *name)
{
    double value = json_number_value(json_object_get(object, name));

    return value > 0 && value < 1e18 ? (uint64_t)value : 0;
}

/* "web1 disk-bulk" */
static void add_place(struct text *text, const json_t *event)
{
    const char *vm = word(event, "vm"), *phase = word(event, "phase");

    add(text, "%s%s%s", vm ? vm : "", vm && phase ? " " : "", phase ? phase : "");
}

static void add_disk(struct text *text, const json_t *disk)
{
    char done[UNITS_TEXT_SIZE], total[UNITS_TEXT_SIZE];
    uint64_t pass = bytes(disk, "pass");

    if (bytes(disk, "total") == 0) {
        return;
    }
    if (pass > 0) {
        add_part(text, "disk %s left (pass %llu)", units_size(done, bytes(disk, "left")),
                 (unsigned long long)pass);
    } else {
        add_part(text, "disk %s of %s", units_size(done, bytes(disk, "done")),
                 units_size(total, bytes(disk, "total")));
    }
    if (bytes(disk, "uncompared") > 0) {
        add_part(text, "%s to be compared", units_size(done, bytes(disk, "uncompared")));
    }
}

static void add_memory(struct text *text, const json_t *memory)
{
    char left[UNITS_TEXT_SIZE], rate[UNITS_TEXT_SIZE];
    uint64_t round = bytes(memory, "round");

    if (round > 0) {
        add_part(text, "memory %s left (round %llu, %s dirtied)",
                 units_size(left, bytes(memory, "left")), (unsigned long long)round,
                 units_rate(rate, bytes(memory, "dirty_rate")));
    }
}

void event_text_progress(char *out, size_t size, const json_t *event)
{
    struct text text = {out, size, 0, 0};
    char buffer[UNITS_TEXT_SIZE];
    double value;

    *out = '\0';
    add_place(&text, event);
    text.start = text.used;
    /* What matters most comes first: a narrow terminal shows the beginning. */
    if (number(event, "eta_ms", &value)) {
        add_part(&text, "%s to go", units_time(buffer, value));
    }
    if (number(event, "predicted_downtime_ms", &value)) {
        add_part(&text, "predicted downtime %s", units_time(buffer, value));
    }
    if (number(event, "wire_rate", &value)) {
        add_part(&text, "%s", units_rate(buffer, bytes(event, "wire_rate")));
    }
    add_memory(&text, json_object_get(event, "memory"));
    add_disk(&text, json_object_get(event, "disk"));
}

void event_text_notice(char *out, size_t size, const json_t *event)
{
    struct text text = {out, size, 0, 0};
    const char *name = word(event, "event"), *said = word(event, "text");

    *out = '\0';
    add_place(&text, event);
    if (name && strcmp(name, "phase") != 0) {
        add(&text, "%s%s", text.used ? " " : "", name);
    }
    if (said && *said) {
        add(&text, "%s%s", text.used ? ": " : "", said);
    }
}

static void add_downtime(struct text *text, const json_t *result)
{
    char buffer[UNITS_TEXT_SIZE];
    double downtime, error;

    if (!number(result, "downtime_ms", &downtime)) {
        add(text, "not known");
        return;
    }
    add(text, "%s", units_time(buffer, downtime));
    if (number(result, "downtime_error_ms", &error)) {
        add(text, " \u00b1 %s", units_time(buffer, error));
    }
}

static void add_done(struct text *text, const json_t *result)
{
    const json_t *where = json_object_get(result, "where");
    const char *vm = word(result, "vm"), *host = word(where, "host");
    double value;

    add(text, "VM %s runs on %s now", vm ? vm : "?", host ? host : "the destination");
    if (number(where, "pid", &value)) {
        add(text, " (pid %.0f)", value);
    }
    if (number(result, "downtime_ms", &value)) {
        add(text, "; it stood still for ");
        add_downtime(text, result);
    }
    add(text, ".");
}

void event_text_outcome(char *out, size_t size, const json_t *result)
{
    struct text text = {out, size, 0, 0};
    const char *outcome = word(result, "result"), *vm = word(result, "vm");
    const char *said = word(json_object_get(result, "error"), "text");

    *out = '\0';
    if (outcome && strcmp(outcome, "done") == 0) {
        add_done(&text, result);
    } else if (said && *said) {
        add(&text, "%s", said);
    } else if (outcome && strcmp(outcome, "cancelled") == 0) {
        add(&text, "The migration of VM %s was cancelled; it runs at the source as before.",
            vm ? vm : "?");
    } else {
        const char *reason = word(result, "reason"), *id = word(result, "id");

        add(&text, "Migration %s of VM %s ended: %s (%s).", id ? id : "?", vm ? vm : "?",
            outcome ? outcome : "no result", reason ? reason : "no reason given");
    }
}

static void print_moved(FILE *out, const json_t *result)
{
    const json_t *disk = json_object_get(result, "disk");
    const json_t *memory = json_object_get(result, "memory");
    char all[UNITS_TEXT_SIZE], disk_part[UNITS_TEXT_SIZE], memory_part[UNITS_TEXT_SIZE];
    uint64_t disk_bytes = bytes(disk, "bytes"), memory_bytes = bytes(memory, "bytes");

    terminal_line(out, "  moved         %s: disk %s in %llu passes, memory %s in %llu rounds",
                  units_size(all, disk_bytes + memory_bytes), units_size(disk_part, disk_bytes),
                  (unsigned long long)bytes(disk, "passes"), units_size(memory_part, memory_bytes),
                  (unsigned long long)bytes(memory, "rounds"));
}

static void print_wire(FILE *out, const json_t *result)
{
    uint64_t moved = bytes(json_object_get(result, "disk"), "bytes") +
                     bytes(json_object_get(result, "memory"), "bytes");
    uint64_t wire = bytes(result, "wire_bytes");
    char buffer[UNITS_TEXT_SIZE];

    if (wire > 0) {
        terminal_line(out, "  on the wire   %s, ratio %.2f", units_size(buffer, wire),
                      (double)moved / (double)wire);
    }
}

static const char *yes_no(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return json_is_true(value) ? "yes" : json_is_false(value) ? "NO" : "not asked for";
}

static void print_predicted(FILE *out, const json_t *predicted)
{
    char total[UNITS_TEXT_SIZE], downtime[UNITS_TEXT_SIZE];
    double total_ms, downtime_ms;

    if (number(predicted, "total_ms", &total_ms) &&
        number(predicted, "downtime_ms", &downtime_ms)) {
        terminal_line(out, "  predicted     total %s, downtime %s", units_time(total, total_ms),
                      units_time(downtime, downtime_ms));
    }
}

static void print_place(FILE *out, const json_t *where)
{
    const char *qmp = word(where, "qmp"), *log = word(where, "log");
    const json_t *disks = json_object_get(where, "disks");
    const json_t *entry;
    size_t index;

    json_array_foreach(disks, index, entry)
    {
        const char *path = json_string_value(entry);

        path = path ? path : word(entry, "path");
        if (path) {
            terminal_line(out, "  disk there    %s", path);
        }
    }
    if (qmp) {
        terminal_line(out, "  QMP there     %s", qmp);
    }
    if (log) {
        terminal_line(out, "  log there     %s", log);
    }
}

void event_text_figures(FILE *out, const json_t *result)
{
    const json_t *verified = json_object_get(result, "verified");
    char line[128] = "", buffer[UNITS_TEXT_SIZE];
    struct text text = {line, sizeof line, 0, 0};
    double total;

    if (number(result, "total_ms", &total)) {
        terminal_line(out, "  total time    %s", units_time(buffer, total));
    }
    add_downtime(&text, result);
    terminal_line(out, "  downtime      %s", line);
    print_predicted(out, json_object_get(result, "predicted"));
    print_moved(out, result);
    print_wire(out, result);
    if (json_is_true(json_object_get(result, "resumed"))) {
        terminal_line(out, "  resumed       after a lost link, %s sent again",
                      units_size(buffer, bytes(result, "resent_bytes")));
    }
    terminal_line(out, "  verified      memory: %s, disk: %s", yes_no(verified, "memory"),
                  yes_no(verified, "disk"));
    print_place(out, json_object_get(result, "where"));
}

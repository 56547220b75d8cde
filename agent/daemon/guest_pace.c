#include "guest_pace.h"

#include "clock.h"
#include "qmp.h"

#include "agent/common/must.h"

#include <stdlib.h>
#include <string.h>

/* QEMU takes whole seconds only. */
static const uint32_t periods_s[] = {1, 2, 4};
#define PERIOD_COUNT (sizeof periods_s / sizeof *periods_s)
/* After a period QEMU still has to hash its samples once more. */
#define ASK_AGAIN_MS 50
#define LATE_MS 10000
/* Samples in all that are wanted: 1 % of memory shows as some 80 of them. QEMU takes so many for each GiB, within its limits. */
#define SAMPLES_WANTED 8192u
#define SAMPLES_MIN 128u
#define SAMPLES_MAX 16384u
/* QEMU gives the rate in whole MiB/s, rounded down. */
#define RATE_UNIT 1048576.0

struct guest_pace {
    struct qmp *qmp;
    const struct inspection *inspection;
    guest_pace_callback callback;
    void *context;
    struct event *timer;
    uint64_t period_began_ns;
    uint64_t disks_began_ns, written_before;
    struct guest_pace_result result;
};

static void end(struct guest_pace *pace)
{
    guest_pace_callback callback = pace->callback;
    void *context = pace->context;
    struct guest_pace_result result = pace->result;

    guest_pace_free(pace);
    callback(&result, context);
}

static bool is_carried(const struct inspection *inspection, const char *qdev)
{
    for (size_t i = 0; qdev && i < inspection->disk_count; i++) {
        if (strcmp(inspection->disks[i].qdev, qdev) == 0) {
            return !inspection->disks[i].read_only;
        }
    }
    return false;
}

static uint64_t written(const struct guest_pace *pace, const json_t *statistics)
{
    uint64_t bytes = 0;
    const json_t *device;
    size_t i;

    json_array_foreach(statistics, i, device)
    {
        if (is_carried(pace->inspection, json_string_value(json_object_get(device, "qdev")))) {
            bytes += (uint64_t)json_integer_value(
                json_object_get(json_object_get(device, "stats"), "wr_bytes"));
        }
    }
    return bytes;
}

static void fail(struct guest_pace *pace, const struct error *error)
{
    if (!error_is_set(&pace->result.error)) {
        pace->result.error = *error;
    }
}

/* --- the end: what was written meanwhile --- */

static void on_statistics_after(json_t *value, const struct error *error, void *context)
{
    struct guest_pace *pace = context;
    uint64_t ns = clock_monotonic_ns() - pace->disks_began_ns;
    uint64_t now;

    if (error) {
        fail(pace, error);
    } else {
        now = written(pace, value);
        if (now > pace->written_before && ns > 0) {
            pace->result.disk_write_rate =
                (uint64_t)((double)(now - pace->written_before) * 1e9 / (double)ns);
        }
    }
    end(pace);
}

static void ask_statistics(struct guest_pace *pace)
{
    qmp_execute(pace->qmp, "query-blockstats", NULL, -1, on_statistics_after, pace);
}

/* --- periods --- */

static void begin_period(struct guest_pace *pace);

static void note_period(struct guest_pace *pace, int64_t rate)
{
    uint32_t seconds = periods_s[pace->result.dirty_count];
    struct plan_dirty *dirty = &pace->result.dirty[pace->result.dirty_count++];

    dirty->ms = seconds * 1000;
    dirty->bytes = rate > 0 ? (uint64_t)(((double)rate + 0.5) * RATE_UNIT * seconds) : 0;
    if (pace->result.dirty_count < PERIOD_COUNT) {
        begin_period(pace);
    } else {
        ask_statistics(pace);
    }
}

static void on_rate(json_t *value, const struct error *error, void *context)
{
    struct guest_pace *pace = context;
    const char *status = json_string_value(json_object_get(value, "status"));
    uint64_t ms = (clock_monotonic_ns() - pace->period_began_ns) / 1000000;
    struct error own;

    if (error) {
        fail(pace, error);
        ask_statistics(pace);
    } else if (status && strcmp(status, "measured") == 0) {
        note_period(pace, json_integer_value(json_object_get(value, "dirty-rate")));
    } else if (ms < periods_s[pace->result.dirty_count] * 1000 + LATE_MS) {
        event_add(pace->timer, &(struct timeval){0, ASK_AGAIN_MS * 1000});
    } else {
        error_set(&own, "dirty-rate", "QEMU does not come to an end measuring its dirty rate");
        fail(pace, &own);
        ask_statistics(pace);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct guest_pace *pace = context;

    (void)fd;
    (void)what;
    qmp_execute(pace->qmp, "query-dirty-rate", NULL, -1, on_rate, pace);
}

static void on_period_began(json_t *value, const struct error *error, void *context)
{
    struct guest_pace *pace = context;

    (void)value;
    if (error) {
        fail(pace, error); /* too old a QEMU, or somebody else measures */
        ask_statistics(pace);
        return;
    }
    pace->period_began_ns = clock_monotonic_ns();
    event_add(pace->timer, &(struct timeval){periods_s[pace->result.dirty_count], 0});
}

static uint32_t samples(const struct inspection *inspection)
{
    uint64_t wanted = inspection->memory_bytes
                          ? ((uint64_t)SAMPLES_WANTED << 30) / inspection->memory_bytes
                          : SAMPLES_MAX;

    return wanted < SAMPLES_MIN   ? SAMPLES_MIN
           : wanted > SAMPLES_MAX ? SAMPLES_MAX
                                  : (uint32_t)wanted;
}

static void begin_period(struct guest_pace *pace)
{
    qmp_execute(pace->qmp, "calc-dirty-rate",
                must_json(json_pack("{si,si,ss}", "calc-time",
                                    (int)periods_s[pace->result.dirty_count], "sample-pages",
                                    (int)samples(pace->inspection), "mode", "page-sampling")),
                -1, on_period_began, pace);
}

static void on_statistics_before(json_t *value, const struct error *error, void *context)
{
    struct guest_pace *pace = context;

    if (error) {
        fail(pace, error);
        end(pace);
        return;
    }
    pace->written_before = written(pace, value);
    pace->disks_began_ns = clock_monotonic_ns();
    begin_period(pace);
}

struct guest_pace *guest_pace_start(struct event_base *base, struct qmp *qmp,
                                    const struct inspection *inspection,
                                    guest_pace_callback callback, void *context)
{
    struct guest_pace *pace = must_alloc(sizeof *pace);

    pace->qmp = qmp;
    pace->inspection = inspection;
    pace->callback = callback;
    pace->context = context;
    pace->timer = evtimer_new(base, on_timer, pace);
    qmp_execute(qmp, "query-blockstats", NULL, -1, on_statistics_before, pace);
    return pace;
}

void guest_pace_free(struct guest_pace *pace)
{
    if (pace) {
        qmp_forget(pace->qmp, pace);
        event_free(pace->timer);
        free(pace);
    }
}

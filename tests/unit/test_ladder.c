/*
 * Whole migrations of guests that never were, from round 1 to the verdict: thousands of them, of every kind. Whatever the guest does, the
 * ladder ends, is climbed in order and never down, and no pause is begun that would take longer than was allowed.
 */
#include "agent/policy/convergence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MB 1e6
#define TICK_MS 50
/* Four hours without a verdict are for ever. */
#define TICKS_MAX (4 * 3600 * 1000 / TICK_MS)
#define MIGRATIONS 4000

/* Writes over WORKING_SET again and again, in order, at WRITE_RATE; so much of it is done by the vCPU that a throttle slows it down. */
struct guest {
    double memory, working_set, write_rate;
    double disk_rate;
    double memory_goodput, disk_goodput;
    uint32_t fixed_ms;
};

struct qemu {
    double left;      /* as QEMU knows */
    double dirty;     /* since it last looked */
    double disk_left; /* in the bitmap */
    double pass_left; /* of the running pass */
    uint64_t round, ms, round_ms, counted_ms;
    double counted_rate;
    uint32_t throttle, asked, high_count;
    double disk_limit;
};

struct outcome {
    enum convergence_verdict verdict;
    double pause_ms; /* as it really would be */
    uint64_t ms;
    unsigned cpu_steps, disk_steps;
};

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

static void look(struct qemu *qemu)
{
    qemu->left += qemu->dirty;
    if (qemu->ms > qemu->counted_ms + 1000) {
        qemu->counted_rate = qemu->dirty * 1000 / (double)(qemu->ms - qemu->counted_ms);
        qemu->counted_ms = qemu->ms;
        if (qemu->asked && ++qemu->high_count >= 2) {
            qemu->high_count = 0;
            qemu->throttle = qemu->asked;
        }
    }
    qemu->dirty = 0;
    qemu->round++;
    qemu->round_ms = qemu->ms;
}

static void tick(const struct guest *guest, struct qemu *qemu)
{
    double seconds = TICK_MS / 1000.0, running = 1 - qemu->throttle / 100.0;
    double written = guest->disk_rate * running;
    double carried = qemu->pass_left > 0 ? 0.5 : 1;

    qemu->ms += TICK_MS;
    qemu->dirty = smaller(qemu->dirty + guest->write_rate * running * seconds, guest->working_set);
    qemu->disk_left +=
        (qemu->disk_limit > 0 ? smaller(written, qemu->disk_limit) : written) * seconds;
    qemu->pass_left -= guest->disk_goodput * (1 - carried) * seconds;
    qemu->left -= guest->memory_goodput * carried * seconds;
    if (qemu->left <= 0) {
        qemu->left = 0;
        look(qemu);
    }
}

static struct convergence_sample sample_of(const struct guest *guest, const struct qemu *qemu)
{
    return (struct convergence_sample){
        .now_ms = 1000000 + qemu->ms,
        .elapsed_ms = qemu->ms,
        .round = qemu->round,
        .memory_left = (uint64_t)qemu->left,
        .memory_dirty_rate = (uint64_t)qemu->counted_rate,
        .memory_rate = (uint64_t)guest->memory_goodput,
        .disk_left = (uint64_t)qemu->disk_left,
        .disk_rate = (uint64_t)guest->disk_goodput,
        .fixed_ms = guest->fixed_ms,
        .pass_running = qemu->pass_left > 0,
        .pass_left = qemu->pass_left > 0 ? (uint64_t)qemu->pass_left : 0,
        .cpu_throttle = qemu->throttle,
    };
}

static double real_pause(const struct guest *guest, const struct qemu *qemu)
{
    return (qemu->left + qemu->dirty) * 1000 / guest->memory_goodput +
           (qemu->disk_left + (qemu->pass_left > 0 ? qemu->pass_left : 0)) * 1000 /
               guest->disk_goodput +
           guest->fixed_ms;
}

/* One step up, and none that is allowed left out. */
static void check_step(const struct convergence *convergence, enum convergence_verdict verdict,
                       uint32_t cpu_before, uint32_t disk_before)
{
    const struct convergence_limits *limits = &convergence->limits;

    if (verdict == CONVERGENCE_THROTTLE_CPUS) {
        assert_true(convergence->cpu_throttle > cpu_before);
        assert_true(convergence->cpu_throttle <= cpu_before + 20);
    } else if (verdict == CONVERGENCE_THROTTLE_DISKS) {
        assert_true(convergence->disk_throttle > disk_before);
        assert_true(limits->can_throttle_disks && convergence->disk_limit > 0);
    } else {
        assert_int_equal(convergence->cpu_throttle, cpu_before);
        assert_int_equal(convergence->disk_throttle, disk_before);
    }
    assert_true(convergence->cpu_throttle <= limits->max_throttle);
    assert_true(convergence->disk_throttle <= limits->max_throttle);
    assert_true(convergence->cpu_throttle == 0 || limits->can_throttle_cpus);
    assert_true(verdict == CONVERGENCE_GO_ON || convergence->reason[0] != '\0');
}

static struct outcome migrate(const struct guest *guest, struct convergence *convergence)
{
    struct qemu qemu = {.left = guest->memory, .round = 1};
    struct outcome outcome = {.verdict = CONVERGENCE_GO_ON};

    for (unsigned i = 0; i < TICKS_MAX; i++) {
        struct convergence_sample sample;
        uint32_t cpu = convergence->cpu_throttle, disk = convergence->disk_throttle;

        tick(guest, &qemu);
        sample = sample_of(guest, &qemu);
        outcome.verdict = convergence_step(convergence, &sample);
        outcome.pause_ms = real_pause(guest, &qemu);
        outcome.ms = qemu.ms;
        check_step(convergence, outcome.verdict, cpu, disk);
        switch (outcome.verdict) {
        case CONVERGENCE_THROTTLE_CPUS:
            qemu.asked = convergence->cpu_throttle;
            outcome.cpu_steps++;
            break;
        case CONVERGENCE_THROTTLE_DISKS:
            qemu.disk_limit = convergence->disk_limit;
            outcome.disk_steps++;
            break;
        case CONVERGENCE_SWITCH_OVER:
        case CONVERGENCE_FALL_BACK:
        case CONVERGENCE_GIVE_UP:
            return outcome;
        case CONVERGENCE_GO_ON:
        case CONVERGENCE_WAIT:
            break;
        }
        if (outcome.verdict != CONVERGENCE_WAIT && qemu.pass_left <= 0 && qemu.disk_left > MB) {
            qemu.pass_left = qemu.disk_left;
            qemu.disk_left = 0;
        }
    }
    return outcome;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double between(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(next_random(state) % 1000000) / 1e6;
}

static struct guest some_guest(uint64_t *state)
{
    struct guest guest = {.memory = between(state, 10 * MB, 2000 * MB),
                          .write_rate = between(state, 0, 100 * MB),
                          .disk_rate = between(state, 0, 20 * MB),
                          .memory_goodput = between(state, 5 * MB, 100 * MB),
                          .fixed_ms = (uint32_t)between(state, 0, 400)};

    guest.working_set = between(state, 0, guest.memory);
    guest.disk_goodput = between(state, 3 * MB, guest.memory_goodput + 2 * MB);
    guest.write_rate *= (double)(next_random(state) % 3 > 0);
    guest.disk_rate *= (double)(next_random(state) % 2);
    return guest;
}

static struct convergence some_policy(uint64_t *state)
{
    struct convergence_limits limits = {
        .mode = (enum convergence_mode)(next_random(state) % 3),
        .max_downtime_ms = (uint32_t)between(state, 50, 1000),
        .max_quick_downtime_ms = (uint32_t)between(state, 1000, 60000),
        .max_throttle = (uint32_t)(next_random(state) % 2 * (next_random(state) % 100)),
        .deadline_ms = next_random(state) % 3 ? 0 : (uint32_t)between(state, 5000, 300000),
    };
    struct convergence convergence;

    limits.can_throttle_cpus =
        limits.max_throttle > 0 && limits.mode != CONVERGENCE_QUICK && next_random(state) % 4 > 0;
    limits.can_throttle_disks = limits.max_throttle > 0 && next_random(state) % 4 > 0;
    convergence_init(&convergence, &limits);
    return convergence;
}

/* What a pause may take: the model's guest is seen every TICK_MS only, and a new throttle changes its pace. */
static void check_pause(const struct convergence *convergence, const struct outcome *outcome,
                        uint32_t limit)
{
    assert_true(convergence->predicted_downtime_ms <= limit);
    if (outcome->pause_ms > limit * 1.25 + 4 * TICK_MS) {
        fail_msg("a pause of %.0f ms, %u ms predicted, %u ms allowed", outcome->pause_ms,
                 convergence->predicted_downtime_ms, limit);
    }
}

static void check_end(const struct convergence *convergence, const struct outcome *outcome)
{
    const struct convergence_limits *limits = &convergence->limits;
    bool can_help = convergence->forecast.last.fixed_ms < limits->max_downtime_ms;
    bool is_quick = limits->mode == CONVERGENCE_QUICK;

    switch (outcome->verdict) {
    case CONVERGENCE_SWITCH_OVER:
        check_pause(convergence, outcome,
                    is_quick ? limits->max_quick_downtime_ms : limits->max_downtime_ms);
        return;
    case CONVERGENCE_FALL_BACK:
        assert_int_equal(limits->mode, CONVERGENCE_AUTO);
        check_pause(convergence, outcome, limits->max_quick_downtime_ms);
        break;
    case CONVERGENCE_GIVE_UP:
        assert_true(convergence->missed_deadline ||
                    convergence->longest_downtime_ms > (limits->mode == CONVERGENCE_LIVE
                                                            ? limits->max_downtime_ms
                                                            : limits->max_quick_downtime_ms));
        break;
    default:
        fail_msg("no verdict within four hours: mode %d, pause %u ms", (int)limits->mode,
                 convergence->predicted_downtime_ms);
    }
    /* The cheaper ways were gone, unless time ran out. */
    if (limits->deadline_ms == 0 && limits->can_throttle_cpus && can_help) {
        assert_int_equal(convergence->cpu_throttle, limits->max_throttle);
    }
    if (limits->deadline_ms > 0) {
        assert_true(outcome->ms <= limits->deadline_ms + TICK_MS);
    }
}

static void every_migration_ends_within_its_limits(void **state)
{
    uint64_t random = 0x9e3779b97f4a7c15;
    unsigned ends[CONVERGENCE_GIVE_UP + 1] = {0}, throttled = 0, missed = 0;

    (void)state;
    for (int i = 0; i < MIGRATIONS; i++) {
        struct guest guest = some_guest(&random);
        struct convergence convergence = some_policy(&random);
        struct outcome outcome = migrate(&guest, &convergence);

        check_end(&convergence, &outcome);
        ends[outcome.verdict]++;
        throttled += outcome.cpu_steps + outcome.disk_steps > 0;
        missed += convergence.missed_deadline;
    }
    /* All kinds of ends are among them. */
    assert_true(ends[CONVERGENCE_SWITCH_OVER] > 100 && ends[CONVERGENCE_FALL_BACK] > 100 &&
                ends[CONVERGENCE_GIVE_UP] > 100 && throttled > 100 && missed > 100);
}

/* 100 MB written over and over at 60 MB/s, 40 MB/s leave. */
static struct guest busy(void)
{
    return (struct guest){.memory = 400 * MB,
                          .working_set = 100 * MB,
                          .write_rate = 60 * MB,
                          .memory_goodput = 40 * MB,
                          .disk_goodput = 20 * MB,
                          .fixed_ms = 50};
}

static struct convergence policy(enum convergence_mode mode, uint32_t max_throttle)
{
    struct convergence convergence;

    convergence_init(&convergence, &(struct convergence_limits){
                                       .mode = mode,
                                       .max_downtime_ms = 300,
                                       .max_quick_downtime_ms = 30000,
                                       .max_throttle = max_throttle,
                                       .can_throttle_cpus = max_throttle > 0,
                                       .can_throttle_disks = max_throttle > 0,
                                   });
    return convergence;
}

static void a_throttled_guest_goes_live(void **state)
{
    struct convergence automatic = policy(CONVERGENCE_AUTO, 80);
    struct guest guest = busy();
    struct outcome outcome = migrate(&guest, &automatic);

    (void)state;
    assert_int_equal(outcome.verdict, CONVERGENCE_SWITCH_OVER);
    assert_in_range(outcome.cpu_steps, 1, 3);
    assert_int_equal(outcome.disk_steps, 0);
}

static void without_a_throttle_it_goes_quick(void **state)
{
    struct convergence automatic = policy(CONVERGENCE_AUTO, 0);
    struct guest guest = busy();
    struct outcome outcome = migrate(&guest, &automatic);

    (void)state;
    assert_int_equal(outcome.verdict, CONVERGENCE_FALL_BACK);
    assert_true(outcome.pause_ms < 3000);
}

static void a_storm_of_disk_writes_is_throttled_before_the_vcpus(void **state)
{
    struct convergence live = policy(CONVERGENCE_LIVE, 90);
    struct guest guest = busy();
    struct outcome outcome;

    (void)state;
    guest.write_rate = MB;
    guest.disk_rate = 15 * MB;
    outcome = migrate(&guest, &live);
    assert_int_equal(outcome.verdict, CONVERGENCE_SWITCH_OVER);
    assert_true(outcome.disk_steps > 0);
    assert_int_equal(outcome.cpu_steps, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_migration_ends_within_its_limits),
        cmocka_unit_test(a_throttled_guest_goes_live),
        cmocka_unit_test(without_a_throttle_it_goes_quick),
        cmocka_unit_test(a_storm_of_disk_writes_is_throttled_before_the_vcpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

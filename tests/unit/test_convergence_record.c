/* Behaviours of agent/policy/convergence_record.c: what the controller saw can be had back from a timeline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/policy/convergence_record.h"

static const struct convergence_sample sample = {
    .now_ms = 1,
    .elapsed_ms = 2,
    .round = 3,
    .memory_left = 4,
    .memory_dirty_rate = 5,
    .in_flight = UINT64_C(6) << 40,
    .in_flight_ms = 15,
    .memory_rate = 7,
    .memory_rate_least = 8,
    .disk_left = 9,
    .disk_rate = 10,
    .pass_ms = UINT32_MAX,
    .fixed_ms = 12,
    .pass_running = true,
    .pass_left = 13,
    .cpu_throttle = 14,
};

static const struct convergence_limits limits = {
    .mode = CONVERGENCE_QUICK,
    .max_downtime_ms = 1,
    .max_quick_downtime_ms = 2,
    .deadline_ms = 3,
    .max_throttle = 4,
    .can_throttle_disks = true,
    .can_throttle_cpus = true,
};

/* Members, one by one: between them are bytes that belong to none. */
static void expect_sample(const struct convergence_sample *read)
{
    assert_int_equal(read->now_ms, sample.now_ms);
    assert_int_equal(read->elapsed_ms, sample.elapsed_ms);
    assert_int_equal(read->round, sample.round);
    assert_int_equal(read->memory_left, sample.memory_left);
    assert_int_equal(read->memory_dirty_rate, sample.memory_dirty_rate);
    assert_int_equal(read->in_flight, sample.in_flight);
    assert_int_equal(read->in_flight_ms, sample.in_flight_ms);
    assert_int_equal(read->memory_rate, sample.memory_rate);
    assert_int_equal(read->memory_rate_least, sample.memory_rate_least);
    assert_int_equal(read->disk_left, sample.disk_left);
    assert_int_equal(read->disk_rate, sample.disk_rate);
    assert_int_equal(read->pass_ms, sample.pass_ms);
    assert_int_equal(read->fixed_ms, sample.fixed_ms);
    assert_int_equal(read->pass_running, sample.pass_running);
    assert_int_equal(read->pass_left, sample.pass_left);
    assert_int_equal(read->cpu_throttle, sample.cpu_throttle);
}

static void a_sample_is_read_as_it_was_written(void **state)
{
    json_t *record = convergence_sample_record(&sample);
    struct convergence_sample read;

    (void)state;
    assert_non_null(record);
    assert_true(convergence_sample_of(record, &read));
    expect_sample(&read);
    json_decref(record);
}

static void limits_are_read_as_they_were_written(void **state)
{
    json_t *record = convergence_limits_record(&limits);
    struct convergence_limits read;

    (void)state;
    assert_non_null(record);
    assert_true(convergence_limits_of(record, &read));
    assert_int_equal(read.mode, limits.mode);
    assert_int_equal(read.max_downtime_ms, limits.max_downtime_ms);
    assert_int_equal(read.max_quick_downtime_ms, limits.max_quick_downtime_ms);
    assert_int_equal(read.deadline_ms, limits.deadline_ms);
    assert_int_equal(read.max_throttle, limits.max_throttle);
    assert_true(read.can_throttle_disks && read.can_throttle_cpus);
    json_decref(record);
}

static void what_a_record_has_not_is_nothing(void **state)
{
    json_t *record = json_pack("{sI}", "round", (json_int_t)7);
    struct convergence_sample read;

    (void)state;
    assert_true(convergence_sample_of(record, &read));
    assert_int_equal(read.round, 7);
    assert_int_equal(read.memory_left, 0);
    assert_false(read.pass_running);
    json_decref(record);
}

static void expect_refused(const char *name, json_t *value)
{
    json_t *record = json_pack("{so}", name, value);
    struct convergence_sample read;
    struct convergence_limits read_limits;

    assert_non_null(record);
    assert_false(convergence_sample_of(record, &read) &&
                 convergence_limits_of(record, &read_limits));
    json_decref(record);
}

static void what_is_not_of_its_kind_is_refused(void **state)
{
    (void)state;
    expect_refused("round", json_string("3"));
    expect_refused("round", json_integer(-1));
    expect_refused("round", json_real(1.5));
    expect_refused("pass_ms", json_integer((json_int_t)UINT32_MAX + 1));
    expect_refused("pass_running", json_integer(1));
    expect_refused("mode", json_string("slow"));
    expect_refused("mode", json_integer(1));
}

static void verdicts_have_names(void **state)
{
    enum convergence_verdict read;

    (void)state;
    for (int verdict = CONVERGENCE_GO_ON; verdict <= CONVERGENCE_GIVE_UP; verdict++) {
        assert_true(convergence_verdict_of(
            convergence_verdict_name((enum convergence_verdict)verdict), &read));
        assert_int_equal(read, verdict);
    }
    assert_false(convergence_verdict_of("surrender", &read));
    assert_false(convergence_verdict_of(NULL, &read));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_is_read_as_it_was_written),
        cmocka_unit_test(limits_are_read_as_they_were_written),
        cmocka_unit_test(what_a_record_has_not_is_nothing),
        cmocka_unit_test(what_is_not_of_its_kind_is_refused),
        cmocka_unit_test(verdicts_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Behaviours of agent/policy/page_budget.c and agent/daemon/host_memory.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/daemon/host_memory.h"
#include "agent/policy/page_budget.h"

#define GIB (UINT64_C(1) << 30)

static void auto_takes_a_share_of_the_guest_and_of_what_is_free(void **state)
{
    (void)state;
    assert_int_equal(page_budget(PAGE_BUDGET_AUTO, 8 * GIB, 100 * GIB), GIB);
    assert_int_equal(page_budget(PAGE_BUDGET_AUTO, 8 * GIB, 2 * GIB), GIB / 2);
    assert_int_equal(page_budget(PAGE_BUDGET_AUTO, 8 * GIB, 0), 0);
}

static void a_size_is_obeyed_as_far_as_there_is_memory(void **state)
{
    (void)state;
    assert_int_equal(page_budget(3 * GIB, GIB, 100 * GIB), 3 * GIB);
    assert_int_equal(page_budget(3 * GIB, 100 * GIB, 2 * GIB), 2 * GIB);
    assert_int_equal(page_budget(0, 8 * GIB, 100 * GIB), 0);
}

static void what_is_available_is_read(void **state)
{
    uint64_t bytes = 7;

    (void)state;
    assert_true(host_memory_parse(
        "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:     4096 kB\nBuffers: 9 kB\n",
        &bytes));
    assert_int_equal(bytes, 4096 << 10);
    assert_false(host_memory_parse("", &bytes));
    assert_false(host_memory_parse("MemTotal:       16384 kB\nMemFree:  1 kB\n", &bytes));
    assert_false(host_memory_parse("MemFree: 1 kB\nMemAvailable: much\n", &bytes));
    assert_false(
        host_memory_parse("MemFree: 1 kB\nMemAvailable: 18446744073709551615 kB\n", &bytes));
    assert_true(host_memory_available() > 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_takes_a_share_of_the_guest_and_of_what_is_free),
        cmocka_unit_test(a_size_is_obeyed_as_far_as_there_is_memory),
        cmocka_unit_test(what_is_available_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

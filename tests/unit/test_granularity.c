/* What one bit of a dirty bitmap stands for. */
#include "agent/policy/granularity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define TIB (1ull << 40)

static void as_fine_as_guests_write_up_to_the_budget(void **state)
{
    (void)state;
    assert_int_equal(granularity_of(0), 4096);
    assert_int_equal(granularity_of(512), 4096);
    assert_int_equal(granularity_of(TIB), 4096);
}

static void coarser_by_powers_of_two_beyond_it(void **state)
{
    (void)state;
    assert_int_equal(granularity_of(TIB + 4096), 8192);
    assert_int_equal(granularity_of(2 * TIB), 8192);
    assert_int_equal(granularity_of(64 * TIB), 256 << 10);
    assert_int_equal(granularity_of(INT64_MAX), 64ull << 29);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_fine_as_guests_write_up_to_the_budget),
        cmocka_unit_test(coarser_by_powers_of_two_beyond_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

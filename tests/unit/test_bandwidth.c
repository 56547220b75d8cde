/* Limits of bandwidth, and how one is shared. */
#include "agent/policy/bandwidth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define MB 1000000u

static void from_a_megabit_on_it_is_a_limit(void **state)
{
    (void)state;
    assert_false(bandwidth_is_limit(BANDWIDTH_NO_LIMIT));
    assert_false(bandwidth_is_limit(BANDWIDTH_MIN - 1));
    assert_true(bandwidth_is_limit(BANDWIDTH_MIN));
    assert_true(bandwidth_is_limit(BANDWIDTH_MAX));
    assert_false(bandwidth_is_limit(BANDWIDTH_MAX + 1ull));
}

static void no_limit_is_higher_than_any(void **state)
{
    (void)state;
    assert_int_equal(bandwidth_lower(0, 0), 0);
    assert_int_equal(bandwidth_lower(0, MB), MB);
    assert_int_equal(bandwidth_lower(MB, 0), MB);
    assert_int_equal(bandwidth_lower(2 * MB, MB), MB);
}

static void each_gets_as_much(void **state)
{
    static const uint64_t own[] = {0, 0, 0, 0};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(bandwidth_share(100 * MB, own, 4, i), 25 * MB);
    }
    assert_int_equal(bandwidth_share(100 * MB, own, 1, 0), 100 * MB);
}

static void what_one_may_not_use_is_for_the_others(void **state)
{
    static const uint64_t own[] = {10 * MB, 0, 40 * MB, 0};

    (void)state;
    assert_int_equal(bandwidth_share(100 * MB, own, 4, 0), 10 * MB);
    assert_int_equal(bandwidth_share(100 * MB, own, 4, 1), 30 * MB);
    assert_int_equal(bandwidth_share(100 * MB, own, 4, 2), 30 * MB);
    /* More to share: 40 is below the fair part only now. */
    assert_int_equal(bandwidth_share(160 * MB, own, 4, 1), 55 * MB);
    assert_int_equal(bandwidth_share(160 * MB, own, 4, 2), 40 * MB);
}

static void all_that_ask_for_little_get_that(void **state)
{
    static const uint64_t own[] = {10 * MB, 20 * MB};

    (void)state;
    assert_int_equal(bandwidth_share(100 * MB, own, 2, 0), 10 * MB);
    assert_int_equal(bandwidth_share(100 * MB, own, 2, 1), 20 * MB);
}

static void without_a_limit_each_has_its_own(void **state)
{
    static const uint64_t own[] = {10 * MB, 0};

    (void)state;
    assert_int_equal(bandwidth_share(0, own, 2, 0), 10 * MB);
    assert_int_equal(bandwidth_share(0, own, 2, 1), 0);
}

/* Whatever the limits are: never more in all than there is, and no less than that when all want it. */
static void the_parts_are_the_whole(void **state)
{
    uint64_t own[7];
    uint64_t random = 1;

    (void)state;
    for (unsigned round = 0; round < 1000; round++) {
        uint64_t sum = 0, wanted = 0;
        bool greedy = false;

        for (size_t i = 0; i < 7; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            own[i] = (random >> 33) % 3 == 0 ? 0 : (random >> 40) % (50 * MB) + BANDWIDTH_MIN;
            greedy = greedy || own[i] == 0;
            wanted += own[i];
        }
        for (size_t i = 0; i < 7; i++) {
            sum += bandwidth_share(100 * MB, own, 7, i);
        }
        assert_true(sum <= 100 * MB);
        assert_true(sum + 7 >= (greedy || wanted > 100 * MB ? 100 * MB : wanted));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_a_megabit_on_it_is_a_limit),
        cmocka_unit_test(no_limit_is_higher_than_any),
        cmocka_unit_test(each_gets_as_much),
        cmocka_unit_test(what_one_may_not_use_is_for_the_others),
        cmocka_unit_test(all_that_ask_for_little_get_that),
        cmocka_unit_test(without_a_limit_each_has_its_own),
        cmocka_unit_test(the_parts_are_the_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

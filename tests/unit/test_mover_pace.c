/* The limit of a mover's bandwidth, by a clock that the test moves. */
#include "agent/mover/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define MB 1000000u
#define SECOND 1000000u

/* Lanes that have something to send all the time, each of which asks again LATE us after it was told
 * to. Bytes that they have sent between FROM and TO. */
static uint64_t send_all(struct pace *pace, uint64_t from_us, uint64_t to_us, unsigned lanes,
                         uint64_t late_us)
{
    uint64_t next_us[8] = {0}, sent = 0;

    for (uint64_t now = from_us; now < to_us; now += 10) {
        for (unsigned i = 0; i < lanes; i++) {
            size_t piece;
            uint64_t wait;

            if (now < next_us[i]) {
                continue;
            }
            wait = pace_take(pace, now, 64 << 10, &piece);
            if (wait == 0) {
                sent += piece + PACE_RECORD_EXTRA;
            } else {
                next_us[i] = now + wait + late_us;
            }
        }
    }
    return sent;
}

static void is_near(uint64_t found, uint64_t wanted)
{
    assert_in_range(found, wanted - wanted / 50, wanted + wanted / 50);
}

static void without_a_limit_all_may_go(void **state)
{
    struct pace pace;
    size_t piece;

    (void)state;
    pace_init(&pace);
    assert_int_equal(pace_take(&pace, 1, 1 << 20, &piece), 0);
    assert_int_equal(piece, 1 << 20);
}

static void the_rate_is_held_over_every_second(void **state)
{
    static const uint64_t rates[] = {MB, 10 * MB, 125 * MB};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (unsigned lanes = 1; lanes <= 8; lanes *= 2) {
            struct pace pace;

            pace_init(&pace);
            pace_set(&pace, rates[i], rates[i]);
            for (uint64_t second = 1; second < 5; second++) {
                is_near(send_all(&pace, second * SECOND, (second + 1) * SECOND, lanes, 0),
                        rates[i]);
            }
        }
    }
}

static void who_wakes_up_late_catches_up(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace);
    pace_set(&pace, 20 * MB, 20 * MB);
    is_near(send_all(&pace, SECOND, 3 * SECOND, 2, 1100), 40 * MB);
}

static void silence_saves_nothing_up(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace);
    pace_set(&pace, 10 * MB, 10 * MB);
    send_all(&pace, SECOND, 2 * SECOND, 1, 0);
    assert_in_range(send_all(&pace, 100 * SECOND, 101 * SECOND, 1, 0), 10 * MB, 102 * MB / 10);
}

static void a_change_holds_at_once(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace);
    pace_set(&pace, 80 * MB, 80 * MB);
    is_near(send_all(&pace, SECOND, 2 * SECOND, 2, 0), 80 * MB);
    pace_set(&pace, 2 * MB, 2 * MB);
    is_near(send_all(&pace, 2 * SECOND, 3 * SECOND, 2, 0), 2 * MB);
    pace_set(&pace, 40 * MB, 40 * MB);
    is_near(send_all(&pace, 3 * SECOND, 4 * SECOND, 2, 0), 40 * MB);
}

static void the_pause_has_its_own(void **state)
{
    struct pace pace;
    size_t piece;

    (void)state;
    pace_init(&pace);
    pace_set(&pace, 5 * MB, 0);
    is_near(send_all(&pace, SECOND, 2 * SECOND, 2, 0), 5 * MB);
    pace_pause(&pace);
    assert_int_equal(pace_take(&pace, 2 * SECOND, 1 << 20, &piece), 0);
    assert_int_equal(piece, 1 << 20);
    pace_set(&pace, 5 * MB, 30 * MB);
    is_near(send_all(&pace, 3 * SECOND, 4 * SECOND, 2, 0), 30 * MB);
}

static void a_slow_limit_has_small_pieces(void **state)
{
    struct pace pace;
    size_t piece;

    (void)state;
    pace_init(&pace);
    pace_set(&pace, 125000, 125000);
    assert_int_equal(pace_take(&pace, SECOND, 64 << 10, &piece), 0);
    assert_int_equal(piece, 1250);
    pace_set(&pace, 1000 * MB, 0);
    assert_int_equal(pace_take(&pace, 2 * SECOND, 64 << 10, &piece), 0);
    assert_int_equal(piece, PACE_PIECE_MAX);
    assert_int_equal(pace_take(&pace, 2 * SECOND, 7, &piece), 0);
    assert_int_equal(piece, 7);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_all_may_go),
        cmocka_unit_test(the_rate_is_held_over_every_second),
        cmocka_unit_test(who_wakes_up_late_catches_up),
        cmocka_unit_test(silence_saves_nothing_up),
        cmocka_unit_test(a_change_holds_at_once),
        cmocka_unit_test(the_pause_has_its_own),
        cmocka_unit_test(a_slow_limit_has_small_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

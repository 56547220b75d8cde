/* What becomes of the packets of one direction of bench/wanlink, by a clock that the test moves. */
#include "bench/wanlink/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define PACKET 1000u

static void set(struct path *path, const char *words)
{
    char copy[128];
    struct error error;

    strcpy(copy, words);
    assert_true(settings_parse(&path->settings, copy, &error));
}

static void put(struct path *path, uint64_t now_ns, uint8_t number)
{
    uint8_t bytes[PACKET] = {number};

    path_put(path, now_ns, bytes, sizeof bytes);
}

static void comes(struct path *path, uint64_t now_ns, uint8_t number)
{
    struct packet *packet;

    assert_true(path_next_ns(path) == now_ns);
    assert_null(path_take(path, now_ns - 1));
    packet = path_take(path, now_ns);
    assert_non_null(packet);
    assert_int_equal(packet->size, PACKET);
    assert_int_equal(packet->bytes[0], number);
    free(packet);
}

static void a_packet_waits_its_turn_and_then_the_delay(void **state)
{
    struct path path;

    (void)state;
    path_init(&path, 1);
    set(&path, "delay=10ms rate=8mbit"); /* 1 ms each */
    put(&path, 5 * MS, 1);
    put(&path, 5 * MS, 2);
    comes(&path, 16 * MS, 1);
    comes(&path, 17 * MS, 2);
    put(&path, 30 * MS, 3);
    comes(&path, 41 * MS, 3);
    assert_true(path_next_ns(&path) == UINT64_MAX);
    path_clear(&path);
}

static void what_would_wait_longer_than_the_queue_is_dropped(void **state)
{
    struct path path;

    (void)state;
    path_init(&path, 1);
    set(&path, "rate=8mbit queue=3ms");
    for (uint8_t i = 0; i < 10; i++) {
        put(&path, MS, i);
    }
    assert_int_equal(path.counters.dropped, 6);
    for (uint8_t i = 0; i < 4; i++) {
        comes(&path, (2 + i) * MS, i);
    }
    assert_true(path_next_ns(&path) == UINT64_MAX);
    path_clear(&path);
}

static void a_shorter_delay_overtakes_nothing(void **state)
{
    struct path path;

    (void)state;
    path_init(&path, 1);
    set(&path, "delay=100ms");
    put(&path, 1 * MS, 1);
    set(&path, "delay=10ms");
    put(&path, 2 * MS, 2);
    comes(&path, 101 * MS, 1);
    comes(&path, 101 * MS, 2);
    path_clear(&path);
}

static void all_is_lost_at_100_per_cent_and_nothing_at_0(void **state)
{
    struct path path;

    (void)state;
    path_init(&path, 1);
    set(&path, "loss=100%");
    for (uint8_t i = 0; i < 100; i++) {
        put(&path, MS, i);
    }
    assert_int_equal(path.counters.lost, 100);
    set(&path, "loss=0%");
    for (uint8_t i = 0; i < 100; i++) {
        put(&path, MS, i);
    }
    assert_int_equal(path.counters.lost, 100);
    assert_int_equal(path.count, 100);
    path_clear(&path);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packet_waits_its_turn_and_then_the_delay),
        cmocka_unit_test(what_would_wait_longer_than_the_queue_is_dropped),
        cmocka_unit_test(a_shorter_delay_overtakes_nothing),
        cmocka_unit_test(all_is_lost_at_100_per_cent_and_nothing_at_0),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

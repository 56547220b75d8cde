/*
 * Times, sizes and rates, as operators write and read them.
 */
#include "agent/common/units.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef bool (*parser)(const char *, uint64_t *, struct error *);

static void expect(parser parse, const char *text, uint64_t wanted)
{
    struct error error = {0};
    uint64_t value = 0;

    if (!parse(text, &value, &error)) {
        fail_msg("\"%s\" was refused: %s", text, error.text);
    }
    if (value != wanted) {
        fail_msg("\"%s\" gave %llu", text, (unsigned long long)value);
    }
}

static void expect_error(parser parse, const char *text, const char *id, const char *part)
{
    struct error error = {0};
    uint64_t value = 0;

    if (parse(text, &value, &error)) {
        fail_msg("\"%s\" was taken as %llu", text, (unsigned long long)value);
    }
    assert_string_equal(error.id, id);
    if (!strstr(error.text, part)) {
        fail_msg("\"%s\": no \"%s\" in: %s", text, part, error.text);
    }
}

static void times_carry_a_unit(void **state)
{
    (void)state;
    expect(units_parse_time, "300ms", 300);
    expect(units_parse_time, "30s", 30000);
    expect(units_parse_time, "5min", 300000);
    expect(units_parse_time, "2h", 7200000);
    expect(units_parse_time, "1.5s", 1500);
    expect(units_parse_time, "0.25min", 15000);
    expect(units_parse_time, "0ms", 0);
    expect_error(units_parse_time, "300", "bad-time", "write 300ms");
    expect_error(units_parse_time, "0", "bad-time", "no unit");
}

static void wrong_times_are_refused(void **state)
{
    static const char *const texts[] = {"",     "s",   "ms",     "-5s",  "+5s",   " 5s",
                                        "5 s",  "5S",  "5m",     "5sec", "5s5ms", "1e3s",
                                        ".5s",  "5.s", "0x10s",  "1,5s", "5h ",   "infs",
                                        "nans", "5\n", "1.5.5s", "5d",   "0.5ms", "1.0000001s"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        expect_error(units_parse_time, texts[i], "bad-time", texts[i]);
    }
    expect_error(units_parse_time, "99999999999999999999s", "bad-time", "not a time");
    expect_error(units_parse_time, "18446744073709551615h", "bad-time", "too long");
    expect_error(units_parse_time, "0.5ms", "bad-time", "finer");
}

static void sizes_count_in_1024s(void **state)
{
    (void)state;
    expect(units_parse_size, "0", 0);
    expect(units_parse_size, "4096", 4096);
    expect(units_parse_size, "64K", 65536);
    expect(units_parse_size, "64k", 65536);
    expect(units_parse_size, "1.5K", 1536);
    expect(units_parse_size, "512M", 512ULL << 20);
    expect(units_parse_size, "4G", 4ULL << 30);
    expect(units_parse_size, "1T", 1ULL << 40);
    expect(units_parse_size, "16777215T", 16777215ULL << 40);
    expect_error(units_parse_size, "16777216T", "bad-size", "too large");
    expect_error(units_parse_size, "1.3", "bad-size", "whole number");
    expect_error(units_parse_size, "4X", "bad-size", "unit \"X\"");
    expect_error(units_parse_size, "4KB", "bad-size", "unit \"KB\"");
    expect_error(units_parse_size, "-1", "bad-size", "not a size");
    expect_error(units_parse_size, "4Mbit", "bad-size", "unit \"Mbit\"");
}

static void rates_in_bits_count_in_1000s(void **state)
{
    (void)state;
    expect(units_parse_rate, "10M", 10ULL << 20);
    expect(units_parse_rate, "4096", 4096);
    expect(units_parse_rate, "100Mbit", 12500000);
    expect(units_parse_rate, "100mbit", 12500000);
    expect(units_parse_rate, "1Gbit", 125000000);
    expect(units_parse_rate, "1.5Gbit", 187500000);
    expect(units_parse_rate, "80kbit", 10000);
    expect(units_parse_rate, "100bit", 12);
    expect_error(units_parse_rate, "100Mbps", "bad-rate", "unit \"Mbps\"");
    expect_error(units_parse_rate, "fast", "bad-rate", "not a rate");
    expect_error(units_parse_rate, "99999999Tbit", "bad-rate", "too high");
}

static void a_refused_text_leaves_no_room_for_guesses(void **state)
{
    char text[3000];
    struct error error;
    uint64_t value;

    (void)state;
    memset(text, '9', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_false(units_parse_time(text, &value, &error));
    assert_true(strlen(error.text) < ERROR_TEXT_SIZE);
}

static void sizes_read_well(void **state)
{
    char buffer[UNITS_TEXT_SIZE];

    (void)state;
    assert_string_equal(units_size(buffer, 0), "0 B");
    assert_string_equal(units_size(buffer, 1023), "1023 B");
    assert_string_equal(units_size(buffer, 1024), "1.0 KiB");
    assert_string_equal(units_size(buffer, 1536), "1.5 KiB");
    assert_string_equal(units_size(buffer, 12 << 20), "12 MiB");
    assert_string_equal(units_size(buffer, (1 << 20) - 1), "1.0 MiB");
    assert_string_equal(units_size(buffer, 4ULL << 30), "4.0 GiB");
    assert_string_equal(units_size(buffer, UINT64_MAX), "16 EiB");
    assert_string_equal(units_rate(buffer, 12500000), "12 MiB/s");
}

static void times_read_well(void **state)
{
    char buffer[UNITS_TEXT_SIZE];

    (void)state;
    assert_string_equal(units_time(buffer, 0), "0 ms");
    assert_string_equal(units_time(buffer, -3), "0 ms");
    assert_string_equal(units_time(buffer, (double)NAN), "0 ms");
    assert_string_equal(units_time(buffer, 0.42), "0.4 ms");
    assert_string_equal(units_time(buffer, 312.4), "312 ms");
    assert_string_equal(units_time(buffer, 999.6), "1.0 s");
    assert_string_equal(units_time(buffer, 4210), "4.2 s");
    assert_string_equal(units_time(buffer, 59970), "1 min 00 s");
    assert_string_equal(units_time(buffer, 200000), "3 min 20 s");
    assert_string_equal(units_time(buffer, 3900000), "1 h 05 min");
    assert_string_equal(units_time(buffer, 1e300), "for ever");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_carry_a_unit),
        cmocka_unit_test(wrong_times_are_refused),
        cmocka_unit_test(sizes_count_in_1024s),
        cmocka_unit_test(rates_in_bits_count_in_1000s),
        cmocka_unit_test(a_refused_text_leaves_no_room_for_guesses),
        cmocka_unit_test(sizes_read_well),
        cmocka_unit_test(times_read_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

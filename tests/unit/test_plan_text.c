/*
 * A plan as an operator reads it: blockers first, what is not known said as such, and nothing of a peer's words that steers the terminal.
 */
#include "agent/client/plan_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* free() it. */
static char *printed(const char *text)
{
    json_error_t fault;
    json_t *plan = json_loads(text, 0, &fault);
    char *out = NULL;
    size_t size;
    FILE *file = open_memstream(&out, &size);

    if (!plan) {
        fail_msg("%s at %d", fault.text, fault.position);
    }
    assert_non_null(file);
    plan_text_print(file, plan);
    assert_int_equal(fclose(file), 0);
    json_decref(plan);
    return out;
}

static void has(const char *out, const char *words)
{
    if (!strstr(out, words)) {
        fail_msg("\"%s\" is not in:\n%s", words, out);
    }
}

#define MEASURED                                                                     \
    "\"measured\":{\"memory\":{\"bytes\":4294967296,\"used\":3221225472,\"dirty\":[" \
    "{\"ms\":1000,\"bytes\":10485760},{\"ms\":2000,\"bytes\":15728640}]},"           \
    "\"disk\":{\"bytes\":42949672960,\"allocated\":10737418240,\"write_rate\":1048576},"
#define HEAD "{\"vm\":\"web1\",\"peer\":\"east\",\"migratable\":true,\"findings\":[],"

static void everything_that_is_known_is_told(void **state)
{
    char *out = printed(
        HEAD MEASURED
        "\"link\":{\"rate\":12582912,\"how\":\"trial\",\"round_trip_us\":4600,\"memory_ratio\":0.43,"
        "\"disk_ratio\":0.6},\"sync_us\":2100},"
        "\"trial\":{\"total_ms\":5200,\"wire_bytes\":62914560},"
        "\"predicted\":{\"live\":{\"ends\":true,\"total_ms\":61000,\"downtime_ms\":120,\"rounds\":3,"
        "\"wire_bytes\":1073741824},\"throttled\":null,\"quick\":{\"ends\":true,\"total_ms\":60000,"
        "\"downtime_ms\":900,\"longest_ms\":1500,\"rounds\":2,\"wire_bytes\":1073741824}},"
        "\"confidence\":{\"word\":\"good\",\"reason\":\"all was measured\"},"
        "\"recommendation\":{\"word\":\"live\",\"reason\":\"live fits\","
        "\"command\":\"watari migrate web1 --to east\"}}");

    (void)state;
    has(out, "web1 to east\n");
    has(out, "nothing stands in the way");
    has(out, "4.0 GiB, 3.0 GiB in use; dirty: 10 MiB after 1.0 s, 15 MiB after 2.0 s");
    has(out, "40 GiB, 10 GiB allocated; the guest writes 1.0 MiB/s");
    has(out, "took 5.2 s and 60 MiB on the wire; it was cancelled and removed");
    has(out, "12 MiB/s (trial), round trip 4.6 ms; memory shrinks to 43 %, disks to 60 %");
    has(out, "a sync takes 2.1 ms");
    has(out, "3 rounds of memory, pause 120 ms, 1.0 GiB on the wire");
    has(out, "pause 900 ms (1.5 s at most)");
    has(out, "good: all was measured");
    has(out, "\n                watari migrate web1 --to east\n");
    assert_null(strstr(out, "slowed down")); /* live ends without */
    free(out);
}

static void what_is_not_known_is_told_as_such(void **state)
{
    char *out = printed(
        HEAD MEASURED
        "\"link\":{\"rate\":null,\"how\":null,\"round_trip_us\":null},\"sync_us\":null},\"trial\":null,"
        "\"predicted\":{\"live\":null,\"throttled\":null,\"quick\":null},"
        "\"confidence\":{\"word\":\"none\",\"reason\":\"no link\"},"
        "\"recommendation\":{\"word\":\"unknown\",\"reason\":\"no link\",\"command\":null}}");

    (void)state;
    has(out, "what it carries is not known; round trip not known");
    has(out, "live          cannot be predicted");
    assert_null(strstr(out, "trial"));
    assert_null(strstr(out, "watari migrate"));
    free(out);
}

static void what_does_not_end_is_told_with_its_shortest_pause(void **state)
{
    char *out = printed(
        HEAD MEASURED
        "\"link\":{\"rate\":1,\"how\":\"given\",\"round_trip_us\":1},\"sync_us\":1},\"trial\":null,"
        "\"predicted\":{\"live\":{\"ends\":false,\"total_ms\":null,\"downtime_ms\":1700,\"rounds\":4,"
        "\"wire_bytes\":null},\"throttled\":{\"ends\":false,\"total_ms\":null,\"downtime_ms\":null,"
        "\"rounds\":4,\"wire_bytes\":null},\"quick\":null},"
        "\"confidence\":{\"word\":\"low\",\"reason\":\"r\"},"
        "\"recommendation\":{\"word\":\"quick\",\"reason\":\"r\",\"command\":null}}");

    (void)state;
    has(out, "live          does not come to its end; the shortest pause would be 1.7 s");
    has(out, "slowed down   does not come to its end: disk writes take all of the link");
    free(out);
}

static void blockers_come_first_and_steer_no_terminal(void **state)
{
    char *out = printed("{\"vm\":\"web1\",\"peer\":\"east\",\"migratable\":false,\"findings\":["
                        "{\"side\":\"source\",\"level\":\"note\",\"id\":\"n\",\"text\":\"a note\"},"
                        "{\"side\":\"destination\",\"level\":\"blocker\",\"id\":\"pool-full\","
                        "\"text\":\"no \\u001b[2J room\\nat all\"}],"
                        "\"measured\":{\"memory\":null},\"trial\":null,\"predicted\":null,"
                        "\"confidence\":null,\"recommendation\":null}");

    (void)state;
    has(out, "cannot be migrated as things are");
    has(out, "  blocker       east: no ?[2J room?at all\n");
    has(out, "  note          here: a note\n");
    assert_true(strstr(out, "blocker") < strstr(out, "a note"));
    assert_null(strstr(out, "memory"));
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_that_is_known_is_told),
        cmocka_unit_test(what_is_not_known_is_told_as_such),
        cmocka_unit_test(what_does_not_end_is_told_with_its_shortest_pause),
        cmocka_unit_test(blockers_come_first_and_steer_no_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

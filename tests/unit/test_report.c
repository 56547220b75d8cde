/* Behaviours of agent/client/report_text.c and report_rounds.c: what is told of a timeline. */
#include "agent/client/report_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BEGIN                                                                                                      \
    "{'event':'begin','at_ms':0,'schema':1,'time':'2026-01-02T03:04:05Z','id':'00000000000000aa','side':'source'," \
    "'vm':'web1','host':'west','peer':'east','request':{'mode':'auto','max_downtime_ms':300,"                      \
    "'max_quick_downtime_ms':20000,'deadline_ms':60000,'max_throttle':40,'compress':'auto','verify':true,"         \
    "'disks':{'vd0':'fast'}}}"

/* Lines in single quotes, ended by NULL, and what is told of them; free() it. */
static char *told(const char *first, ...)
{
    json_t *lines = json_array();
    va_list more;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    va_start(more, first);
    for (const char *line = first; line; line = va_arg(more, const char *)) {
        char *copy = strdup(line);
        json_t *object;

        for (char *at = copy; *at; at++) {
            *at = *at == '\'' ? '"' : *at;
        }
        object = json_loads(copy, 0, NULL);
        if (!object) {
            fail_msg("no JSON: %s", copy);
        }
        json_array_append_new(lines, object);
        free(copy);
    }
    va_end(more);
    report_text_print(out, lines);
    assert_int_equal(fclose(out), 0);
    json_decref(lines);
    return text;
}

static void expect(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("\"%s\" is not in\n%s", part, text);
    }
}

static void expect_none(const char *text, const char *part)
{
    if (strstr(text, part)) {
        fail_msg("\"%s\" is in\n%s", part, text);
    }
}

static void what_was_asked_for_is_told(void **state)
{
    char *text = told(BEGIN, NULL);

    (void)state;
    expect(text, "Migration 00000000000000aa of VM web1 from west to east, as west saw it");
    expect(text, "2026-01-02T03:04:05Z");
    expect(text, "auto; a pause of 300 ms at most, of 20.0 s for quick; deadline 1 min 00 s");
    expect(text, "slowed by 40 % at most; disks compared: yes");
    expect(text, "disk vd0 to fast");
    free(text);
}

static void the_destination_tells_who_asked(void **state)
{
    char *text = told(
        "{'event':'begin','side':'destination','vm':'web1','host':'east','peer':'west','mode':'live'}",
        "{'event':'result','result':'done','vm':'web1','reason':null}", NULL);

    (void)state;
    expect(text, "of VM web1 from west to east, as east saw it");
    expect(text, "by west, live");
    expect(text, "VM web1 belongs to this host, east.");
    free(text);
}

static void a_reason_is_told_once(void **state)
{
    char *text = told(
        BEGIN, "{'event':'decision','at_ms':1500,'verdict':'fall-back','reason':'it does not fit'}",
        "{'event':'phase','at_ms':1501,'phase':'paused','text':'it does not fit'}", NULL);
    const char *first = strstr(text, "it does not fit");

    (void)state;
    expect(text, "1.500  decision  fall-back: it does not fit");
    expect(text, "1.501  paused    as decided");
    expect_none(first + 1, "it does not fit");
    free(text);
}

static void why_a_link_was_lost_is_told(void **state)
{
    char *text = told(
        BEGIN,
        "{'event':'warning','at_ms':2,'what':'link-lost','why':'lane 1 fell silent','text':'the link is lost'}",
        NULL);

    (void)state;
    expect(text, "warning  the link is lost (lane 1 fell silent)");
    free(text);
}

static void each_round_is_a_row(void **state)
{
    char *text = told(
        BEGIN,
        "{'event':'sample','at_ms':1000,'round':1,'memory_left':1048576,'predicted_downtime_ms':null,'longest_downtime_ms':null}",
        "{'event':'sample','at_ms':2000,'round':1,'memory_left':524288,'memory_rate':2097152,'predicted_downtime_ms':700,"
        "'longest_downtime_ms':900}",
        "{'event':'sample','at_ms':3000,'round':2,'memory_left':262144,'memory_dirty_rate':3145728,'cpu_throttle':20,"
        "'predicted_downtime_ms':100,'longest_downtime_ms':200}",
        NULL);

    (void)state;
    expect(
        text,
        "1      1.000     2.0 s  1.0 MiB  512 KiB      unknown    2.0 MiB/s  0 B        0 %     700 ms           900 ms");
    expect(
        text,
        "2      3.000     0 ms   256 KiB  256 KiB      3.0 MiB/s  unknown    0 B        20 %    100 ms           200 ms");
    free(text);
}

static void of_many_rounds_the_first_and_the_last_are_told(void **state)
{
    json_t *lines = json_array();
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    for (int round = 1; round <= 100; round++) {
        json_array_append_new(lines, json_pack("{ss,si,si}", "event", "sample", "at_ms",
                                               round * 1000, "round", round));
    }
    report_rounds_print(out, lines);
    assert_int_equal(fclose(out), 0);
    expect(text, "\n10     10.000");
    expect_none(text, "\n11 ");
    expect(text, "\n...");
    expect_none(text, "\n80 ");
    expect(text, "\n81     81.000");
    expect(text, "\n100    100.000");
    json_decref(lines);
    free(text);
}

static void where_the_pause_went_is_told(void **state)
{
    char *text =
        told(BEGIN, "{'event':'mark','what':'guest-stopped','paused_us':1200,'wire_sent':1000}",
             "{'event':'mark','what':'disk-passes-done','paused_us':45000,'wire_sent':2024}",
             "{'event':'mark','what':'pre-switchover','wire_sent':9}", NULL);

    (void)state;
    expect(text, "1.2 ms  0 B      QEMU confirms that the guest stands still");
    expect(text, "45 ms   1.0 KiB  the last disk passes are through");
    expect_none(text, "QEMU has given its memory");
    free(text);
}

static void what_was_predicted_stands_beside_what_was(void **state)
{
    char *text = told(
        BEGIN,
        "{'event':'decision','verdict':'switch-over','reason':'it fits','longest_downtime_ms':248}",
        "{'event':'result','vm':'web1','result':'done','reason':null,'total_ms':5500,'downtime_ms':43,"
        "'predicted':{'total_ms':5600,'downtime_ms':131},'wire_bytes':2048,'disk':{'bytes':1024,'wire_bytes':512,'passes':2},"
        "'memory':{'rounds':3,'pages':100,'zero':40,'same':10,'delta':5,'bytes':4096,'wire_bytes':1024},"
        "'where':{'host':'east','pid':7}}",
        NULL);

    (void)state;
    expect(text, "downtime    131 ms     248 ms   43 ms");
    expect(text, "total time  5.6 s      -        5.5 s");
    expect(text, "pages         100: 40 zero, 10 unchanged, 5 as a difference, 45 whole");
    expect(text, "VM web1 runs on east now (pid 7)");
    free(text);
}

static void a_failure_is_told_in_the_daemons_words(void **state)
{
    char *text = told(
        BEGIN,
        "{'event':'result','vm':'web1','result':'failed','reason':'no-convergence','total_ms':9,'downtime_ms':null,"
        "'predicted':{'total_ms':null,'downtime_ms':null},'error':{'id':'no-convergence','text':'web1: it would take 900 ms'}}",
        NULL);

    (void)state;
    expect(text, "result  failed: no-convergence");
    expect(text, "web1: it would take 900 ms");
    expect(text, "downtime    unknown");
    free(text);
}

static void without_an_end_that_is_said(void **state)
{
    char *text = told(BEGIN, "{'event':'thinned','at_ms':1}", "{'event':'cut','at_ms':2}", NULL);

    (void)state;
    expect(text, "one sample a second");
    expect(text, "the result alone");
    expect(text, "No end is recorded");
    expect(text, "watari status 00000000000000aa");
    free(text);
}

/* Of any version, and of a file that somebody has written into. */
static void lines_that_lack_everything_do_no_harm(void **state)
{
    char *text =
        told("{}", "{'event':7}", "{'event':'vm','disks':3}", "{'event':'sample','round':'x'}",
             "{'event':'sample'}", "{'event':'mark','paused_us':'x'}", "{'event':'decision'}",
             "{'event':'phase','at_ms':'x'}",
             "{'event':'result','predicted':1,'disk':2,'memory':3,'error':4}", NULL);

    (void)state;
    expect(text, "How it ended");
    free(text);
}

static void names_cannot_steer_the_terminal(void **state)
{
    char *text =
        told("{'event':'begin','side':'source','vm':'\\u001b[2Jweb','host':'w','peer':'e'}",
             "{'event':'phase','phase':'bulk','text':'\\u001b[31m'}", NULL);

    (void)state;
    expect(text, "VM ?[2Jweb");
    expect_none(text, "\033");
    free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_asked_for_is_told),
        cmocka_unit_test(the_destination_tells_who_asked),
        cmocka_unit_test(a_reason_is_told_once),
        cmocka_unit_test(why_a_link_was_lost_is_told),
        cmocka_unit_test(each_round_is_a_row),
        cmocka_unit_test(of_many_rounds_the_first_and_the_last_are_told),
        cmocka_unit_test(where_the_pause_went_is_told),
        cmocka_unit_test(what_was_predicted_stands_beside_what_was),
        cmocka_unit_test(a_failure_is_told_in_the_daemons_words),
        cmocka_unit_test(without_an_end_that_is_said),
        cmocka_unit_test(lines_that_lack_everything_do_no_harm),
        cmocka_unit_test(names_cannot_steer_the_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Whether this host may start a VM by itself: each ending a journal can have, at either side, and
 * which journal counts when there are several.
 */
#include "agent/policy/may_start.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define JOURNALS_MAX 4
#define SOURCE_BEGIN                                                       \
    "{'record':'begin','side':'source','vm':'web','peer':'east','disks':[" \
    "{'path':'/pool/web.qcow2','mark':'/pool/web.qcow2.moved'},{'path':'/dev/vg/web','mark':null}]}"
#define DESTINATION_BEGIN \
    "{'record':'begin','side':'destination','vm':'web','peer':'west','disks':['/pool/web.qcow2']}"

struct journals {
    struct may_start_journal list[JOURNALS_MAX];
    size_t count;
};

/* RECORDS is JSON with ' for ". */
static json_t *parse(const char *records)
{
    char text[1024];
    json_t *parsed;

    snprintf(text, sizeof text, "%s", records);
    for (char *at = text; *at; at++) {
        if (*at == '\'') {
            *at = '"';
        }
    }
    parsed = json_loads(text, 0, NULL);
    assert_non_null(parsed);
    return parsed;
}

static void add(struct journals *journals, int64_t written, const char *records)
{
    assert_true(journals->count < JOURNALS_MAX);
    journals->list[journals->count++] =
        (struct may_start_journal){.records = parse(records), .written = written};
}

/* Asks, and lets go of the journals. */
static void expect(struct journals *journals, const char *what, bool wanted, const char *words)
{
    char reason[256] = "";
    bool may = may_start(what, journals->list, journals->count, reason, sizeof reason);

    if (may != wanted || !strstr(reason, words)) {
        fail_msg("%s: %s, \"%s\" instead of %s, \"%s\"", what, may ? "yes" : "no", reason,
                 wanted ? "yes" : "no", words);
    }
    for (size_t i = 0; i < journals->count; i++) {
        json_decref((json_t *)journals->list[i].records);
    }
    journals->count = 0;
}

static void expect_alone(const char *records, const char *what, bool wanted, const char *words)
{
    struct journals journals = {0};

    add(&journals, 1, records);
    expect(&journals, what, wanted, words);
}

static void a_vm_that_no_journal_speaks_of_may_start(void **state)
{
    struct journals journals = {0};

    (void)state;
    expect(&journals, "web", true, "no migration");
    expect_alone("[" SOURCE_BEGIN "]", "mail", true, "no migration");
    expect_alone("[]", "web", true, "no migration");
    /* Cut off before its first record: nothing had been done yet. */
    expect_alone("[{'record':'undo','key':'x'}]", "web", true, "no migration");
}

static void a_source_may_start_it_only_when_it_came_back(void **state)
{
    static const struct {
        const char *records;
        bool may;
        const char *words;
    } cases[] = {
        {"[" SOURCE_BEGIN "]", false, "to east is under way"},
        {"[" SOURCE_BEGIN ",{'record':'undo','key':'x'},{'record':'undone','key':'x'}]", false,
         "under way"},
        {"[" SOURCE_BEGIN ",{'record':'committed'}]", false, "handed over to east"},
        {"[" SOURCE_BEGIN ",{'record':'committed'},{'record':'done'}]", false, "moved to east"},
        {"[" SOURCE_BEGIN ",{'record':'rolled-back'}]", true, "rolled back"},
        {"[" SOURCE_BEGIN ",{'record':'committed'},{'record':'taken-back'}]", true,
         "taken back from east"},
        {"[" SOURCE_BEGIN
         ",{'record':'committed'},{'record':'taken-back'},{'record':'rolled-back'}]",
         true, "taken back from east"},
        {"[" SOURCE_BEGIN ",{'record':'committed'},{'record':'taking-back','refusal':1}]", false,
         "handed over to east"},
        {"[" SOURCE_BEGIN ",{'record':'committed'},{'record':'withdrawn'}]", true,
         "an operator decided"},
        {"[" SOURCE_BEGIN ",{'record':'committed'},{'record':'withdrawn'},{'record':'conflict'}]",
         false, "both this host and east own it"},
        {"[" SOURCE_BEGIN ",{'record':'committed'},{'record':'given-up'}]", false,
         "handed over to east"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_alone(cases[i].records, "web", cases[i].may, cases[i].words);
    }
}

static void a_withdrawn_one_must_not_start_beside_its_qemu(void **state)
{
    json_t *records = parse("[" SOURCE_BEGIN ",{'record':'committed'},{'record':'withdrawn'}]");
    struct may_start_journal journal = {.records = records, .written = 1, .qemu_lives = true};
    char reason[256] = "";

    (void)state;
    assert_false(may_start("web", &journal, 1, reason, sizeof reason));
    assert_non_null(strstr(reason, "in the QEMU that it has"));
    journal.qemu_lives = false;
    assert_true(may_start("web", &journal, 1, reason, sizeof reason));
    json_decref(records);
}

static void a_destination_may_start_it_only_when_it_owns_it(void **state)
{
    static const struct {
        const char *records;
        bool may;
        const char *words;
    } cases[] = {
        {"[" DESTINATION_BEGIN "]", false, "from west is undecided"},
        {"[" DESTINATION_BEGIN ",{'record':'prepared'}]", false, "undecided"},
        {"[" DESTINATION_BEGIN ",{'record':'loaded'}]", false, "undecided"},
        {"[" DESTINATION_BEGIN ",{'record':'loaded'},{'record':'committed'}]", false, "undecided"},
        {"[" DESTINATION_BEGIN ",{'record':'loaded'},{'record':'refused'}]", false, "undecided"},
        {"[" DESTINATION_BEGIN ",{'record':'committed','forced':true}]", false, "undecided"},
        {"[" DESTINATION_BEGIN ",{'record':'committed'},{'record':'conflict'}]", false,
         "both this host and west own it"},
        {"[" DESTINATION_BEGIN ",{'record':'committed'},{'record':'owned'}]", true, "from west"},
        {"[" DESTINATION_BEGIN ",{'record':'owned'},{'record':'done'}]", true, "belongs to this"},
        {"[" DESTINATION_BEGIN ",{'record':'refused'},{'record':'abandoned'}]", true,
         "no migration"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_alone(cases[i].records, "web", cases[i].may, cases[i].words);
    }
}

static void a_disk_is_known_by_its_path_and_by_its_mark(void **state)
{
    const char *moved = "[" SOURCE_BEGIN ",{'record':'committed'},{'record':'done'}]";

    (void)state;
    expect_alone(moved, "/pool/web.qcow2", false, "moved");
    expect_alone(moved, "/pool/web.qcow2.moved", false, "moved");
    expect_alone(moved, "/dev/vg/web", false, "moved");
    expect_alone(moved, "/pool/other.qcow2", true, "no migration");
    expect_alone("[" DESTINATION_BEGIN "]", "/pool/web.qcow2", false, "undecided");
    /* A disk without a mark is not found by an empty word. */
    expect_alone(moved, "/pool", true, "no migration");
}

static void the_latest_journal_that_decided_anything_counts(void **state)
{
    const char *moved = "[" SOURCE_BEGIN ",{'record':'done'}]";
    const char *owned = "[" DESTINATION_BEGIN ",{'record':'owned'},{'record':'done'}]";
    const char *abandoned = "[" DESTINATION_BEGIN ",{'record':'abandoned'}]";
    struct journals journals = {0};

    (void)state;
    add(&journals, 100, moved);
    add(&journals, 200, owned);
    expect(&journals, "web", true, "belongs to this host");
    add(&journals, 200, owned);
    add(&journals, 300, moved);
    expect(&journals, "web", false, "moved");
    add(&journals, 300, moved);
    add(&journals, 200, owned);
    expect(&journals, "web", false, "moved");
    /* An attempt to bring it back that came to nothing changes nothing. */
    add(&journals, 100, moved);
    add(&journals, 400, abandoned);
    expect(&journals, "web", false, "moved");
    add(&journals, 100, owned);
    add(&journals, 400, abandoned);
    expect(&journals, "web", true, "belongs to this host");
    /* Stamps are not always there. */
    add(&journals, INT64_MIN + 1, moved);
    expect(&journals, "web", false, "moved");
}

static void what_a_journal_says_of_its_beginning_counts_more_than_its_file(void **state)
{
    static const char moved[] =
        "[{'record':'begin','began_s':100,'side':'source','vm':'web','peer':'east'},"
        "{'record':'committed'},{'record':'done'}]";
    static const char owned[] =
        "[{'record':'begin','began_s':200,'side':'destination','vm':'web','peer':'east'},"
        "{'record':'committed'},{'record':'owned'}]";
    static const char moved_then[] =
        "[{'record':'begin','began_s':200,'side':'source','vm':'web','peer':'east'},"
        "{'record':'committed'},{'record':'done'}]";
    struct journals journals = {0};

    (void)state;
    /* As files from a backup: the older journal is the younger file. */
    add(&journals, 9000, moved);
    add(&journals, 50, owned);
    expect(&journals, "web", true, "came from east");
    add(&journals, 50, owned);
    add(&journals, 9000, moved);
    expect(&journals, "web", true, "came from east");
    /* Within one second: no. */
    add(&journals, 50, owned);
    add(&journals, 50, moved_then);
    expect(&journals, "web", false, "moved to east");
    add(&journals, 50, moved_then);
    add(&journals, 50, owned);
    expect(&journals, "web", false, "moved to east");
}

/* A clock that was ahead when a VM came must not hide that it is being handed over now. */
static void one_without_an_end_counts_before_all_others(void **state)
{
    static const char *const open[] = {
        "[" SOURCE_BEGIN "]",
        "[" SOURCE_BEGIN ",{'record':'committed'}]",
        "[" SOURCE_BEGIN ",{'record':'committed'},{'record':'withdrawn'},{'record':'conflict'}]",
        "[" DESTINATION_BEGIN ",{'record':'loaded'}]",
        "[" DESTINATION_BEGIN ",{'record':'loaded'},{'record':'committed'},{'record':'conflict'}]",
    };
    const char *owned = "[" DESTINATION_BEGIN ",{'record':'owned'},{'record':'done'}]";
    struct journals journals = {0};

    (void)state;
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        add(&journals, 100, open[i]);
        add(&journals, 9000, owned);
        expect(&journals, "web", false, "watari status");
        add(&journals, 9000, owned);
        add(&journals, 100, open[i]);
        expect(&journals, "web", false, "watari status");
    }
}

static void between_equal_stamps_no_counts_in_either_order(void **state)
{
    const char *moved = "[" SOURCE_BEGIN ",{'record':'done'}]";
    const char *owned = "[" DESTINATION_BEGIN ",{'record':'owned'}]";
    struct journals journals = {0};

    (void)state;
    add(&journals, 7, moved);
    add(&journals, 7, owned);
    expect(&journals, "web", false, "moved");
    add(&journals, 7, owned);
    add(&journals, 7, moved);
    expect(&journals, "web", false, "moved");
}

static void records_without_what_they_should_have_are_no_leave_to_start(void **state)
{
    (void)state;
    expect_alone("[{'record':'begin','vm':'web'}]", "web", false, "undecided");
    expect_alone("[{'record':'begin','vm':'web','side':'source','disks':7}]", "web", false,
                 "under way");
    expect_alone("[{'record':'begin','vm':'web','side':'source','disks':[7,null,{}]},7,null]",
                 "web", false, "under way");
}

static void a_long_name_does_not_overflow_the_reason(void **state)
{
    char records[900], peer[600], reason[256];
    json_t *parsed;

    (void)state;
    memset(peer, 'p', sizeof peer);
    peer[sizeof peer - 1] = '\0';
    snprintf(records, sizeof records, "[{'record':'begin','side':'source','vm':'w','peer':'%s'}]",
             peer);
    parsed = parse(records);
    assert_false(
        may_start("w", &(struct may_start_journal){.records = parsed}, 1, reason, sizeof reason));
    assert_true(strlen(reason) < sizeof reason);
    json_decref(parsed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vm_that_no_journal_speaks_of_may_start),
        cmocka_unit_test(a_source_may_start_it_only_when_it_came_back),
        cmocka_unit_test(a_withdrawn_one_must_not_start_beside_its_qemu),
        cmocka_unit_test(a_destination_may_start_it_only_when_it_owns_it),
        cmocka_unit_test(a_disk_is_known_by_its_path_and_by_its_mark),
        cmocka_unit_test(the_latest_journal_that_decided_anything_counts),
        cmocka_unit_test(what_a_journal_says_of_its_beginning_counts_more_than_its_file),
        cmocka_unit_test(one_without_an_end_counts_before_all_others),
        cmocka_unit_test(between_equal_stamps_no_counts_in_either_order),
        cmocka_unit_test(records_without_what_they_should_have_are_no_leave_to_start),
        cmocka_unit_test(a_long_name_does_not_overflow_the_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

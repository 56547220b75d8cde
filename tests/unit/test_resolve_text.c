/*
 * `watari resolve`: its words, what it says of each decision before and after, and how a handoff is told in lines.
 */
#include "resolve_words.h"

#include "agent/client/command.h"
#include "agent/client/handoff_text.h"
#include "agent/client/resolve_arguments.h"
#include "agent/client/resolve_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- the words --- */

static void expect_usage(const char *line, const char *part)
{
    struct resolve_arguments arguments;
    struct error error = {0};
    struct words words;

    split(&words, line);
    if (resolve_arguments_parse(words.argc, words.argv, &arguments, &error) != ARGUMENTS_WRONG) {
        fail_msg("\"%s\" was taken", line);
    }
    if (!strstr(error.text, part)) {
        fail_msg("no \"%s\" in: %s", part, error.text);
    }
}

static void decisions_must_be_said_in_full(void **state)
{
    struct resolve_arguments arguments;
    struct error error = {0};
    struct words words;

    (void)state;
    split(&words, "resolve web1 --run-here --source-is-off --yes");
    assert_int_equal(resolve_arguments_parse(words.argc, words.argv, &arguments, &error),
                     ARGUMENTS_GOOD);
    assert_string_equal(arguments.migration, "web1");
    assert_int_equal(arguments.choice, RESOLVE_CHOICE_RUN_HERE);
    assert_true(arguments.source_is_off);
    assert_true(arguments.yes);

    split(&words, "resolve --give-up 0a");
    assert_int_equal(resolve_arguments_parse(words.argc, words.argv, &arguments, &error),
                     ARGUMENTS_GOOD);
    assert_int_equal(arguments.choice, RESOLVE_CHOICE_GIVE_UP);
    assert_false(arguments.source_is_off);
    assert_false(arguments.yes);

    split(&words, "resolve --help");
    assert_int_equal(resolve_arguments_parse(words.argc, words.argv, &arguments, &error),
                     ARGUMENTS_HELP);
    expect_usage("resolve --run-here", "which migration");
    expect_usage("resolve web1", "--run-here");
    expect_usage("resolve web1 --run-here --give-up", "opposites");
    expect_usage("resolve web1 --give-up --source-is-off", "--source-is-off goes with");
    expect_usage("resolve web1 web2 --give-up", "\"web2\"");
    expect_usage("resolve web1 --give-up --force", "unknown option --force");
    expect_usage("resolve web1 --yes=no --give-up", "takes no value");
}

/* --- the sentences --- */

static void expect_effect(const char *migration, enum resolve_choice choice, const char *will,
                          const char *safe_if)
{
    json_t *object = load(migration);
    struct resolve_effect effect = resolve_text_effect(object, choice);

    expect_part(effect.will, will);
    expect_part(effect.safe_if, safe_if);
    resolve_effect_clear(&effect);
    json_decref(object);
}

static void each_decision_says_what_it_does(void **state)
{
    (void)state;
    expect_effect("{" AT_SOURCE PAUSED "\"handoff\":\"committed\"}", RESOLVE_CHOICE_RUN_HERE,
                  "resume it here (pid 4711)", "web1 does not run at east");
    expect_effect("{" AT_SOURCE ENDED "\"handoff\":\"committed\"}", RESOLVE_CHOICE_RUN_HERE,
                  "nothing is resumed: start web1 afterwards", "web1 does not run at east");
    expect_effect("{" AT_SOURCE ENDED "\"handoff\":\"paused\"}", RESOLVE_CHOICE_RUN_HERE,
                  "drop the copy that east may have", "no second copy comes of this");
    expect_effect("{" AT_SOURCE PAUSED "\"handoff\":\"committed\"}", RESOLVE_CHOICE_GIVE_UP,
                  "end the QEMU of web1 here (pid 4711)", "has a whole copy that can run");
    expect_effect("{" AT_SOURCE PAUSED "\"handoff\":\"conflict\"}", RESOLVE_CHOICE_GIVE_UP,
                  "end the paused copy of web1 here", "the copy at east is the one to keep");
    expect_effect("{" AT_DESTINATION PAUSED "\"handoff\":\"loaded\"}", RESOLVE_CHOICE_RUN_HERE,
                  "let the copy here (pid 4711) run", "west is switched off, and stays so");
    expect_effect("{" AT_DESTINATION PAUSED "\"handoff\":\"loaded\"}", RESOLVE_CHOICE_GIVE_UP,
                  "renamed to their name and \".given-up-0a\"", "west still has web1");
    expect_effect("{" AT_DESTINATION PAUSED "\"handoff\":\"conflict\"}", RESOLVE_CHOICE_GIVE_UP,
                  "end the paused copy of web1 here", "the copy at west is the one to keep");
}

static void expect_outcome(const char *before, const char *now, enum resolve_choice choice,
                           int code, const char *wanted)
{
    json_t *first = load(before), *last = load(now);
    char *text = resolve_text_outcome(first, last, choice);

    assert_string_equal(text, wanted);
    assert_int_equal(resolve_text_exit_code(first, last, choice), code);
    assert_int_equal(resolve_text_carried_out(last, choice), code != CLIENT_UNDECIDED);
    free(text);
    json_decref(first);
    json_decref(last);
}

static void outcomes_tell_what_was_done_and_what_is_awaited(void **state)
{
    static const char paused[] = "{" AT_SOURCE PAUSED "\"handoff\":\"committed\"}";
    static const char ended[] = "{" AT_SOURCE ENDED "\"handoff\":\"committed\"}";

    (void)state;
    expect_outcome(paused, "{" AT_SOURCE PAUSED FROM("this host", "the journal") "\"x\":1}",
                   RESOLVE_CHOICE_RUN_HERE, CLIENT_UNDECIDED,
                   "The decision for VM web1 was taken, but is not carried out yet: awaited from "
                   "this host: the journal. watarid goes on; look with `watari status 0a`.");
    /* Written down, but the guest is not resumed yet. */
    expect_outcome(paused, "{" AT_SOURCE PAUSED FROM("east", "its word") "\"x\":1}",
                   RESOLVE_CHOICE_RUN_HERE, CLIENT_UNDECIDED,
                   "The decision for VM web1 was taken, but is not carried out yet: awaited from "
                   "east: its word. watarid goes on; look with `watari status 0a`.");
    expect_outcome(paused, "{" AT_SOURCE RUNNING FROM("east", "its word") "\"x\":1}",
                   RESOLVE_CHOICE_RUN_HERE, CLIENT_DONE,
                   "VM web1 runs here now (pid 4711). Still awaited from east: its word.");
    expect_outcome(paused, "{" AT_SOURCE ENDED FROM("east", "its word") "\"x\":1}",
                   RESOLVE_CHOICE_RUN_HERE, CLIENT_LOST,
                   "The QEMU of VM web1 here has ended meanwhile: it does not run here. Still "
                   "awaited from east: its word.");
    expect_outcome(ended, "{" AT_SOURCE "\"result\":{\"result\":\"lost\"}}",
                   RESOLVE_CHOICE_RUN_HERE, CLIENT_DONE,
                   "VM web1 is this host's again, and its disks have their own names. It does not "
                   "run: start it now.");
    expect_outcome(paused, "{" AT_SOURCE RUNNING FROM("east", "its word") "\"x\":1}",
                   RESOLVE_CHOICE_GIVE_UP, CLIENT_UNDECIDED,
                   "The decision for VM web1 was taken, but is not carried out yet: awaited from "
                   "east: its word. watarid goes on; look with `watari status 0a`.");
    expect_outcome(
        paused, "{" AT_SOURCE "\"result\":{\"result\":\"done\"}}", RESOLVE_CHOICE_GIVE_UP,
        CLIENT_DONE,
        "The copy of VM web1 here was given up: its QEMU has ended, its disks are kept.");
}

/* --- how it stands --- */

static void expect_lines(const char *migration, const char *wanted)
{
    json_t *object = load(migration);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    handoff_text_print(out, object);
    handoff_text_print_advice(out, object);
    fclose(out);
    assert_string_equal(text, wanted);
    free(text);
    json_decref(object);
}

static void the_handoff_is_told_in_lines(void **state)
{
    (void)state;
    expect_lines(
        "{" AT_SOURCE PAUSED FROM(
            "east",
            "its word that it runs the VM") "\"handoff\":\"committed\",\"text\":\"east may run it now\",\"connected\":false,"
                                            "\"peer_word\":\"loaded\",\"peer_word_age_ms\":131000,\"commit_age_ms\":130900,"
                                            "\"pause_age_ms\":132000,\"held\":null,\"advice\":\"watari resolve 0a ...\","
                                            "\"disks\":[{\"path\":\"/p/a\",\"mark\":\"/p/a.m\",\"marked\":true},"
                                            "{\"path\":\"/p/b\",\"mark\":\"/p/b.m\",\"marked\":false},{\"path\":\"/dev/v\"}]}",
        "0a is undecided: VM web1, to east\n"
        "    what happened east may run it now\n"
        "    state here    committed\n"
        "    awaited       from east: its word that it runs the VM\n"
        "    QEMU here     pid 4711, paused\n"
        "    paused        for 2 min 12 s\n"
        "    east          not connected; its last word was \"loaded\", 2 min 11 s ago\n"
        "    last COMMIT   2 min 11 s ago\n"
        "    disk here     /p/a, named /p/a.m now\n"
        "    disk here     /p/b\n"
        "    disk here     /dev/v\n"
        "    what to do    watari resolve 0a ...\n");
    expect_lines("{" AT_DESTINATION "\"connected\":true,\"held\":\"it runs here\","
                 "\"peer_word\":null,\"qemu\":{\"state\":\"ended\"}}",
                 "0a is undecided: VM web1, from west\n"
                 "    QEMU here     ended\n"
                 "    west          connected\n"
                 "    held          no COMMIT is sent: it runs here\n");
    expect_lines("{\"id\":\"0a\",\"side\":\"source\",\"vm\":null,\"peer\":null,"
                 "\"phase\":\"unreadable\",\"text\":\"record 3 is damaged\\u001b[2J\","
                 "\"journal\":\"/s/journal/0a.source\"}",
                 "0a of VM ?: its journal cannot be read\n"
                 "    what happened record 3 is damaged?[2J\n"
                 "    journal       /s/journal/0a.source\n");
    /* It was paused. */
    expect_lines("{" AT_SOURCE RUNNING "\"pause_age_ms\":9000}",
                 "0a is undecided: VM web1, to east\n"
                 "    QEMU here     pid 4711, running\n");
    expect_lines(
        "{\"id\":\"0a\",\"side\":\"source\",\"vm\":\"w\",\"peer\":\"e\",\"undecided\":false,"
        "\"awaited\":\"nothing\",\"awaited_from\":null}",
        "0a of VM w, to e:\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions_must_be_said_in_full),
        cmocka_unit_test(each_decision_says_what_it_does),
        cmocka_unit_test(outcomes_tell_what_was_done_and_what_is_awaited),
        cmocka_unit_test(the_handoff_is_told_in_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

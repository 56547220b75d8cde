/*
 * What watari makes of the words it is given, and of the events it is told.
 */
#include "agent/client/arguments.h"
#include "agent/client/event_text.h"
#include "agent/client/migrate_arguments.h"
#include "agent/client/set_arguments.h"
#include "agent/client/terminal.h"
#include "agent/client/watch.h"

#include "words.h"

#include <stdlib.h>

static void expect_request(const char *line, const char *wanted, bool detach)
{
    struct migrate_arguments arguments;
    struct error error = {0};
    struct words words;
    char *text;

    split(&words, line);
    if (migrate_arguments_parse(words.argc, words.argv, &arguments, &error) != ARGUMENTS_GOOD) {
        fail_msg("\"%s\" was refused: %s", line, error.text);
    }
    text = json_dumps(arguments.request, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, wanted);
    assert_int_equal(arguments.detach, detach);
    free(text);
    json_decref(arguments.request);
}

static void expect_usage(const char *line, const char *part)
{
    struct migrate_arguments arguments;
    struct error error = {0};
    struct words words;

    split(&words, line);
    if (migrate_arguments_parse(words.argc, words.argv, &arguments, &error) != ARGUMENTS_WRONG) {
        fail_msg("\"%s\" was taken", line);
    }
    assert_null(arguments.request);
    if (!strstr(error.text, part)) {
        fail_msg("no \"%s\" in: %s", part, error.text);
    }
}

static void migrate_sends_what_was_said(void **state)
{
    (void)state;
    expect_request("migrate web1 --to h2", "{\"peer\":\"h2\",\"vm\":\"web1\"}", false);
    expect_request("migrate --to h2 web1 --detach", "{\"peer\":\"h2\",\"vm\":\"web1\"}", true);
    expect_request("migrate --to=h2 --mode quick --max-downtime 300ms web1 "
                   "--max-quick-downtime=1.5min --reconnect-timeout 1h",
                   "{\"max_downtime_ms\":300,\"max_quick_downtime_ms\":90000,\"mode\":\"quick\","
                   "\"peer\":\"h2\",\"reconnect_timeout_ms\":3600000,\"vm\":\"web1\"}",
                   false);
    expect_request("migrate web1 --to h2 --deadline 2min --max-throttle 0",
                   "{\"deadline_ms\":120000,\"max_throttle\":0,\"peer\":\"h2\",\"vm\":\"web1\"}",
                   false);
    expect_request("migrate web1 --to h2 --max-bandwidth 100mbit --switchover-bandwidth none",
                   "{\"max_bandwidth\":12500000,\"peer\":\"h2\",\"switchover_bandwidth\":0,"
                   "\"vm\":\"web1\"}",
                   false);
    expect_request("migrate --to h2 --compress auto --lanes 4 -- -odd",
                   "{\"compress\":\"auto\",\"lanes\":4,\"peer\":\"h2\",\"vm\":\"-odd\"}", false);
    expect_request("migrate 4711 --to h2 --compress -5",
                   "{\"compress\":-5,\"peer\":\"h2\",\"vm\":\"4711\"}", false);
    expect_request("migrate /run/q.sock --to h2 --disk vda=fast --disk vdb=/srv/x=y.img",
                   "{\"disks\":[{\"device\":\"vda\",\"target\":\"fast\"},"
                   "{\"device\":\"vdb\",\"target\":\"/srv/x=y.img\"}],"
                   "\"peer\":\"h2\",\"vm\":\"/run/q.sock\"}",
                   false);
    expect_request("migrate web1 --to h2 --verify",
                   "{\"peer\":\"h2\",\"verify\":true,\"vm\":\"web1\"}", false);
    expect_request("migrate caf\xe9 --to h2", "{\"peer\":\"h2\",\"vm\":\"caf?\"}", false);
}

static void migrate_names_the_wrong_word(void **state)
{
    (void)state;
    expect_usage("migrate", "which VM");
    expect_usage("migrate web1", "--to PEER");
    expect_usage("migrate --to h2", "which VM");
    expect_usage("migrate web1 web2 --to h2", "\"web2\"");
    expect_usage("migrate web1 --to", "--to needs a value");
    expect_usage("migrate web1 --to h2 --mode fast", "--mode: \"fast\"");
    expect_usage("migrate web1 --to h2 --max-downtime 300", "--max-downtime: \"300\" has no unit");
    expect_usage("migrate web1 --to h2 --max-quick-downtime soon", "\"soon\"");
    expect_usage("migrate web1 --to h2 --reconnect-timeout 9999h", "too long");
    expect_usage("migrate web1 --to h2 --deadline 90", "--deadline: \"90\" has no unit");
    expect_usage("migrate web1 --to h2 --max-throttle -1", "--max-throttle: \"-1\"");
    expect_usage("migrate web1 --to h2 --max-throttle half", "--max-throttle: \"half\"");
    expect_usage("migrate web1 --to h2 --max-bandwidth fast", "--max-bandwidth: \"fast\"");
    expect_usage("migrate web1 --to h2 --max-bandwidth 100",
                 "--max-bandwidth: 100 is not from 1mbit");
    expect_usage("migrate web1 --to h2 --switchover-bandwidth 0",
                 "--switchover-bandwidth: 0 is not");
    expect_usage("migrate web1 --to h2 --compress strong", "--compress: \"strong\"");
    expect_usage("migrate web1 --to h2 --compress 3x", "--compress: \"3x\"");
    expect_usage("migrate web1 --to h2 --lanes 0", "--lanes: \"0\"");
    expect_usage("migrate web1 --to h2 --lanes many", "--lanes: \"many\"");
    expect_usage("migrate web1 --to h2 --disk vda", "--disk: \"vda\"");
    expect_usage("migrate web1 --to h2 --disk =fast", "--disk: \"=fast\"");
    expect_usage("migrate web1 --to h2 --disk vda=", "--disk: \"vda=\"");
    expect_usage("migrate web1 --to h2 --detach=yes", "--detach=yes: this option takes no value");
    expect_usage("migrate web1 --to h2 -v", "unknown option -v");
    /* Options of later versions are not silently ignored. */
    expect_usage("migrate web1 --to h2 --postcopy", "unknown option --postcopy");
    expect_usage("migrate web1 --to h2 --verify=disk", "--verify=disk: this option takes no value");
    expect_usage("migrate web1 --to h2 --json", "--json goes before the command");
}

static void expect_set(const char *line, const char *wanted)
{
    struct error error = {0};
    struct words words;
    json_t *request;
    char *text;

    split(&words, line);
    if (set_arguments_parse(words.argc, words.argv, &request, &error) != ARGUMENTS_GOOD) {
        fail_msg("\"%s\" was refused: %s", line, error.text);
    }
    text = json_dumps(request, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, wanted);
    free(text);
    json_decref(request);
}

static void expect_set_usage(const char *line, const char *part)
{
    struct error error = {0};
    struct words words;
    json_t *request;

    split(&words, line);
    if (set_arguments_parse(words.argc, words.argv, &request, &error) != ARGUMENTS_WRONG) {
        fail_msg("\"%s\" was taken", line);
    }
    assert_null(request);
    if (!strstr(error.text, part)) {
        fail_msg("no \"%s\" in: %s", part, error.text);
    }
}

static void set_sends_what_was_said(void **state)
{
    (void)state;
    expect_set("set web1 max-bandwidth=10M", "{\"max_bandwidth\":10485760,\"migration\":\"web1\"}");
    expect_set("set web1 max-bandwidth=none switchover-bandwidth=1gbit",
               "{\"max_bandwidth\":0,\"migration\":\"web1\",\"switchover_bandwidth\":125000000}");
    expect_set("set --host max-bandwidth=200mbit", "{\"max_bandwidth\":25000000}");
    expect_set_usage("set", "which migration");
    expect_set_usage("set web1", "set what");
    expect_set_usage("set web1 max-bandwidth", "\"max-bandwidth\" is not KEY=VALUE");
    expect_set_usage("set web1 max-bandwidth=", "max-bandwidth: \"\"");
    expect_set_usage("set web1 max-bandwidth=1kbit", "1kbit is not from 1mbit");
    expect_set_usage("set web1 colour=red", "no \"colour\" to set");
    expect_set_usage("set --host switchover-bandwidth=1gbit", "no \"switchover-bandwidth\" to set");
    expect_set_usage("set web1 --all max-bandwidth=1gbit", "unknown option --all");
}

static void global_words_end_at_the_command(void **state)
{
    struct client client;
    struct error error;
    struct words words;
    int index = 0;

    (void)state;
    assert_int_equal(setenv("WATARI_CONTROL", "/env.sock", 1), 0);
    split(&words, "watari --json migrate --to h2 --help");
    assert_int_equal(arguments_parse_global(&client, words.argc, words.argv, &index, &error),
                     ARGUMENTS_GOOD);
    assert_true(client.json);
    assert_string_equal(client.control_path, "/env.sock");
    assert_string_equal(words.argv[index], "migrate");

    split(&words, "watari --control /x.sock list");
    assert_int_equal(arguments_parse_global(&client, words.argc, words.argv, &index, &error),
                     ARGUMENTS_GOOD);
    assert_false(client.json);
    assert_string_equal(client.control_path, "/x.sock");

    assert_int_equal(setenv("WATARI_CONTROL", "", 1), 0);
    split(&words, "watari");
    assert_int_equal(arguments_parse_global(&client, words.argc, words.argv, &index, &error),
                     ARGUMENTS_GOOD);
    assert_string_equal(client.control_path, "/run/watari/control.sock");
    assert_int_equal(index, 1);

    split(&words, "watari --nonsense list");
    assert_int_equal(arguments_parse_global(&client, words.argc, words.argv, &index, &error),
                     ARGUMENTS_WRONG);
    assert_non_null(strstr(error.text, "--nonsense"));
    split(&words, "watari --version");
    assert_int_equal(arguments_parse_global(&client, words.argc, words.argv, &index, &error),
                     ARGUMENTS_VERSION);
}

static void words_are_counted(void **state)
{
    struct error error;
    struct words words;
    char **found;
    int count;

    (void)state;
    split(&words, "watch abc");
    assert_int_equal(arguments_parse_words(words.argc, words.argv, 1, 1, &found, &count, &error),
                     ARGUMENTS_GOOD);
    assert_string_equal(found[0], "abc");
    split(&words, "watch abc def");
    assert_int_equal(arguments_parse_words(words.argc, words.argv, 1, 1, &found, &count, &error),
                     ARGUMENTS_WRONG);
    assert_non_null(strstr(error.text, "\"def\""));
    split(&words, "watch");
    assert_int_equal(arguments_parse_words(words.argc, words.argv, 1, 1, &found, &count, &error),
                     ARGUMENTS_WRONG);
    split(&words, "list --help");
    assert_int_equal(arguments_parse_words(words.argc, words.argv, 0, 0, &found, &count, &error),
                     ARGUMENTS_HELP);
}

static void results_have_their_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(watch_exit_code("done"), 0);
    assert_int_equal(watch_exit_code("failed"), 1);
    assert_int_equal(watch_exit_code("refused"), 1);
    assert_int_equal(watch_exit_code("undecided"), 3);
    assert_int_equal(watch_exit_code("cancelled"), 4);
    assert_int_equal(watch_exit_code("lost"), 5);
    assert_int_equal(watch_exit_code("news"), 1);
    assert_int_equal(watch_exit_code(NULL), 1);
}

static void expect_text(void (*make)(char *, size_t, const json_t *), const char *event,
                        const char *wanted)
{
    json_t *object = json_loads(event, 0, NULL);
    char text[512];

    assert_non_null(object);
    make(text, sizeof text, object);
    assert_string_equal(text, wanted);
    json_decref(object);
}

static void progress_reads_well(void **state)
{
    (void)state;
    expect_text(event_text_progress,
                "{\"vm\":\"web1\",\"phase\":\"disk-bulk\",\"disk\":{\"total\":4294967296,"
                "\"done\":1073741824,\"left\":3221225472,\"pass\":0},\"memory\":null,"
                "\"wire_rate\":104857600,\"eta_ms\":42000,\"predicted_downtime_ms\":210}",
                "web1 disk-bulk: 42.0 s to go, predicted downtime 210 ms, 100 MiB/s, "
                "disk 1.0 GiB of 4.0 GiB");
    expect_text(event_text_progress,
                "{\"vm\":\"web1\",\"phase\":\"memory\",\"disk\":{\"total\":100,\"left\":2048,"
                "\"pass\":3},\"memory\":{\"round\":2,\"left\":1048576,\"dirty_rate\":2048},"
                "\"eta_ms\":null,\"predicted_downtime_ms\":null}",
                "web1 memory: memory 1.0 MiB left (round 2, 2.0 KiB/s dirtied), "
                "disk 2.0 KiB left (pass 3)");
    expect_text(event_text_progress, "{}", "");
    expect_text(event_text_notice,
                "{\"event\":\"phase\",\"vm\":\"w\",\"phase\":\"p\","
                "\"text\":\"t\"}",
                "w p: t");
    expect_text(event_text_notice, "{\"event\":\"warning\",\"text\":\"t\"}", "warning: t");
}

static void outcomes_say_where_the_guest_is(void **state)
{
    (void)state;
    expect_text(event_text_outcome,
                "{\"result\":\"done\",\"vm\":\"web1\",\"downtime_ms\":243.2,"
                "\"downtime_error_ms\":0.4,\"where\":{\"host\":\"h2\",\"pid\":4711}}",
                "VM web1 runs on h2 now (pid 4711); it stood still for 243 ms \u00b1 0.4 ms.");
    expect_text(event_text_outcome,
                "{\"result\":\"failed\",\"vm\":\"web1\",\"error\":{\"id\":\"x\","
                "\"text\":\"What the daemon says.\"}}",
                "What the daemon says.");
    expect_text(event_text_outcome, "{\"result\":\"cancelled\",\"vm\":\"web1\",\"error\":null}",
                "The migration of VM web1 was cancelled; it runs at the source as before.");
    expect_text(event_text_outcome, "{\"result\":\"lost\",\"id\":\"0a\",\"vm\":\"web1\"}",
                "Migration 0a of VM web1 ended: lost (no reason given).");
}

static void long_texts_are_cut(void **state)
{
    json_t *event =
        json_pack("{s:s,s:s,s:s}", "event", "phase", "vm", "a-long-name", "text", "a long text");
    char text[8];

    (void)state;
    event_text_notice(text, sizeof text, event);
    assert_string_equal(text, "a-long-");
    json_decref(event);
}

static void expect_clean(const char *text, const char *wanted)
{
    char copy[64];

    snprintf(copy, sizeof copy, "%s", text);
    terminal_clean(copy);
    assert_string_equal(copy, wanted);
}

static void nothing_steers_the_terminal(void **state)
{
    (void)state;
    expect_clean("plain caf\u00e9 \u6e21\u308a \U0001f42e",
                 "plain caf\u00e9 \u6e21\u308a \U0001f42e");
    expect_clean("\x1b[2Jx\r\n\t\x7f", "?[2Jx????");
    expect_clean("a\xc2\x9b"
                 "b",
                 "a??b");
    expect_clean("a\x9b\xff\xc3", "a???");
    expect_clean("\xe2\x82", "??");
    expect_clean("\xc0\xaf", "??");
    assert_int_equal(terminal_width("caf\u00e9 \u6e21"), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(migrate_sends_what_was_said),
        cmocka_unit_test(migrate_names_the_wrong_word),
        cmocka_unit_test(set_sends_what_was_said),
        cmocka_unit_test(global_words_end_at_the_command),
        cmocka_unit_test(words_are_counted),
        cmocka_unit_test(results_have_their_exit_codes),
        cmocka_unit_test(progress_reads_well),
        cmocka_unit_test(outcomes_say_where_the_guest_is),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(nothing_steers_the_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * watarid's configuration: what is read, what overrides what, and that each mistake is named by
 * file and line.
 */
#include "agent/daemon/config.h"
#include "agent/policy/page_budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/test_config.XXXXXX";

static int make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_bytes(const char *text, size_t length)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* Loads TEXT as the file, with up to two more words on the command line. */
static bool load(struct config *config, const char *text, const char *first, const char *second,
                 struct error *error)
{
    const char *words[] = {"watarid", "--config", path, first, first ? second : NULL, NULL};
    char *copies[6] = {0};
    int count = 0;
    bool good;

    write_bytes(text, strlen(text));
    for (; words[count]; count++) {
        copies[count] = strdup(words[count]);
        assert_non_null(copies[count]);
    }
    *error = (struct error){0};
    good = config_load(config, count, copies, error);
    /* getopt may have changed their order, not what they are. */
    for (int i = 0; i < count; i++) {
        free(copies[i]);
    }
    return good;
}

static void expect_good(struct config *config, const char *text, const char *first,
                        const char *second)
{
    struct error error;

    if (!load(config, text, first, second, &error)) {
        fail_msg("refused: %s", error.text);
    }
}

/* PART must stand in the message, after FILE:LINE: when LINE is not 0. */
static void expect_error(const char *text, const char *first, const char *second, int line,
                         const char *part)
{
    struct config config;
    struct error error;
    char start[100];

    if (load(&config, text, first, second, &error)) {
        fail_msg("was taken: %s", text);
    }
    snprintf(start, sizeof start, "%s:%d: ", path, line);
    if (line && strncmp(error.text, start, strlen(start)) != 0) {
        fail_msg("no \"%s\" before: %s", start, error.text);
    }
    if (!strstr(error.text, part)) {
        fail_msg("no \"%s\" in: %s", part, error.text);
    }
    assert_null(config.state_dir);
    assert_null(config.pools);
}

static void defaults_need_no_file(void **state)
{
    struct config config;

    (void)state;
    expect_good(&config, "", NULL, NULL);
    assert_string_equal(config.listen_address, "0.0.0.0");
    assert_int_equal(config.listen_port, 7788);
    assert_string_equal(config.state_dir, "/var/lib/watari");
    assert_string_equal(config.run_dir, "/run/watari");
    assert_string_equal(config.control_path, "/run/watari/control.sock");
    assert_true(strlen(config.host_name) > 0);
    assert_true(strlen(config.mover_user) > 0);
    assert_int_equal(config.in_flight_ms, 30);
    assert_int_equal(config.patience_ms, 5000);
    assert_int_equal(config.max_bandwidth, 0);
    assert_true(config.key_bytes == 256ull << 30);
    assert_non_null(strstr(config.mover_path, "watari-mover"));
    assert_int_equal(config.pool_count, 0);
    assert_int_equal(config.binary_count, 2);
    assert_string_equal(config.binaries[0], "/usr/bin/");
    assert_string_equal(config.binaries[1], "/usr/libexec/");
    assert_true(config.page_cache == PAGE_BUDGET_AUTO);
    config_clear(&config);
}

static void a_whole_file_is_read(void **state)
{
    struct config config;

    (void)state;
    expect_good(&config,
                "# a comment\n"
                "[watarid]\n"
                "listen = [::]:7000 ; all of them\n"
                "state-dir = /srv/state/\n"
                "run-dir=/srv/run\n"
                "host-name = h1.example\n"
                "mover-user: mover\n"
                "\n"
                "[pools]\n"
                "fast = /srv/vms\n"
                "slow.1 = /srv/more/\n"
                "[launch]\n"
                "binary = /opt/qemu/bin/qemu-system-x86_64\n"
                "binary = /opt/qemu/libexec/\n"
                "allow-path = /srv/boot\n"
                "[memory]\n"
                "in-flight = 100ms\n"
                "page-cache = 512M\n"
                "[link]\n"
                "patience = 1min\n"
                "renew-keys = 64M\n"
                "max-bandwidth = 500mbit\n",
                NULL, NULL);
    assert_string_equal(config.listen_address, "::");
    assert_int_equal(config.listen_port, 7000);
    assert_string_equal(config.state_dir, "/srv/state");
    assert_string_equal(config.control_path, "/srv/run/control.sock");
    assert_string_equal(config.host_name, "h1.example");
    assert_string_equal(config.mover_user, "mover");
    assert_int_equal(config.pool_count, 2);
    assert_string_equal(config.pools[0].name, "fast");
    assert_string_equal(config_pool(&config, "slow.1")->directory, "/srv/more");
    assert_null(config_pool(&config, "none"));
    assert_int_equal(config.binary_count, 2);
    assert_string_equal(config.binaries[1], "/opt/qemu/libexec/");
    assert_int_equal(config.allowed_path_count, 1);
    assert_int_equal(config.in_flight_ms, 100);
    assert_int_equal(config.patience_ms, 60000);
    assert_int_equal(config.max_bandwidth, 62500000);
    assert_int_equal(config.key_bytes, 64 << 20);
    assert_int_equal(config.page_cache, 512 << 20);
    config_clear(&config);
}

static void the_page_cache_may_be_automatic_or_none(void **state)
{
    struct config config;

    (void)state;
    expect_good(&config, "[memory]\npage-cache = auto\n", NULL, NULL);
    assert_true(config.page_cache == PAGE_BUDGET_AUTO);
    config_clear(&config);
    expect_good(&config, "[memory]\npage-cache = 0\n", NULL, NULL);
    assert_int_equal(config.page_cache, 0);
    config_clear(&config);
    expect_error("[memory]\npage-cache = much\n", NULL, NULL, 2, "much");
}

static void options_override_and_pools_add(void **state)
{
    const char *text =
        "[watarid]\nlisten = 127.0.0.1\nrun-dir = /srv/run\n[pools]\nfast = /srv/vms\n";
    struct config config;

    (void)state;
    expect_good(&config, text, "--listen=10.0.0.1:7001", "--pool=slow=/srv/slow");
    assert_string_equal(config.listen_address, "10.0.0.1");
    assert_int_equal(config.listen_port, 7001);
    assert_string_equal(config.run_dir, "/srv/run");
    assert_string_equal(config.pools[0].name, "fast");
    assert_string_equal(config.pools[1].directory, "/srv/slow");
    config_clear(&config);
    expect_good(&config, text, "--control", "/srv/c.sock");
    assert_string_equal(config.listen_address, "127.0.0.1");
    assert_int_equal(config.listen_port, 7788);
    assert_string_equal(config.control_path, "/srv/c.sock");
    config_clear(&config);
}

static void mistakes_in_the_file_are_named_by_line(void **state)
{
    (void)state;
    expect_error("[watarid]\nstate = /x\n", NULL, NULL, 2, "unknown key \"state\" in [watarid]");
    expect_error("\n[watari]\n", NULL, NULL, 2, "unknown section [watari]");
    expect_error("[watarid]\n[pool]\nfast = /x\n", NULL, NULL, 2, "unknown section [pool]");
    expect_error("listen = 1.2.3.4\n", NULL, NULL, 1, "before any [section]");
    expect_error("[watarid]\nlisten\n", NULL, NULL, 2, "KEY = VALUE");
    expect_error("[watarid\nlisten = 0.0.0.0\n", NULL, NULL, 1, "KEY = VALUE");
    expect_error("[watarid]\nlisten = 0.0.0.0\n# x\nlisten = 0.0.0.0\n", NULL, NULL, 4, "twice");
    expect_error("[watarid]\nlisten = host\n", NULL, NULL, 2, "numeric");
    expect_error("[watarid]\nlisten = 0.0.0.0:0\n", NULL, NULL, 2, "port");
    expect_error("[watarid]\nlisten = 0.0.0.0:65536\n", NULL, NULL, 2, "port");
    expect_error("[watarid]\nlisten = 0.0.0.0:77x\n", NULL, NULL, 2, "port");
    expect_error("[watarid]\nlisten =\n", NULL, NULL, 2, "listen");
    expect_error("[watarid]\nstate-dir = state\n", NULL, NULL, 2, "absolute");
    expect_error("[watarid]\nstate-dir = /srv/../etc\n", NULL, NULL, 2, "absolute");
    expect_error("[watarid]\nstate-dir = /srv//x\n", NULL, NULL, 2, "absolute");
    expect_error("[watarid]\nhost-name = a b\n", NULL, NULL, 2, "host name");
    expect_error("[watarid]\nmover-user = root\n", NULL, NULL, 2, "root");
    expect_error("[pools]\nfast = /srv/a\nfast = /srv/b\n", NULL, NULL, 3, "given twice");
    expect_error("[pools]\n-x = /srv/a\n", NULL, NULL, 2, "pool name");
    expect_error("[pools]\nfast = vms\n", NULL, NULL, 2, "pool fast: ");
    expect_error("[pools]\nfast = /\n", NULL, NULL, 2, "root directory");
    expect_error("[launch]\nbinary = qemu-system-x86_64\n", NULL, NULL, 2, "absolute");
    expect_error("[link]\npatience = 2s\n", NULL, NULL, 2, "from 3s to 120s");
    expect_error("[link]\npatience = 3min\n", NULL, NULL, 2, "from 3s to 120s");
    expect_error("[link]\nrenew-keys = 257G\n", NULL, NULL, 2, "from 1M to 256G");
    expect_error("[link]\nrenew-keys = 1K\n", NULL, NULL, 2, "from 1M to 256G");
    expect_error("[link]\nmax-bandwidth = 10kbit\n", NULL, NULL, 2, "from 1mbit to 8tbit");
    expect_error("[link]\nmax-bandwidth = fast\n", NULL, NULL, 2, "max-bandwidth: \"fast\"");
    expect_error("[memory]\nin-flight = 30\n", NULL, NULL, 2, "in-flight: ");
    expect_error("[memory]\nin-flight = 0ms\n", NULL, NULL, 2, "from 1ms to 10s");
    expect_error("[memory]\nin-flight = 11s\n", NULL, NULL, 2, "from 1ms to 10s");
    expect_error("[launch]\nallow-path = boot\n", NULL, NULL, 2, "absolute");
    /* Indented, inih takes it for more of the value before it: never silently. */
    expect_error("[watarid]\nlisten = 0.0.0.0\n  state-dir = /x\n", NULL, NULL, 3, "twice");
}

static void the_first_mistake_is_told(void **state)
{
    (void)state;
    expect_error("[watarid]\nnonsense\nlisten = x\n", NULL, NULL, 2, "KEY = VALUE");
    expect_error("[watarid]\nlisten = x\nnonsense\n", NULL, NULL, 2, "numeric");
}

static void long_lines_and_nuls_are_refused(void **state)
{
    static const char with_nul[] = "[watarid]\nhost-name = a\0b\nlisten = 0.0.0.0\n";
    char *words[] = {(char[]){"watarid"}, (char[]){"--config"}, path, NULL};
    char text[1000] = "[watarid]\nstate-dir = /";
    struct config config;
    struct error error;

    (void)state;
    memset(text + strlen(text), 'x', 900);
    expect_error(text, NULL, NULL, 2, "too long");
    write_bytes(with_nul, sizeof with_nul - 1);
    assert_false(config_load(&config, 3, words, &error));
    assert_non_null(strstr(error.text, ":2: "));
}

static void a_named_file_must_exist(void **state)
{
    char *words[] = {(char[]){"watarid"}, (char[]){"--config"}, (char[]){"/nonexistent/f"}, NULL};
    char *directory[] = {(char[]){"watarid"}, (char[]){"--config"}, (char[]){"/tmp"}, NULL};
    struct config config;
    struct error error = {0};

    (void)state;
    assert_false(config_load(&config, 3, words, &error));
    assert_non_null(strstr(error.text, "/nonexistent/f: No such file"));
    assert_false(config_load(&config, 3, directory, &error));
    assert_non_null(strstr(error.text, "/tmp: "));
}

static void mistakes_in_options_name_the_option(void **state)
{
    (void)state;
    expect_error("", "--nonsense", NULL, 0, "unknown option --nonsense");
    expect_error("", "-x", NULL, 0, "unknown option -x");
    expect_error("", "--listen", NULL, 0, "--listen needs a value");
    expect_error("", "--listen", "0.0.0.0:x", 0, "--listen: ");
    expect_error("", "--pool", "/srv/x", 0, "NAME=DIR");
    expect_error("", "--pool", "a=x", 0, "--pool: pool a: ");
    expect_error("[pools]\na = /srv/a\n", "--pool", "a=/srv/b", 0, "twice");
    expect_error("", "--run-dir", "run", 0, "--run-dir: ");
    expect_error("", "word", NULL, 0, "\"word\"");
    expect_error("", "--http", "0.0.0.0:1", 0, "unknown option --http");
}

static void a_control_path_must_fit_a_socket(void **state)
{
    char option[200] = "--run-dir=/";

    (void)state;
    memset(option + strlen(option), 'x', 120);
    expect_error("", option, NULL, 0, "too long");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_need_no_file),
        cmocka_unit_test(a_whole_file_is_read),
        cmocka_unit_test(the_page_cache_may_be_automatic_or_none),
        cmocka_unit_test(options_override_and_pools_add),
        cmocka_unit_test(mistakes_in_the_file_are_named_by_line),
        cmocka_unit_test(the_first_mistake_is_told),
        cmocka_unit_test(long_lines_and_nuls_are_refused),
        cmocka_unit_test(a_named_file_must_exist),
        cmocka_unit_test(mistakes_in_options_name_the_option),
        cmocka_unit_test(a_control_path_must_fit_a_socket),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}

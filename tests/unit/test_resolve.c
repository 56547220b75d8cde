/*
 * `watari resolve` and `watari start` against a daemon that says what the test wrote down: what is shown, what is asked, how it ends.
 */
#include "resolve_words.h"

#include "agent/client/command.h"

#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OUTPUT_SIZE 8192

/* One request and what is answered. When they are used up, the last one is answered again. */
struct exchange {
    const char *request; /* a part of it */
    const char *answer;  /* without its id */
    const char *event;   /* a line sent after it, or NULL */
};

struct dialogue {
    const struct exchange *exchanges;
    size_t count;
    const char *typed; /* on a terminal; NULL: there is none */
    char path[64];
    char output[OUTPUT_SIZE];
    int code;
};

static void answer(FILE *stream, const struct exchange *exchange, long long id)
{
    fprintf(stream, "{%s,\"id\":%lld}\n", exchange->answer, id);
    if (exchange->event) {
        fprintf(stream, "%s\n", exchange->event);
    }
    fflush(stream);
}

/* The daemon, in a process of its own: exits with 1 when something else was asked, or too little. */
static _Noreturn void serve(const struct dialogue *dialogue, int listening)
{
    int fd = accept(listening, NULL, NULL);
    FILE *stream = fdopen(fd, "r+");
    size_t at = 0, answered = 0;
    char line[1024];

    fprintf(stream, "{\"watari\":{\"version\":\"0\",\"host\":\"here\"}}\n");
    fflush(stream);
    while (fgets(line, sizeof line, stream)) {
        const char *id = strstr(line, "\"id\":");

        if (!strstr(line, dialogue->exchanges[at].request) || !id) {
            fprintf(stderr, "asked %swhere %s was expected\n", line,
                    dialogue->exchanges[at].request);
            _exit(1);
        }
        answer(stream, &dialogue->exchanges[at], strtoll(id + 5, NULL, 10));
        answered++;
        at += at + 1 < dialogue->count;
    }
    _exit(answered >= dialogue->count ? 0 : 1);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static _Noreturn void run_client(const struct dialogue *dialogue, const char *line, bool json,
                                 int output)
{
    const struct client client = {dialogue->path, json};
    const struct command self = {.name = "test", .usage = "test", .description = "test"};
    int input = -1, terminal = -1;
    struct words words;

    if (dialogue->typed) {
        assert_int_equal(openpty(&terminal, &input, NULL, NULL, NULL), 0);
        assert_int_equal(write(terminal, dialogue->typed, strlen(dialogue->typed)),
                         (ssize_t)strlen(dialogue->typed));
        dup2(input, STDIN_FILENO);
    } else {
        assert_non_null(freopen("/dev/null", "r", stdin));
    }
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    split(&words, line);
    if (strcmp(words.argv[0], "start") == 0) {
        exit(command_start(&client, &self, words.argc, words.argv));
    }
    exit(command_resolve(&client, &self, words.argc, words.argv));
}

static int exit_code(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Runs LINE to its end and keeps what it printed. With no exchanges the daemon must not be asked at all. */
static void converse(struct dialogue *dialogue, const char *line, bool json)
{
    char directory[] = "/tmp/test_resolve.XXXXXX";
    FILE *output = tmpfile();
    pid_t server = 0, client;
    int listening;

    assert_non_null(mkdtemp(directory));
    assert_non_null(output);
    snprintf(dialogue->path, sizeof dialogue->path, "%s/s", directory);
    listening = listen_at(dialogue->path);
    if (dialogue->count) {
        server = fork();
        assert_true(server >= 0);
        if (server == 0) {
            serve(dialogue, listening);
        }
    }
    client = fork();
    assert_true(client >= 0);
    if (client == 0) {
        run_client(dialogue, line, json, fileno(output));
    }
    dialogue->code = exit_code(client);
    close(listening);
    rewind(output);
    dialogue->output[fread(dialogue->output, 1, OUTPUT_SIZE - 1, output)] = '\0';
    fclose(output);
    unlink(dialogue->path);
    rmdir(directory);
    if (server && exit_code(server) != 0) {
        fail_msg("the daemon was asked something else, or too little; watari said: %s",
                 dialogue->output);
    }
}

#define ASK "\"execute\":\"resolve\""
#define SHOWN(members) "\"return\":{\"migration\":{" members "}}"
#define COMMITTED AT_SOURCE PAUSED FROM("east", "its word") "\"handoff\":\"committed\""
#define LOADED AT_DESTINATION PAUSED FROM("west", "its commit") "\"handoff\":\"loaded\""
#define WATCHED "\"return\":{\"migration\":\"0a\"}"
#define ACCEPTED "\"return\":{\"accepted\":true,\"text\":\"\"}"

static void a_decision_is_shown_confirmed_and_watched(void **state)
{
    static const struct exchange exchanges[] = {
        {ASK, SHOWN(COMMITTED), NULL},
        {"\"execute\":\"watch\"", WATCHED, NULL},
        {"\"decision\":\"run-here\"", ACCEPTED,
         "{\"event\":\"phase\",\"vm\":\"web1\",\"phase\":\"rollback\",\"text\":\"taking back\"}"},
        {ASK, SHOWN(AT_SOURCE PAUSED FROM("this host", "QEMU") "\"handoff\":\"taking-back\""),
         NULL},
        {ASK, SHOWN(AT_SOURCE RUNNING FROM("east", "its word") "\"handoff\":\"withdrawn\""), NULL},
    };
    struct dialogue dialogue = {exchanges, sizeof exchanges / sizeof exchanges[0],
                                .typed = "web1\n"};

    (void)state;
    converse(&dialogue, "resolve web1 --run-here", false);
    assert_int_equal(dialogue.code, CLIENT_DONE);
    expect_part(dialogue.output, "0a is undecided: VM web1, to east");
    expect_part(dialogue.output, "--run-here will write down that east may not run web1");
    expect_part(dialogue.output, "No image is deleted.");
    expect_part(dialogue.output, "Safe only if web1 does not run at east");
    expect_part(dialogue.output, "web1 rollback: taking back");
    expect_part(dialogue.output,
                "VM web1 runs here now (pid 4711). Still awaited from east: its word.");
}

static void a_wrong_name_decides_nothing(void **state)
{
    static const struct exchange exchanges[] = {{ASK, SHOWN(COMMITTED), NULL}};
    struct dialogue dialogue = {exchanges, 1, .typed = "web2\n"};

    (void)state;
    converse(&dialogue, "resolve 0a --give-up", false);
    assert_int_equal(dialogue.code, CLIENT_FAILED);
    expect_part(dialogue.output, "nothing was done");
}

static void without_a_terminal_yes_is_wanted(void **state)
{
    struct dialogue dialogue = {0};

    (void)state;
    converse(&dialogue, "resolve 0a --give-up", false);
    assert_int_equal(dialogue.code, CLIENT_USAGE);
    expect_part(dialogue.output, "--yes");
}

static void json_is_the_evidence_and_the_outcome(void **state)
{
    static const struct exchange exchanges[] = {
        {ASK, SHOWN(COMMITTED), NULL},
        {"\"execute\":\"watch\"", WATCHED, NULL},
        {"\"decision\":\"give-up\"", ACCEPTED,
         "{\"event\":\"result\",\"vm\":\"web1\",\"result\":\"done\"}"},
        {ASK, SHOWN(AT_SOURCE ENDED FROM("east", "its word") "\"handoff\":\"committed\""), NULL},
    };
    struct dialogue dialogue = {exchanges, sizeof exchanges / sizeof exchanges[0], .typed = NULL};
    json_t *evidence, *outcome;
    char *second;

    (void)state;
    converse(&dialogue, "resolve web1 --give-up --yes", true);
    assert_int_equal(dialogue.code, CLIENT_DONE);
    second = strchr(dialogue.output, '\n');
    assert_non_null(second);
    *second++ = '\0';
    assert_ptr_equal(strchr(second, '\n'), second + strlen(second) - 1);
    evidence = load(dialogue.output);
    outcome = load(second);
    assert_string_equal(json_string_value(json_object_get(evidence, "event")), "evidence");
    assert_non_null(json_object_get(evidence, "safe_if"));
    assert_string_equal(json_string_value(json_object_get(outcome, "event")), "resolved");
    assert_true(json_is_true(json_object_get(outcome, "carried_out")));
    json_decref(evidence);
    json_decref(outcome);
}

static void the_destination_wants_to_hear_that_the_source_is_off(void **state)
{
    static const struct exchange shown[] = {{ASK, SHOWN(LOADED), NULL}};
    static const struct exchange decided[] = {
        {ASK, SHOWN(LOADED), NULL},
        {"\"execute\":\"watch\"", WATCHED, NULL},
        {"\"source_is_off\":true", ACCEPTED, NULL},
        {ASK, SHOWN(AT_DESTINATION RUNNING FROM("west", "its word") "\"handoff\":\"owned\""), NULL},
    };
    static const struct exchange source[] = {{ASK, SHOWN(COMMITTED), NULL}};
    struct dialogue dialogue = {shown, 1, .typed = "web1\n"};

    (void)state;
    converse(&dialogue, "resolve web1 --run-here", false);
    assert_int_equal(dialogue.code, CLIENT_FAILED);
    expect_part(dialogue.output, "west may still run VM web1");

    dialogue = (struct dialogue){decided, sizeof decided / sizeof decided[0], .typed = "web1\n"};
    converse(&dialogue, "resolve web1 --run-here --source-is-off", false);
    assert_int_equal(dialogue.code, CLIENT_DONE);
    expect_part(dialogue.output, "VM web1 runs here now (pid 4711).");

    /* Whoever says it at the source has mistaken the hosts. */
    dialogue = (struct dialogue){source, 1, .typed = "web1\n"};
    converse(&dialogue, "resolve web1 --run-here --source-is-off", false);
    assert_int_equal(dialogue.code, CLIENT_USAGE);
    expect_part(dialogue.output, "the source of VM web1 is this host");
}

static void what_cannot_be_decided_is_refused_with_the_reason(void **state)
{
    static const struct exchange damaged[] = {
        {ASK, "\"error\":{\"class\":\"journal-damaged\",\"desc\":\"record 3 is damaged\"}", NULL}};
    static const struct exchange wait[] = {
        {ASK, SHOWN(COMMITTED), NULL},
        {"\"execute\":\"watch\"", WATCHED, NULL},
        {"\"decision\":\"run-here\"",
         "\"error\":{\"class\":\"resolve-wait\",\"desc\":\"say it again in 9 s\"}", NULL},
    };
    static const struct exchange decided[] = {
        {ASK, SHOWN("\"id\":\"0a\",\"vm\":\"web1\",\"side\":\"source\",\"undecided\":false"),
         NULL}};
    static const struct exchange conflict[] = {
        {ASK, SHOWN(AT_SOURCE PAUSED "\"handoff\":\"conflict\""), NULL}};
    struct dialogue dialogue = {damaged, 1, .typed = "web1\n"};

    (void)state;
    converse(&dialogue, "resolve web1 --run-here", false);
    assert_int_equal(dialogue.code, CLIENT_FAILED);
    expect_part(dialogue.output, "watari: record 3 is damaged");

    dialogue = (struct dialogue){wait, sizeof wait / sizeof wait[0], .typed = "web1\n"};
    converse(&dialogue, "resolve web1 --run-here", false);
    assert_int_equal(dialogue.code, CLIENT_FAILED);
    expect_part(dialogue.output, "watari: say it again in 9 s");

    dialogue = (struct dialogue){decided, 1, .typed = "web1\n"};
    converse(&dialogue, "resolve web1 --run-here", false);
    assert_int_equal(dialogue.code, CLIENT_FAILED);
    expect_part(dialogue.output, "nothing is undecided about migration 0a");

    dialogue = (struct dialogue){conflict, 1, .typed = "web1\n"};
    converse(&dialogue, "resolve web1 --run-here", false);
    assert_int_equal(dialogue.code, CLIENT_FAILED);
    expect_part(dialogue.output, "end the one at east first");
}

static void start_shows_what_runs_where(void **state)
{
    static const struct exchange booted[] = {
        {"\"arguments\":{\"name\":\"web1\"}",
         "\"return\":{\"vm\":\"web1\",\"pid\":12,\"qmp\":\"/r/qmp\",\"log\":\"/r/log\","
         "\"already\":false}",
         NULL}};
    static const struct exchange ran[] = {
        {"\"execute\":\"start\"",
         "\"return\":{\"vm\":\"web1\",\"pid\":12,\"qmp\":null,\"log\":null,\"already\":true}",
         NULL}};
    static const struct exchange refused[] = {
        {"\"execute\":\"start\"", "\"error\":{\"class\":\"not-owned\",\"desc\":\"never here\"}",
         NULL}};
    struct dialogue dialogue = {booted, 1, .typed = NULL};

    (void)state;
    converse(&dialogue, "start web1", false);
    assert_int_equal(dialogue.code, CLIENT_DONE);
    assert_string_equal(dialogue.output, "VM web1 runs here now (pid 12)\n"
                                         "  QMP           /r/qmp\n"
                                         "  log           /r/log\n");
    dialogue = (struct dialogue){ran, 1, .typed = NULL};
    converse(&dialogue, "start web1", false);
    assert_int_equal(dialogue.code, CLIENT_DONE);
    assert_string_equal(dialogue.output, "VM web1 runs here already (pid 12)\n");

    dialogue = (struct dialogue){refused, 1, .typed = NULL};
    converse(&dialogue, "start web1", false);
    assert_int_equal(dialogue.code, CLIENT_FAILED);
    assert_string_equal(dialogue.output, "watari: never here\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decision_is_shown_confirmed_and_watched),
        cmocka_unit_test(a_wrong_name_decides_nothing),
        cmocka_unit_test(without_a_terminal_yes_is_wanted),
        cmocka_unit_test(json_is_the_evidence_and_the_outcome),
        cmocka_unit_test(the_destination_wants_to_hear_that_the_source_is_off),
        cmocka_unit_test(what_cannot_be_decided_is_refused_with_the_reason),
        cmocka_unit_test(start_shows_what_runs_where),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

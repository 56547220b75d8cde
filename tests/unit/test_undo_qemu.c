/*
 * The undo list's changes to a QEMU, made in a real one: they are put back, awaited where QEMU
 * takes its time, and its death stops nothing.
 */
#include "undo_fixture.h"

#include "qemu_process.h"

#include "agent/daemon/clock.h"

#include <libnbd.h>

#include <fcntl.h>

static struct qemu_process qemu;

static int set_up(void **state)
{
    if (qemu_process_there()) {
        qemu_process_start(&qemu);
        *state = make_fixture(qemu.qmp);
    }
    return 0;
}

static int tear_down(void **state)
{
    if (*state) {
        free_fixture(*state);
        qemu_process_end(&qemu);
    }
    return 0;
}

static struct fixture *require(void **state)
{
    qemu_process_require();
    return *state;
}

/* Borrowed; it must be no error. */
static json_t *ask(struct fixture *fixture, const char *command, json_t *arguments, int fd)
{
    struct client *client = &fixture->client;
    size_t which = client->count;

    qmp_execute(client->qmp, command, arguments, fd, on_reply, client);
    while (client->count == which) {
        turn(client);
    }
    assert_string_equal(client->replies[which].error.text, "");
    return client->replies[which].value;
}

static void commands_put_back_what_was_set(void **state)
{
    struct fixture *fixture = require(state);
    json_int_t before;
    char end;
    int fds[2];

    before = json_integer_value(
        json_object_get(ask(fixture, "query-migrate-parameters", NULL, -1), "max-bandwidth"));
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    add(fixture, "fd:end", json_pack("{sss{ss}}", "qmp", "closefd", "arguments", "fdname", "end"));
    ask(fixture, "getfd", json_pack("{ss}", "fdname", "end"), fds[1]);
    add(fixture, "parameters",
        json_pack("{sss{sI}}", "qmp", "migrate-set-parameters", "arguments", "max-bandwidth",
                  before));
    ask(fixture, "migrate-set-parameters", json_pack("{si}", "max-bandwidth", 4321), -1);
    /* A change that was journaled and never made: its refusal is not a thing left. */
    add(fixture, "fd:none",
        json_pack("{sss{ss}}", "qmp", "closefd", "arguments", "fdname", "none"));
    run(fixture, fixture->client.qmp);
    expect_nothing_left(fixture);
    assert_int_equal(json_integer_value(json_object_get(
                         ask(fixture, "query-migrate-parameters", NULL, -1), "max-bandwidth")),
                     before);
    assert_int_equal(read(fds[0], &end, 1), 0);
    close(fds[0]);
}

static void the_guest_is_resumed_unless_it_runs(void **state)
{
    struct fixture *fixture = require(state);

    for (int i = 0; i < 2; i++) {
        add(fixture, "resume", json_pack("{sb}", "resume", 1));
        run(fixture, fixture->client.qmp);
        expect_nothing_left(fixture);
        assert_true(
            json_is_true(json_object_get(ask(fixture, "query-status", NULL, -1), "running")));
    }
}

/* A read that takes QEMU 300 ms keeps the export alive for that long. */
static struct nbd_handle *add_busy_export(struct fixture *fixture, const char *socket, void *buffer)
{
    struct nbd_handle *nbd = nbd_create();

    ask(fixture, "blockdev-add",
        json_pack("{ss,ss,si,si}", "driver", "null-co", "node-name", "n", "size", 1 << 20,
                  "latency-ns", 300000000),
        -1);
    ask(fixture, "nbd-server-start",
        json_pack("{s{sss{ss}}}", "addr", "type", "unix", "data", "path", socket), -1);
    ask(fixture, "block-export-add",
        json_pack("{ss,ss,ss}", "type", "nbd", "id", "e", "node-name", "n"), -1);
    assert_non_null(nbd);
    assert_int_equal(nbd_set_export_name(nbd, "n"), 0);
    assert_int_equal(nbd_connect_unix(nbd, socket), 0);
    assert_true(nbd_aio_pread(nbd, buffer, 512, 0, NBD_NULL_COMPLETION, 0) >= 0);
    return nbd;
}

static void an_export_is_awaited_until_it_is_gone(void **state)
{
    struct fixture *fixture = require(state);
    struct nbd_handle *nbd;
    uint64_t before;
    char buffer[512];
    json_t *exports;

    nbd = add_busy_export(fixture, in(fixture, "nbd"), buffer);
    add(fixture, "server", json_pack("{ss}", "qmp", "nbd-server-stop"));
    add(fixture, "export", json_pack("{ss}", "export", "e"));
    add(fixture, "never", json_pack("{ss}", "export", "never-made"));
    before = clock_monotonic_ns();
    run(fixture, fixture->client.qmp);
    /* Otherwise this would not show anything. */
    assert_true(clock_monotonic_ns() - before > 100 * 1000000);
    expect_nothing_left(fixture);
    exports = ask(fixture, "query-block-exports", NULL, -1);
    assert_int_equal(json_array_size(exports), 0);
    nbd_close(nbd);
    unlink(in(fixture, "nbd"));
}

static void a_list_freed_in_its_run_is_called_back_no_more(void **state)
{
    struct fixture *fixture = require(state);
    struct nbd_handle *nbd;
    char buffer[512];

    nbd = add_busy_export(fixture, in(fixture, "nbd"), buffer);
    add(fixture, "export", json_pack("{ss}", "export", "e"));
    undo_run(fixture->undo, fixture->client.qmp, on_done, fixture);
    ask(fixture, "query-name", NULL, -1);
    undo_free(fixture->undo);
    fixture->undo = NULL;
    run_a_while(&fixture->client);
    assert_int_equal(fixture->done, 0);
    nbd_close(nbd);
    unlink(in(fixture, "nbd"));
}

static void a_qemu_that_dies_in_the_run_does_not_stop_it(void **state)
{
    struct fixture *fixture = require(state);

    add_hopeless(fixture, "file");
    add(fixture, "export", json_pack("{ss}", "export", "e"));
    add(fixture, "quit", json_pack("{ss}", "qmp", "quit"));
    run(fixture, fixture->client.qmp);
    expect_left(fixture, (const char *const[]){"export: ", "file: ", NULL});
    qemu_process_reap(&qemu);
}

static void the_qemu_with_that_monitor_is_killed(void **state)
{
    struct fixture *fixture = require(state);
    int status;

    add(fixture, "process", json_pack("{ss}", "process", qmp_path(fixture->client.qmp)));
    add(fixture, "other", json_pack("{ss}", "process", "/tmp/there/is/no/such/qmp"));
    run(fixture, NULL);
    expect_nothing_left(fixture);
    /* The list has waited for its end, and reaped a child of this process. */
    assert_int_equal(waitpid(qemu.pid, &status, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    qemu.pid = 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(commands_put_back_what_was_set),
        TEST(the_guest_is_resumed_unless_it_runs),
        TEST(an_export_is_awaited_until_it_is_gone),
        TEST(a_list_freed_in_its_run_is_called_back_no_more),
        TEST(a_qemu_that_dies_in_the_run_does_not_stop_it),
        TEST(the_qemu_with_that_monitor_is_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The QMP client against a real QEMU: what is asked is answered in order, every ending is told
 * once and by its name, and the client may be freed wherever it calls back.
 */
#include "qmp_client.h"

#include "qemu_process.h"

#include <fcntl.h>
#include <poll.h>

static void open_ready(struct client *client, const char *path)
{
    open_client(client, path);
    await_ready(client);
    assert_string_equal(client->error.id, "");
}

static int start_qemu(void **state)
{
    struct qemu_process *qemu = calloc(1, sizeof *qemu);

    assert_non_null(qemu);
    *state = qemu;
    if (qemu_process_there()) {
        qemu_process_start(qemu);
    }
    return 0;
}

static int end_qemu(void **state)
{
    qemu_process_end(*state);
    free(*state);
    return 0;
}

static void qemu_greets_and_answers_in_order(void **state)
{
    struct qemu_process *qemu = *state;
    struct client client = {0};

    qemu_process_require();
    open_ready(&client, qemu->qmp);
    assert_true(qmp_version(client.qmp) >= 70000);
    assert_string_equal(qmp_path(client.qmp), qemu->qmp);
    qmp_execute(client.qmp, "query-status", NULL, -1, on_reply, &client);
    qmp_execute(client.qmp, "no-such-command", NULL, -1, on_reply, &client);
    qmp_execute(client.qmp, "closefd", json_pack("{ss}", "fdname", "none"), -1, on_reply, &client);
    qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
    assert_int_equal(client.count, 0);
    while (client.count < 4) {
        turn(&client);
    }
    assert_string_equal(json_string_value(json_object_get(client.replies[0].value, "status")),
                        "prelaunch");
    assert_string_equal(client.replies[1].error.id, "qmp-error");
    assert_non_null(strstr(client.replies[1].error.text, "QEMU refused no-such-command"));
    assert_string_equal(client.replies[2].error.id, "qmp-error");
    assert_non_null(strstr(client.replies[2].error.text, "'none' not found"));
    assert_true(json_is_object(client.replies[3].value));
    assert_int_equal(client.ready, 1);
    close_client(&client);
}

static void an_error_without_a_callback_does_no_harm(void **state)
{
    struct qemu_process *qemu = *state;
    struct client client = {0};

    qemu_process_require();
    open_ready(&client, qemu->qmp);
    qmp_execute(client.qmp, "no-such-command", NULL, -1, NULL, NULL);
    qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
    while (client.count < 1) {
        turn(&client);
    }
    assert_string_equal(client.replies[0].error.id, "");
    close_client(&client);
}

static void events_are_told(void **state)
{
    struct qemu_process *qemu = *state;
    struct client client = {0};

    qemu_process_require();
    open_ready(&client, qemu->qmp);
    qmp_execute(client.qmp, "cont", NULL, -1, on_reply, &client);
    while (!(client.events == 1 && client.count == 1)) {
        turn(&client);
    }
    assert_string_equal(client.last_event, "RESUME");
    close_client(&client);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static bool ends(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};

    return poll(&entry, 1, 0) == 1 && (entry.revents & POLLHUP);
}

static void a_descriptor_goes_along_and_is_closed_here(void **state)
{
    struct qemu_process *qemu = *state;
    struct client client = {0};
    int fds[2];

    qemu_process_require();
    open_ready(&client, qemu->qmp);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
    qmp_execute(client.qmp, "getfd", json_pack("{ss}", "fdname", "end"), fds[1], on_reply, &client);
    qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
    while (client.count < 3) {
        turn(&client);
    }
    assert_string_equal(client.replies[1].error.text, "");
    assert_false(is_open(fds[1]));
    assert_false(ends(fds[0]));
    qmp_execute(client.qmp, "closefd", json_pack("{ss}", "fdname", "end"), -1, on_reply, &client);
    while (client.count < 4) {
        turn(&client);
    }
    assert_string_equal(client.replies[3].error.text, "");
    assert_true(ends(fds[0]));
    close(fds[0]);
    close_client(&client);
}

static void quit_fails_what_is_due_and_then_closes(void **state)
{
    struct qemu_process *qemu = *state;
    struct client client = {0};

    qemu_process_require();
    open_ready(&client, qemu->qmp);
    qmp_execute(client.qmp, "quit", NULL, -1, on_reply, &client);
    while (!client.closed) {
        turn(&client);
    }
    assert_int_equal(client.count, 1);
    assert_string_equal(client.replies[0].error.id, "");
    assert_string_equal(client.last_event, "SHUTDOWN");
    /* Later commands fail, and not inside the caller. */
    qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
    qmp_execute(client.qmp, "query-status", NULL, -1, NULL, NULL);
    assert_int_equal(client.count, 1);
    while (client.count < 2) {
        turn(&client);
    }
    assert_string_equal(client.replies[1].error.id, "qmp-gone");
    run_a_while(&client);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.ready, 1);
    close_client(&client);
    assert_int_equal(qemu_process_reap(qemu), 0);
}

static void a_killed_qemu_fails_what_is_due(void **state)
{
    struct qemu_process *qemu = *state;
    struct client client = {0};
    int fds[2];

    qemu_process_require();
    open_ready(&client, qemu->qmp);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    kill(qemu->pid, SIGKILL);
    qemu_process_reap(qemu);
    qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
    qmp_execute(client.qmp, "getfd", json_pack("{ss}", "fdname", "end"), fds[1], on_reply, &client);
    while (!client.closed) {
        turn(&client);
    }
    assert_int_equal(client.count, 2);
    assert_string_equal(client.replies[0].error.id, "qmp-gone");
    assert_string_equal(client.replies[1].error.id, "qmp-gone");
    assert_non_null(strstr(client.replies[1].error.text, qemu->qmp));
    assert_false(is_open(fds[1]));
    close(fds[0]);
    close_client(&client);
}

static void a_second_client_finds_the_socket_busy(void **state)
{
    struct qemu_process *qemu = *state;
    struct client first = {0}, second = {0};

    qemu_process_require();
    open_ready(&first, qemu->qmp);
    open_client(&second, qemu->qmp);
    await_ready(&second);
    assert_string_equal(second.error.id, "qmp-busy");
    assert_non_null(strstr(second.error.text, qemu->qmp));
    run_a_while(&second);
    assert_int_equal(second.ready, 1);
    assert_int_equal(second.closed, 0);
    close_client(&second);
    /* The first has not noticed. */
    qmp_execute(first.qmp, "query-name", NULL, -1, on_reply, &first);
    while (first.count < 1) {
        turn(&first);
    }
    assert_string_equal(first.replies[0].error.id, "");
    close_client(&first);
}

static void forgotten_commands_are_carried_out_and_not_told(void **state)
{
    struct qemu_process *qemu = *state;
    struct client client = {0}, owner = {0};
    int fds[2];

    qemu_process_require();
    open_ready(&client, qemu->qmp);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    qmp_execute(client.qmp, "getfd", json_pack("{ss}", "fdname", "end"), fds[1], on_reply, &owner);
    qmp_execute(client.qmp, "closefd", json_pack("{ss}", "fdname", "end"), -1, on_reply, &client);
    qmp_forget(client.qmp, &owner);
    while (client.count < 1) {
        turn(&client);
    }
    assert_int_equal(owner.count, 0);
    assert_string_equal(client.replies[0].error.text, "");
    assert_true(ends(fds[0]));
    close(fds[0]);
    close_client(&client);
}

static void the_client_may_be_freed_in_any_callback(void **state)
{
    struct qemu_process *qemu = *state;

    qemu_process_require();
    for (enum place place = IN_READY; place <= IN_CLOSED; place++) {
        struct client client = {.free_there = place};

        open_client(&client, qemu->qmp);
        await_ready(&client);
        if (place != IN_READY) {
            qmp_execute(client.qmp, place == IN_CLOSED ? "quit" : "cont", NULL, -1, on_reply,
                        &client);
            /* One in the queue behind it, whose reply must not come. */
            qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
            while (client.qmp) {
                turn(&client);
            }
        }
        assert_null(client.qmp);
        run_a_while(&client);
        assert_int_equal(client.after_free, 0);
        close_client(&client);
    }
    assert_int_equal(qemu_process_reap(qemu), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(qemu_greets_and_answers_in_order, start_qemu, end_qemu),
        cmocka_unit_test_setup_teardown(an_error_without_a_callback_does_no_harm, start_qemu,
                                        end_qemu),
        cmocka_unit_test_setup_teardown(events_are_told, start_qemu, end_qemu),
        cmocka_unit_test_setup_teardown(a_descriptor_goes_along_and_is_closed_here, start_qemu,
                                        end_qemu),
        cmocka_unit_test_setup_teardown(quit_fails_what_is_due_and_then_closes, start_qemu,
                                        end_qemu),
        cmocka_unit_test_setup_teardown(a_killed_qemu_fails_what_is_due, start_qemu, end_qemu),
        cmocka_unit_test_setup_teardown(a_second_client_finds_the_socket_busy, start_qemu,
                                        end_qemu),
        cmocka_unit_test_setup_teardown(forgotten_commands_are_carried_out_and_not_told, start_qemu,
                                        end_qemu),
        cmocka_unit_test_setup_teardown(the_client_may_be_freed_in_any_callback, start_qemu,
                                        end_qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

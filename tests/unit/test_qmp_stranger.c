/*
 * The QMP client against sockets that are not a QEMU, or not one that is well: nothing they say is
 * believed further than it goes.
 */
#include "qmp_client.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING                                                                               \
    "{\"QMP\":{\"version\":{\"qemu\":{\"major\":9,\"minor\":2,\"micro\":1},\"package\":\"\"}," \
    "\"capabilities\":[]}}\r\n"

struct server {
    char path[64];
    int listener, fd;
};

static void listen_at(struct server *server, int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(server->path, sizeof server->path, "/tmp/test_qmp.%d", (int)getpid());
    unlink(server->path);
    strcpy(address.sun_path, server->path);
    server->fd = -1;
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(server->listener >= 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(server->listener, backlog), 0);
}

static void say(struct server *server, const char *text)
{
    if (server->fd < 0) {
        server->fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(server->fd >= 0);
    }
    assert_int_equal(write(server->fd, text, strlen(text)), strlen(text));
}

static void stop_listening(struct server *server)
{
    if (server->fd >= 0) {
        close(server->fd);
    }
    close(server->listener);
    unlink(server->path);
}

static void a_path_that_is_not_there_is_gone(void **state)
{
    struct client client = {0};
    char long_path[200];

    (void)state;
    open_client(&client, "/tmp/there/is/no/such/qmp");
    /* What is asked meanwhile fails with it. */
    qmp_execute(client.qmp, "query-name", NULL, -1, on_reply, &client);
    await_ready(&client);
    assert_string_equal(client.error.id, "qmp-gone");
    assert_non_null(strstr(client.error.text, "No such file"));
    assert_int_equal(client.count, 1);
    assert_string_equal(client.replies[0].error.id, "qmp-gone");
    run_a_while(&client);
    assert_int_equal(client.ready, 1);
    assert_int_equal(client.closed, 0);
    close_client(&client);
    memset(long_path, '/', sizeof long_path);
    long_path[sizeof long_path - 1] = '\0';
    client = (struct client){.free_there = IN_READY};
    open_client(&client, long_path);
    await_ready(&client);
    assert_string_equal(client.error.id, "qmp-gone");
    close_client(&client);
}

static void a_full_queue_of_waiting_clients_is_busy(void **state)
{
    struct client clients[3] = {0};
    struct server server;

    (void)state;
    listen_at(&server, 1);
    for (int i = 0; i < 3; i++) {
        open_client(&clients[i], server.path);
    }
    while (!clients[2].ready) {
        turn(&clients[2]);
    }
    assert_string_equal(clients[2].error.id, "qmp-busy");
    for (int i = 0; i < 3; i++) {
        close_client(&clients[i]);
    }
    stop_listening(&server);
}

/* What is there of the command, with the descriptors that came along counted. */
static size_t receive(struct server *server, char *bytes, size_t size, unsigned *descriptors)
{
    struct iovec part = {bytes, size};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(server->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (got < 0) {
        assert_int_equal(errno, EAGAIN);
        return 0;
    }
    assert_int_equal(message.msg_flags & MSG_CTRUNC, 0);
    if (CMSG_FIRSTHDR(&message)) {
        int fd;

        assert_int_equal(CMSG_FIRSTHDR(&message)->cmsg_len, CMSG_LEN(sizeof fd));
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        close(fd);
        ++*descriptors;
    }
    return (size_t)got;
}

/* Awaits a command, and answers it: {"id":ID, MEMBERS}. */
static void answer(struct client *client, struct server *server, const char *members)
{
    char bytes[512] = "", line[640];
    unsigned descriptors = 0;
    size_t length = 0;
    json_t *command;

    while (length == 0 || bytes[length - 1] != '\n') {
        length += receive(server, bytes + length, sizeof bytes - length, &descriptors);
        event_base_loop(client->base, EVLOOP_NONBLOCK);
    }
    command = json_loadb(bytes, length, 0, NULL);
    assert_non_null(command);
    snprintf(line, sizeof line, "{\"id\":\"%s\",%s}\n",
             json_string_value(json_object_get(command, "id")), members);
    json_decref(command);
    say(server, line);
}

static void what_does_not_speak_qmp_is_told_so(void **state)
{
    static const char *const greetings[] = {"SSH-2.0-OpenSSH_9.2\r\n",
                                            "{}\n",
                                            "[]\n",
                                            "7\n",
                                            "{\"QMP\":{}}\n",
                                            "{\"return\":{}}\n",
                                            "{\"event\":\"RESUME\"}\n",
                                            "\n",
                                            "{\"QMP\":"};

    (void)state;
    for (size_t i = 0; i < sizeof greetings / sizeof *greetings; i++) {
        struct client client = {0};
        struct server server;

        listen_at(&server, 1);
        open_client(&client, server.path);
        say(&server, greetings[i]);
        stop_listening(&server);
        await_ready(&client);
        assert_string_equal(client.error.id, "qmp-gone");
        run_a_while(&client);
        assert_int_equal(client.ready, 1);
        assert_int_equal(client.events, 0);
        close_client(&client);
    }
}

static void capabilities_that_are_refused_end_it(void **state)
{
    struct client client = {0};
    struct server server;

    (void)state;
    listen_at(&server, 1);
    open_client(&client, server.path);
    say(&server, GREETING);
    answer(&client, &server, "\"error\":{\"class\":\"GenericError\",\"desc\":\"not today\"}");
    await_ready(&client);
    assert_string_equal(client.error.id, "qmp-gone");
    assert_non_null(strstr(client.error.text, "not today"));
    close_client(&client);
    stop_listening(&server);
}

/* Seen of QEMU 7.2 under load, when a client before us had come and gone in an instant. */
static void a_doubled_greeting_does_no_harm(void **state)
{
    struct client client = {0};
    struct server server;

    (void)state;
    listen_at(&server, 1);
    open_client(&client, server.path);
    say(&server, GREETING GREETING);
    answer(&client, &server, "\"return\":{}");
    await_ready(&client);
    assert_string_equal(client.error.text, "");
    close_client(&client);
    stop_listening(&server);
}

static void count_reply(json_t *value, const struct error *error, void *context)
{
    assert_null(error);
    *(json_int_t *)context = json_integer_value(json_object_get(value, "n"));
}

/* QEMU answers whoever is connected when the command is through. */
static void answers_to_who_was_there_before_are_not_ours(void **state)
{
    static const char *const others[] = {"{\"return\":{}}\n",
                                         "{\"return\":{},\"id\":\"watari-1-2-1\"}\n",
                                         "{\"id\":7,\"error\":{\"desc\":\"not found\"}}\n"};

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct client client = {0};
        struct server server;
        json_int_t got = 0;

        listen_at(&server, 1);
        open_client(&client, server.path);
        say(&server, GREETING);
        say(&server, others[i]);
        answer(&client, &server, "\"return\":{}");
        await_ready(&client);
        assert_string_equal(client.error.text, "");
        qmp_execute(client.qmp, "query-name", NULL, -1, count_reply, &got);
        say(&server, others[i]);
        run_a_while(&client);
        assert_int_equal(got, 0);
        answer(&client, &server, "\"return\":{\"n\":3}");
        while (got == 0) {
            turn(&client);
        }
        assert_int_equal(got, 3);
        assert_int_equal(client.closed, 0);
        close_client(&client);
        stop_listening(&server);
    }
}

static void garbage_closes(void **state)
{
    static const char *const lines[] = {"garbage\n", "{\"id\":1}\n", "[]\n"};

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct client client = {0};
        struct server server;

        listen_at(&server, 1);
        open_client(&client, server.path);
        say(&server, GREETING);
        answer(&client, &server, "\"return\":{}");
        await_ready(&client);
        assert_string_equal(client.error.id, "");
        assert_int_equal(qmp_version(client.qmp), 90201);
        say(&server, lines[i]);
        while (!client.closed) {
            turn(&client);
        }
        run_a_while(&client);
        assert_int_equal(client.closed, 1);
        close_client(&client);
        stop_listening(&server);
    }
}

/* Longer than a socket's buffer: it goes in pieces, its descriptor with the first only. */
static void a_long_command_goes_through_whole(void **state)
{
    static char name[(1 << 20) + 1], bytes[sizeof name + 100];
    struct client client = {0};
    struct server server;
    unsigned descriptors = 0;
    size_t length = 0;
    json_t *command;

    (void)state;
    memset(name, 'n', sizeof name - 1);
    listen_at(&server, 1);
    open_client(&client, server.path);
    say(&server, GREETING);
    answer(&client, &server, "\"return\":{}");
    await_ready(&client);
    qmp_execute(client.qmp, "getfd", json_pack("{ss}", "fdname", name), dup(STDIN_FILENO), on_reply,
                &client);
    length = 0;
    while (length == 0 || bytes[length - 1] != '\n') {
        length += receive(&server, bytes + length, sizeof bytes - length, &descriptors);
        event_base_loop(client.base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(descriptors, 1);
    command = json_loadb(bytes, length, 0, NULL);
    assert_non_null(command);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(command, "arguments"), "fdname")), name);
    json_decref(command);
    close_client(&client);
    stop_listening(&server);
}

static void a_line_is_taken_however_it_is_cut(void **state)
{
    const char *text = "{\"event\":\"STOP\",\"data\":{}}\r\n{\"event\":\"RESUME\"}\n";

    (void)state;
    for (size_t cut = 1; cut < strlen(text); cut += 7) {
        struct client client = {0};
        struct server server;
        char first[512];

        listen_at(&server, 1);
        open_client(&client, server.path);
        snprintf(first, sizeof first, "%.*s", (int)cut, GREETING);
        say(&server, first);
        event_base_loop(client.base, EVLOOP_NONBLOCK);
        say(&server, &GREETING[cut]);
        answer(&client, &server, "\"return\":{}");
        await_ready(&client);
        snprintf(first, sizeof first, "%.*s", (int)cut, text);
        say(&server, first);
        event_base_loop(client.base, EVLOOP_NONBLOCK);
        say(&server, text + cut);
        while (client.events < 2) {
            turn(&client);
        }
        assert_string_equal(client.last_event, "RESUME");
        close_client(&client);
        stop_listening(&server);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_that_is_not_there_is_gone),
        cmocka_unit_test(a_full_queue_of_waiting_clients_is_busy),
        cmocka_unit_test(what_does_not_speak_qmp_is_told_so),
        cmocka_unit_test(capabilities_that_are_refused_end_it),
        cmocka_unit_test(a_doubled_greeting_does_no_harm),
        cmocka_unit_test(answers_to_who_was_there_before_are_not_ours),
        cmocka_unit_test(garbage_closes),
        cmocka_unit_test(a_long_command_goes_through_whole),
        cmocka_unit_test(a_line_is_taken_however_it_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

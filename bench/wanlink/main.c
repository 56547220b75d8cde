/*
 * wanlink: a far link between two network namespaces, for tests and benchmarks. It makes a TUN device
 * in each and carries IP packets from one to the other, with the delay, jitter, loss, reordering and
 * rate that its control socket was told (control.h), each direction for itself. It runs until SIGTERM
 * or SIGINT; the devices go with it. One thread.
 */
#include "control.h"
#include "link.h"
#include "tun.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX 65535
#define MTU_MIN 576
#define MTU_DEFAULT 1500
/* So many packets of one end before the other end and what is due have their turn. */
#define BATCH 64
#define NS_PER_S 1000000000ull
#define EXIT_USAGE 2

struct arguments {
    const char *control;
    struct tun_wanted ends[2];
    const char *names[2];
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void)number;
    ended = 1;
}

static void usage(FILE *file)
{
    fputs(
        "usage: wanlink --control PATH [--device NAME] [--mtu BYTES] END=NETNS,ADDRESS/BITS "
        "END=NETNS,ADDRESS/BITS\n\n"
        "A link between two network namespaces with delay, jitter, loss, reordering and rate. As "
        "root.\n\n"
        "  --control PATH  the unix socket (SOCK_SEQPACKET) on which it takes commands:\n"
        "                    set [END] [delay=TIME] [jitter=TIME] [loss=N%] [reorder=N%]\n"
        "                              [rate=RATE|none] [queue=TIME]\n"
        "                    show\n"
        "                  It is there as soon as the link is.\n"
        "  --device NAME   of the TUN device at both ends (wan)\n"
        "  --mtu BYTES     of both (1500). Loss and reordering are of packets: few large ones\n"
        "                  cost less CPU, and are lost more at a time\n"
        "  END=NETNS,...   an end's name, its namespace's path (/proc/PID/ns/net, /run/netns/NAME),\n"
        "                  and its IPv4 address there\n",
        file);
}

static bool parse_number(const char *text, long low, long high, int *out)
{
    char *end;
    long value = strtol(text, &end, 10);

    *out = (int)value;
    return end != text && *end == '\0' && value >= low && value <= high;
}

/* NAME=NETNS,ADDRESS/BITS, which is cut up. */
static bool parse_end(char *text, struct tun_wanted *wanted, const char **name)
{
    char *namespace = strchr(text, '=');
    char *address = namespace ? strrchr(namespace, ',') : NULL;
    char *prefix = address ? strchr(address, '/') : NULL;

    if (!prefix || namespace == text || !parse_number(prefix + 1, 0, 32, &wanted->prefix)) {
        return false;
    }
    *namespace ++ = *address++ = *prefix = '\0';
    *name = text;
    wanted->namespace = namespace;
    wanted->address = address;
    return true;
}

static bool parse_ends(int argc, char **argv, struct arguments *out)
{
    if (argc != 2) {
        fprintf(stderr, "wanlink: two ENDs are wanted\n");
        return false;
    }
    for (int i = 0; i < 2; i++) {
        if (!parse_end(argv[i], &out->ends[i], &out->names[i])) {
            fprintf(stderr, "wanlink: \"%s\" is not END=NETNS,ADDRESS/BITS\n", argv[i]);
            return false;
        }
    }
    if (strcmp(out->names[0], out->names[1]) == 0) {
        fprintf(stderr, "wanlink: both ends are called %s\n", out->names[0]);
        return false;
    }
    return true;
}

static bool parse(int argc, char **argv, struct arguments *out)
{
    static const struct option options[] = {{"control", required_argument, NULL, 'c'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"mtu", required_argument, NULL, 'm'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *device = "wan";
    int mtu = MTU_DEFAULT;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            usage(stdout);
            exit(EXIT_SUCCESS);
        } else if (option == 'c') {
            out->control = optarg;
        } else if (option == 'd') {
            device = optarg;
        } else if (option != 'm') {
            return false;
        } else if (!parse_number(optarg, MTU_MIN, PACKET_MAX, &mtu)) {
            fprintf(stderr, "wanlink: --mtu: \"%s\" is not from %d to %d\n", optarg, MTU_MIN,
                    PACKET_MAX);
            return false;
        }
    }
    if (!out->control) {
        fprintf(stderr, "wanlink: --control PATH is missing\n");
        return false;
    }
    for (size_t i = 0; i < 2; i++) {
        out->ends[i].device = device;
        out->ends[i].mtu = mtu;
    }
    return parse_ends(argc - optind, argv + optind, out);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* True when there may be more. A device that is down gives nothing. */
static bool read_some(struct end *end, uint8_t *buffer)
{
    uint64_t now = now_ns();

    for (size_t i = 0; i < BATCH; i++) {
        ssize_t got = read(end->tun, buffer, PACKET_MAX);

        if (got <= 0) {
            return false;
        }
        path_put(&end->path, now, buffer, (size_t)got);
    }
    return true;
}

/* What a device that is down does not take is lost, as on a wire that is unplugged. */
static void deliver(struct path *path, int tun)
{
    struct packet *packet;

    while ((packet = path_take(path, now_ns()))) {
        if (write(tun, packet->bytes, packet->size) < 0) {
            path->counters.delivered--;
            path->counters.delivered_bytes -= packet->size;
            path->counters.lost++;
        }
        free(packet);
    }
}

static struct timespec until_next(const struct wanlink *link)
{
    uint64_t one = path_next_ns(&link->ends[0].path);
    uint64_t other = path_next_ns(&link->ends[1].path);
    uint64_t next = one < other ? one : other;
    uint64_t now = now_ns();
    uint64_t wait = next > now ? next - now : 0;

    if (wait > NS_PER_S) {
        wait = NS_PER_S;
    }
    return (struct timespec){.tv_sec = (time_t)(wait / NS_PER_S),
                             .tv_nsec = (long)(wait % NS_PER_S)};
}

/* Until a signal. */
static void run(struct wanlink *link, struct control *control, const sigset_t *while_waiting)
{
    static uint8_t buffer[PACKET_MAX];
    bool more = false;

    while (!ended) {
        struct pollfd fds[2 + CONTROL_FDS];
        struct timespec wait = until_next(link);

        for (size_t i = 0; i < 2; i++) {
            fds[i] = (struct pollfd){.fd = link->ends[i].tun, .events = POLLIN};
        }
        memcpy(fds + 2, control->fds, sizeof control->fds);
        if (more) {
            wait = (struct timespec){0};
        }
        if (ppoll(fds, 2 + CONTROL_FDS, &wait, while_waiting) < 0) {
            continue;
        }
        control_serve(control, fds + 2, link);
        more = false;
        for (size_t i = 0; i < 2; i++) {
            more = read_some(&link->ends[i], buffer) || more;
        }
        deliver(&link->ends[0].path, link->ends[1].tun);
        deliver(&link->ends[1].path, link->ends[0].tun);
    }
}

/* They come while it waits, and at no other moment. */
static void set_up_signals(sigset_t *while_waiting)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t both;

    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGINT);
    sigprocmask(SIG_BLOCK, &both, while_waiting);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

static bool set_up(const struct arguments *arguments, struct wanlink *link, struct control *control,
                   struct error *error)
{
    for (size_t i = 0; i < 2; i++) {
        link->ends[i].name = arguments->names[i];
        path_init(&link->ends[i].path, i);
        link->ends[i].tun = tun_open(&arguments->ends[i], error);
        if (link->ends[i].tun < 0) {
            return false;
        }
    }
    return control_open(control, arguments->control, error);
}

int main(int argc, char **argv)
{
    struct arguments arguments = {0};
    static struct wanlink link;
    struct control control;
    struct error error = {0};
    sigset_t while_waiting;

    if (!parse(argc, argv, &arguments)) {
        fprintf(stderr, "See wanlink --help.\n");
        return EXIT_USAGE;
    }
    if (!set_up(&arguments, &link, &control, &error)) {
        fprintf(stderr, "wanlink: %s\n", error.text);
        return EXIT_FAILURE;
    }
    set_up_signals(&while_waiting);
    /* Packets are due to the microsecond; the default is 50 of them late. */
    prctl(PR_SET_TIMERSLACK, 1);
    run(&link, &control, &while_waiting);
    unlink(arguments.control);
    return EXIT_SUCCESS;
}

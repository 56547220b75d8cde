/*
 * watari: asks watarid on this host, and shows what it says. This file: the words before the
 * subcommand, and the table of subcommands.
 */
#include "arguments.h"
#include "command.h"
#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The one list: help is printed from it. */
static const struct command commands[] = {
    {"list", command_list, "list",
     "Shows the VMs on this host: memory, disks, migratable or why not", NULL},
    {"id", command_id, "id", "Shows this host's key fingerprint, for `trust add` on its peers",
     NULL},
    {"trust", command_trust,
     "trust add NAME ADDRESS|- FINGERPRINT [--allow send,receive]\n"
     "       watari trust list | trust check NAME | trust remove NAME",
     "Says which hosts may exchange VMs with this one",
     "NAME is what this host calls the peer. ADDRESS is HOST[:PORT]; - when only the peer dials.\n"
     "FINGERPRINT is what `watari id` prints there.\n"
     "  --allow send       it may send VMs to this host\n"
     "  --allow receive    VMs may be sent to it (default: both)\n"},
    {"plan", command_plan, "plan VM --to PEER [--no-trial] [--link RATE] [what `migrate` takes]",
     "Says what a migration would meet and take, and how to run it; changes nothing",
     "Asks both hosts what would stand in the way, measures for some seconds how fast the guest writes,\n"
     "tries a few seconds of a migration, which is cancelled then, and predicts live and quick. Options\n"
     "of `migrate` say which migration is meant.\n"
     "  --no-trial   leave out the trial: nothing is sent, and the link and what compresses stay unknown\n"
     "  --link RATE  what the link is said to carry, where that is not measured: 100Mbit, 12M\n"
     "Exit code: 0 it can be migrated, 1 something stands in the way, 2 usage or watarid not\n"
     "reachable.\n"},
    {"migrate", command_migrate,
     "migrate VM --to PEER [--mode auto|live|quick] [--max-downtime TIME]\n"
     "         [--max-quick-downtime TIME] [--deadline TIME] [--max-throttle PCT]\n"
     "         [--max-bandwidth RATE] [--switchover-bandwidth RATE]\n"
     "         [--compress auto|off|LEVEL] [--lanes N] [--disk DEV=POOL|PATH]... [--verify]\n"
     "         [--reconnect-timeout TIME] [--detach]",
     "Moves a running VM, its memory and its disks, to a peer",
     "VM is a name, a pid or a QMP socket path; PEER a trusted name. TIME has a unit: 300ms, 30s, "
     "5min.\n"
     "  --mode               live; quick: pause, copy the rest, go on there; auto (default): live, "
     "and\n"
     "                       quick when that does not come to an end\n"
     "  --max-downtime       for live: how long the guest may stand still (300ms)\n"
     "  --max-quick-downtime the same for quick (30s)\n"
     "  --deadline           for all of it; auto decides for quick while there is time for that\n"
     "  --max-throttle       by how many per cent the guest may be slowed down if nothing else "
     "helps (50);\n"
     "                       0 forbids it\n"
     "  --max-bandwidth      what it may send, over all connections: 100mbit (bits a second), 12M "
     "(bytes)\n"
     "  --switchover-bandwidth  the same while the guest stands still, in its place; none: no limit "
     "there\n"
     "  --compress           auto (default), off, or a zstd level\n"
     "  --lanes              connections that carry data\n"
     "  --disk               where the disk DEV goes: a pool of the peer, or a path in one; may "
     "repeat\n"
     "  --verify             read the disks back at both hosts and compare them before the handoff\n"
     "  --reconnect-timeout  how long an answer to the commit is waited for before exit 3 (5min)\n"
     "  --detach             do not wait for the outcome\n"
     "Ctrl-C cancels the migration and waits for the outcome; the guest stays here then.\n"
     "Exit code: 0 done, 1 failed or refused, 2 usage or watarid not reachable, 3 undecided,\n"
     "4 cancelled, 5 the guest runs nowhere.\n"},
    {"status", command_status, "status [ID]", "Shows the migrations this host takes part in", NULL},
    {"watch", command_watch, "watch ID", "Follows a migration; exits as `migrate` would", NULL},
    {"cancel", command_cancel, "cancel ID",
     "Ends a migration with the guest at its source; exits 0 when that was in time", NULL},
    {"report", command_report, "report ID [--state-dir DIR]",
     "Tells what a migration was asked for, saw, decided and came to, also when it has ended",
     "ID is a migration's id or its beginning, or a VM's name: its last one. Reads the timelines that\n"
     "watarid keeps, and needs no watarid. With --json the lines as they are.\n"
     "  --state-dir DIR  watarid's (default: /var/lib/watari)\n"},
    {"set", command_set, "set ID|--host KEY=VALUE...",
     "Changes limits while a migration runs, or of all on this host",
     "  max-bandwidth=RATE         what it may send, as with `migrate`; none: no limit\n"
     "  switchover-bandwidth=RATE  the same while the guest stands still\n"
     "With --host, max-bandwidth is what all migrations from this host may send together, and what\n"
     "may come to it for all that come, until watarid is started again ([link] max-bandwidth).\n"},
    {"resolve", command_resolve, "resolve ID --run-here|--give-up [--source-is-off] [--yes]",
     "Decides where an undecided VM belongs, when the other host cannot be asked",
     "ID is a migration's id, or the VM's name. Shows how it stands, what the decision will do and\n"
     "what must be true for it to be safe, and wants the VM's name typed.\n"
     "  --run-here       the VM is to run on this host\n"
     "  --give-up        this host gives up its copy: its QEMU is ended\n"
     "  --source-is-off  wanted with --run-here at the destination: the source is switched off for\n"
     "                   certain, and stays so\n"
     "  --yes            do not ask for the VM's name; needed where there is no terminal\n"
     "Never deletes an image.\n"
     "Exit code: 0 carried out on this host, 1 refused, 2 usage or watarid not reachable, 3 taken but\n"
     "not carried out within 10 s (watarid goes on), 5 its QEMU ended on the way.\n"},
    {"start", command_start, "start NAME", "Boots a VM that came here by watari and is this host's",
     "As it was started here when it came, but from its disks. For units and scripts: says no, with\n"
     "exit code 1, while it is undecided where the VM belongs. Exit code 0 also when it runs already.\n"},
    {"may-start", command_may_start, "may-start VM|PATH [--state-dir DIR]",
     "Says, from the journals alone, whether this host may start that VM by itself",
     "For ExecStartPre= and hooks. PATH is one of the VM's disks. Exit code 0: yes; 1: no, or the\n"
     "journals cannot be read.\n"
     "  --state-dir DIR  watarid's (default: /var/lib/watari)\n"},
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void print_help(void)
{
    puts("usage: watari [--control PATH] [--json] COMMAND\n"
         "Moves running QEMU virtual machines between hosts that share nothing but a network.\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        printf("  %-9s %s\n", commands[i].name, commands[i].description);
    }
    puts("\n"
         "`watari COMMAND --help` tells more of each.\n"
         "  --control PATH   watarid's control socket (default: $" CLIENT_CONTROL_VARIABLE
         ", else " CLIENT_DEFAULT_CONTROL ")\n"
         "  --json           one JSON object a line\n"
         "  --help, --version");
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int usage_error(const char *text)
{
    terminal_line(stderr, "watari: %s", text);
    fputs("usage: watari [--control PATH] [--json] COMMAND\n"
          "`watari --help` lists the commands.\n",
          stderr);
    return CLIENT_USAGE;
}

static int run(const struct client *client, int argc, char **argv)
{
    const struct command *command;
    struct error error;

    if (argc == 0) {
        return usage_error("which command?");
    }
    command = find(argv[0]);
    if (!command) {
        error_set(&error, "usage", "there is no command \"%s\"", argv[0]);
        return usage_error(error.text);
    }
    return command->run(client, command, argc, argv);
}

int main(int argc, char **argv)
{
    struct client client;
    struct error error;
    int index = 0, code = CLIENT_DONE;

    switch (arguments_parse_global(&client, argc, argv, &index, &error)) {
    case ARGUMENTS_GOOD:
        code = run(&client, argc - index, argv + index);
        break;
    case ARGUMENTS_HELP:
        print_help();
        break;
    case ARGUMENTS_VERSION:
        puts("watari " WATARI_VERSION);
        break;
    case ARGUMENTS_WRONG:
        code = usage_error(error.text);
        break;
    }
    /* Output that did not arrive is no success (a full disk behind a redirection). */
    if (fflush(stdout) != 0 && code == CLIENT_DONE) {
        perror("watari: stdout");
        code = CLIENT_FAILED;
    }
    return code;
}

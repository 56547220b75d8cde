#!/usr/bin/python3
"""Runs a program in a host.

usage: host_enter.py INIT DIRECTORY attached|detached REPORT COMMAND [ARGUMENT...]
  INIT       pid of the host's first process, as seen from here
  DIRECTORY  the program's working directory, in the host
  REPORT     descriptor for the program's pid as seen from here, in decimal; closed then (attached)

Attached: waits, and ends as the program did; the program is killed when this process dies.
Detached: the program is an orphan in the host and lives until it ends or the host does.
"""

import os
import resource
import signal
import sys

import namespaces as ns


def execute(argv):
    # Python ignores this one, and a program would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    os._exit(127)


def end_like(status):
    """Ends this process as the waited-for one ended, by the same signal if by one."""
    if not os.WIFSIGNALED(status):
        os._exit(os.waitstatus_to_exitcode(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def attached(argv, report):
    child = os.fork()
    if child == 0:
        os.close(report)
        ns.die_with_parent(signal.SIGKILL)
        execute(argv)
    os.write(report, str(child).encode())
    os.close(report)
    end_like(os.waitpid(child, 0)[1])


def detached(argv):
    # The one in between belongs to the host already: when it ends, the program falls to the host's
    # first process. Falling to one outside, it would be nobody's zombie.
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            execute(argv)
        os._exit(0)
    os.waitpid(between, 0)


def main():
    init, directory, manner, report, argv = *sys.argv[1:5], sys.argv[5:]
    ns.setns(os.pidfd_open(int(init)), ns.ALL)
    os.chdir(directory)
    if manner == "attached":
        attached(argv, int(report))
    else:
        detached(argv)


if __name__ == "__main__":
    main()

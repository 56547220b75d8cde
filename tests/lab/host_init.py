#!/usr/bin/python3
"""The first process of a host: makes its namespaces and its view of the file system, reaps orphans.

usage: host_init.py SPECIFICATION, a JSON object:
  name           the host's name
  clock_offset   seconds by which its monotonic and boot clocks are ahead
  private        [[DIRECTORY, MOUNT POINT]...]: what is the host's own
  hidden         [DIRECTORY...]: what it sees empty
  visible        [DIRECTORY...]: what it sees, read-only, even below a mount point or a hidden one

The process that is called stays outside and ends when the host does. It writes the pid of the
host's first process, as seen from outside, on standard output once the host is ready. Standard
input is the lifeline: when it ends, whatever the reason, the host's first process ends, and with it
all others.
"""

import json
import os
import signal
import socket
import sys

import namespaces as ns

# Not made read-only: they hold no files, or are per namespace anyway.
KERNEL_FILE_SYSTEMS = {"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue"}


def unescape(path):
    """Mount points in /proc/self/mountinfo have blanks and the like in octal."""
    return path.encode().decode("unicode_escape").encode("latin-1").decode()


def mounts():
    """(mount point, file system type) of all mounts, in the order they were made."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            left, right = line.split(" - ", 1)
            yield unescape(left.split()[4]), right.split()[0]


def make_read_only():
    for point, kind in mounts():
        if kind in KERNEL_FILE_SYSTEMS:
            continue
        try:
            ns.mount(None, point, None, ns.MS_REMOUNT | ns.MS_BIND | ns.MS_RDONLY)
        except OSError:
            # Covered by a later mount: nobody in the host can reach it, nor can this.
            continue


def by_descriptor(path):
    """A name for PATH that stays good when something is mounted over it."""
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY)}"


def arrange_files(specification):
    # Opened first: the directories lie below what is about to be covered.
    private = [(by_descriptor(directory), point) for directory, point in specification["private"]]
    visible = [(by_descriptor(path), path) for path in specification["visible"]]
    make_read_only()
    for path in [*specification["hidden"], "/dev/shm"]:
        ns.mount("tmpfs", path, "tmpfs", 0, "mode=755")
    for source, point in private:
        ns.mount(source, point, None, ns.MS_BIND)
        # It was read-only where it was taken from.
        ns.mount(None, point, None, ns.MS_REMOUNT | ns.MS_BIND)
    for source, path in visible:
        os.makedirs(path, exist_ok=True)
        ns.mount(source, path, None, ns.MS_BIND | ns.MS_REC)


def reap(_number, _frame):
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass


def live(specification):
    ns.die_with_parent(signal.SIGKILL)
    socket.sethostname(specification["name"])
    ns.mount("proc", "/proc", "proc")
    arrange_files(specification)
    # The network is this namespace's own, and so must be what /sys/class/net shows.
    ns.mount("sysfs", "/sys", "sysfs")
    signal.signal(signal.SIGCHLD, reap)
    os.write(1, b"ready\n")
    os.close(1)
    while os.read(0, 1) != b"":
        pass


def main():
    specification = json.loads(sys.argv[1])
    ns.unshare(ns.ALL)
    ns.mount(None, "/", None, ns.MS_REC | ns.MS_PRIVATE)
    offset = specification["clock_offset"]
    with open("/proc/self/timens_offsets", "w", encoding="ascii") as offsets:
        offsets.write(f"monotonic {offset} 0\nboottime {offset} 0\n")
    child = os.fork()
    if child == 0:
        live(specification)
        os._exit(0)
    os.write(1, f"{child}\n".encode())
    os.close(1)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()

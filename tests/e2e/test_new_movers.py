#!/usr/bin/python3
"""A mover that is killed costs no migration: both sides go on with new ones, the disks where they were, memory from the start. In bulk and in a
round of memory, for each side, for disks on an iothread (where QEMU dies of a client that leaves), without, and with a destination that holds
writes later (so that those of the dead mover are still in QEMU's hands when the next one could write).

Usage: WATARI_BUILD=DIR tests/e2e/test_new_movers.py [TEST...]
"""

import contextlib
import re
import signal
import sys
import threading
import time

from harness import check, equal, eventually, more, run_with_agents, test

from lab import Disk, Guest, LabError, Load, image
from lab.agents import POOL
from lab.probe import Probe

DONE, FAILED = 0, 1
SOURCE, DESTINATION = "source", "destination"
FILES_MIB = 96
# A mover may have so much of the disks on its way; what of it was not acknowledged is read again.
ON_ITS_WAY = 24 << 20
# The guest writes meanwhile, and that goes again and again.
SLACK = 16 << 20
# And what it does between two samples counts for nothing.
BETWEEN_SAMPLES = 24 << 20
IOTHREAD, PLAIN, HELD = "iothread", "plain", "held"
HELD_S = 2


class World:
    """Guests, booted when first wanted; each case moves one from where it is to the other host."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        self._guests = {}

    def guest(self, kind):
        if kind not in self._guests:
            path = f"{POOL}/{kind}.qcow2"
            image.with_files(self.lab.west.path(path), 1 << 30, FILES_MIB)
            guest = Guest(kind, [Disk(path, iothread=kind == IOTHREAD)], Load(memory_mib=32, disk_mib=16, files=0), 192, number=60 + len(self._guests))
            self.lab.network.add_tap(guest.tap)
            guest.start(self.lab.west)
            guest.wait_ready()
            self._guests[kind] = guest
        return self._guests[kind]

    def empty(self, guest):
        """The host that the guest is not on, as if it had never had it."""
        host = self.lab.other(guest.host)
        eventually(lambda: not guest.pids(host), "a QEMU is left")
        for path in [*host.path(POOL).iterdir(), *guest.host.path(POOL).iterdir()]:
            if path.name.startswith(guest.disks[0].path.rpartition("/")[2]) and (path.parent == host.path(POOL)
                                                                                or ".watari-" in path.name):
                path.unlink()

    def status(self, host):
        return next(migration for migration in self.agents.ask(host, "status")["migrations"] if not migration.get("result"))


def kill_mover(host, but=None):
    """The pid; None when there is none, or only the one of pid BUT."""
    for pid in host.find("watari-mover"):
        if pid != but:
            with contextlib.suppress(LabError):  # the daemon was faster
                host.signal(pid, signal.SIGKILL)
            return pid
    return None


def hold_back(host, guest):
    """The QEMU that is being prepared stands still for a while: what it was told to write, it writes later."""
    pid = guest.pids(host)[0]
    host.signal(pid, signal.SIGSTOP)
    timer = threading.Timer(HELD_S, lambda: host.signal(pid, signal.SIGCONT))
    timer.daemon = True
    timer.start()


def killed(world, kind, side, phase, far_enough):
    guest = world.guest(kind)
    source, destination = guest.host, world.lab.other(guest.host)
    world.empty(guest)
    victim = source if side == SOURCE else destination

    def kill():
        eventually(lambda: far_enough(world.status(source)), "the migration does not get there", 60)
        if kind == HELD:
            hold_back(destination, guest)
        kill_mover(victim)

    world.lab.network.set_rate("300mbit")
    try:
        with Probe(world.lab.outside, guest.address) as probe:
            outcome = world.agents.migrate(guest, at={phase: kill})
            report = probe.stop()
    finally:
        world.lab.network.set_rate(None)
    equal(outcome.code, DONE, f"{outcome}")
    check(not report.copies, f"two copies answered: {report.copies}")
    equal(outcome.result["resumed"], True, "resumed")
    texts = [event["text"] for event in outcome.events if event.get("event") == "warning"]
    check(any("New movers take over" in text for text in texts), f"nothing is said of it: {texts}")
    check(any("new movers are there" in text for text in texts), f"nothing is said of its end: {texts}")
    told = destination.run(["cat", f"/proc/{outcome.result['where']['pid']}/comm"], check=False).stdout
    check("qemu" in told, f"the pid that is told is {told or 'nothing'}")
    guest.verify()
    eventually(lambda: not source.find("watari-mover") and not destination.find("watari-mover"), "a mover is left")
    allocated = next(re.search(r"(\d+) MiB allocated", event["text"]) for event in outcome.events if event.get("phase") == "bulk")
    return outcome.result, int(allocated[1]) << 20


def killed_in_bulk(world, kind, side):
    result, allocated = killed(world, kind, side, "bulk", lambda status: status["disk"]["done"] >= 72 << 20)
    read = result["disk"]["bytes"]
    wanted = allocated + ON_ITS_WAY + BETWEEN_SAMPLES + SLACK
    check(read <= wanted, f"{read >> 20} MiB were read, {wanted >> 20} MiB would have done")
    print(f"     {read >> 20} MiB read, {result['resent_bytes'] >> 10} KiB for nothing, {result['total_ms']} ms")


def killed_in_memory(world, kind, side):
    result, allocated = killed(world, kind, side, "memory", lambda status: status["memory"]["bytes"] >= 8 << 20)
    read = result["disk"]["bytes"]
    wanted = allocated + SLACK
    check(read <= wanted, f"{read >> 20} MiB were read: the disks began again")
    print(f"     {read >> 20} MiB read, {result['resent_bytes'] >> 10} KiB for nothing, {result['total_ms']} ms, "
          f"downtime {result['downtime_ms']} ms")


def case(function, kind, side, phase, register=test):
    def run(world):
        function(world, kind, side)

    run.__name__ = f"{side}_mover_killed_in_{phase}_{kind}"
    register(run)


for SIDE in (SOURCE, DESTINATION):
    for KIND in (IOTHREAD, PLAIN, HELD):
        case(killed_in_bulk, KIND, SIDE, "bulk")
    for KIND in (IOTHREAD, PLAIN):
        case(killed_in_memory, KIND, SIDE, "memory")


def told_and_left_alone(world, guest, outcome, words):
    equal(outcome.code, FAILED, f"{outcome}")
    for word in (*words, "as before"):
        check(word in outcome.error[1], f"{word!r} is not in the message: {outcome.error}")
    world.empty(guest)
    with guest.qmp() as qmp:
        equal(qmp("query-status")["status"], "running", "state of the guest")
        equal(qmp("query-block-exports"), [], "exports")
    guest.verify()


@test
def movers_that_die_again_and_again_end_the_migration(world):
    guest = world.guest(IOTHREAD)
    world.empty(guest)
    ended = threading.Event()

    def kill_all_that_come():
        last = None
        while not ended.is_set():
            last = kill_mover(world.lab.other(guest.host), but=last) or last
            time.sleep(0.05)

    killer = threading.Thread(target=kill_all_that_come, daemon=True)
    try:
        outcome = world.agents.migrate(guest, at={"bulk": killer.start})
    finally:
        ended.set()
    told_and_left_alone(world, guest, outcome, ("mover", "again and again"))


@test
def a_mover_that_dies_in_the_pause_ends_the_migration(world):
    guest = world.guest(IOTHREAD)
    world.empty(guest)
    outcome = world.agents.migrate(guest, "--mode", "quick", at={"paused": lambda: kill_mover(world.lab.other(guest.host))})
    if outcome.code == DONE:
        guest.verify()
        print("     it was too late")
        return
    told_and_left_alone(world, guest, outcome, ("mover",))


@more
def both_movers_killed_at_once_are_replaced(world):
    guest = world.guest(IOTHREAD)
    world.empty(guest)
    hosts = (guest.host, world.lab.other(guest.host))
    outcome = world.agents.migrate(guest, at={"bulk": lambda: [kill_mover(host) for host in hosts]})
    equal(outcome.code, DONE, f"{outcome}")
    guest.verify()


if __name__ == "__main__":
    sys.exit(run_with_agents(World, lines=40))

#!/usr/bin/python3
"""Never two, never none: the handoff with its daemons, QEMUs and hosts killed, stopped or rebooted at each of its steps. Every case says
where the guest must run in the end, and that it is intact, that the other host runs no copy and may start none, and that nothing is left
over. The steps are held by pause points (agent/common/pause_point.h), so the build needs -Dpause_points=true, as tests/prepare makes it.

Usage: WATARI_BUILD=DIR tests/e2e/test_handoff.py [--all | TEST...]
"""

import contextlib
import subprocess
import sys
import time

from aftermath import MOVED, empty, nothing_is_left, settings, undecided
from harness import BUILD, check, equal, eventually, more, run_with_agents, test

from lab import Disk, Guest, LabError, Load, image
from lab.agents import LOG, POOL, STATE
from lab.probe import Probe

DONE, FAILED, NO_DAEMON, CANCELLED, LOST = 0, 1, 2, 4, 5
SOURCE, DESTINATION = "source", "destination"
DISK = f"{POOL}/subject.qcow2"
JOURNALS = f"{STATE}/journal"
# agent/policy/handoff.h
COMMIT_VALIDITY_S, MARGIN_S = 10, 5


class World:
    """One guest; each case moves it from where it is to the other host."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        load = Load(memory_mib=16, disk_mib=16, files=0)
        self.guest = Guest("subject", [Disk(DISK, iothread=True)], load, 128, number=41)
        lab.network.add_tap(self.guest.tap)
        self.source, self.destination = lab.west, lab.east
        self.settings = None
        self._to_restart = set()
        self._boot()

    def _boot(self):
        image.with_files(self.lab.west.path(DISK), 256 << 20, 16)
        self.guest.start(self.lab.west)
        self.guest.wait_ready()

    def _start_over(self):
        """What a failed case left must not fail the others."""
        for host in self.lab.hosts:
            self.agents.kill(host)
            host.end(host.find("watari-mover") + self.guest.pids(host))
            for directory in (POOL, JOURNALS, "/run/watari/vms", "/run/watari/migrations"):
                empty(host, directory)
            self.restart(host)
        self._boot()

    def begin(self):
        """Before each case: daemons without pause points, a guest that runs, and the other host as if it had never had it."""
        for host in self.lab.hosts:
            if host in self._to_restart:
                self.restart(host)
        try:
            eventually(lambda: not undecided(self.agents), "a migration is left undecided")
            here = self.agents.running_in(self.guest)
            check(here, "the guest runs nowhere")
        except (AssertionError, LabError):
            self._start_over()
            here = self.lab.west
        self.guest.find(here)
        self.source, self.destination = here, self.lab.other(here)
        empty(self.destination, POOL)
        empty(self.destination, "/run/watari/vms")
        for path in self.source.path(POOL).iterdir():
            if MOVED in path.name:
                path.unlink()
        self.settings = settings(self.guest)

    def host(self, side):
        return self.source if side == SOURCE else self.destination

    def restart(self, host, pause_at=()):
        self.agents.kill(host)
        self.agents.start(host, pause_at)
        (self._to_restart.add if pause_at else self._to_restart.discard)(host)

    def start(self, *words, at=None):
        return self.agents.start_migration(self.guest, "--mode", "quick", *words, at=at)

    def stopped_at(self, side, point):
        """A migration under way whose daemon on that side stands still at POINT."""
        self.restart(self.host(side), [f"{side}-{point}"])
        running = self.start()
        eventually(lambda: running.ended() or self.agents.paused(self.host(side)), f"nothing stops at {side}-{point}", 60)
        check(not running.ended(), f"the migration ended without stopping at {side}-{point}, or watarid was built without "
              f"-Dpause_points=true: {running.events[-1:]}")
        return running

    def stopped_with_the_commit(self):
        """A migration whose source has committed, and whose destination's daemon stands still with the COMMIT in its socket."""
        running = self.stopped_at(SOURCE, "committed")
        self.agents.freeze(self.destination)
        self._to_restart.add(self.destination)
        self.agents.thaw(self.source)
        committed(running)
        time.sleep(0.5)
        return running

    def may_start(self, side):
        return self.agents.may_start(self.host(side), self.guest.name)[0]

    def ends(self, running, side, code, *words):
        """The outcome: the guest runs on that SIDE alone, and `watari migrate` says so with CODE and WORDS."""
        outcome = running.wait(120)
        equal(outcome.code, code, f"exit code of {outcome}")
        for word in words:
            check(word in outcome.error[1], f"{word!r} is not in the message: {outcome.error}")
        self.runs_alone(side)

    def runs_alone(self, side):
        guest, host = self.guest, self.host(side)
        eventually(lambda: not undecided(self.agents), "a migration stays undecided", 60)
        eventually(lambda: self.agents.running_in(guest) is host, f"the guest does not run at the {side}")
        guest.find(host)
        guest.verify()
        before = guest.status()["ticks"]
        eventually(lambda: guest.status()["ticks"] > before, "the guest does not go on")
        check(self.may_start(side), f"the {side} may not start it: {self.agents.may_start(host, guest.name)}")
        if side == DESTINATION:
            check(not self.may_start(SOURCE), f"the source may start it: {self.agents.may_start(self.source, guest.name)}")
        nothing_is_left(self.lab, guest, self.source, self.settings)

    @contextlib.contextmanager
    def watched(self):
        """Proves from outside that at no time two copies ran, nor one that is older than what was seen of it. Not for cold starts."""
        with Probe(self.lab.outside, self.guest.address) as probe:
            yield
            report = probe.stop()
        check(not report.copies, f"more than one copy ran: {report.copies[:3]}")


def answers(guest):
    try:
        guest.status(1)
    except LabError:
        return False
    return True


def kill_qemu(world, side):
    host = world.host(side)
    pids = world.guest.pids(host)
    check(pids, f"no QEMU at the {side}")
    host.end(pids)


def committed(running):
    """The source has journaled that it gave the VM away."""
    eventually(lambda: any(event.get("phase") == "committed" for event in list(running.events)), "the source does not commit")


def case(function, name, *arguments, register=test):
    def run(world):
        function(world, *arguments)

    run.__name__ = name.replace("-", "_")
    register(run)


# --- kill -9 of each watarid at each step, and a start after it ---


def killed_and_started_again(world, side, point, then_runs_at):
    with world.watched():
        running = world.stopped_at(side, point)
        world.restart(world.host(side))
        code = NO_DAEMON if side == SOURCE else DONE if then_runs_at == DESTINATION else FAILED
        world.ends(running, then_runs_at, code, *(["as before"] if code == FAILED else []))


# Side, step, where the guest runs in the end. A step is held before anything of it is done, one with -done after it was begun. A source that
# has not committed waits for the link to come back: what is loaded, and written down so, is still there then.
for CASE in (
    (SOURCE, "paused", SOURCE, more),
    (SOURCE, "committing", SOURCE, more),
    (SOURCE, "committing-done", DESTINATION, test),
    (SOURCE, "committed", DESTINATION, test),
    (SOURCE, "committed-done", DESTINATION, more),
    (SOURCE, "cleaning", DESTINATION, test),
    (DESTINATION, "loading", SOURCE, more),
    (DESTINATION, "loading-done", DESTINATION, more),
    (DESTINATION, "loaded", DESTINATION, test),
    (DESTINATION, "committing", DESTINATION, more),
    (DESTINATION, "committing-done", DESTINATION, more),
    (DESTINATION, "starting", DESTINATION, test),
    (DESTINATION, "starting-done", DESTINATION, more),
    (DESTINATION, "owned", DESTINATION, more),
):
    case(killed_and_started_again, f"{CASE[0]}_killed_at_{CASE[1]}_leaves_the_guest_at_the_{CASE[2]}", *CASE[:3], register=CASE[3])


@test
def destination_killed_with_the_commit_in_its_socket_runs_the_guest(world):
    with world.watched():
        running = world.stopped_with_the_commit()
        world.restart(world.destination)
        world.ends(running, DESTINATION, DONE)


# --- the guardian ---


@test
def the_guardian_has_a_paused_guest_running_again(world):
    agents, host, guest = world.agents, world.source, world.guest
    with world.watched():
        running = world.stopped_at(SOURCE, "committing")
        check(not answers(guest), "the guest is not paused")
        began = time.monotonic()
        agents.kill_daemon_only(host)
        eventually(lambda: answers(guest), "the guest stands still")
        print(f"     it ran again after {time.monotonic() - began:.1f} s", flush=True)
        agents.wait_for(host)
        check("it is started again" in host.read(LOG).rpartition("pause point")[2], "the guardian has said nothing")
        world.ends(running, SOURCE, NO_DAEMON)


@more
def the_daemon_goes_on_without_its_guardian(world):
    host = world.source
    guardian = world.agents.daemon(host)
    daemon = world.agents.daemon_pid(host)
    with world.watched():
        running = world.start(at={"bulk": guardian.kill})
        world.ends(running, DESTINATION, DONE)
    check(daemon in host.processes(), "the daemon has ended with its guardian")
    world.restart(host)


@more
def broken_trust_and_resolver_files_keep_no_guest_waiting(world):
    agents, host, guest = world.agents, world.source, world.guest
    files = [f"{STATE}/trust.json", "/etc/resolv.conf"]
    before = [host.path(path).read_bytes() if host.path(path).exists() else None for path in files]
    running = world.stopped_at(SOURCE, "committing")
    try:
        for path in files:
            host.path(path).unlink(missing_ok=True)
            host.write(path, "{ this is none")
        agents.kill_daemon_only(host)
        eventually(lambda: answers(guest), "the guest stands still")
        equal(agents.daemon(host).wait(60), 1, "exit code of watarid with a broken trust store")
        check("trust.json" in host.read(LOG).rpartition("it is started again")[2], "what is broken is not said")
    finally:
        for path, content in zip(files, before):
            host.path(path).unlink()
            if content is not None:
                host.path(path).write_bytes(content)
        world.restart(host)
    world.ends(running, SOURCE, NO_DAEMON)


@more
def a_daemon_told_to_end_in_the_pause_resumes_the_guest_first(world):
    with world.watched():
        running = world.stopped_at(SOURCE, "paused")
        daemon = world.agents.daemon(world.source)
        daemon.terminate()
        time.sleep(0.5)  # the guardian hands it on
        world.agents.thaw(world.source)
        equal(daemon.wait(60), 0, "exit code of watarid")
        check(answers(world.guest), "the guest stands still")
        world.restart(world.source)
        world.ends(running, SOURCE, CANCELLED)


# --- QEMU killed ---


def destination_qemu_killed(world, point, code):
    """Where it cannot have run it was refused, and the source runs on. Where it may have run it is the destination's, dead or not."""
    running = world.stopped_at(DESTINATION, point)
    kill_qemu(world, DESTINATION)
    world.agents.thaw(world.destination)
    if code == FAILED:
        world.ends(running, SOURCE, FAILED, "as before")
        return
    outcome = running.wait(60)
    equal(outcome.code, code, f"exit code of {outcome}")
    eventually(lambda: not undecided(world.agents), "a migration stays undecided", 60)
    eventually(lambda: not world.guest.pids(world.source), "the source's QEMU is left")
    check(not world.may_start(SOURCE), "both may start it")
    check(world.agents.autostart(world.destination, world.guest), "the destination may not start it")
    world.runs_alone(DESTINATION)


case(destination_qemu_killed, "destination_qemu_killed_before_cont_leaves_the_guest_at_the_source", "loaded", FAILED)
case(destination_qemu_killed, "destination_qemu_killed_in_cont_leaves_the_vm_to_the_destination", "starting", LOST)
case(destination_qemu_killed, "destination_qemu_killed_after_cont_leaves_the_vm_to_the_destination", "owned", DONE, register=more)


def source_qemu_killed(world, side, point):
    """The loaded copy is the only one then, and it lives on."""
    with world.watched():
        running = world.stopped_at(side, point)
        kill_qemu(world, SOURCE)
        world.agents.thaw(world.host(side))
        world.ends(running, DESTINATION, DONE)


case(source_qemu_killed, "source_qemu_killed_when_all_is_loaded_is_rescued", DESTINATION, "loaded")
case(source_qemu_killed, "source_qemu_killed_before_committed_is_rescued", SOURCE, "committing", register=more)
case(source_qemu_killed, "source_qemu_killed_after_committed_does_no_harm", SOURCE, "committed", register=more)


@more
def source_qemu_and_daemon_killed_when_all_is_loaded_is_rescued(world):
    with world.watched():
        running = world.stopped_at(SOURCE, "committing")
        kill_qemu(world, SOURCE)
        world.restart(world.source)
        world.ends(running, DESTINATION, NO_DAEMON)


# --- a COMMIT that waits in a socket ---


@test
def a_late_commit_starts_no_second_copy_after_resolve(world):
    """The destination's daemon is stopped with the COMMIT in its socket, for longer than that counts; meanwhile an operator decides."""
    with world.watched():
        running = world.stopped_with_the_commit()
        since = time.monotonic()
        command = [BUILD / "watari", "resolve", world.guest.name, "--run-here", "--yes"]
        early = world.source.run(command, check=False)
        equal(early.returncode, FAILED, f"resolve before the COMMIT has lost its force: {early.stderr}")
        check("COMMIT" in early.stderr, f"the refusal does not say why: {early.stderr}")
        check(not answers(world.guest), "the guest runs")
        time.sleep(max(0.0, since + COMMIT_VALIDITY_S + MARGIN_S + 1 - time.monotonic()))
        late = world.source.run(command, check=False)
        equal(late.returncode, DONE, f"resolve: {late.stderr}{late.stdout}")
        eventually(lambda: answers(world.guest), "the guest does not run at the source")
        world.agents.thaw(world.destination)
        world.ends(running, SOURCE, FAILED)


@more
def no_second_qemu_starts_before_a_withdrawn_one_is_resumed(world):
    """Between an operator's decision for the source and its `cont`: the disks have no locks then, and an autostart asks."""
    world.restart(world.source, ["source-committed", "source-withdrawn"])
    with world.watched():
        running = world.start()
        eventually(lambda: world.agents.paused(world.source), "nothing stops at source-committed", 60)
        world.agents.freeze(world.destination)
        world._to_restart.add(world.destination)
        world.agents.thaw(world.source)
        committed(running)
        time.sleep(COMMIT_VALIDITY_S + MARGIN_S + 1)
        resolve = world.source.popen([BUILD / "watari", "resolve", world.guest.name, "--run-here", "--yes"],
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        eventually(lambda: world.agents.paused(world.source), "nothing stops at source-withdrawn", 20)
        may, why = world.agents.may_start(world.source, world.guest.name)
        check(not may and "in the QEMU that it has" in why, f"whether the source may start it: {may}, {why}")
        world.agents.thaw(world.source)
        equal(resolve.wait(60), DONE, "exit code of resolve")
        eventually(lambda: answers(world.guest), "the guest does not run at the source")
        world.agents.thaw(world.destination)
        world.ends(running, SOURCE, FAILED)


@more
def a_late_commit_is_asked_for_again(world):
    with world.watched():
        running = world.stopped_with_the_commit()
        time.sleep(COMMIT_VALIDITY_S + 1)
        world.agents.thaw(world.destination)
        world.ends(running, DESTINATION, DONE)


@more
def a_link_cut_after_the_commit_is_waited_for(world):
    with world.watched():
        running = world.stopped_at(SOURCE, "committed")
        world.lab.network.cut()
        try:
            world.agents.thaw(world.source)
            committed(running)
            time.sleep(8)
            check(not answers(world.guest), "the guest runs, and nobody knows whether it may")
            equal(world.may_start(SOURCE), False, "whether the source may start it")
            equal(world.may_start(DESTINATION), False, "whether the destination may start it")
        finally:
            world.lab.network.mend()
        world.ends(running, DESTINATION, DONE)


# --- a host loses its power, and its autostart asks may-start ---


def rebooted(world, side, point, runs_at, code, cold):
    """COLD: it has to be started from its disks there; else its memory lives on at the other side."""
    agents, host, guest = world.agents, world.host(side), world.guest
    running = world.stopped_at(side, point) if point != "commit" else world.stopped_with_the_commit()
    agents.reboot(host)
    check(not agents.autostart(host, guest), f"the {side} started it before anybody knew how it stands")
    agents.start(host)
    outcome = running.wait(120)
    if side == DESTINATION:  # with the source the client loses its power too
        equal(outcome.code, code, f"exit code of {outcome}")
    eventually(lambda: not undecided(world.agents), "a migration stays undecided", 60)
    if cold:
        check(agents.autostart(host, guest), f"the {side} may not start it: {agents.may_start(host, guest.name)}")
        world.settings = settings(guest)
    world.runs_alone(runs_at)


for CASE in (
    (SOURCE, "paused", SOURCE, None, True, more),
    (SOURCE, "committing", DESTINATION, None, False, test),
    (SOURCE, "committed", DESTINATION, None, False, more),
    (SOURCE, "cleaning", DESTINATION, None, False, more),
    (DESTINATION, "loading", SOURCE, FAILED, False, more),
    (DESTINATION, "commit", SOURCE, FAILED, False, test),
    (DESTINATION, "committing", SOURCE, FAILED, False, more),
    (DESTINATION, "starting", DESTINATION, LOST, True, more),
    (DESTINATION, "owned", DESTINATION, LOST, True, test),
):
    case(rebooted, f"{CASE[0]}_rebooted_at_{CASE[1]}_leaves_the_guest_at_the_{CASE[2]}", *CASE[:5], register=CASE[5])


# --- the journal's own directory ---


@contextlib.contextmanager
def other_journals(host, options, filled=False):
    host.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", JOURNALS])
    try:
        if filled:
            host.run(["dd", "if=/dev/zero", f"of={JOURNALS}/filler", "bs=4k"], check=False)
        yield
    finally:
        host.run(["umount", "-l", JOURNALS])


def journal_refused(world, side, options, filled):
    with other_journals(world.host(side), options, filled):
        world.ends(world.start(), SOURCE, FAILED, "journal", world.guest.name)


for SIDE in (SOURCE, DESTINATION):
    case(journal_refused, f"a_full_journal_directory_at_the_{SIDE}_is_refused", SIDE, "size=64k", True)
    case(journal_refused, f"a_read_only_journal_directory_at_the_{SIDE}_is_refused", SIDE, "ro", False)


def journal_fills_up(world, side):
    """What a migration needs of it was reserved at its beginning."""
    def fill():
        world.host(side).run(["dd", "if=/dev/zero", f"of={JOURNALS}/filler", "bs=4k"], check=False)

    with other_journals(world.host(side), "size=4m"), world.watched():
        world.ends(world.start(at={"bulk": fill}), DESTINATION, DONE)


for SIDE in (SOURCE, DESTINATION):
    case(journal_fills_up, f"a_journal_directory_that_fills_up_at_the_{SIDE}_does_no_harm", SIDE, register=more)


if __name__ == "__main__":
    sys.exit(run_with_agents(World, lines=25, before_each=World.begin))

"""One fault at one phase of one migration: played, and looked at."""

import contextlib
import dataclasses
import time

from harness import check, eventually

from lab.errors import LabError
from lab.probe import Probe

from . import actions
from .actions import DESTINATION, SOURCE
from .world import POOL, RATE

CODES = {0: "done", 1: "failed", 2: "no-daemon", 3: "undecided", 4: "cancelled", 5: "lost"}
# Where the message says that the VM is, by the outcome; a client without a daemon knows nothing of it.
SAYS = {"failed": "as before", "cancelled": "as before", "lost": "nowhere"}
END_S = 150
APPEARS_S = 15
QUICK_DOWNTIME = "20s"
# Longer than any link is down that is to come back.
RECONNECT = "60s"


@dataclasses.dataclass
class Played:
    """What came of a cell. OUTCOME: the client's word, or `gone` when it died with its host; REASON: the id of its error, or None; WHERE the
    guest runs in the end: source, destination, with `cold` when it ran nowhere and was started from the disks there."""

    outcome: str
    reason: str | None
    where: str
    text: str

    def __str__(self):
        return f"{self.outcome}{f':{self.reason}' if self.reason else ''} {self.where}"


class Cell:
    """What a fault may use: AGENTS, NETWORK, SOURCE and DESTINATION (hosts); WORDS of the command line, to which it may add."""

    def __init__(self, world, mode="quick"):
        self.world = world
        self.agents, self.network = world.agents, world.lab.network
        self.source, self.destination = world.source, world.destination
        self.pool = POOL
        self.words = ["--mode", mode, "--reconnect-timeout", RECONNECT]
        if mode == "quick":
            self.words += ["--max-quick-downtime", QUICK_DOWNTIME]
        self.running = None
        self.frozen = False  # the source's daemon was stopped by the fault, and not at its pause point

    def host(self, side):
        return self.source if side == SOURCE else self.destination

    def lasts(self, seconds):
        """How long a fault lasts that is to last SECONDS."""
        return seconds

    def daemons(self, side):
        pid = self.agents.daemon_pid(self.host(side))
        return [pid] if pid else []

    def movers(self, side):
        return self._found(lambda: self.host(side).find("watari-mover"), f"mover at the {side}")

    def qemus(self, side):
        return self._found(lambda: self.world.guest.pids(self.host(side)), f"QEMU at the {side}")

    def _found(self, find, what):
        """Early in a migration it may be about to start, and then the source's daemon must not stand still."""
        if not find():
            self.agents.thaw(self.source)
        eventually(lambda: find() or self.running.ended(), f"there is no {what} in this phase", APPEARS_S)
        found = find()
        check(found, f"there is no {what} in this phase")
        return found

    def reach(self, phase):
        paused = self.agents.paused
        eventually(lambda: self.running.ended() or paused(self.source), f"{phase.point} is not reached", 60)
        check(paused(self.source), f"the migration ended without stopping at {phase.point}, or watarid was built without "
              f"-Dpause_points=true: {self.running.events[-1:]}")
        if phase.goes_on:
            self.agents.thaw(self.source)
            time.sleep(phase.goes_on)

    def finish(self):
        """Waits for the outcome, with every daemon going on that was started again with the pause points of the one before."""
        limit = time.monotonic() + END_S
        while not self.running.ended():
            check(time.monotonic() < limit, f"no outcome within {END_S} s: {self.running.events[-1:]}")
            self.thaw_started_again()
            time.sleep(0.05)
        return self.running.wait(1)

    def slow_down(self, phase):
        """What moves in PHASE takes its time, so that the fault falls within it."""
        if phase.goes_on:
            self.network.set_rate(RATE)
        if phase.disk_rate:
            self.world.guest.command(f"rate disk noise {phase.disk_rate}")

    def speed_up(self, phase):
        """The fault has struck: the rest need not be slow."""
        if phase.goes_on:
            self.network.set_rate(None)
        if phase.disk_rate:
            with contextlib.suppress(LabError):  # a guest that is dead or stands still
                self.world.guest.command(f"rate disk text {self.world.guest.load.disk_rate}", 2)

    def thaw_started_again(self):
        if not self.frozen and self.agents.paused(self.source):
            self.agents.thaw(self.source)


def play(world, fault, phase):
    """Returns Played; AssertionError or LabError when something is wrong that is wrong whatever was expected."""
    world.start_over()
    world.start_daemons([phase.point])
    cell = Cell(world, phase.mode)
    action = actions.ALL[fault](cell)
    try:
        next(action)
        cell.slow_down(phase)
        with Probe(world.lab.outside, world.guest.address) as probe:
            cell.running = world.agents.start_migration(world.guest, *cell.words)
            cell.reach(phase)
            outcome = strike(cell, action, phase)
            played = judge(cell, fault in actions.KILLS_QEMU, outcome)
            report = probe.stop()
        check("cold" in played.where or not report.copies, f"more than one copy ran: {report.copies[:3]}")
        return played
    finally:
        action.close()


def strike(cell, action, phase):
    """The fault, and the migration to its end: returns its Outcome."""
    seconds = next(action)
    cell.thaw_started_again()
    cell.speed_up(phase)
    if seconds is not actions.UNTIL_THE_END:
        time.sleep(seconds)
        next(action, None)
    outcome = cell.finish()
    next(action, None)
    return outcome


def judge(cell, may_be_dead, outcome):
    """Looks at all that is left of a cell whose migration has had its outcome. MAY_BE_DEAD: a QEMU was killed."""
    world = cell.world
    here = world.settle()
    cold = here is None
    if cold:
        check(may_be_dead, f"no QEMU was killed, and the guest runs nowhere: {outcome}")
        here = world.revive()
    world.check_all(cell.pool)
    word = CODES.get(outcome.code, "gone")
    reason, text = outcome.error if word in SAYS or word == "undecided" else (None, "")
    reason = None if reason == word else reason
    check(SAYS.get(word, "") in text, f"the message of `{word}` does not say {SAYS.get(word)!r}: {text}")
    side = SOURCE if here is cell.source else DESTINATION
    return Played(word, reason, f"{side} cold" if cold else side, text)

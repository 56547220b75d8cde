"""The guest moves back and forth, and at random moments processes are killed or stopped, links cut. Whatever comes of it, the guest must run
at exactly one host, intact, and nothing may be left. A seed gives the same migration and the same faults; not the same microsecond."""

import random
import time

from harness import check

from lab.probe import Probe

from . import actions
from .actions import UNTIL_THE_END
from .cell import Cell, judge

# All that strike a process or the link. Those over places that are full are not for a moment.
FAULTS = [name for name in actions.ALL if name.endswith(("-killed", "-stopped", "-rebooted", "-nothing", "down-5s", "down-30s"))]
PHASES = ("preflight", "prepare", "bulk", "passes", "memory", "paused", "handoff", "committed", "cleanup")
RATES = (None, "200mbit", "60mbit")
# Seconds after the beginning of a phase; the second fault comes so much later than the first.
DELAY = 0.8
SECOND = 4.0
TWO_OF = 3
# What must be true of where the guest is at each of the client's words; the others leave it open.
MUST_BE = {"done": "destination", "failed": "source", "cancelled": "source", "lost": "cold"}


class WanderingCell(Cell):
    """Finds what is there at the moment, which may be nothing, and what lasts lasts for other times."""

    def __init__(self, world, mode, numbers):
        super().__init__(world, mode)
        self._numbers = numbers

    def lasts(self, seconds):
        return round(self._numbers.uniform(0.2, 1.2 * seconds), 1)

    def _found(self, find, what):
        return find()


class Wandering:
    """One migration, wholly determined by SEED; tells() it before it is played."""

    def __init__(self, world, seed):
        numbers = random.Random(seed)
        self.seed = seed
        self.world = world
        self.mode = numbers.choice(("quick", "live"))
        self.rate = numbers.choice(RATES)
        self.phase = numbers.choice(PHASES)
        self.delay = round(numbers.uniform(0, DELAY), 2)
        self.faults = [numbers.choice(FAULTS)]
        self.second = 0
        if numbers.randrange(TWO_OF) == 0:
            self.faults.append(numbers.choice(FAULTS))
            self.second = round(numbers.uniform(0, SECOND), 2)
        self._numbers = numbers

    def tells(self):
        second = f", {self.second} s later {self.faults[1]}" if self.second else ""
        return f"{self.mode} at {self.rate or 'full speed'}, {self.delay} s into {self.phase} {self.faults[0]}{second}"

    def play(self):
        """Returns cell.Played; AssertionError or LabError when something is wrong."""
        world = self.world
        world.go_on()
        world.start_daemons()
        world.lab.network.set_rate(self.rate)
        cell = WanderingCell(world, self.mode, self._numbers)
        struck = [actions.ALL[name](cell) for name in self.faults]
        try:
            for action in struck:
                next(action)
            with Probe(world.lab.outside, world.guest.address) as probe:
                cell.running = world.agents.start_migration(world.guest, *cell.words)
                self._strike(cell, struck)
                outcome = cell.finish()
                played = judge(cell, self._kills_qemu(), outcome)
                report = probe.stop()
        finally:
            for action in struck:
                action.close()
        check("cold" in played.where or not report.copies, f"more than one copy ran: {report.copies[:3]}")
        check(MUST_BE.get(played.outcome, "") in played.where, f"the client said `{played}`")
        return played

    def _kills_qemu(self):
        return any(name in actions.KILLS_QEMU for name in self.faults)

    def _strike(self, cell, struck):
        """The faults at their moments, each put right at its time, one beside the other."""
        while not cell.running.ended() and not any(event.get("phase") == self.phase for event in list(cell.running.events)):
            time.sleep(0.01)
        now = time.monotonic()
        due = [(now + self.delay + number * self.second, action) for number, action in enumerate(struck)]
        while due:
            due.sort(key=lambda entry: entry[0])
            moment, action = due.pop(0)
            time.sleep(max(0.0, moment - time.monotonic()))
            seconds = next(action, UNTIL_THE_END)
            if seconds is not UNTIL_THE_END:
                due.append((time.monotonic() + seconds, action))

#!/usr/bin/python3
"""Guests that write faster than the wire carries: what the ladder of --mode auto and live does with them, and that nothing of it is left
in the source's QEMU when the guest stays.

Usage: WATARI_BUILD=DIR tests/e2e/test_convergence.py [TEST...]
"""

import sys

from harness import check, equal, eventually, run_with_agents, test

from lab import Disk, Guest, Load, image
from lab.agents import POOL

DONE, FAILED, CANCELLED = 0, 1, 4
# 32 MiB that do not compress, written over and over as fast as the processor can: more than any of these links carries.
CALM, STORM = "rate memory text 1", "rate memory noise 500"
LINK = "200mbit"
DISK_STORM_LINK = "5mbit"


class World:
    """One guest, at west when a test begins."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        path = f"{POOL}/subject.qcow2"
        image.with_files(lab.west.path(path), 1 << 30, 24)
        load = Load(memory_mib=32, memory_rate=1, disk_mib=32, disk_rate=16)
        self.guest = Guest("subject", [Disk(path, iothread=True)], load, 128, number=41)
        lab.network.add_tap(self.guest.tap)
        self.guest.start(lab.west)
        self.guest.wait_ready()

    def begin(self):
        """At west, calm, over a wire without a limit."""
        self.lab.network.set_rate(None)
        self.guest.command(CALM)
        self.guest.command("rate disk text 16")
        if self.guest.host is not self.lab.west:
            for path in self.lab.west.path(POOL).iterdir():
                path.unlink()
            outcome = self.agents.migrate(self.guest, "--mode", "quick")
            equal(outcome.code, DONE, f"the way back: {outcome}")
        for path in self.lab.east.path(POOL).iterdir():
            path.unlink()

    def migrate(self, *words, link=LINK, during=None, at=None):
        self.lab.network.set_rate(link)
        running = self.agents.start_migration(self.guest, *words, at=at)
        if during:
            during(running)
        outcome = running.wait()
        self.lab.network.set_rate(None)
        result = outcome.result
        print(f"     {outcome}: {result['total_ms']} ms, paused for {result['downtime_ms']}, predicted {result['predicted']}"[:400], flush=True)
        for event in outcome.events:
            if event["event"] == "decision" or event.get("phase") == "paused" and event["event"] == "phase":
                print(f"     {event['text']}", flush=True)
        return outcome


def throttles(guest):
    """All that a throttle changes in QEMU."""
    limits = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr", "group")
    with guest.qmp() as qmp:
        disks = [{name: block["inserted"].get(name) for name in limits} for block in qmp("query-block") if "inserted" in block]
        return disks, qmp("query-migrate-parameters"), qmp("query-migrate-capabilities"), qmp("query-migrate").get("cpu-throttle-percentage")


def decisions(outcome, what):
    return [event[what] for event in outcome.events if event["event"] == "decision" and event[what]]


def failed(world, outcome, before, code=FAILED):
    """The guest runs where it was, as it was."""
    equal(outcome.code, code, f"{outcome}")
    check("as before" in outcome.error[1], outcome.error[1])
    equal(world.guest.host, world.lab.west, "where the guest is")
    equal(throttles(world.guest), before, "throttles after and before")
    ticks = world.guest.status()["ticks"]
    eventually(lambda: world.guest.status()["ticks"] > ticks, "the guest does not go on")
    world.guest.verify()


def moved(world, outcome, mode):
    equal(outcome.code, DONE, f"{outcome}")
    equal(outcome.result["mode_used"], mode, "mode used")
    disks, _, capabilities, percentage = throttles(world.guest)
    check(all(not value for disk in disks for value in disk.values()), f"throttles of disks at the destination: {disks}")
    check(not next(c["state"] for c in capabilities if c["capability"] == "auto-converge"), "auto-converge at the destination")
    equal(percentage, None, "throttle of vCPUs at the destination")
    world.guest.verify()


@test
def a_guest_that_writes_little_goes_live(world):
    outcome = world.migrate()
    moved(world, outcome, "live")
    predicted = outcome.result["predicted"]
    check(0 < predicted["downtime_ms"] <= 300, f"predicted: {predicted}")
    check(predicted["total_ms"] is not None and predicted["total_ms"] > predicted["downtime_ms"], f"predicted: {predicted}")
    equal(decisions(outcome, "cpu_throttle"), [], "throttles")


@test
def one_that_never_converges_and_may_not_be_throttled_goes_quick(world):
    world.guest.command(STORM)
    outcome = world.migrate("--max-throttle", "0", "--max-quick-downtime", "20s")
    moved(world, outcome, "quick")
    equal(outcome.result["mode_requested"], "auto", "mode requested")
    equal(decisions(outcome, "cpu_throttle"), [], "throttles")
    check(300 < outcome.result["predicted"]["downtime_ms"] <= 20000, f"predicted: {outcome.result['predicted']}")


@test
def a_quick_that_would_take_too_long_is_refused_with_its_figures(world):
    before = throttles(world.guest)
    world.guest.command(STORM)
    outcome = world.migrate("--max-throttle", "0", "--max-quick-downtime", "400ms")
    failed(world, outcome, before)
    equal(outcome.error[0], "no-convergence", "reason")
    for words in ("becomes dirty at", "a pause would take", "--max-quick-downtime allows 400 ms"):
        check(words in outcome.error[1], outcome.error[1])


@test
def a_throttled_guest_goes_live(world):
    world.guest.command(STORM)
    # All 32 MiB are dirty at any time before, and take more than a second.
    outcome = world.migrate("--mode", "live", "--max-throttle", "99", "--max-downtime", "1s")
    moved(world, outcome, "live")
    steps = decisions(outcome, "cpu_throttle")
    check(steps and steps == sorted(set(steps)), f"throttles: {steps}")


@test
def a_storm_of_disk_writes_is_throttled_and_a_cancel_ends_that(world):
    before = throttles(world.guest)
    world.guest.command("rate disk noise 16384")

    def cancel_when_throttled(running):
        eventually(lambda: running.ended() or any(e["event"] == "decision" for e in list(running.events)), "no throttle", 60)
        running.interrupt()

    # The wire becomes slow when memory begins: the bulk pass is not what is tested.
    outcome = world.migrate("--mode", "live", link=None, during=cancel_when_throttled,
                            at={"memory": lambda: world.lab.network.set_rate(DISK_STORM_LINK)})
    check(decisions(outcome, "disk_throttle"), "nothing was throttled")
    failed(world, outcome, before, CANCELLED)


@test
def a_deadline_that_the_disks_cannot_keep_ends_it_in_the_bulk_pass(world):
    before = throttles(world.guest)
    outcome = world.migrate("--deadline", "6s", link="10mbit")
    failed(world, outcome, before)
    equal(outcome.error[0], "deadline", "reason")
    check("copying the disks would take" in outcome.error[1], outcome.error[1])
    check(not any(event.get("phase") == "memory" for event in outcome.events), "it came to the memory")


@test
def a_deadline_ends_live_in_a_round_of_memory(world):
    before = throttles(world.guest)
    world.guest.command(STORM)
    outcome = world.migrate("--mode", "live", "--deadline", "10s")
    failed(world, outcome, before)
    equal(outcome.error[0], "deadline", "reason")
    check("--deadline of 10.0 s leaves" in outcome.error[1], outcome.error[1])


@test
def a_deadline_decides_for_quick_before_the_ladder_is_climbed(world):
    world.guest.command(STORM)
    outcome = world.migrate("--max-throttle", "99", "--deadline", "20s")
    moved(world, outcome, "quick")
    paused = next(event["text"] for event in outcome.events if event.get("phase") == "paused" and event["event"] == "phase")
    check("--deadline of 20.0 s leaves" in paused, paused)


if __name__ == "__main__":
    sys.exit(run_with_agents(World, lines=25, before_each=World.begin))

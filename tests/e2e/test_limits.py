#!/usr/bin/python3
"""Limits of bandwidth: held on the wire, whoever set them, and changed under way. What is compared is bytes that the wire counted with the
limit that was set; how fast the machine is does not matter as long as it can fill these.

Usage: WATARI_BUILD=DIR tests/e2e/test_limits.py [TEST...]
"""

import sys
import threading
import time

from harness import check, equal, run_with_agents, test

from lab import Disk, Guest, Load, image
from lab.agents import CONFIG, POOL

MBIT = 1_000_000 / 8
SAMPLE_S = 0.05
# The 5 % of the promise, and as much for the headers of TCP and IP and for what a sample is late.
TOO_MUCH = 1.10
# What must be reached at least: a limit that were held by standing still would be none.
ENOUGH = 0.7
DONE, FAILED, USAGE = 0, 1, 2
# As large as it is read.
RAW = ("--compress", "off", "--lanes", "3")


class Meter(threading.Thread):
    """Samples what WEST puts on the wire, until stop()."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self._lab = lab
        self._ended = threading.Event()
        self.samples = []  # (seconds, bytes)
        self.start()

    def run(self):
        while not self._ended.wait(SAMPLE_S):
            self.samples.append((time.monotonic(), self._lab.network.sent(self._lab.west)))

    def stop(self):
        self._ended.set()
        self.join()
        return self

    def peak(self, since=0, until=float("inf"), window=1.0):
        """Bytes a second of the busiest window of at least so long that lies between the two moments."""
        chosen = [sample for sample in self.samples if since <= sample[0] <= until]
        best, first = 0.0, 0
        for last, (now, total) in enumerate(chosen):
            while first < last and now - chosen[first + 1][0] >= window:
                first += 1
            if now - chosen[first][0] >= window:
                best = max(best, (total - chosen[first][1]) / (now - chosen[first][0]))
        check(best > 0, "the wire was not sampled for as long as a window")
        return best


class World:
    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        self._number = 60
        image.with_files(lab.west.path(f"{POOL}/base.qcow2"), 1 << 30, 24)

    def boot(self, **load):
        self._number += 1
        path = f"{POOL}/limits{self._number}.qcow2"
        image.copy(self.lab.west.path(f"{POOL}/base.qcow2"), self.lab.west.path(path))
        wanted = Load(**{"memory_mib": 16, "memory_rate": 1, "disk_mib": 8, "disk_rate": 16, "files": 0, **load})
        guest = Guest(f"limits{self._number}", [Disk(path)], wanted, 128, number=self._number)
        self.lab.network.add_tap(guest.tap)
        guest.start(self.lab.west)
        guest.wait_ready()
        return guest

    def set(self, host, *words, code=DONE):
        return self.agents.ask(host, "set", *words, code=code)

    def reset(self):
        for host in self.lab.hosts:
            self.set(host, "--host", "max-bandwidth=none")


def held(rate, limit, what):
    check(rate <= limit * TOO_MUCH, f"{what}: {rate / MBIT:.1f} Mbit/s, {limit / MBIT:.1f} allowed")
    check(rate >= limit * ENOUGH, f"{what}: {rate / MBIT:.1f} Mbit/s at most, {limit / MBIT:.1f} allowed")
    print(f"     {what}: {rate / MBIT:.1f} Mbit/s, {limit / MBIT:.1f} allowed", flush=True)


def done(running):
    outcome = running.wait()
    equal(outcome.code, DONE, f"{outcome}")
    running.guest.verify()
    running.guest.quit()
    return outcome.result


@test
def one_migration_keeps_to_its_limit_and_to_the_next(world):
    guest = world.boot()
    meter = Meter(world.lab)
    running = world.agents.start_migration(guest, "--max-bandwidth", "40mbit", *RAW)
    time.sleep(4)
    changed = time.monotonic()
    world.set(world.lab.west, running.id, "max-bandwidth=120mbit")
    told = world.agents.ask(world.lab.west, "status", running.id)["migrations"][0]
    equal(told["rate_limit"], 120 * MBIT, "the limit that status tells")
    done(running)
    meter.stop()
    held(meter.peak(until=changed), 40 * MBIT, "at first")
    held(meter.peak(since=changed + 0.2), 120 * MBIT, "after it was set anew")


@test
def two_migrations_share_what_their_host_may_send(world):
    guests = [world.boot(), world.boot()]
    world.set(world.lab.west, "--host", "max-bandwidth=240mbit")
    meter = Meter(world.lab)
    migrations = [world.agents.start_migration(guest, *RAW) for guest in guests]
    results = [done(running) for running in migrations]
    meter.stop()
    held(meter.peak(), 240 * MBIT, "both together")
    times = [result["total_ms"] for result in results]
    check(max(times) < 1.5 * min(times), f"the same, begun together, took {times} ms")


@test
def what_comes_to_a_host_keeps_to_its_limit(world):
    guests = [world.boot(), world.boot()]
    world.set(world.lab.east, "--host", "max-bandwidth=100mbit")
    meter = Meter(world.lab)
    migrations = [world.agents.start_migration(guest, *RAW) for guest in guests]
    time.sleep(4)
    changed = time.monotonic()
    world.set(world.lab.east, "--host", "max-bandwidth=300mbit")
    for running in migrations:
        done(running)
    meter.stop()
    held(meter.peak(until=changed), 100 * MBIT, "what came")
    held(meter.peak(since=changed + 0.2), 300 * MBIT, "what came after it was set anew")


@test
def the_limit_holds_in_the_pause_too(world):
    guest = world.boot(memory_mib=48, memory_rate=60, kind="noise")
    meter = Meter(world.lab)
    running = world.agents.start_migration(guest, "--mode", "quick", "--max-bandwidth", "200mbit", *RAW)
    result = done(running)
    meter.stop()
    held(meter.peak(), 200 * MBIT, "all of it")
    check(result["downtime_ms"] > 1000, f"a pause of {result['downtime_ms']} ms for 48 MiB at 200 Mbit/s")


@test
def the_pause_may_have_a_limit_of_its_own(world):
    guest = world.boot(memory_mib=48, memory_rate=60, kind="noise")
    paused = []
    meter = Meter(world.lab)
    running = world.agents.start_migration(
        guest, "--mode", "quick", "--max-bandwidth", "150mbit", "--switchover-bandwidth", "300mbit", *RAW,
        at={"paused": lambda: paused.append(time.monotonic())},
    )
    done(running)
    meter.stop()
    held(meter.peak(until=paused[0]), 150 * MBIT, "while the guest ran")
    held(meter.peak(since=paused[0]), 300 * MBIT, "in the pause")


@test
def a_limit_that_makes_no_sense_is_refused(world):
    guest = world.boot()
    west, east = world.lab.hosts
    for words in (("--max-bandwidth", "10kbit"), ("--max-bandwidth", "100"), ("--switchover-bandwidth", "quick")):
        outcome = world.agents.migrate(guest, *words)
        equal(outcome.code, USAGE, f"{words}: {outcome.stderr}")
        check(words[0] in outcome.stderr and words[1] in outcome.stderr, outcome.stderr)
    equal(world.set(west, "nobody", "max-bandwidth=10mbit", code=FAILED)["error"]["id"], "migration-not-found", "of no migration")
    running = world.agents.start_migration(guest, "--max-bandwidth", "20mbit", *RAW)
    migration = running.id
    time.sleep(2)
    equal(world.set(east, migration, "max-bandwidth=10mbit", code=FAILED)["error"]["id"], "set-elsewhere", "at the destination")
    world.set(west, migration, "max-bandwidth=none")
    done(running)
    equal(world.set(west, migration, "max-bandwidth=10mbit", code=FAILED)["error"]["id"], "too-late", "after the end")


@test
def keys_are_renewed_under_load(world):
    guest = world.boot(memory_mib=40, memory_rate=60, kind="noise")
    for host in world.lab.hosts:
        config = host.read(CONFIG)
        host.write(CONFIG, f"{config}[link]\nrenew-keys = 4M\n")
        world.agents.kill(host)
        world.agents.start(host)
    result = done(world.agents.start_migration(guest, *RAW))
    # Each of the three lanes renews its own, at what it has sent itself.
    least = result["wire_bytes"] // (4 << 20) - 3
    check(least > 10, f"only {result['wire_bytes']} bytes went over the wire")
    check(result["key_renewals"] >= least, f"{result['key_renewals']} keys for {result['wire_bytes']} bytes")
    print(f"     {result['key_renewals']} keys for {result['wire_bytes'] >> 20} MiB", flush=True)


if __name__ == "__main__":
    sys.exit(run_with_agents(World, 30, before_each=World.reset))

#!/usr/bin/python3
"""`watari report`: what is told afterwards of a migration that was done, one that failed and one that lost its movers, with no watarid running,
and that a timeline which finds no room costs the migration nothing.

Usage: WATARI_BUILD=DIR tests/e2e/test_report.py [TEST...]
"""

import contextlib
import json
import signal
import sys

from harness import BUILD, check, equal, eventually, run_with_agents, test

from lab import Disk, Guest, LabError, Load, image
from lab.agents import LOG, POOL, STATE

DONE, FAILED = 0, 1
TIMELINES = f"{STATE}/timeline"
LINK = "200mbit"
CALM, STORM = "rate memory text 1", "rate memory noise 500"


class World:
    """One guest, which each test moves from where it is."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        path = f"{POOL}/told.qcow2"
        image.with_files(lab.west.path(path), 1 << 30, 16)
        load = Load(memory_mib=24, memory_rate=1, disk_mib=8, disk_rate=16)
        self.guest = Guest("told", [Disk(path)], load, 96, number=81)
        lab.network.add_tap(self.guest.tap)
        lab.network.set_rate(LINK)
        self.guest.start(lab.west)
        self.guest.wait_ready()

    def begin(self):
        self.guest.command(CALM)
        for host in self.lab.hosts:
            for path in host.path(POOL).iterdir():
                if host is not self.guest.host or ".watari-" in path.name:
                    path.unlink()

    def migrate(self, *words, at=None):
        """(source, destination, outcome)"""
        source = self.guest.host
        return source, self.lab.other(source), self.agents.migrate(self.guest, *words, at=at)

    def run(self, host, *words):
        return host.run([BUILD / "watari", *words], check=False)

    def told(self, host, what):
        done = self.run(host, "report", what)
        equal(done.returncode, 0, f"exit of report {what} at {host.name}: {done.stderr}")
        equal(done.stderr, "", "what it complains of")
        return done.stdout

    def lines(self, host, what):
        done = self.run(host, "--json", "report", what)
        equal(done.returncode, 0, f"exit of report {what} at {host.name}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def contains(text, *parts):
    for part in parts:
        check(part in text, f"the report does not say {part!r}:\n{text}")


@test
def what_was_done_is_told_at_both_hosts_and_without_watarid(world):
    source, destination, outcome = world.migrate("--mode", "live", "--max-downtime", "400ms")
    equal(outcome.code, DONE, f"{outcome}")
    result = outcome.result
    for host in world.lab.hosts:
        world.agents.kill(host)
    try:
        text = world.told(source, result["id"])
        contains(text, f"VM told from {source.name} to {destination.name}", "live; a pause of 400 ms at most",
                 "Rounds of memory", "The pause, since QEMU stopped the guest", "Predicted", f"{result['memory']['pages']}: ",
                 f"VM told runs on {destination.name} now")
        equal(world.told(source, "told"), text, "by the VM's name")
        equal(world.told(source, result["id"][:6]), text, "by the beginning of its id")
        contains(world.told(destination, "told"), f"by {source.name}", f"VM told belongs to this host, {destination.name}")
        lines = world.lines(source, "told")
    finally:
        for host in world.lab.hosts:
            world.agents.start(host)
    equal(lines[0]["schema"], 1, "schema")
    equal({name: lines[-1][name] for name in result}, result, "its last line")
    phases = [line["phase"] for line in lines if line["event"] == "phase"]
    seen = [event["phase"] for event in outcome.events if event["event"] == "phase"]
    equal(phases[-len(seen):], seen, "phases, from when `migrate` began to watch")
    samples = [line for line in lines if line["event"] == "sample"]
    # The first sample may be of before QEMU has looked for dirty pages the first time.
    check({0, 1} & {sample["round"] for sample in samples}, "no sample of the first round")
    marks = [line for line in lines if line["event"] == "mark"]
    check("guest-stopped" in [mark["what"] for mark in marks], f"marks: {marks}")
    equal(marks[-1]["measured_us"] // 1000, result["downtime_ms"] - (marks[-1]["measured_us"] % 1000 >= 500), "the downtime")
    world.guest.verify()


@test
def why_one_failed_is_told_with_its_figures(world):
    world.guest.command(STORM)
    source, _, outcome = world.migrate("--max-throttle", "0", "--max-quick-downtime", "350ms")
    equal(outcome.code, FAILED, f"{outcome}")
    text = world.told(source, outcome.result["id"])
    contains(text, "give-up: memory becomes dirty at", "failed: no-convergence", "--max-quick-downtime allows 350 ms", "runs at this host as before")
    decisions = [line for line in world.lines(source, "told") if line["event"] == "decision"]
    equal(decisions[-1]["verdict"], "give-up", "the last decision")
    check(decisions[-1]["longest_downtime_ms"] > 350, f"what it was drawn from: {decisions[-1]}")
    world.guest.verify()


@test
def lost_movers_are_told(world):
    def kill():
        for pid in world.guest.host.find("watari-mover"):
            with contextlib.suppress(LabError):  # the daemon was faster
                world.guest.host.signal(pid, signal.SIGKILL)

    source, _, outcome = world.migrate(at={"bulk": kill})
    equal(outcome.code, DONE, f"{outcome}")
    contains(world.told(source, "told"), "New movers take over", "new movers are there after", "sent again")
    told = [line.get("what") for line in world.lines(source, "told") if line["event"] == "warning"]
    equal([what for what in told if what != "link-lost"], ["movers-replaced", "resumed"], "warnings")
    world.guest.verify()


@test
def a_daemon_that_is_started_again_goes_on_with_the_timeline(world):
    source = world.guest.host
    running = world.agents.start_migration(world.guest, at={"bulk": lambda: world.agents.kill_daemon_only(source)})
    running.wait()
    world.agents.wait_for(source)
    eventually(lambda: world.lines(source, running.id)[-1]["event"] == "result", "its end is not recorded")
    contains(world.told(source, running.id), "was started again at", "failed: daemon-restarted", "runs at this host as before")
    equal([line["event"] for line in world.lines(source, running.id)].count("begin"), 1, "begins")
    world.guest.verify()


@test
def what_there_is_no_timeline_of_is_refused_with_where_it_was_looked_for(world):
    done = world.run(world.lab.west, "report", "nobody")
    equal(done.returncode, 1, "exit")
    contains(done.stderr, TIMELINES, "nobody")
    done = world.run(world.lab.west, "report", "told", "--state-dir", "/var/tmp")
    equal(done.returncode, 1, "exit")
    contains(done.stderr, "/var/tmp/timeline: No such file")


@test
def a_timeline_without_room_costs_the_migration_nothing(world):
    for host in world.lab.hosts:
        host.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=256k", "tmpfs", TIMELINES])
    try:
        before = {host.name: len(host.read(LOG)) for host in world.lab.hosts}
        _, _, outcome = world.migrate()
        equal(outcome.code, DONE, f"{outcome}")
        for host in world.lab.hosts:
            said = [line for line in host.read(LOG)[before[host.name]:].splitlines() if "timeline" in line]
            equal(len(said), 1, f"{host.name}: {said}")
            contains(said[0], "hardly any room left", outcome.result["id"])
    finally:
        for host in world.lab.hosts:
            host.run(["umount", "-l", TIMELINES])
    world.guest.verify()


if __name__ == "__main__":
    sys.exit(run_with_agents(World, lines=25, before_each=World.begin))

#!/usr/bin/python3
"""`watari plan`: what it finds and predicts, that it changes nothing at either host, and that nothing of it is left when it is ended in the
middle.

Usage: WATARI_BUILD=DIR tests/e2e/test_plan.py [TEST...]
"""

import json
import os
import shlex
import signal
import sys
import time

from harness import check, equal, eventually, run_with_agents, test

from lab import Disk, Guest, Load, image
from lab.agents import CONTROL, OTHER_POOL, POOL

DONE, REFUSED, USAGE = 0, 1, 2
LINK = "200mbit"
DIRECTORIES = ("/var/lib/watari", "/run/watari", POOL, OTHER_POOL, "/run/vms", "/etc/watari")
# These change by themselves: the guest writes, and its image grows.
VOLATILE = ("actual-size", "virtual-size", "io-status")


class World:
    """One guest, at west when a test begins."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        self.guest = self.boot("subject", 51)

    def boot(self, name, number):
        path = f"{POOL}/{name}.qcow2"
        image.with_files(self.lab.west.path(path), 1 << 30, 24)
        load = Load(memory_mib=32, memory_rate=4, disk_mib=8, disk_rate=64)
        guest = Guest(name, [Disk(path, iothread=True)], load, 128, number=number)
        self.lab.network.add_tap(guest.tap)
        guest.start(self.lab.west)
        guest.wait_ready()
        return guest

    def plan(self, *words, code=DONE, vm=None, to="east"):
        return self.agents.ask(self.lab.west, "plan", vm or self.guest.name, "--to", to, *words, code=code, timeout=120)


def without(value, names):
    if isinstance(value, dict):
        return {name: without(member, names) for name, member in value.items() if name not in names}
    return [without(member, names) for member in value] if isinstance(value, list) else value


def files_in(host):
    """Every file and directory that watari could have made."""
    return sorted(
        os.path.join(where, name)
        for directory in DIRECTORIES
        for where, directories, files in os.walk(host.path(directory))
        for name in directories + files
    )


def state_of(world):
    """All that a plan could have changed, at both hosts."""
    with world.guest.qmp() as qmp:
        asked = {
            name: without(qmp(name), VOLATILE)
            for name in ("query-status", "query-block", "query-named-block-nodes", "query-block-exports", "query-block-jobs",
                         "query-migrate-parameters", "query-migrate-capabilities")
        }
    for host in world.lab.hosts:
        asked[f"files at {host.name}"] = files_in(host)
        asked[f"processes at {host.name}"] = sorted(host.processes().values())
    return asked


def differences(before, after):
    return [(name, before[name], after[name]) for name in before if before[name] != after[name]]


def same_as(world, before):
    """Nothing is left: asynchronous ends have a moment."""
    limit = time.monotonic() + 30
    while (changed := differences(before, state_of(world))) and time.monotonic() < limit:
        time.sleep(0.1)
    equal(changed, [], "what changed")
    ticks = world.guest.status()["ticks"]
    eventually(lambda: world.guest.status()["ticks"] > ticks, "the guest does not go on")


def blockers(plan):
    return {(finding["side"], finding["id"]) for finding in plan["findings"] if finding["level"] == "blocker"}


@test
def a_plan_changes_nothing_and_what_it_recommends_runs(world):
    before = state_of(world)
    world.lab.network.set_rate(LINK)
    plan = world.plan("--max-downtime", "2s")
    same_as(world, before)
    print(f"     {json.dumps(plan)}"[:1500], flush=True)
    equal(blockers(plan), set(), "blockers")
    measured = plan["measured"]
    equal([period["ms"] for period in measured["memory"]["dirty"]], [1000, 2000, 4000], "periods")
    check(measured["memory"]["dirty"][-1]["bytes"] > 0, f"the guest writes to its memory: {measured}")
    check(measured["disk"]["write_rate"] > 0, f"the guest writes to its disk: {measured}")
    check(measured["link"]["round_trip_us"] > 0, f"round trip: {measured}")
    check(measured["link"]["how"] == "trial" and measured["link"]["rate"] > 0, f"link: {measured}")
    for name in ("total_ms", "wire_bytes", "disk_bytes", "memory_bytes"):
        check(plan["trial"][name] > 0, f"what the trial cost: {plan['trial']}")
    for host in world.lab.hosts:
        equal(world.agents.ask(host, "status")["migrations"], [], f"migrations at {host.name}")
    live = plan["predicted"]["live"]
    check(live["ends"] and 0 < live["downtime_ms"] <= 2000, f"live: {live}")
    words = shlex.split(plan["recommendation"]["command"])
    equal(words[:5], ["watari", "migrate", world.guest.name, "--to", "east"], "command")
    equal(words[5:], ["--max-downtime", "2000ms"], "what was asked for")
    outcome = world.agents.migrate(world.guest, *words[5:])
    equal(outcome.code, DONE, f"{outcome}")
    equal(outcome.result["mode_used"], "live", "mode used")
    equal(outcome.result["planned"], plan["predicted"], "planned")
    factor = outcome.result["total_ms"] / live["total_ms"]
    print(f"     predicted {live['total_ms']} ms, took {outcome.result['total_ms']} ms: factor {factor:.2f}; pause predicted "
          f"{live['downtime_ms']} ms, was {outcome.result['downtime_ms']} ms", flush=True)
    world.guest.verify()
    world.lab.network.set_rate(None)
    for path in world.lab.west.path(POOL).iterdir():
        path.unlink()
    equal(world.agents.migrate(world.guest, "--mode", "quick").code, DONE, "the way back")
    for path in world.lab.east.path(POOL).iterdir():
        path.unlink()


@test
def a_link_that_nobody_knows_is_not_guessed(world):
    plan = world.plan("--no-trial")
    equal(plan["trial"], None, "trial")
    equal(plan["predicted"], {"live": None, "throttled": None, "quick": None}, "predicted")
    equal(plan["confidence"]["word"], "none", "confidence")
    equal(plan["recommendation"]["command"], None, "command")


@test
def what_stands_in_the_way_is_named_at_once_and_by_side(world):
    before = state_of(world)
    east = world.lab.east
    with world.guest.qmp() as qmp:
        qmp("stop")
    plan = world.plan(code=REFUSED)
    check(("source", "vm-not-running") in blockers(plan), f"{plan}")
    equal((plan["migratable"], plan["predicted"]), (False, None), "a guest that is paused")
    # Both sides in one plan.
    east.write(f"{POOL}/subject.qcow2", "in the way")
    equal(blockers(world.plan(code=REFUSED)), {("source", "vm-not-running"), ("destination", "disk-exists")}, "blockers")
    east.path(f"{POOL}/subject.qcow2").unlink()
    with world.guest.qmp() as qmp:
        qmp("cont")
    east.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", OTHER_POOL])
    equal(blockers(world.plan("--disk", "vd0=other", code=REFUSED)), {("destination", "pool-full")}, "no space")
    east.run(["umount", OTHER_POOL])
    equal(blockers(world.plan("--disk", "vd7=other", code=REFUSED)), {("source", "disk-unknown")}, "a disk that is not there")
    equal(blockers(world.plan(code=REFUSED, to="north")), {("source", "peer-unknown")}, "a peer that is not there")
    world.agents.ask(world.lab.west, "plan", "nobody", "--to", "east", code=REFUSED)
    world.agents.ask(world.lab.west, "plan", "subject", "--to", "east", "--detach", code=USAGE)
    same_as(world, before)


@test
def an_option_that_the_destination_does_not_allow_is_named(world):
    """The kernel's directory is no allow-path there any more."""
    east = world.lab.east
    config = "/etc/watari/watarid.conf"
    text = east.read(config)
    east.write(config, text.replace("allow-path = /srv/watari/boot", "allow-path = /srv/watari/nothing"))
    world.agents.kill(east)
    world.agents.start(east)
    plan = world.plan(code=REFUSED)
    equal(blockers(plan), {("destination", "launch-refused")}, "blockers")
    check(any("-kernel" in finding["text"] for finding in plan["findings"]), f"{plan['findings']}")
    east.write(config, text)
    world.agents.kill(east)
    world.agents.start(east)


def begin(world, word):
    """A plan under way, that has come to the step with WORD in it."""
    client = world.agents.client(world.lab.west, "plan", world.guest.name, "--to", "east")
    line = None
    for line in client.stdout:
        if word in line:
            return client
    raise AssertionError(f"the plan ended: {line} {client.stderr.read()}")


def in_the_trial(world):
    """A plan whose trial moves memory, over a wire so slow that it does so for a while."""
    world.lab.network.set_rate("20mbit")
    client = begin(world, "a trial")
    eventually(lambda: any(migration["phase"] == "memory" for migration in world.agents.ask(world.lab.west, "status")["migrations"]),
               "the trial does not come to the memory")
    return client


@test
def ctrl_c_ends_a_plan_and_leaves_nothing(world):
    before = state_of(world)
    client = in_the_trial(world)
    client.send_signal(signal.SIGINT)
    client.wait(20)
    same_as(world, before)
    world.lab.network.set_rate(None)
    # Nor is anything in the way of the next, which is ended while it measures.
    client = begin(world, "measuring")
    client.send_signal(signal.SIGINT)
    client.wait(20)
    same_as(world, before)


@test
def a_daemon_that_is_killed_in_the_middle_of_a_plan_leaves_nothing(world):
    before = state_of(world)
    client = begin(world, "measuring")
    world.agents.kill_daemon_only(world.lab.west)
    equal(client.wait(20), USAGE, "exit code of the client")
    world.lab.west.wait_for_file(CONTROL, 40)
    same_as(world, before)


@test
def a_daemon_that_is_killed_in_the_trial_leaves_nothing(world):
    before = state_of(world)
    for host in world.lab.hosts:
        client = in_the_trial(world)
        world.agents.kill_daemon_only(host)
        equal(client.wait(40), USAGE if host is world.lab.west else REFUSED, "exit code of the client")
        host.wait_for_file(CONTROL, 40)
        same_as(world, before)
    world.lab.network.set_rate(None)


if __name__ == "__main__":
    sys.exit(run_with_agents(World, lines=25))

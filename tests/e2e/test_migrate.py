#!/usr/bin/python3
"""Moves real guests between two real agents and has the guests prove that nothing was lost.

Usage: WATARI_BUILD=DIR tests/e2e/test_migrate.py [TEST...]
"""

import sys
import threading
import time

from harness import check, equal, eventually, run_with_agents, test

from lab import Disk, Guest, Load, image
from lab.agents import OTHER_POOL, POOL
from lab.probe import Probe

LIVE_LIMIT_MS = 300
# Longer than the silence by which a link is known to be lost, shorter than the patience of the quick mode.
CUT_SECONDS = 8


class Bench:
    """One lab with agents; each test boots the guest it needs, with a number of its own."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        self._number = 9

    def boot(self, disks, load=None, host=None, **options):
        host = host or self.lab.west
        self._number += 1
        guest = Guest(f"vm{self._number}", disks, load, number=self._number, **options)
        self.lab.network.add_tap(guest.tap)
        guest.start(host)
        guest.wait_ready()
        return guest

    def image(self, name, size=4 << 30, kind="qcow2", files=0, host=None):
        path = f"{POOL}/{name}"
        outside = (host or self.lab.west).path(path)
        if files:
            image.with_files(outside, size, files, kind)
        else:
            image.create(outside, size, kind)
        return path


def moved(bench, guest, *words, at=None):
    """Migrates; the result must be whole, the guest intact, seen once, its counters without a gap or a repeat."""
    before = guest.status()
    source = guest.host
    with Probe(bench.lab.outside, guest.address) as probe:
        outcome = bench.agents.migrate(guest, *words, at=at)
        check(outcome.code == 0, f"{outcome}")
        report = probe.stop()
    result = outcome.result
    equal(result["verified"]["memory"], True, "memory verified by the stream's hash")
    check(not report.copies, f"two copies were seen: {report.copies}")
    after = guest.status()
    for name in ("ticks", "pages", "blocks"):
        check(after[name] >= before[name], f"{name} went back from {before[name]} to {after[name]}")
    check(not guest.pids(source), "the old QEMU still runs")
    guest.verify()
    downtime, error = result["downtime_ms"], result["downtime_error_ms"]
    check(downtime is not None and downtime > 0, f"downtime {downtime}")
    # Seen from outside the guest is silent a little longer: until the switch has learned its new place.
    # A reply that was on its way when the guest stopped may come that much later on a busy machine.
    check(report.gap_ms + 20 > downtime - error, f"downtime {downtime} ms, but seen from outside only {report.gap_ms:.0f} ms")
    print(f"     {result['mode_used']}: total {result['total_ms']} ms, downtime {downtime} ms (outside {report.pause_gap_ms:.0f}), "
          f"wire {result['wire_bytes'] >> 20} MiB, rounds {result['memory']['rounds']}, passes {result['disk']['passes']}")
    return result


def clean(bench, guest):
    """Neither host has anything of a migration left but the marked images."""
    for host in bench.lab.hosts:
        left = [path for path in host.path("/run/watari/migrations").iterdir()]
        check(not left, f"{host.name}: {left}")
        check(not host.find("watari-mover"), f"{host.name}: a mover is left")
    with guest.qmp() as qmp:
        equal(qmp("query-block-exports"), [], "exports left in QEMU")
        for node in qmp("query-named-block-nodes"):
            check(not node.get("dirty-bitmaps"), f"bitmaps are left on {node['node-name']}")


@test
def a_busy_guest_goes_live_and_comes_back_quick(bench):
    path = bench.image("busy.qcow2", files=64)
    guest = bench.boot([Disk(path)], Load(files=0, memory_rate=5))
    there = moved(bench, guest, "--mode", "live")
    check(there["downtime_ms"] <= 10 * LIVE_LIMIT_MS, f"live took {there['downtime_ms']} ms")
    equal(there["where"]["disks"], [path], "disks there")
    clean(bench, guest)
    moved(bench, guest, "--mode", "quick")
    clean(bench, guest)
    guest.quit()


@test
def an_idle_guest_goes_live(bench):
    guest = bench.boot([Disk(bench.image("idle.qcow2"))], Load(memory_rate=0, disk_rate=0))
    moved(bench, guest)
    clean(bench, guest)
    guest.quit()


@test
def pages_that_change_a_little_cost_little(bench):
    guest = bench.boot([Disk(bench.image("words.qcow2", 1 << 30))], Load(memory_mib=48, memory_rate=60, kind="words", disk_rate=0))
    # The link carries less than the guest writes: so its pages come again, and once more in the pause.
    bench.lab.network.set_rate("200mbit")
    try:
        memory = moved(bench, guest)["memory"]
    finally:
        bench.lab.network.set_rate(None)
    check(memory["same"] > 0, f"no page was left out: {memory}")
    check(memory["delta"] > 0, f"no page went as a difference: {memory}")
    clean(bench, guest)
    guest.quit()


@test
def two_disks_of_two_formats_go_to_two_pools(bench):
    first = bench.image("one.qcow2", 1 << 30)
    second = bench.image("two.raw", 256 << 20, "raw")
    guest = bench.boot([Disk(first), Disk(second, "raw")], Load(disk_rate=512))
    result = moved(bench, guest, "--disk", "vd1=other")
    equal(result["where"]["disks"], [first, f"{OTHER_POOL}/two.raw"], "disks there")
    check(bench.lab.east.path(f"{OTHER_POOL}/two.raw").exists(), "the second disk is not in the other pool")
    clean(bench, guest)
    guest.quit()


@test
def a_sparse_disk_of_20_gib_takes_seconds_and_stays_thin(bench):
    path = bench.image("sparse.qcow2", 20 << 30)
    guest = bench.boot([Disk(path)], Load(memory_mib=32, disk_mib=16))
    allocated = image.allocated(bench.lab.west.path(path))
    result = moved(bench, guest)
    there = image.allocated(bench.lab.east.path(path))
    check(there <= allocated * 1.25 + (16 << 20), f"{there >> 20} MiB there, {allocated >> 20} MiB here")
    check(result["disk"]["bytes"] <= allocated * 2 + (16 << 20), f"{result['disk']['bytes'] >> 20} MiB were read")
    guest.quit()


@test
def odd_sizes_of_disks_arrive_as_they_are(bench):
    odd = (256 << 20) + 512 * 7
    guest = bench.boot([Disk(bench.image("odd.qcow2", odd)), Disk(bench.image("odd.raw", odd, "raw"), "raw")], Load(memory_mib=32))
    moved(bench, guest)
    equal(bench.lab.east.path(f"{POOL}/odd.raw").stat().st_size, odd, "size of the raw image there")
    guest.quit()


@test
def disks_on_iothreads_survive_both_ways(bench):
    disks = [
        Disk(bench.image("thread.qcow2", 1 << 30), iothread=True),
        Disk(bench.image("scsi.qcow2", 1 << 30), scsi=True, iothread=True),
    ]
    guest = bench.boot(disks, Load(disk_rate=512))
    moved(bench, guest)
    clean(bench, guest)
    moved(bench, guest, "--mode", "quick")
    clean(bench, guest)
    guest.quit()


@test
def one_vm_goes_while_another_comes(bench):
    """Each daemon is source of one and destination of the other: what it has handed to one's mover must not be taken for the other's."""
    guests = [bench.boot([Disk(bench.image(f"cross{number}.qcow2", 1 << 30, files=48, host=host))], Load(memory_mib=32, files=0), host)
              for number, host in enumerate(bench.lab.hosts)]
    bench.lab.network.set_rate("100mbit")
    try:
        first = bench.agents.start_migration(guests[0])
        eventually(lambda: any(event.get("phase") == "bulk" for event in list(first.events)), "it does not begin")
        time.sleep(0.5)
        second = bench.agents.migrate(guests[1])
        outcome = first.wait()
    finally:
        bench.lab.network.set_rate(None)
    equal((outcome.code, second.code), (0, 0), f"{outcome}; {second}")
    for guest in guests:
        guest.verify()
        guest.quit()


@test
def discarded_blocks_are_zero_there(bench):
    guest = bench.boot([Disk(bench.image("discard.qcow2", 1 << 30))], Load(memory_mib=32))
    guest.discard()
    moved(bench, guest)
    guest.quit()


@test
def what_the_guest_discards_takes_no_room_there(bench):
    paths = [bench.image("trimmed.qcow2", 1 << 30), bench.image("trimmed.raw", 512 << 20, "raw")]
    load = Load(memory_mib=32, kind="noise", disk_mib=64, disk_rate=24 << 10)
    guest = bench.boot([Disk(paths[0]), Disk(paths[1], "raw")], load)
    eventually(lambda: guest.status()["blocks"] > (64 << 20) // 4096, "the guest writes too slowly", 60)
    guest.command("rate disk noise 0")
    filled = [image.allocated(bench.lab.west.path(path)) for path in paths]
    for _ in range(3):
        guest.discard()

    def discard_more():
        for _ in range(3):
            guest.discard()

    # Slow enough that some of what is discarded now has been sent and some has not.
    bench.lab.network.set_rate("200mbit")
    try:
        result = moved(bench, guest, at={"bulk": discard_more})
    finally:
        bench.lab.network.set_rate(None)
    for path, before in zip(paths, filled):
        kept = bench.lab.west.path(path)
        here = image.allocated(kept.with_name(f"{kept.name}.watari-{result['id']}-moved"))
        there = image.allocated(bench.lab.east.path(path))
        print(f"     {kept.name}: {before >> 10} KiB filled, {here >> 10} KiB left by discards, {there >> 10} KiB there")
        check(here < before * 9 // 10, "the discards made nothing smaller here")
        check(there <= here + (1 << 20), f"{kept.name} takes {there >> 10} KiB there, {here >> 10} KiB here")
    guest.quit()


@test
def scattered_small_writes_cost_little_more_than_they_are(bench):
    guest = bench.boot([Disk(bench.image("scattered.qcow2", 8 << 30)), Disk(bench.image("empty.raw", 8 << 30, "raw"), "raw")],
                       Load(kind="noise", disk_mib=1024, disk_rate=0))
    guest.command("rate disk noise 0")
    before = guest.status()["blocks"]
    # Long enough for many passes.
    bench.lab.network.set_rate("100mbit")
    try:
        result = moved(bench, guest, at={"passes": lambda: guest.command("rate disk noise 512")})
    finally:
        bench.lab.network.set_rate(None)
    written = (guest.status()["blocks"] - before) * 4096
    print(f"     {written >> 10} KiB written in blocks of 4 KiB, {result['disk']['bytes'] >> 10} KiB sent")
    check(result["disk"]["passes"] > 2, "there were no passes")
    check(written > 2 << 20, f"the guest wrote only {written >> 10} KiB")
    check(result["disk"]["bytes"] <= 1.5 * written, f"{result['disk']['bytes']} bytes were sent of {written}")
    guest.quit()


@test
def raw_lanes_and_many_lanes_carry_it_as_well(bench):
    guest = bench.boot([Disk(bench.image("lanes.qcow2", 1 << 30))], Load(memory_mib=32))
    moved(bench, guest, "--compress", "off", "--lanes", "7")
    moved(bench, guest, "--compress", "9", "--lanes", "1")
    guest.quit()


def verified(bench, guest, *words, at=None):
    """As moved(), with --verify."""
    result = moved(bench, guest, "--verify", *words, at=at)
    equal(result["verified"], {"memory": True, "disk": True}, "verified")
    return result


@test
def disks_that_are_written_are_verified_and_go_live(bench):
    path = bench.image("verified.qcow2", files=96)
    guest = bench.boot([Disk(path, iothread=True)], Load(files=0, disk_rate=512))
    result = verified(bench, guest, "--mode", "live")
    # What the last passes brought has to be read once more in the pause, not the whole disk.
    check(result["downtime_ms"] <= 10 * LIVE_LIMIT_MS, f"live took {result['downtime_ms']} ms")
    clean(bench, guest)
    verified(bench, guest, "--mode", "quick")
    clean(bench, guest)
    guest.quit()


@test
def two_disks_of_odd_sizes_are_verified(bench):
    odd = (256 << 20) + 512 * 7
    disks = [Disk(bench.image("odd-verified.qcow2", odd)), Disk(bench.image("odd-verified.raw", odd, "raw"), "raw", scsi=True)]
    guest = bench.boot(disks, Load(memory_mib=32, disk_rate=512))
    guest.discard()
    verified(bench, guest)
    clean(bench, guest)
    guest.quit()


@test
def a_block_that_changes_behind_the_back_of_the_destination_is_found(bench):
    size, at = 512 << 20, 400 << 20
    # The file system ends at 384 MiB, what the workload writes begins at 496 MiB: between them are holes, which are not sent.
    path = bench.image("changed.raw", size, "raw", files=48)
    guest = bench.boot([Disk(bench.image("honest.qcow2", 64 << 20)), Disk(path, "raw")], Load(memory_mib=32, disk_mib=16, files=1))
    there = bench.lab.east.path(path)

    def damage():
        with open(there, "r+b") as image_there:
            image_there.seek(at + 512)
            image_there.write(b"x")

    # Slow enough for the bulk pass to be under way when the block changes.
    bench.lab.network.set_rate("200mbit")
    try:
        outcome = bench.agents.migrate(guest, "--verify", at={"bulk": damage})
    finally:
        bench.lab.network.set_rate(None)
    equal(outcome.code, 1, f"exit code: {outcome}")
    identifier, text = outcome.error
    equal(identifier, "verify", "the reason")
    equal(outcome.result["verified"]["disk"], False, "verified.disk")
    check(f"vd1 at bytes {at} to {at + 4095} (4096 bytes" in text and "vd0" not in text, f"the text names another place: {text}")
    check("runs at this host as before" in text, f"the text does not say where it runs: {text}")
    check(not there.exists(), "the copy is still there")
    clean(bench, guest)
    guest.verify()
    verified(bench, guest)
    guest.quit()


@test
def a_link_that_is_cut_while_disks_are_compared_is_waited_for(bench):
    guest = bench.boot([Disk(bench.image("cut-verified.qcow2", files=192))], Load(memory_mib=32, files=0, disk_rate=512))

    def cut():
        bench.lab.network.cut()
        threading.Timer(CUT_SECONDS, bench.lab.network.mend).start()

    for phase in ("verify", "paused"):
        result = verified(bench, guest, "--mode", "quick", at={phase: cut})
        # In the pause all may be over there before the cut is: then only the handoff waits for the link.
        check(result["resumed"] is True or phase == "paused", f"{phase}: it did not notice")
        clean(bench, guest)
    guest.quit()


if __name__ == "__main__":
    sys.exit(run_with_agents(Bench, lines=15))

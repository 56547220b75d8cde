#!/usr/bin/python3
"""What happens when a migration is cancelled, when a process of it is killed, or when what was asked cannot be: the guest goes on where
it was, intact, and nothing is left over.

Usage: WATARI_BUILD=DIR tests/e2e/test_faults.py [TEST...]
"""

import os
import shutil
import signal
import sys
import threading
import time

from harness import BUILD, check, equal, eventually, run_with_agents, test

from lab import Disk, Guest, Load, image
from lab.agents import OTHER_POOL, POOL
from lab.probe import Probe
from lab.qmp import Qmp

PHASES = ("prepare", "bulk", "passes", "memory", "paused", "handoff")
CANCELLED, REFUSED, LOST, DONE = 4, 1, 5, 0


class World:
    """One guest, booted once, that every test finds running at west."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        self._number = 30
        path = f"{POOL}/subject.qcow2"
        image.with_files(lab.west.path(path), 1 << 30, 48)
        self.guest = self.boot("subject", [Disk(path, iothread=True)])
        with self.guest.qmp() as qmp:
            self.parameters = qmp("query-migrate-parameters")
            self.capabilities = qmp("query-migrate-capabilities")

    def boot(self, name, disks, **options):
        self._number += 1
        guest = Guest(name, disks, Load(memory_mib=32, disk_mib=16), 192, number=self._number, **options)
        self.lab.network.add_tap(guest.tap)
        guest.start(self.lab.west)
        guest.wait_ready()
        return guest

    def migrate(self, *words, at=None):
        return self.agents.migrate(self.guest, *words, at=at)

    def untouched(self):
        """The guest runs at west as before, and no trace of the migration is anywhere."""
        west, east, guest = self.lab.west, self.lab.east, self.guest
        eventually(lambda: not west.find("watari-mover") and not east.find("watari-mover"), "a mover is left")
        with guest.qmp() as qmp:
            equal(qmp("query-status")["status"], "running", "state of the guest")
            equal(qmp("query-block-exports"), [], "exports")
            for node in qmp("query-named-block-nodes", flat=True):
                check(not node.get("dirty-bitmaps"), f"bitmaps on {node['node-name']}: {node.get('dirty-bitmaps')}")
            equal(qmp("query-migrate-parameters"), self.parameters, "parameters")
            equal(qmp("query-migrate-capabilities"), self.capabilities, "capabilities")
            try:
                qmp("nbd-server-stop")
                check(False, "the NBD server is left")
            except Exception as error:  # pylint: disable=broad-except
                check("not running" in str(error), f"NBD server: {error}")
        eventually(lambda: not guest.pids(east), "a QEMU is left at the destination")
        for directory in (POOL, OTHER_POOL, "/run/watari/migrations", "/run/watari/vms"):
            eventually(lambda d=directory: not left_in(east, d), f"east, {directory}: {left_in(east, directory)}")
        equal(os.listdir(west.path("/run/watari/migrations")), [], "run directory at west")
        check(west.path(f"{POOL}/subject.qcow2").exists(), "the disk's name at west")
        before = guest.status()
        time.sleep(0.3)
        check(guest.status()["ticks"] > before["ticks"], "the guest does not go on")

    def begin(self):
        """Before each test: the guest is at west, whatever the one before left."""
        if self.guest.host is not self.lab.west:
            self.home()

    def home(self):
        """A fault that came too late: the VM has moved, which is right too. Back, and east as it was."""
        guest = self.guest
        check(not guest.pids(self.lab.west), "the VM runs at both hosts")
        guest.verify()
        for path in self.lab.west.path(POOL).iterdir():
            path.unlink()
        outcome = self.agents.migrate(guest, "--mode", "quick")
        equal(outcome.code, DONE, f"the way back: {outcome}")
        for directory in (POOL, "/run/watari/vms"):
            for path in list(self.lab.east.path(directory).iterdir()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with guest.qmp() as qmp:
            self.parameters = qmp("query-migrate-parameters")
            self.capabilities = qmp("query-migrate-capabilities")

    def settle(self, outcome, codes):
        check(outcome.code in (*codes, DONE), f"exit code: {outcome}")
        if outcome.code == DONE:
            self.home()
            return
        if outcome.code != 2:
            check("as before" in outcome.error[1], f"the message does not say where the VM runs: {outcome.error}")
        self.untouched()


def left_in(host, directory):
    path = host.path(directory)
    return os.listdir(path) if path.exists() else []


def in_each_phase(world, act, codes, after=None):
    """ACT in each phase of a migration of its own; two phases in quick mode, for the other way to pause."""
    for phase in PHASES:
        mode = "quick" if phase in ("memory", "handoff") else "live"
        outcome = world.migrate("--mode", mode, at={phase: act})
        if after:
            after()
        print(f"     {phase}: {outcome}"[:150], flush=True)
        world.settle(outcome, codes)
    world.guest.verify()


def kill_each(host, program):
    for pid in host.find(program):
        host.signal(pid, signal.SIGKILL)


@test
def cancel_in_each_phase_puts_everything_back(world):
    def cancel():
        world.lab.west.run([BUILD / "watari", "--json", "cancel", world.guest.name], check=False)

    in_each_phase(world, cancel, (CANCELLED,))


@test
def ctrl_c_cancels(world):
    running = world.agents.start_migration(world.guest)
    running.id
    time.sleep(0.5)
    running.interrupt()
    world.settle(running.wait(), (CANCELLED,))


@test
def killing_the_source_mover_in_each_phase_costs_the_migration_at_most(world):
    in_each_phase(world, lambda: kill_each(world.lab.west, "watari-mover"), (REFUSED,))


@test
def killing_the_destination_mover_in_each_phase_costs_the_migration_at_most(world):
    in_each_phase(world, lambda: kill_each(world.lab.east, "watari-mover"), (REFUSED,))


@test
def killing_the_source_daemon_in_each_phase_is_put_right_by_its_restart(world):
    west = world.lab.west
    in_each_phase(world, lambda: world.agents.kill(west), (2,), after=lambda: revive(world, west))


@test
def killing_the_destination_daemon_in_each_phase_is_put_right_by_its_restart(world):
    east = world.lab.east

    def restart():
        world.agents.kill(east)
        world.agents.start(east)

    in_each_phase(world, restart, (REFUSED,))


def revive(world, host):
    """Starts a killed daemon again. A migration that had been committed goes on to its end then."""
    if world.agents.daemon(host).poll() is None:
        return
    world.agents.start(host)
    guest, west, east = world.guest, world.lab.west, world.lab.east
    eventually(lambda: not undecided(world), "a migration stays undecided")
    if not guest.pids(west) and guest.pids(east):
        guest.attach(east, f"/run/watari/vms/{guest.name}/qmp.sock", f"/run/watari/vms/{guest.name}/serial.sock")
        world.home()


def undecided(world):
    for host in world.lab.hosts:
        for migration in world.agents.ask(host, "status")["migrations"]:
            if not migration.get("result"):
                return True
    return False


@test
def killing_the_destination_qemu_while_memory_moves_leaves_the_guest_here(world):
    def kill():
        for pid in world.guest.pids(world.lab.east):
            world.lab.east.signal(pid, signal.SIGKILL)

    outcome = world.migrate(at={"memory": kill})
    world.settle(outcome, (REFUSED,))


def cut_for(world, seconds, way="cut"):
    """An act for migrate(at=...): unplugs the wire, or loses what the source sends, and mends it later."""
    network = world.lab.network

    def act():
        if way == "cut":
            network.cut()
        else:
            network.lose_from(world.lab.west)
        timer = threading.Timer(seconds, network.mend)
        timer.daemon = True
        timer.start()

    return act


def goes_on(world, phase, seconds, way):
    """QEMU never notices, and no more is sent twice than was under way."""
    world.lab.network.set_rate("200mbit")
    try:
        outcome = world.migrate(at={phase: cut_for(world, seconds, way)})
    finally:
        world.lab.network.mend()
        world.lab.network.set_rate(None)
    equal(outcome.code, DONE, f"{phase}, {way}: {outcome}")
    result = outcome.result
    check(result["resumed"] is True, f"{phase}, {way}: it did not notice")
    check(result["resent_bytes"] <= 64 << 20, f"{phase}, {way}: {result['resent_bytes']} bytes sent twice")
    print(f"     {phase}, {way} for {seconds} s: total {result['total_ms']} ms, {result['resent_bytes'] >> 10} KiB sent twice")
    world.home()


@test
def after_a_cut_link_the_migration_goes_on_where_it_was(world):
    for phase, seconds in (("bulk", 8), ("passes", 8), ("memory", 8)):
        goes_on(world, phase, seconds, "cut")


@test
def after_a_link_that_swallows_everything_it_goes_on(world):
    goes_on(world, "memory", 12, "swallow")


@test
def while_the_link_is_down_cancel_and_status_answer(world):
    def cancel():
        world.lab.network.cut()
        time.sleep(1)
        began = time.monotonic()
        listed = world.agents.ask(world.lab.west, "status")["migrations"][0]
        world.agents.ask(world.lab.west, "cancel", listed["id"])
        print(f"     status and cancel answered in {time.monotonic() - began:.1f} s")

    try:
        outcome = world.migrate(at={"memory": cancel})
    finally:
        world.lab.network.mend()
    equal(outcome.code, CANCELLED, f"{outcome}")
    eventually(lambda: not undecided(world), "undecided", 40)
    world.untouched()


@test
def a_link_that_stays_down_ends_with_the_guest_here(world):
    world.lab.network.set_rate("200mbit")
    try:
        outcome = world.migrate("--reconnect-timeout", "8s", at={"memory": world.lab.network.cut})
    finally:
        world.lab.network.mend()
        world.lab.network.set_rate(None)
    check(outcome.code == REFUSED, f"{outcome}")
    equal(outcome.error[0], "link-lost", f"{outcome}")
    eventually(lambda: not undecided(world), "undecided", 40)
    world.untouched()


@test
def stopping_the_daemons_in_order_rolls_back(world):
    west = world.lab.west

    def stop():
        world.agents.daemon(west).terminate()

    outcome = world.migrate(at={"memory": stop})
    check(outcome.code in (CANCELLED, 2), f"{outcome}")
    world.agents.daemon(west).wait(30)
    world.agents.start(west)
    world.untouched()


def refused(world, words, wanted, mentions=()):
    outcome = world.migrate(*words)
    equal(outcome.code, REFUSED, f"exit code of {words}: {outcome}")
    error, text = outcome.error
    equal(error, wanted, f"error: {text}")
    for word in mentions:
        check(word in text, f"{word!r} is not in the message: {text}")
    world.untouched()


@test
def what_the_destination_cannot_take_is_refused_by_name(world):
    east = world.lab.east
    refused(world, ["--disk", "vd0=nowhere"], "pool-missing", ["nowhere"])
    refused(world, ["--disk", "vd0=/etc/passwd"], "disk-target", ["/etc/passwd"])
    refused(world, ["--disk", "vd7=fast"], "disk-unknown", ["vd7"])
    east.path(f"{OTHER_POOL}/subject.qcow2").write_bytes(b"mine")
    outcome = world.migrate("--disk", "vd0=other")
    equal(outcome.error[0], "disk-exists", "error")
    equal(east.path(f"{OTHER_POOL}/subject.qcow2").read_bytes(), b"mine", "a stranger's file")
    east.path(f"{OTHER_POOL}/subject.qcow2").unlink()
    pool = east.path(OTHER_POOL)
    pool.rmdir()
    refused(world, ["--disk", "vd0=other"], "pool-missing", [OTHER_POOL])
    pool.mkdir()


@test
def a_full_and_a_read_only_pool_are_refused(world):
    east = world.lab.east
    for options, wanted in (("size=1m", "pool-full"), ("size=2g,ro", "pool-read-only")):
        east.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", OTHER_POOL])
        try:
            refused(world, ["--disk", "vd0=other"], wanted, [OTHER_POOL])
        finally:
            east.run(["umount", OTHER_POOL])


@test
def a_pool_that_fills_up_on_the_way_rolls_back(world):
    east = world.lab.east
    east.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", OTHER_POOL])
    try:
        outcome = world.migrate(
            "--disk", "vd0=other",
            at={"bulk": lambda: east.run(["dd", "if=/dev/zero", f"of={OTHER_POOL}/filler", "bs=1M"], check=False)},
        )
        equal(outcome.code, REFUSED, f"{outcome}")
        east.run(["rm", f"{OTHER_POOL}/filler"])
        check(outcome.error[0] in ("no-space", "disk-write"), f"{outcome.error}")
        world.untouched()
    finally:
        east.run(["umount", OTHER_POOL])


@test
def peers_that_are_unknown_unreachable_or_do_not_trust_us_are_told_apart(world):
    agents, west, east = world.agents, world.lab.west, world.lab.east
    done = west.run([BUILD / "watari", "--json", "migrate", world.guest.name, "--to", "mars"], check=False)
    equal(done.returncode, REFUSED, done.stderr)
    check("mars" in done.stderr + done.stdout, done.stderr)
    agents.kill(east)
    refused_by_link = world.migrate()
    equal(refused_by_link.error[0], "peer-unreachable", f"{refused_by_link}")
    agents.start(east)
    agents.ask(east, "trust", "remove", west.name)
    outcome = world.migrate()
    equal(outcome.error[0], "peer-does-not-trust-us", f"{outcome}")
    check("trust add" in outcome.error[1], outcome.error[1])
    wrong = "SHA256:" + "A" * 43
    agents.ask(east, "trust", "add", west.name, world.lab.network.address(west), agents.fingerprint(west))
    agents.ask(west, "trust", "remove", east.name)
    agents.ask(west, "trust", "add", east.name, world.lab.network.address(east), wrong)
    outcome = world.migrate()
    equal(outcome.error[0], "peer-untrusted", f"{outcome}")
    check(agents.fingerprint(east) in outcome.error[1], f"the key it showed is not named: {outcome.error[1]}")
    agents.ask(west, "trust", "remove", east.name)
    agents.ask(west, "trust", "add", east.name, world.lab.network.address(east), agents.fingerprint(east))
    world.untouched()


@test
def a_vm_that_is_not_here_or_here_twice_is_refused(world):
    west = world.lab.west
    done = west.run([BUILD / "watari", "migrate", "nobody", "--to", "east"], check=False)
    equal(done.returncode, REFUSED, done.stderr)
    check("nobody" in done.stderr and world.guest.name in done.stderr, done.stderr)
    twin = spare_qemu(west, "twin.sock", world.guest.name)
    try:
        outcome = world.migrate()
        equal(outcome.error[0], "vm-ambiguous", f"{outcome}")
    finally:
        end_spare(west, twin)


def spare_qemu(host, name, vm, *words):
    path = f"/run/vms/{name}"
    host.spawn(["/usr/bin/qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-name", vm,
                "-qmp", f"unix:{path},server=on,wait=off", *words], f"/run/vms/{name}.log")
    host.wait_for_file(path)
    return path


def end_spare(host, path):
    qmp = Qmp(host.path(path))
    qmp("quit")
    qmp.close()
    host.path(path).unlink(missing_ok=True)


@test
def a_busy_qmp_socket_and_a_foreign_nbd_server_are_refused(world):
    guest = world.guest
    used = next(vm for vm in world.agents.ask(world.lab.west, "list")["vms"] if vm["name"] == guest.name)["qmp"]
    other = Qmp(world.lab.west.path(used))
    outcome = world.migrate()
    other.close()
    equal(outcome.error[0], "qmp-busy", f"{outcome}")
    with guest.qmp() as qmp:
        qmp("nbd-server-start", addr={"type": "unix", "data": {"path": "/run/vms/foreign.sock"}})
    outcome = world.migrate()
    equal(outcome.error[0], "nbd-server-busy", f"{outcome}")
    with guest.qmp() as qmp:
        qmp("nbd-server-stop")  # it was left alone
    world.untouched()


@test
def a_second_migration_of_a_vm_is_refused(world):
    world.lab.network.set_rate("100mbit")
    second = []
    try:
        outcome = world.migrate(at={
            "bulk": lambda: second.append(world.lab.west.run(
                [BUILD / "watari", "migrate", world.guest.name, "--to", "east"], check=False)),
            "memory": lambda: world.lab.west.run([BUILD / "watari", "cancel", world.guest.name], check=False),
        })
    finally:
        world.lab.network.set_rate(None)
    equal(second[0].returncode, REFUSED, second[0].stderr)
    check("under way" in second[0].stderr, second[0].stderr)
    world.settle(outcome, (CANCELLED,))


@test
def a_cont_at_the_destination_while_it_loads_makes_no_second_copy(world):
    """`cont` while QEMU loads answers {} and may start the guest by itself when loaded, -S or not."""
    def cont():
        monitor = Qmp(world.lab.east.path(f"/run/watari/vms/{world.guest.name}/private/qmp.sock"))
        monitor("cont")
        monitor.close()

    with Probe(world.lab.outside, world.guest.address) as probe:
        outcome = world.migrate(at={"memory": cont})
        report = probe.stop()
    check(not report.copies, f"two copies answered: {report.copies}")
    world.settle(outcome, (REFUSED,))
    world.guest.verify()


@test
def a_paused_guest_is_refused(world):
    with world.guest.qmp() as qmp:
        qmp("stop")
    outcome = world.migrate()
    equal(outcome.error[0], "vm-not-running", f"{outcome}")
    with world.guest.qmp() as qmp:
        equal(qmp("query-status")["status"], "paused", "state of the guest")
        qmp("cont")
    world.untouched()


@test
def live_gives_up_when_rounds_do_not_shrink(world):
    # A TCG guest stands still for a moment when QEMU begins to track its writes: a round must take longer than that.
    world.guest.command("rate memory noise 300")
    world.lab.network.set_rate("400mbit")
    try:
        outcome = world.migrate("--mode", "live", "--max-downtime", "1ms")
    finally:
        world.lab.network.set_rate(None)
        world.guest.command("rate memory text 5")
    equal(outcome.code, REFUSED, f"{outcome}")
    # On a busy machine QEMU may measure no bandwidth and pause by itself: then that, with its figures, is the reason.
    wanted = {"no-convergence": "brought no progress", "unasked-pause": "--max-downtime allows 1 ms"}
    check(outcome.error[0] in wanted, f"{outcome}")
    check(wanted[outcome.error[0]] in outcome.error[1], outcome.error[1])
    world.untouched()


@test
def words_that_are_wrong_are_usage_errors(world):
    name = world.guest.name
    for words in (
        ["migrate", name, "--to", "east", "--max-downtime", "300"],
        ["migrate", name, "--to", "east", "--mode", "fast"],
        ["migrate", name, "--to", "east", "--compress", "max"],
        ["migrate", name, "--to", "east", "--lanes", "0"],
        ["migrate", name, "--to", "east", "--disk", "vd0"],
        ["migrate", name, "--to", "east", "--frob"],
        ["migrate", name],
        ["frob"],
        [],
    ):
        done = world.lab.west.run([BUILD / "watari", *words], check=False)
        equal(done.returncode, 2, f"exit code of {words}: {done.stderr}")
        check(done.stderr or done.stdout, f"{words}: nothing was said")


@test
def a_wrong_configuration_names_file_and_line(world):
    west = world.lab.west
    west.write("/etc/watari/bad.conf", "[watarid]\nlisten = 10.0.0.1:99999\n")
    done = west.run([BUILD / "watarid", "--config", "/etc/watari/bad.conf"], check=False)
    check(done.returncode != 0 and "/etc/watari/bad.conf:2" in done.stderr, done.stderr)


@test
def a_destination_without_the_binary_or_the_kernel_refuses(world):
    east = world.lab.east
    boot = east.path("/srv/watari/boot/vmlinuz")
    aside = east.path("/srv/watari/boot/aside")
    boot.rename(aside)
    try:
        refused(world, [], "file-missing", ["/srv/watari/boot/vmlinuz"])
    finally:
        aside.rename(boot)
    config = east.read("/etc/watari/watarid.conf")
    east.write("/etc/watari/watarid.conf", config + "binary = /opt/qemu/\n")
    world.agents.kill(east)
    world.agents.start(east)
    try:
        refused(world, [], "launch-refused", ["qemu-system-x86_64"])
    finally:
        east.write("/etc/watari/watarid.conf", config)
        world.agents.kill(east)
        world.agents.start(east)


@test
def strangers_get_nothing_and_do_no_harm(world):
    """Noise, silence and too many connections at the port, while a migration runs."""
    address = (world.lab.network.address(world.lab.east), 7788)
    noise = f"""
import os, socket, time
links = []
for i in range(100):
    s = socket.create_connection({address!r}); s.setblocking(False)
    if i % 3: s.send(os.urandom(64))
    links.append(s)
time.sleep(3)
"""
    stranger = world.lab.west.popen(["/usr/bin/python3", "-c", noise])
    try:
        outcome = world.migrate()
        check(outcome.code in (DONE, REFUSED), f"{outcome}")
        if outcome.code == REFUSED:
            # Same address, same limit of eight: our own dial may be one too many.
            check(outcome.error[0] in ("peer-busy", "peer-unreachable", "link-lost"), f"{outcome}")
    finally:
        stranger.wait(30)
    world.settle(outcome, (REFUSED,))
    time.sleep(0.2)
    world.agents.ask(world.lab.west, "trust", "check", "east")


@test
def an_older_protocol_is_refused_clearly(world):
    """A greeting with versions nobody here speaks gets a refusal, not a hang."""
    script = f"""import socket
s = socket.create_connection(({world.lab.network.address(world.lab.east)!r}, 7788)); s.settimeout(5)
s.sendall(b'WATARI\\r\\n' + bytes([1, 200, 201, 0]) + bytes(20))
print(s.recv(64).hex(), s.recv(1).hex())
"""
    answer = world.lab.west.run(["/usr/bin/python3", "-c", script]).stdout.split()
    equal(bytes.fromhex(answer[0])[:12], b"WATARI\r\n" + bytes([255, 1, 1, 1]), "refusal")
    equal(len(answer), 1, "more than the refusal")


@test
def a_guest_that_powers_off_or_is_killed_on_the_way_is_lost_and_said_so(world):
    for end in ("poweroff", "kill"):
        path = f"{POOL}/{end}.qcow2"
        image.create(world.lab.west.path(path), 256 << 20)
        victim = world.boot(end, [Disk(path)])

        def act(victim=victim, end=end):
            if end == "poweroff":
                power_off(victim)
            for pid in victim.pids(world.lab.west) if end == "kill" else ():
                world.lab.west.signal(pid, signal.SIGKILL)

        world.lab.network.set_rate("100mbit")
        try:
            outcome = world.agents.migrate(victim, at={"memory": act})
        finally:
            world.lab.network.set_rate(None)
        equal(outcome.code, LOST, f"{end}: {outcome}")
        check("nowhere" in outcome.error[1], f"{end}: {outcome.error}")
        eventually(lambda v=victim: not v.pids(world.lab.east), "a QEMU is left at the destination")
        equal(os.listdir(world.lab.east.path(POOL)), [], "disks at the destination")
        check(world.lab.west.path(path).exists(), "the disk at the source")
        world.lab.west.path(path).unlink()


def power_off(guest):
    try:
        guest.command("poweroff", timeout=5)
    except Exception:  # pylint: disable=broad-except  # its console closes instead of answering
        pass


if __name__ == "__main__":
    sys.exit(run_with_agents(World, lines=12, before_each=World.begin))

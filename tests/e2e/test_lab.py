#!/usr/bin/python3
"""The lab itself, before anything is concluded from what it shows: are its hosts apart, does the
guest notice what is wrong with it, and is nothing left behind? The guest is moved by QEMU alone.

    test_lab.py [NAME...]     tests by name; the guest's kernel is made in $WATARI_BUILD/guest
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

from harness import check, eventually, run, test

from lab import Disk, Guest, Lab, LabError, Load, image, qemu_migration
from lab.guest import Corrupt
from lab.laboratory import boot_files
from lab.probe import Judge, Probe

POOL = "/srv/watari/pool"
PAGE = 4096
TESTS = pathlib.Path(__file__).resolve().parent.parent
MAGIC = b"!pwatari"
# A host with a process in it, whose lab then waits to be ended.
SLEEPER = f"""
import signal, sys, time
# A shell that runs the tests in the background has them ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(TESTS)!r})
from lab import Lab
try:
    with Lab() as lab:
        lab.west.spawn(["sleep", "600"], "/run/sleep.log")
        lab.east.popen(["sleep", "600"])
        while not (lab.west.find("sleep") and lab.east.find("sleep")):
            time.sleep(0.02)
        print(lab.workdir, *lab.west.find("sleep"), *lab.east.find("sleep"), flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    pass
"""


def fails(function, part):
    try:
        function()
    except LabError as error:
        check(part in str(error), f"{error} does not say {part!r}")
        return error
    raise AssertionError(f"did not fail with {part!r}")


def of_machine():
    """What a lab could leave behind on the machine."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "links": sorted(line.split(":")[1].strip() for line in links.splitlines()),
        "mounts": pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8"),
        "named namespaces": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else [],
    }


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
    except OSError:
        return False


def boot_guest(lab, **load):
    """A guest with two disks, of which one is odd, and some real files."""
    for host in lab.hosts:
        host.path(POOL).mkdir(exist_ok=True)
    lab.install_boot_files()
    image.with_files(lab.west.path(f"{POOL}/a.qcow2"), 512 << 20, 50)
    image.create(lab.west.path(f"{POOL}/b.raw"), (64 << 20) + 3 * 512, "raw")
    disks = [Disk(f"{POOL}/a.qcow2"), Disk(f"{POOL}/b.raw", "raw", scsi=True)]
    guest = Guest("moved", disks, Load(memory_mib=96, disk_mib=16, files=0, **load))
    lab.network.add_tap(guest.tap)
    guest.start(lab.west)
    guest.wait_ready()
    return guest


def steady(status):
    """The guest's ticks are its own clock's: none was left out, none came twice."""
    off = status["ticks"] * 100 - status["uptime_ms"]
    check(-3000 < off <= 0, f"ticks and clock of the guest differ by {off} ms")
    return status


@test
def hosts_see_nothing_of_each_other():
    with Lab() as lab:
        lab.west.write("/srv/watari/mark", "west's")
        lab.west.run(["sh", "-c", "echo more >/var/lib/watari/inside"])
        inside = lab.west.read("/var/lib/watari/inside")
        check(inside == "more\n", "a file of the host is not to be read")
        for path in ("/srv/watari/mark", "/var/lib/watari/inside", lab.workdir / "west"):
            hidden = lab.east.run(["test", "-e", path], check=False).returncode == 1
            check(hidden, f"east sees {path}")
            seen = lab.west.run(["test", "-e", path], check=False).returncode == 0
            check(seen == (path != lab.workdir / "west"), f"west, on {path}: {seen}")
        check(lab.west.run(["hostname"]).stdout == "west\n", "west has another name")
        check(not lab.east.path("/etc/watari/mark").exists(), "east has west's file")
        denied = lab.west.run(["touch", "/usr/mark", TESTS / "mark"], check=False).stderr
        check(denied.count("Read-only") == 2, f"the machine's files can be written: {denied}")
        clocks = [float(host.run(["cat", "/proc/uptime"]).stdout.split()[0]) for host in lab.hosts]
        check(795 < clocks[1] - clocks[0] < 830, f"the clocks of west and east are {clocks}")
        sleeper = lab.west.popen(["sleep", "600"])
        seen = lab.east.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout
        check("600" not in seen, "east sees a process of west")
        fails(lambda: lab.east.signal(sleeper.inner_pid, signal.SIGTERM), "none of this host")
        check(sleeper.poll() is None, "a process of west was hit by a signal to east")


@test
def a_program_ends_as_it_does_and_with_its_host():
    with Lab() as lab:
        code = lab.west.run(["sh", "-c", "exit 7"], check=False).returncode
        check(code == 7, f"exit status 7 became {code}")
        check("no such" in fails_text(lab, ["/no/such"]).lower(), "a missing program is not told")
        program = lab.west.popen(["sleep", "600"])
        program.terminate()
        check(program.wait(10) == -signal.SIGTERM, "the signal is lost")
        fails(lambda: lab.west.run(["sleep", "600"], timeout=0.2), "no end within")
        program = lab.west.popen(["sleep", "600"])
        lab.west.spawn(["sleep", "600"], "/run/sleep.log")
        eventually(lambda: len(lab.west.find("sleep")) == 2, "two programs do not run", seconds=10)
        pids = lab.west.find("sleep")
        lab.west.kill_all()
        check(not any(alive(pid) for pid in pids), "a program outlived its host")
        check(program.wait(10) == -signal.SIGKILL, "a program did not end with its host")
        check(lab.east.run(["true"]).returncode == 0, "the other host died too")


def fails_text(lab, argv):
    result = lab.west.run(argv, check=False)
    check(result.returncode == 127, f"{argv} ended with {result.returncode}")
    return result.stderr


def send(lab, source, size, timeout=20):
    """Seconds that SIZE bytes take from SOURCE to the other host; None when they do not arrive."""
    destination = lab.other(source)
    receiver = destination.popen(
        ["/usr/bin/python3", "-c", RECEIVE, lab.network.address(destination), str(timeout)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with receiver.stdout:
        receiver.stdout.readline()
        words = (lab.network.address(destination), str(size), str(timeout))
        sender = source.popen(["/usr/bin/python3", "-c", SEND, *words])
        got = receiver.stdout.readline().split()
    receiver.wait()
    sender.kill()
    sender.wait()
    return float(got[1]) if got and int(got[0]) == size else None


RECEIVE = """
import socket, sys, time
listener = socket.create_server((sys.argv[1], 9999))
listener.settimeout(float(sys.argv[2]))
print("listening", flush=True)
try:
    link, _ = listener.accept()
    link.settimeout(float(sys.argv[2]))
    began, got = time.monotonic(), 0
    while piece := link.recv(1 << 16):
        got += len(piece)
    print(got, time.monotonic() - began)
except OSError:
    print(0, 0)
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 9999), float(sys.argv[3])) as link:
    link.sendall(bytes(int(sys.argv[2])))
"""


@test
def the_wire_is_measured_slowed_and_cut():
    with Lab() as lab:
        before = lab.network.wire_bytes(), lab.network.sent(lab.west)
        check(send(lab, lab.west, 4_000_000) is not None, "nothing arrives")
        total = lab.network.wire_bytes() - before[0]
        west = lab.network.sent(lab.west) - before[1]
        good = 4_000_000 < west <= total < 4_400_000
        check(good, f"{west} of {total} bytes were counted for 4 MB")
        lab.network.set_rate("20mbit")
        for host in lab.hosts:
            took = send(lab, host, 4_000_000)
            good = took is not None and 1.3 < took < 5
            check(good, f"4 MB from {host.name} took {took} s, not 1.6")
        lab.network.set_rate(None)
        lab.network.lose_from(lab.west)
        check(send(lab, lab.west, 1000, 1) is None, "what west sends is not lost")
        lab.network.mend()
        check(send(lab, lab.west, 1000) is not None, "the wire was not mended after a loss")
        lab.network.cut()
        check(send(lab, lab.east, 1000, 1) is None, "the wire is not cut")
        lab.network.mend()
        check(send(lab, lab.east, 1000) is not None, "the wire was not mended after a cut")
        fails(lambda: lab.network.set_rate("fast"), "is none")


@test
def a_guest_that_moved_is_intact_and_was_never_two():
    with Lab() as lab:
        guest = boot_guest(lab, memory_rate=10, kind="words", disk_rate=512)
        with Probe(lab.outside, guest.address) as probe:
            time.sleep(2)
            first = steady(guest.status())
            discarded = guest.discard()
            check(discarded["zero"] > 0, f"nothing was discarded: {discarded}")
            intact = guest.verify()
            check(intact["memory"] == 96 * 256, f"pages verified: {intact}")
            check(intact["disk"] > 100 and intact["files"] > 10, f"verified too little: {intact}")
            moved = qemu_migration.migrate(lab, guest)
            check(moved["wire_bytes"] > 50 << 20, f"the migration did not use the wire: {moved}")
            second = steady(guest.status())
            after = guest.verify()
            time.sleep(1)
            report = probe.stop()
        for name in ("ticks", "pages", "blocks", "answers"):
            check(second[name] > first[name], f"{name} did not go on: {first} {second}")
        check(after["counter"] > intact["counter"], "the counter did not go on")
        check(after["disk"] >= intact["disk"], "blocks were forgotten")
        check(not lab.west.find("qemu-system-x86_64"), "a QEMU is left at the source")
        check(report.copies == [], f"two copies: {report.copies}")
        check(5 < report.gap_ms < 20_000, f"no gap was seen: {report}")
        check(report.answered > 100 and report.sent == report.answered + report.lost, f"{report}")
        print(f"     {moved} {report}")


@test
def a_block_that_changed_behind_its_back_is_named():
    with Lab() as lab:
        guest = boot_guest(lab, memory_rate=1, disk_rate=1024)
        time.sleep(2)
        check(guest.command("stop") == "OK stopped", "the load does not stop")
        guest.verify()
        block = a_written_block(lab.west.path(f"{POOL}/b.raw"))
        with guest.qmp() as qmp:
            at = region_start(lab.west.path(f"{POOL}/b.raw")) + block * PAGE
            write = f'qemu-io -d vd1 "write -P 0x5a {at + 2048} 512"'
            said = qmp("human-monitor-command", command_line=write)
        check(said.strip() == "" or "wrote 512" in said, f"the block could not be spoilt: {said}")
        error = fails(guest.verify, f"CORRUPT disk sda block {block} (")
        check(isinstance(error, Corrupt), "corruption is a common error")
        check("wrong checksum" in str(error), f"{error}")
        guest.quit()


def region_start(raw):
    size = raw.stat().st_size // PAGE * PAGE
    return size - (16 << 20)


def a_written_block(raw):
    with open(raw, "rb") as file:
        file.seek(region_start(raw))
        for block in range((16 << 20) // PAGE):
            if file.read(PAGE).startswith(MAGIC):
                return block
    raise AssertionError("the guest wrote nothing on its disk")


@test
def the_probe_knows_two_copies_from_one():
    def report(*answers):
        judge = Judge()
        for number, answer in enumerate(answers):
            judge.answer(number * 0.005, *answer)
        return judge.finish(len(answers), 1.0)

    check(report((0, 1, 10), (1, 2, 20), (3, 5, 30)).copies == [], "a healthy guest is suspect")
    check(report((0, 1, 10), (3, 5, 30)).skipped == 3, "skipped answers are not counted")
    check("twice" in report((0, 1, 10), (0, 2, 20)).copies[0], "two answers are not told")
    repeated = report((0, 7, 10), (1, 7, 20)).copies
    check("came after" in repeated[0], "a repeated counter is not told")
    check("went back" in report((0, 7, 10), (1, 8, 9)).copies[0], "a clock going back is not told")
    check(report((0, 1, 10)).gap_ms == 1000, "the silence at the end does not count")


@test
def the_probe_knows_a_pause_from_a_busy_host():
    judge = Judge()
    # Silent for a second while its clock goes on; then for 0.3 s, of which it stood still for 0.25.
    for number, (now, clock) in enumerate(((0, 0), (1.0, 1.0), (1.1, 1.1), (1.4, 1.15), (1.5, 1.25))):
        judge.answer(now, number, number, int(clock * 1e9))
    report = judge.finish(5, 1.5)
    check(abs(report.gap_ms - 1000) < 1, f"the longest silence: {report.gap_ms}")
    check(abs(report.pause_gap_ms - 300) < 1, f"the silence around the pause: {report.pause_gap_ms}")


@test
def nothing_is_left_after_an_error():
    before = of_machine()
    pids = []
    try:
        with Lab() as lab:
            workdir = lab.workdir
            guest = boot_guest(lab)
            pids = guest.pids(lab.west)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    check(pids and not any(alive(pid) for pid in pids), f"QEMU {pids} is left")
    check(not workdir.exists(), "files are left")
    check(of_machine() == before, f"the machine changed: {before} {of_machine()}")


def end_sleeper(number):
    """Ends a lab's process by signal NUMBER; returns its directory once all else is gone."""
    argv = ["/usr/bin/python3", "-c", SLEEPER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as lab:
        words = lab.stdout.readline().split()
        check(len(words) == 3, "the lab did not start")
        lab.send_signal(number)
        lab.wait(30)
    eventually(lambda: not any(alive(pid) for pid in words[1:]), "a process is left", seconds=10)
    return pathlib.Path(words[0])


@test
def nothing_is_left_after_a_signal():
    before = of_machine()
    for number in (signal.SIGINT, signal.SIGTERM):
        check(not end_sleeper(number).exists(), f"files are left after signal {number}")
    stale = end_sleeper(signal.SIGKILL)
    check(stale.exists(), "the killed lab cleaned up after all")
    with Lab():
        check(not stale.exists(), "the next lab did not remove the files of the killed one")
    check(of_machine() == before, f"the machine changed: {before} {of_machine()}")


def main():
    boot_files()
    passed, failed = run()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

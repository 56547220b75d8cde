"""A guest of the lab: its QEMU command line, and how to talk to the workload in it.

A Guest is the description of one VM plus where it is now. A migration moves the VM without the
Guest knowing: tell it with attach().
"""

import dataclasses
import functools
import os
import pathlib
import subprocess
import tempfile
import time
import uuid

from .errors import LabError
from .qmp import Qmp, unix_connect

QEMU = "/usr/bin/qemu-system-x86_64"
KERNEL_WORDS = "console=ttyS0 quiet rdinit=/init mitigations=off audit=0 cryptomgr.notests no_timer_check"
BOOT = "/srv/watari/boot"
# QEMU before 9.0 under TCG loses writes of a migrating guest when its RAM is a multiple of this.
TCG_UNSAFE_KIB = 256
# After so many seconds without an answer a monitor is somebody else's, and a guest stands still.
SILENCE = 3


class Corrupt(LabError):
    """The guest found something in its memory or on its disks that it did not put there."""


@dataclasses.dataclass
class Disk:
    """PATH in the host, qcow2 or raw, on virtio-blk or virtio-scsi."""

    path: str
    format: str = "qcow2"
    scsi: bool = False
    iothread: bool = False


@dataclasses.dataclass
class Load:
    """What the workload does. FILES: number of the disk with a file system made by image.py, or
    None; the last DISK_MIB of each disk are written over, so leave them out of that file system."""

    memory_mib: int = 128
    memory_rate: int = 5  # MiB/s
    kind: str = "text"  # or noise, words
    disk_mib: int = 64
    disk_rate: int = 256  # KiB/s
    files: int | None = None


def memory_kib(mib):
    """A RAM size near MIB that is safe under TCG."""
    kib = mib * 1024 + 64
    assert kib % TCG_UNSAFE_KIB != 0
    return kib


class Guest:
    """NUMBER tells guests of one lab apart: it is the last byte of the address and of the MAC."""

    def __init__(self, name, disks, load=None, memory_mib=512, number=9, accelerator="tcg"):
        self.name = name
        self.disks = list(disks)
        self.load = load or Load()
        self.memory_kib = memory_kib(memory_mib)
        self.number = number
        self.accelerator = accelerator
        self.uuid = str(uuid.uuid4())
        self.address = f"10.78.0.{number}"
        self.tap = f"tap{number}"
        self.directory = f"/run/vms/{name}"
        self.serial_log = f"{self.directory}/serial.log"
        self.log = f"{self.directory}/qemu.log"
        self.host = None
        self.qmp_path = self.serial_path = None
        self._tag = 0

    def argv(self, incoming=None):
        """QEMU's arguments. INCOMING: with which the VM waits for a migration, paused."""
        return [
            QEMU,
            *("-name", f"guest={self.name}", "-uuid", self.uuid),
            *("-machine", f"q35,accel={self.accelerator}"),
            *("-cpu", "host" if self.accelerator == "kvm" else "qemu64"),
            *("-m", f"{self.memory_kib}k", "-smp", "1", "-nodefaults", "-display", "none"),
            *("-kernel", f"{BOOT}/vmlinuz", "-initrd", f"{BOOT}/initrd"),
            *("-append", self._kernel_words()),
            *("-chardev", self._chardev(), "-serial", "chardev:serial"),
            *("-qmp", f"unix:{self.directory}/qmp.sock,server=on,wait=off"),
            *(word for number in range(len(self.disks)) for word in self._disk_words(number)),
            *("-netdev", f"tap,id=net0,ifname={self.tap},script=no,downscript=no"),
            "-device",
            f"virtio-net-pci,netdev=net0,id=nic0,mac=52:54:00:78:00:{self.number:02x},romfile=",
            *(("-incoming", incoming, "-S") if incoming else ()),
        ]

    def _chardev(self):
        return (
            f"socket,id=serial,path={self.directory}/serial.sock,server=on,wait=off,"
            f"logfile={self.serial_log}"
        )

    def _disk_words(self, number):
        disk = self.disks[number]
        thread = f",iothread=io{number}" if disk.iothread else ""
        drive = f"drive=disk{number},id=vd{number}"
        if disk.iothread:
            yield from ("-object", f"iothread,id=io{number}")
        yield from ("-blockdev", f"driver=file,filename={disk.path},node-name=file{number},discard=unmap")
        yield "-blockdev"
        yield f"driver={disk.format},file=file{number},node-name=disk{number},discard=unmap"
        if disk.scsi:
            yield from ("-device", f"virtio-scsi-pci,id=scsi{number}{thread}")
            yield from ("-device", f"scsi-hd,bus=scsi{number}.0,{drive}")
        else:
            yield from ("-device", f"virtio-blk-pci,{drive}{thread}")

    def device(self, number):
        """What the guest calls its disk of that number."""
        scsi = self.disks[number].scsi
        same = [disk for disk in self.disks[:number] if disk.scsi == scsi]
        return f"/dev/{'sd' if scsi else 'vd'}{chr(ord('a') + len(same))}"

    def _kernel_words(self):
        load = self.load
        words = [
            KERNEL_WORDS,
            f"net={self.address}/24",
            f"wmb={load.memory_mib} wrate={load.memory_rate} wkind={load.kind}",
            f"dmb={load.disk_mib} drate={load.disk_rate}",
        ]
        if self.disks:
            words.append("ddisk=" + ",".join(self.device(n) for n in range(len(self.disks))))
        if load.files is not None:
            words.append(f"files={self.device(load.files)}")
        return " ".join(words)

    def start(self, host, incoming=None):
        """Boots the VM in HOST, or has it wait there for a migration. The network needs the tap."""
        host.path(self.directory).mkdir(parents=True, exist_ok=True)
        for name in ("qmp.sock", "serial.sock", "serial.log"):  # of a QEMU that was killed
            host.path(f"{self.directory}/{name}").unlink(missing_ok=True)
        if not incoming:
            self.attach(host)
        host.spawn(self.argv(incoming), self.log)
        host.wait_for_file(f"{self.directory}/qmp.sock")

    def attach(self, host, qmp_path=None, serial_path=None):
        """The VM runs in HOST now; its sockets are at their usual places unless told otherwise."""
        self.host = host
        self.qmp_path = qmp_path or f"{self.directory}/qmp.sock"
        self.serial_path = serial_path or f"{self.directory}/serial.sock"

    def find(self, host):
        """attach() to its QEMU in HOST, wherever that one's sockets are."""
        argv = next((argv for argv in host.processes().values() if self.uuid in argv), None)
        if not argv:
            raise LabError(f"guest {self.name}: no QEMU of it in {host.name}")
        self.attach(host, str(_monitors(argv)[-1]), str(_console(argv)))

    def qmp(self):
        """A QMP connection of its own, to be closed by the caller: `with guest.qmp() as qmp:`"""
        return Qmp(self.host.path(self.qmp_path))

    def wait_ready(self, timeout=120):
        """Until the workload in a VM that was just booted has filled its memory and answers."""
        limit = time.monotonic() + timeout
        while True:
            log = self.host.read(self.serial_log)
            if "READY" in log:
                return self.status()
            if "FAILED" in log or not self.pids(self.host):
                raise LabError(f"guest {self.name}: {self._last_words()}")
            if time.monotonic() > limit:
                why = self._last_words()
                raise LabError(f"guest {self.name} is not ready after {timeout} s: {why}")
            time.sleep(0.05)

    def _last_words(self):
        return " ".join((self.host.read(self.log) + self.host.read(self.serial_log))[-500:].split())

    def pids(self, host):
        """Pids, as seen from outside, of the QEMUs in HOST that run or await this VM."""
        return [pid for pid, argv in host.processes().items() if self.uuid in argv]

    def runs_in(self, host):
        """Whether a QEMU in HOST runs this VM: by QMP, or, where somebody else is connected to all
        of its monitors, by the guest's own answer."""
        for argv in host.processes().values():
            if self.uuid in argv:
                running = _runs_by_qmp(host, argv)
                if running is None:
                    running = self._answers(host, argv)
                if running:
                    return True
        return False

    def _answers(self, host, argv):
        try:
            self.command("status", SILENCE, host.path(_console(argv)))
        except LabError:
            return False
        return True

    def command(self, line, timeout=30, console=None):
        """Sends a line to the workload and returns its answer; the serial socket is free again.
        CONSOLE: that socket as seen from outside, if it is not the one of attach()."""
        self._tag += 1
        tag = f"#{os.getpid()}-{self._tag} ".encode()
        received = b""
        limit = time.monotonic() + timeout
        with unix_connect(console or self.host.path(self.serial_path), timeout) as link:
            link.sendall(tag + line.encode() + b"\n")
            while True:
                link.settimeout(max(0.01, limit - time.monotonic()))
                try:
                    piece = link.recv(4096)
                except ConnectionError:
                    piece = b""
                except TimeoutError:
                    sentence = f"guest {self.name} does not answer {line!r} in {timeout} s"
                    raise LabError(sentence) from None
                if not piece:
                    raise LabError(f"guest {self.name} closed its console")
                received += piece
                # What is before the tag is not for us: the kernel's words, a late answer.
                answer, end, _ = received.partition(tag)[2].partition(b"\n")
                if end:
                    return answer.decode(errors="replace").strip()

    def _numbers(self, line, word):
        first, *pairs = line.split()
        if first != word:
            raise (Corrupt if first == "CORRUPT" else LabError)(f"guest {self.name}: {line}")
        return {name: int(value) for name, value in (pair.split("=") for pair in pairs)}

    def status(self, timeout=30):
        """{"ticks", "uptime_ms", "pages", "blocks", "answers"} as the guest counts them."""
        return self._numbers(self.command("status", timeout), "STATUS")

    def verify(self, timeout=120):
        """Has the guest read back all it ever wrote: {"memory", "disk", "files", "counter"} when it
        is intact, else Corrupt, whose message names the first wrong page, block or file."""
        return self._numbers(self.command("verify", timeout), "INTACT")

    def discard(self):
        """Has the guest discard a part of its disks: {"zero", "kept"} in blocks."""
        return self._numbers(self.command("discard"), "DISCARDED")

    def quit(self):
        """Ends the VM's QEMU where it is now. The guest is stopped first: QEMU 7.2 that quits keeps its
        big lock from there to the closing of the disks, for which it wants the lock of each
        iothread; one that then completes a request of a guest that ran till now notifies it by
        MSI-X, with its own lock held, and waits for the big one (both seen in gdb, 3 of 40)."""
        pids = self.pids(self.host)
        with self.qmp() as qmp:
            qmp("stop")
            qmp("quit")
        limit = time.monotonic() + 20
        while any(pid in self.host.processes() for pid in pids):
            if time.monotonic() > limit:
                raise LabError(f"guest {self.name}: its QEMU does not end")
            time.sleep(0.02)


def _monitors(argv):
    """Where the QMP socket of a QEMU with these arguments may be: watarid keeps it in private/ until
    the copy is owned."""
    value = next(argv[i + 1] for i, word in enumerate(argv) if word == "-qmp")
    path = pathlib.Path(value.removeprefix("unix:").split(",")[0])
    return (path, path.parent.parent / path.name) if path.parent.name == "private" else (path,)


def _console(argv):
    value = next(word for word in argv if word.startswith("socket,id=serial,"))
    return value.split("path=")[1].split(",")[0]


def _runs_by_qmp(host, argv):
    """True or False, or None when no monitor answers."""
    for path in _monitors(argv):
        try:
            with Qmp(host.path(path), SILENCE) as qmp:
                return qmp("query-status")["running"]
        except (LabError, OSError):
            continue
    return None


@functools.cache
def accelerator(boot_directory):
    """"kvm" when an ordinary guest really boots on it here, else "tcg". A /dev/kvm alone proves
    nothing where virtualisation is nested. BOOT_DIRECTORY: with vmlinuz and initrd."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot = pathlib.Path(boot_directory)
    with tempfile.TemporaryFile() as console:
        qemu = subprocess.Popen(
            [
                *(QEMU, "-machine", "q35,accel=kvm", "-cpu", "host", "-m", f"{memory_kib(256)}k"),
                *("-nodefaults", "-display", "none", "-serial", "stdio"),
                *("-kernel", boot / "vmlinuz", "-initrd", boot / "initrd"),
                *("-append", f"{KERNEL_WORDS} wmb=1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.DEVNULL,
        )
        try:
            limit = time.monotonic() + 20
            while qemu.poll() is None and time.monotonic() < limit:
                console.seek(0)
                if b"READY" in console.read():
                    return "kvm"
                time.sleep(0.1)
        finally:
            qemu.kill()
            qemu.wait()
    return "tcg"

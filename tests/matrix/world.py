"""The two hosts with their agents and the guest of all cases, started from a saved state; and what is looked at after each."""

import contextlib
import os
import pathlib
import shutil
import time

from aftermath import MOVED, empty, nothing_is_left, settings, undecided
from harness import check, eventually

from lab import Disk, Guest, LabError, Load, image
from lab.agents import CONTROL, LOG, OTHER_POOL, POOL, RUN, STATE
from lab.host import busy_ticks
from lab.saved import Saved

DISK = f"{POOL}/subject.qcow2"
JOURNALS = f"{STATE}/journal"
# Slow enough for a fault to fall within the disks' and the memory's phases, whatever the machine.
RATE = "60mbit"
SETTLED_S = 120
# Of a hundred a second: what a daemon's timers may take of half a second, and a loop that spins does not keep to.
IDLE_TICKS = 10


class World:
    """SOURCE is where the guest was when the case began."""

    def __init__(self, lab, agents):
        self.lab, self.agents = lab, agents
        self._saved = None
        self.guest = None
        self.settings = None
        self.source, self.destination = lab.west, lab.east

    def _boot(self):
        image.with_files(self.lab.west.path(DISK), 256 << 20, 16)
        guest = Guest("subject", [Disk(DISK, iothread=True)], Load(memory_mib=16, disk_mib=16, files=0), 128, number=51)
        self.lab.network.add_tap(guest.tap)
        guest.start(self.lab.west)
        guest.wait_ready()
        return Saved(guest, self.lab.workdir / "saved")

    # --- before a case ---

    def start_over(self):
        """Nothing is left of what was before; the guest of the saved state runs at west; no daemon runs yet."""
        network = self.lab.network
        network.mend()
        network.set_rate(None)
        for host in self.lab.hosts:
            self.agents.kill(host)
            host.end(list(host.processes()))
            for directory in (POOL, OTHER_POOL, JOURNALS, f"{STATE}/vms", "/run/watari/migrations", "/run/watari/vms", "/run/vms"):
                if host.path(directory).exists():
                    empty(host, directory)
        if not self._saved:
            self._saved = self._boot()
        self._saved.start(self.lab.west)
        self._begin_at(self.lab.west, self._saved.guest)

    def go_on(self):
        """As start_over(), with the guest where the case before has left it, unless that is nowhere."""
        here = self.agents.running_in(self.guest) if self.guest else None
        if here is None:
            self.start_over()
            return
        for host in self.lab.hosts:
            self.agents.kill(host)
        other = self.lab.other(here)
        for directory in (POOL, "/run/watari/vms"):
            empty(other, directory)
        for path in here.path(POOL).iterdir():
            if MOVED in path.name:
                path.unlink()
        self.guest.find(here)
        self._begin_at(here, self.guest)

    def _begin_at(self, host, guest):
        self.guest = guest
        self.source, self.destination = host, self.lab.other(host)
        self.settings = settings(guest)

    def start_daemons(self, pause_at=()):
        """PAUSE_AT: at the source."""
        self.agents.start(self.source, pause_at)
        self.agents.start(self.destination)

    # --- after a case ---

    def settle(self):
        """Waits until neither host has a migration that is undecided, and returns the host that runs the guest; None when none does."""
        eventually(self._settled, f"a migration stays undecided for {SETTLED_S} s", SETTLED_S)
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.agents.running_in(self.guest), "it runs nowhere", 5)
        here = self.agents.running_in(self.guest)
        if here:
            self.guest.find(here)
        return here

    def _settled(self):
        for host in self.lab.hosts:
            if self.agents.paused(host):  # one that was started again, at the pause point of the one before
                self.agents.thaw(host)
            if not self.agents.daemon_pid(host) or not host.path(CONTROL).exists():
                return False
        try:
            return not undecided(self.agents)
        except LabError:
            return False  # it is just being started

    def revive(self):
        """The guest runs nowhere: as after a power failure exactly one host that has its disk may start it, and does. Returns that host."""
        may = [host for host in self.lab.hosts if host.path(DISK).exists() and self.agents.may_start(host, self.guest.name)[0]]
        check(len(may) == 1, f"nowhere, and these may start it: {[host.name for host in may]}")
        eventually(lambda: not any(self.guest.pids(host) for host in self.lab.hosts), "a QEMU that does not run is left")
        self.guest.start(may[0])
        self.guest.wait_ready()
        if may[0] is self.source:
            self.settings = settings(self.guest)
        return may[0]

    def check_all(self, pool=POOL):
        """The guest is attached where it runs: it is intact and goes on, the other host has no copy and may start none, nothing is left."""
        guest, agents = self.guest, self.agents
        guest.verify()
        before = guest.status()["ticks"]
        eventually(lambda: guest.status()["ticks"] > before, "the guest does not go on")
        may, why = agents.may_start(guest.host, guest.name)
        check(may, f"{guest.host.name} may not start it: {why}")
        if guest.host is not self.source:
            check(not agents.may_start(self.source, guest.name)[0], f"{self.source.name} may start it too")
        nothing_is_left(self.lab, guest, self.source, self.settings, pool)
        for host in self.lab.hosts:
            self._only_what_belongs(host)
            self._idle(host)

    def _only_what_belongs(self, host):
        guest = self.guest

        def strangers():
            daemons = [self.agents.daemon(host).inner_pid, self.agents.daemon_pid(host)]
            known = daemons + (guest.pids(host) if guest.host is host else [])
            return [" ".join(argv) for pid, argv in host.processes().items() if pid not in known]

        eventually(lambda: not strangers(), f"{host.name}: processes are left: {strangers()}")

    def _idle(self, host):
        pids = host.find("watarid")
        before = {pid: busy_ticks(pid) for pid in pids}
        time.sleep(0.5)
        for pid, ticks in before.items():
            used = busy_ticks(pid) - ticks
            check(used <= IDLE_TICKS, f"{host.name}: watarid {pid} used {used} ticks of CPU in half a second with nothing to do")

    # --- when it went wrong ---

    def keep_logs(self, directory):
        """Copies what explains a failure to DIRECTORY: logs of both daemons, of QEMU, and the journals."""
        target = pathlib.Path(directory)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for host in self.lab.hosts:
            if host.path(LOG).exists():
                shutil.copyfile(host.path(LOG), target / f"{host.name}-watarid.log")
            for top in (JOURNALS, RUN, "/run/vms"):
                for path in host.path(top).rglob("*"):
                    if path.is_file() and os.path.getsize(path) < 1 << 20:
                        relative = path.relative_to(host.directory)
                        shutil.copyfile(path, target / f"{host.name}-{str(relative).replace('/', '_')}")

    def forget_logs(self):
        for host in self.lab.hosts:
            if host.path(LOG).exists():
                host.path(LOG).write_bytes(b"")

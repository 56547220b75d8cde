"""The lab as a whole: made by `with Lab() as lab:`, gone after it, whatever happened in between."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading

from .errors import LabError
from .guest import BOOT
from .host import Host
from .network import WAN_MTU, Network

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
SCRATCH = "/var/tmp"
STALE = re.compile(r"watari-(\d+)-")
# Of each other and of the machine's: a clock that is compared across hosts shows at once.
CLOCK_OFFSETS = {"west": 300, "east": 1100, "outside": 0}


class Lab:
    """west and east are the hosts, outside is from where their guests are seen, network joins all.

    WORKDIR: an empty or new directory for all files, by default one of its own below /var/tmp.
    LINK: the wire's rate, None for no limit. WAN: the wire is a far link with these settings, as
    "delay=25ms loss=0.5%", of bench/wanlink, and WAN_MTU the MTU of that. VISIBLE: directories that the hosts must see
    (read-only) although they lie below one that each host has for itself; the repository always is.
    """

    def __init__(self, workdir=None, link=None, visible=(), wan=None, wan_mtu=WAN_MTU):
        self._wanted_workdir = workdir
        self._link = link
        self._wan, self._wan_mtu = wan, wan_mtu
        self._visible = [REPOSITORY, *(pathlib.Path(path).resolve() for path in visible)]
        self._exits = contextlib.ExitStack()
        self.workdir = None
        self.west = self.east = self.outside = self.network = None

    @property
    def hosts(self):
        return (self.west, self.east)

    def other(self, host):
        return self.east if host is self.west else self.west

    def __enter__(self):
        if os.geteuid() != 0:
            raise LabError("a lab is made of namespaces, which takes root")
        remove_stale()
        with contextlib.ExitStack() as exits:
            exits.enter_context(_sigterm_as_exit())
            self.workdir = exits.enter_context(_workdir(self._wanted_workdir))
            self.west, self.east, self.outside = (
                exits.enter_context(self._host(name)) for name in CLOCK_OFFSETS
            )
            self.network = Network(self.hosts, self.outside, self._wan)
            exits.callback(self.network.end)
            self.network.build(self.workdir, self._wan_mtu)
            if self._link is not None:
                self.network.set_rate(self._link)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *details):
        with _undisturbed():
            return self._exits.__exit__(*details)

    @contextlib.contextmanager
    def _host(self, name):
        host = Host(
            name,
            self.workdir / name,
            CLOCK_OFFSETS[name],
            hidden=[self.workdir],
            visible=self._visible,
        )
        try:
            host.start()
            yield host
        finally:
            host.kill_all()

    def install_boot_files(self, directory=None):
        """Gives both hosts the guests' kernel and initrd; DIRECTORY as for boot_files."""
        directory = boot_files(directory)
        for host in self.hosts:
            host.path(BOOT).mkdir(parents=True, exist_ok=True)
            for name in ("vmlinuz", "initrd"):
                shutil.copyfile(directory / name, host.path(f"{BOOT}/{name}"))


def boot_files(directory=None):
    """The directory with vmlinuz and initrd, made or brought up to date: DIRECTORY, or guest/ in
    the build directory ($WATARI_BUILD, else build/ in the repository)."""
    if directory is None:
        directory = pathlib.Path(os.environ.get("WATARI_BUILD", REPOSITORY / "build")) / "guest"
    if subprocess.run([REPOSITORY / "tests/guest/build", directory], check=False).returncode != 0:
        raise LabError(f"the guest's kernel and initrd could not be made in {directory}")
    return pathlib.Path(directory)


@contextlib.contextmanager
def _workdir(wanted):
    if wanted is None:
        path = pathlib.Path(tempfile.mkdtemp(prefix=f"watari-{os.getpid()}-", dir=SCRATCH))
    else:
        path = pathlib.Path(wanted).resolve()
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise LabError(f"{path} is not empty")
    path.chmod(0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def _sigterm_as_exit():
    """SIGTERM ends the lab as Ctrl-C does. Only the main thread may arrange that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_exit(number, _frame):
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _undisturbed():
    """A second Ctrl-C or SIGTERM would leave half of the lab behind. SIGTERM gets back what it did
    before the lab when _sigterm_as_exit ends, within this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def remove_stale():
    """Removes the files of labs whose process was killed. Their namespaces went with it."""
    for path in pathlib.Path(SCRATCH).glob("watari-*-*"):
        match = STALE.match(path.name)
        if match and not os.path.exists(f"/proc/{match[1]}") and path.stat().st_uid == 0:
            shutil.rmtree(path, ignore_errors=True)

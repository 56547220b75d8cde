"""The faults. Each is a generator over a cell (cell.py): what it prepares before the migration begins, `yield`, what it does at the moment,
`yield SECONDS`, what puts it right after that time or, with UNTIL_THE_END, when the migration has had its outcome; `yield`, and a `finally`,
for what must be there until all was looked at."""

import contextlib
import signal
import time

from lab.agents import OTHER_POOL
from lab.errors import LabError

from .world import JOURNALS

UNTIL_THE_END = None
SOURCE, DESTINATION = "source", "destination"
# A daemon without its guardian stays dead for so long.
DEAD_S = 2
WRITES_COME_S = 0.3
ALL = {}
KILLS_QEMU = set()


def _fault(name, kills_qemu=False):
    def register(action):
        ALL[name] = action
        if kills_qemu:
            KILLS_QEMU.add(name)
        return action

    return register


def _for_each(kinds, kills_qemu=False):
    """Registers the function under the name SIDE-KIND for both sides, called with the cell and the side."""
    def register(function):
        for side in (SOURCE, DESTINATION):
            _fault(f"{side}-{kinds}", kills_qemu)(lambda cell, side=side: function(cell, side))
        return function

    return register


def _start_again(agents, host):
    if agents.daemon(host).poll() is not None:  # else another fault of this migration has had it started
        agents.start(host)


def _go_on(host, pids):
    for pid in pids:
        with contextlib.suppress(LabError):  # whoever waited for it has ended it
            host.signal(pid, signal.SIGCONT)


# --- kill -9 ---


@_for_each("daemon-killed")
def daemon_killed(cell, side):
    """Its guardian starts it again."""
    yield
    cell.agents.kill_daemon_only(cell.host(side))
    yield UNTIL_THE_END


@_for_each("watarid-killed")
def watarid_killed(cell, side):
    """Guardian and daemon."""
    yield
    cell.agents.kill(cell.host(side))
    yield DEAD_S
    _start_again(cell.agents, cell.host(side))


@_for_each("mover-killed")
def mover_killed(cell, side):
    yield
    cell.host(side).end(cell.movers(side))
    yield UNTIL_THE_END


@_fault("mover-killed-with-writes-under-way")
def mover_killed_with_writes_under_way(cell):
    """The destination's QEMU stands still while writes come to it, and finds them when the mover that sent them is dead."""
    yield
    qemus = cell.qemus(DESTINATION)
    for pid in qemus:
        cell.destination.signal(pid, signal.SIGSTOP)
    time.sleep(WRITES_COME_S)
    cell.destination.end(cell.movers(DESTINATION))
    yield cell.lasts(2)
    _go_on(cell.destination, qemus)


@_for_each("qemu-killed", kills_qemu=True)
def qemu_killed(cell, side):
    yield
    cell.host(side).end(cell.qemus(side))
    yield UNTIL_THE_END


@_for_each("host-killed", kills_qemu=True)
def host_killed(cell, side):
    """All its processes at once; the kernel goes on, so that nothing has a new boot id."""
    host = cell.host(side)
    yield
    host.end(list(host.processes()))
    cell.agents.daemon(host).wait()
    yield DEAD_S
    _start_again(cell.agents, host)


@_for_each("host-rebooted", kills_qemu=True)
def host_rebooted(cell, side):
    host = cell.host(side)
    yield
    cell.agents.reboot(host)
    yield DEAD_S
    _start_again(cell.agents, host)


# --- SIGSTOP for ten seconds ---


def _stop(cell, side, pids):
    host = cell.host(side)
    for pid in pids:
        host.signal(pid, signal.SIGSTOP)
    yield cell.lasts(10)
    _go_on(host, pids)


@_for_each("daemon-stopped")
def daemon_stopped(cell, side):
    yield
    cell.frozen = side == SOURCE
    yield from _stop(cell, side, cell.daemons(side))
    cell.frozen = False


@_for_each("mover-stopped")
def mover_stopped(cell, side):
    yield
    yield from _stop(cell, side, cell.movers(side))


@_for_each("qemu-stopped")
def qemu_stopped(cell, side):
    yield
    yield from _stop(cell, side, cell.qemus(side))


# --- the link ---


@_fault("link-down-5s")
def link_down_5s(cell):
    yield
    cell.network.cut()
    yield cell.lasts(5)
    cell.network.mend()


@_fault("link-down-30s")
def link_down_30s(cell):
    yield
    cell.network.cut()
    yield cell.lasts(30)
    cell.network.mend()


@_fault("link-down-for-good")
def link_down_for_good(cell):
    """As far as the migration goes; when it has given up the link is mended, for what is undecided until then."""
    cell.words[cell.words.index("--reconnect-timeout") + 1] = "8s"
    yield
    cell.network.cut()
    yield UNTIL_THE_END
    cell.network.mend()


@_for_each("sends-into-nothing")
def sends_into_nothing(cell, side):
    """What that side sends is lost, and it hears the other."""
    yield
    cell.network.lose_from(cell.host(side))
    yield cell.lasts(12)
    cell.network.mend()


# --- places that are full ---


def _fill(host, directory, block):
    host.run(["dd", "if=/dev/zero", f"of={directory}/filler", f"bs={block}"], check=False)


@_fault("pool-full")
def pool_full(cell):
    host = cell.destination
    host.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", OTHER_POOL])
    try:
        cell.pool = OTHER_POOL
        cell.words += ["--disk", "vd0=other"]
        yield
        _fill(host, OTHER_POOL, "1M")
        yield UNTIL_THE_END
        host.run(["rm", f"{OTHER_POOL}/filler"])
        yield
    finally:
        host.run(["umount", "-l", OTHER_POOL])


@_for_each("journal-full")
def journal_full(cell, side):
    host = cell.host(side)
    host.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=4m", "tmpfs", JOURNALS])
    try:
        yield
        _fill(host, JOURNALS, "4k")
        yield UNTIL_THE_END
        yield
    finally:
        host.run(["umount", "-l", JOURNALS])


@_for_each("journal-read-only")
def journal_read_only(cell, side):
    """From the beginning: a journal that is open for writing keeps its file system writable."""
    host = cell.host(side)
    host.run(["mount", "-t", "tmpfs", "-o", "mode=700,ro", "tmpfs", JOURNALS])
    try:
        yield
        yield UNTIL_THE_END
        yield
    finally:
        host.run(["umount", "-l", JOURNALS])

"""What must hold when a migration has ended, whatever happened in it: nothing of it is left but where it belongs. Used by the tests of the
handoff and by tests/faults."""

import os
import shutil

from harness import check, equal, eventually

from lab.agents import POOL

# In the name of a disk that the source has given away.
MOVED = ".watari-"
RUN_DIRECTORIES = ("/run/watari/migrations", "/run/watari/vms")


def settings(guest):
    with guest.qmp() as qmp:
        return qmp("query-migrate-parameters"), qmp("query-migrate-capabilities")


def listed(host, directory):
    path = host.path(directory)
    return sorted(os.listdir(path)) if path.exists() else []


def empty(host, directory):
    for path in host.path(directory).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def undecided(agents):
    """Whether a migration at either host has no end yet."""
    return any(
        not migration.get("result")
        for host in agents.lab.hosts
        for migration in agents.ask(host, "status")["migrations"]
    )


def nothing_is_left(lab, guest, source, before, pool=POOL):
    """On neither host, of a migration of GUEST from SOURCE. The guest runs where it is attached, at SOURCE with the BEFORE that settings()
    gave there, or at the other host, its one disk in POOL."""
    destination = lab.other(source)
    other = lab.other(guest.host)
    disk = os.path.basename(guest.disks[0].path)
    for host in lab.hosts:
        eventually(lambda h=host: not h.find("watari-mover"), f"{host.name}: a mover is left")
        eventually(lambda h=host: not listed(h, RUN_DIRECTORIES[0]), f"{host.name}: {listed(host, RUN_DIRECTORIES[0])}")
    eventually(lambda: not guest.pids(other), f"a QEMU is left in {other.name}")
    with guest.qmp() as qmp:
        eventually(lambda: not qmp("query-block-exports"), "exports are left")
        for node in qmp("query-named-block-nodes", flat=True):
            check(not node.get("dirty-bitmaps"), f"bitmaps are left on {node['node-name']}")
    if guest.host is source:
        equal(settings(guest), before, "parameters and capabilities of its QEMU")
        equal(listed(source, POOL), [disk], "the source's pool")
        eventually(lambda: not listed(destination, pool), f"the destination's pool: {listed(destination, pool)}")
        eventually(lambda: not listed(destination, RUN_DIRECTORIES[1]), "the destination's run directory")
    else:
        equal(listed(destination, pool), [disk], "the destination's pool")
        left = listed(source, POOL)
        check(len(left) == 1 and MOVED in left[0], f"the old disk must be kept under another name: {left}")

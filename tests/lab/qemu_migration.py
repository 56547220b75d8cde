"""Moves a guest of the lab as QEMU alone would: its disks by mirror jobs over NBD, its memory by
its own migration, all over the wire, in clear or by TLS. The lab's tests need it, and comparisons
do.

Not for guests with iothreads: QEMU 7.2 aborts when the mirror's NBD connection ends.
"""

import secrets
import time

from . import image
from .errors import LabError
from .qmp import Qmp

NBD_PORT = "10809"
MIGRATION_PORT = 4444
ENDED = ("completed", "failed", "cancelled")
CREDENTIALS = "tls0"
TLS_USER = "lab"
# What QEMU can do about bytes: capability and parameters, at both sides. Two channels and a cache as large as the memory that the lab's
# loads touch, twice: its best on the machines that the lab runs on.
MEMORY_METHODS = {
    "plain": (None, {}),
    "multifd-zstd": ("multifd", {"multifd-channels": 2, "multifd-compression": "zstd"}),
    "xbzrle": ("xbzrle", {"xbzrle-cache-size": 256 << 20}),
}


class Unfinished(LabError):
    """The time was up. The guest runs on at the source; nothing of the attempt is left."""


def migrate(lab, guest, downtime_limit_ms=300, timeout=180, tls=False, granularity=None, memory="plain"):
    """Moves GUEST to the other host, where it is attached then; its QEMU at the source is gone, the
    images there stay. TIMEOUT: seconds for all of it, else Unfinished. TLS: disks and memory go by
    TLS, with a pre-shared key made for this migration. GRANULARITY: bytes that a mirror copies
    again for each write, None for QEMU's choice (the cluster, 64 KiB in a qcow2). MEMORY: one of MEMORY_METHODS. Returns
    {"total_ms", "downtime_ms" (as QEMU says), "mirror_end_ms" (the part of it in which the mirrors
    flush and end), "wire_bytes"}."""
    source, destination = guest.host, lab.other(guest.host)
    began, wire_before = time.monotonic(), lab.network.wire_bytes()
    limit = began + timeout
    credentials = {"tls_creds": CREDENTIALS} if tls else {}
    mirror = {"granularity": granularity} if granularity else {}
    with guest.qmp() as here:
        _make_images(here, guest, destination)
        guest.start(destination, incoming="defer")
        with Qmp(destination.path(f"{guest.directory}/qmp.sock")) as there:
            address = lab.network.address(destination)
            if tls:
                _add_credentials(guest, (source, here, "client"), (destination, there, "server"))
            try:
                _serve_disks(there, guest, address, credentials)
                _mirror_disks(here, guest, address, credentials, mirror)
                _wait_for_mirrors(here, guest, limit)
                _set_method(here, there, memory)
                _start_memory(here, there, address, downtime_limit_ms, credentials)
                downtime, mirror_end = _switch_over(here, there, guest, limit)
            except Unfinished:
                _give_up(here, there)
                raise
    guest.attach(source)
    guest.quit()
    guest.attach(destination)
    return {
        "total_ms": (time.monotonic() - began) * 1000,
        "downtime_ms": downtime,
        "mirror_end_ms": mirror_end,
        "wire_bytes": lab.network.wire_bytes() - wire_before,
    }


def _poll(qmp, command, good, limit, interval=0.02):
    """As Qmp.poll, until the moment LIMIT, then Unfinished."""
    while True:
        answer = qmp(command)
        if good(answer):
            return answer
        if time.monotonic() > limit:
            raise Unfinished(f"{command}, when the time was up: {answer}")
        time.sleep(interval)


def _make_images(here, guest, destination):
    nodes = here("query-named-block-nodes")
    sizes = {node["node-name"]: node["image"]["virtual-size"] for node in nodes}
    for number, disk in enumerate(guest.disks):
        path = destination.path(disk.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        image.create(path, sizes[f"disk{number}"], disk.format)


def _add_credentials(guest, *sides):
    """QEMU reads user and key from keys.psk, one USER:HEX a line, as GnuTLS' psktool writes it."""
    line = f"{TLS_USER}:{secrets.token_hex(32)}\n"
    directory = f"{guest.directory}/tls"
    for host, qmp, endpoint in sides:
        host.write(f"{directory}/keys.psk", line)
        user = {"username": TLS_USER} if endpoint == "client" else {}
        what = {"qom_type": "tls-creds-psk", "id": CREDENTIALS, "dir": directory, **user}
        qmp("object-add", endpoint=endpoint, **what)


def _serve_disks(there, guest, address, credentials):
    server = {"type": "inet", "data": {"host": address, "port": NBD_PORT}}
    there("nbd-server-start", addr=server, **credentials)
    for number in range(len(guest.disks)):
        node = f"disk{number}"
        there("block-export-add", id=node, type="nbd", node_name=node, name=node, writable=True)


def _mirror_disks(here, guest, address, credentials, mirror):
    for number in range(len(guest.disks)):
        server = {"type": "inet", "host": address, "port": NBD_PORT}
        target, node = f"target{number}", f"disk{number}"
        nbd = {"server": server, "export": node, **credentials}
        here("blockdev-add", driver="nbd", node_name=target, **nbd)
        here("blockdev-mirror", job_id=node, device=node, target=target, sync="full", **mirror)


def _wait_for_mirrors(here, guest, limit):
    def all_ready(jobs):
        if len(jobs) != len(guest.disks):
            raise LabError(f"a mirror of {guest.name} failed; left are {jobs}")
        return all(job["ready"] for job in jobs)

    _poll(here, "query-block-jobs", all_ready, limit)


def _set_method(here, there, memory):
    capability, parameters = MEMORY_METHODS[memory]
    for qmp in (here, there) if capability else ():
        qmp("migrate-set-capabilities", capabilities=[{"capability": capability, "state": True}])
        qmp("migrate-set-parameters", **{name.replace("-", "_"): value for name, value in parameters.items()})


def _start_memory(here, there, address, downtime_limit_ms, credentials):
    uri = f"tcp:{address}:{MIGRATION_PORT}"
    wanted = [{"capability": "pause-before-switchover", "state": True}]
    here("migrate-set-capabilities", capabilities=wanted)
    here("migrate-set-parameters", max_bandwidth=0, downtime_limit=downtime_limit_ms, **credentials)
    if credentials:
        there("migrate-set-parameters", **credentials)
    there("migrate-incoming", uri=uri)
    here("migrate", uri=uri)


def _switch_over(here, there, guest, limit):
    stops = ("pre-switchover", *ENDED)
    state = _poll(here, "query-migrate", lambda state: state["status"] in stops, limit, 0.01)
    if state["status"] != "pre-switchover":
        raise LabError(f"QEMU's migration: {state['status']}: {state.get('error-desc', '')}")
    began = time.monotonic()
    for number in range(len(guest.disks)):
        here("block-job-cancel", device=f"disk{number}")
    _poll(here, "query-block-jobs", lambda jobs: not jobs, limit, 0.005)
    mirror_end = (time.monotonic() - began) * 1000
    here("migrate-continue", state="pre-switchover")
    state = _poll(here, "query-migrate", lambda state: state["status"] in ENDED, limit, 0.005)
    if state["status"] != "completed":
        raise LabError(f"QEMU's migration: {state['status']}: {state.get('error-desc', '')}")
    _poll(there, "query-status", lambda state: state["status"] != "inmigrate", limit, 0.005)
    there("nbd-server-stop")
    there("cont")
    return state["downtime"], mirror_end


def _give_up(here, there):
    """The destination's QEMU, which never ran the guest, goes first: what is left of the mirrors
    and of the migration fails with it and needs no wire."""
    here("migrate_cancel")
    there("quit")
    here.poll("query-block-jobs", lambda jobs: not jobs)

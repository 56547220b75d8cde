"""A guest that was booted once, and is started from then on where it stood: in a fraction of a second, with the same content each time."""

import pathlib
import shutil

from . import image
from .errors import LabError


class Saved:
    """The state of GUEST, which is ready and runs in its host, and copies of its disks: both kept in DIRECTORY, a pathlib path as seen from
    outside. Its QEMU has ended after that."""

    def __init__(self, guest, directory):
        self.guest = guest
        self._directory = pathlib.Path(directory)
        self._directory.mkdir(parents=True)
        host = guest.host
        inside = f"{guest.directory}/saved"
        with guest.qmp() as qmp:
            qmp("stop")
            qmp("migrate-set-parameters", max_bandwidth=0)
            qmp("migrate", uri=f"exec:cat >{inside}")
            state = qmp.poll("query-migrate", lambda state: state["status"] in ("completed", "failed"))
        if state["status"] != "completed":
            raise LabError(f"guest {guest.name} cannot be saved: {state}")
        guest.quit()
        shutil.move(host.path(inside), self._directory / "state")
        for number, disk in enumerate(guest.disks):
            image.copy(host.path(disk.path), self._directory / f"disk{number}")

    def start(self, host):
        """The guest goes on in HOST, where it stood when it was saved; nowhere else may it run. Its disks there are written over."""
        guest = self.guest
        inside = f"{guest.directory}/saved"
        for number, disk in enumerate(guest.disks):
            image.copy(self._directory / f"disk{number}", host.path(disk.path))
        guest.start(host, incoming="defer")
        guest.attach(host)
        shutil.copyfile(self._directory / "state", host.path(inside))
        with guest.qmp() as qmp:
            qmp("migrate-incoming", uri=f"exec:cat {inside}")
            qmp.poll("query-status", lambda status: status["status"] != "inmigrate")
            qmp("cont")
        host.path(inside).unlink()

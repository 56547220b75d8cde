"""A small blocking QMP client for tests. QEMU serves one client at a time on a socket: close it."""

import json
import os
import socket
import time

from .errors import LabError


def unix_connect(path, timeout):
    """Connects to a unix socket whose path may be longer than the 107 bytes that connect takes."""
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from None
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(timeout)
    try:
        link.connect(f"/proc/self/fd/{directory}/{path.name}")
    except OSError as error:
        link.close()
        raise LabError(f"{path}: {error.strerror or error}") from None
    finally:
        os.close(directory)
    return link


class QmpError(LabError):
    """QEMU answered with an error."""


class Qmp:
    """PATH: pathlib path of the socket as seen from here. Commands are methods by way of call:
    qmp("block-job-cancel", device="d0"); underscores in argument names become dashes."""

    def __init__(self, path, timeout=30):
        self._socket = unix_connect(path, timeout)
        self._lines = self._socket.makefile("rb")
        self.events = []  # all that came so far, as QEMU sent them
        # QEMU answers whoever is connected when a command is through: not all that comes is for us.
        self._id = f"lab-{os.getpid()}-{time.monotonic_ns()}"
        try:
            self._receive()
            self("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._lines.close()
        self._socket.close()

    def _receive(self):
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise LabError("QEMU does not answer on QMP") from None
        except ConnectionError as error:
            raise LabError(f"QMP: {error.strerror}") from None
        if not line:
            raise LabError("QEMU closed its QMP socket")
        return json.loads(line)

    def __call__(self, command, **arguments):
        message = {"execute": command, "id": self._id}
        if arguments:
            dashed = {name.replace("_", "-"): value for name, value in arguments.items()}
            message["arguments"] = dashed
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._receive()
            if "event" in answer:
                self.events.append(answer)
            elif answer.get("id") != self._id:
                continue
            elif "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def poll(self, command, good, timeout=30, interval=0.02, **arguments):
        """Repeats COMMAND until good(answer), and returns that answer."""
        limit = time.monotonic() + timeout
        while True:
            answer = self(command, **arguments)
            if good(answer):
                return answer
            if time.monotonic() > limit:
                raise LabError(f"{command} after {timeout} s still answers {answer}")
            time.sleep(interval)

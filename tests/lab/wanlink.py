"""A far link between the two hosts in place of a cable: bench/wanlink and its control socket."""

import json
import os
import pathlib
import socket
import subprocess
import time

from .errors import LabError

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
READY_S = 10


class Wanlink:
    """Made and ended by Network. The program lies in the build directory: $WATARI_BUILD, else build/ in
    the repository. PATH: of its control socket."""

    def __init__(self, path):
        self._path = str(path)
        self._process = None
        self._control = None

    def start(self, hosts, addresses, device, mtu):
        """DEVICE at both HOSTS, with ADDRESSES. A link without a limit at first."""
        build = pathlib.Path(os.environ.get("WATARI_BUILD", REPOSITORY / "build"))
        argv = [build / "bench/wanlink", "--control", self._path, "--device", device, "--mtu", str(mtu)]
        argv += [f"{host.name}=/proc/{host.init_pid}/ns/net,{address}/24" for host, address in zip(hosts, addresses)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limit = time.monotonic() + READY_S
        while True:
            try:
                self._control.connect(self._path)
                return
            except OSError as error:
                if self._process.poll() is not None:
                    raise LabError(self._process.stderr.read().strip()) from None
                if time.monotonic() > limit:
                    raise LabError(f"wanlink does not answer: {error}") from None
            time.sleep(0.01)

    def stop(self):
        if self._control:
            self._control.close()
        if self._process:
            self._process.terminate()
            self._process.wait(READY_S)
            self._process.stderr.close()

    def set(self, words, host=None):
        """Settings of what leaves HOST, or both, from now on: "delay=25ms loss=0.5% rate=100mbit"."""
        answer = self._ask(f"set {host.name} {words}" if host else f"set {words}")
        if answer != "ok":
            raise LabError(f"wanlink: {words}: {answer}")

    def show(self):
        """Counters of what left each host: packets, bytes, lost, dropped, delivered, delivered_bytes."""
        return json.loads(self._ask("show"))

    def cpu_s(self):
        """Seconds of the processor's time that it has taken."""
        fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _ask(self, command):
        self._control.send(command.encode())
        return self._control.recv(4096).decode()

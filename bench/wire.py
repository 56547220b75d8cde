"""A wire between two ends on this machine, for benchmarks that need no whole hosts. Needs root."""

import ctypes
import os
import socket
import subprocess
import threading

CLONE_NEWNET = 0x40000000


class Wire:
    """Two network namespaces joined by a wire of RATE (None: as fast as it goes), each direction for
    itself, as in tests/lab: a queue of 50 ms at its slow end."""

    ADDRESSES = ("10.79.0.1", "10.79.0.2")

    def __init__(self, rate):
        self._names = [f"watari-bench-{os.getpid()}-{end}" for end in "ab"]
        self._rate = rate

    def __enter__(self):
        try:
            for name in self._names:
                self._run(f"ip netns add {name}")
            first, second = self._names
            self._run(f"ip link add wire netns {first} type veth peer name wire netns {second}")
            for address, name in zip(self.ADDRESSES, self._names):
                self._run(f"ip -n {name} address add {address}/24 dev wire")
                self._run(f"ip -n {name} link set wire up")
                if self._rate is not None:
                    shape = f"tbf rate {self._rate} burst 128kb latency 50ms"
                    self._run(f"tc -n {name} qdisc add dev wire root {shape}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    @staticmethod
    def _run(command):
        subprocess.run(command.split(), check=True)

    def _inside(self, end, function):
        """FUNCTION's result, called by a thread that lives in that namespace."""
        result, failures = [], []

        def enter():
            try:
                with open(f"/run/netns/{self._names[end]}", "rb") as place:
                    if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                result.append(function())
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return result[0]

    def command(self, end, *words):
        """WORDS as a command that runs at that end: 0 or 1. Its process is the command's own."""
        return ["ip", "netns", "exec", self._names[end], *words]

    def connect(self, address):
        """A connection from end 0."""
        return self._inside(0, lambda: socket.create_connection(address))

    def carried(self):
        """Bytes that went over it till now, both ways, with the headers of Ethernet, IP and TCP."""

        def read():
            with open("/proc/thread-self/net/dev", encoding="ascii") as file:
                return next(line.split() for line in file if line.split()[0] == "wire:")

        fields = self._inside(0, read)
        return int(fields[1]) + int(fields[9])

    def pair(self):
        """Both ends of a TCP connection over the wire, as mover_lab.tcp_pair makes them."""
        listener = self._inside(1, lambda: socket.create_server((self.ADDRESSES[1], 0)))
        with listener:
            address = listener.getsockname()
            near = self._inside(0, lambda: socket.create_connection(address))
            far, _ = listener.accept()
        near.setblocking(False)
        far.setblocking(False)
        return near, far

"""The networks of a lab.

wire: a veth pair between the two hosts, 10.77.0.1 and 10.77.0.2, which is measured, slowed and cut.
With WAN it is a far link (bench/wanlink) instead: the same names and addresses, TUN devices at its ends.
guests: a bridge br0 in each host with a tap for each VM, both joined by a third namespace,
"outside", 10.78.0.1, from where guests are probed wherever they run. Nothing of it goes over the
wire.
"""

import re
import subprocess

from .errors import LabError
from .wanlink import Wanlink

WIRE = "wire"
WIRE_ADDRESSES = ("10.77.0.1", "10.77.0.2")
OUTSIDE_ADDRESS = "10.78.0.1"
NOBODY = "02:00:00:00:00:01"
RATE = re.compile(r"(\d+(?:\.\d+)?)([kmg]?)bit")
# A few of the 64 KiB packets that a veth carries; less would throttle the link by itself.
MINIMUM_BURST = 128 << 10
# Of the internet. A far link of more than some 200 Mbit/s costs less CPU with larger packets.
WAN_MTU = 1500


class Network:
    """HOSTS: the two; OUTSIDE: the third. WAN: settings of a far link, as "delay=25ms rate=100mbit", or
    None for a veth pair. One object, used by one thread."""

    def __init__(self, hosts, outside, wan=None):
        self._hosts = tuple(hosts)
        self._outside = outside
        self._wan_settings = wan
        self.wanlink = None

    def build(self, workdir, mtu=WAN_MTU):
        """WORKDIR: where a far link has its control socket. MTU: of a far link."""
        first, second = self._hosts
        # Run outside of all hosts, where their pids have a meaning, but nothing is made here.
        if self._wan_settings is None:
            self._outside_of_all(first, WIRE, second, WIRE)
        for host, address in zip(self._hosts, WIRE_ADDRESSES):
            self._outside_of_all(host, "uplink", self._outside, host.name)
            self._ip(host, "link set lo up", *_bridge("uplink"))
            if self._wan_settings is None:
                self._ip(
                    host,
                    f"link set {WIRE} addrgenmode none",
                    f"address add {address}/24 dev {WIRE}",
                    f"link set {WIRE} up",
                )
        if self._wan_settings is not None:
            self.wanlink = Wanlink(workdir / "wanlink.sock")
            self.wanlink.start(self._hosts, WIRE_ADDRESSES, WIRE, mtu)
            self.wanlink.set(self._wan_settings)
        self._ip(
            self._outside,
            "link set lo up",
            *_bridge(*(host.name for host in self._hosts)),
            f"address add {OUTSIDE_ADDRESS}/24 dev br0",
        )

    def end(self):
        """The far link ends. All else of a network goes with the hosts."""
        if self.wanlink:
            self.wanlink.stop()

    def _outside_of_all(self, host, name, peer, peer_name):
        argv = f"ip link add name {name} netns {host.init_pid} type veth".split()
        argv += f"peer name {peer_name} netns {peer.init_pid}".split()
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise LabError(f"cannot join {host.name} and {peer.name}: {result.stderr.strip()}")

    @staticmethod
    def _ip(host, *commands):
        host.run(["ip", "-batch", "-"], stdin_text="".join(f"{line}\n" for line in commands))

    def address(self, host):
        """The host's address on the wire."""
        return WIRE_ADDRESSES[self._hosts.index(host)]

    def add_tap(self, name):
        """A tap of that name on both hosts' bridges, so that one command line serves at both."""
        for host in self._hosts:
            self._ip(
                host,
                f"tuntap add dev {name} mode tap",
                f"link set {name} addrgenmode none",
                f"link set {name} master br0 up",
            )

    def set_rate(self, rate):
        """Limits the wire, each direction for itself: "100mbit"; None takes the limit away."""
        if self.wanlink:
            self.wanlink.set(f"rate={rate or 'none'}")
            return
        for host in self._hosts:
            host.run(["tc", "qdisc", "del", "dev", WIRE, "root"], check=False)
            if rate is not None:
                burst = max(MINIMUM_BURST, bits_per_second(rate) // 8 // 200)
                shape = f"rate {rate} burst {burst} latency 50ms".split()
                host.run(["tc", "qdisc", "replace", "dev", WIRE, "root", "tbf", *shape])

    def sent(self, host):
        """Bytes that HOST has put on the wire since it was built, frames and all."""
        with open(f"/proc/{host.init_pid}/net/dev", encoding="ascii") as lines:
            for line in lines:
                name, _, counters = line.partition(":")
                if name.strip() == WIRE:
                    return int(counters.split()[8])
        raise LabError(f"{host.name} has no {WIRE}")

    def wire_bytes(self):
        """Bytes that went over the wire in both directions."""
        return sum(self.sent(host) for host in self._hosts)

    def cut(self):
        """Unplugs the wire, which both hosts notice."""
        self._ip(self._hosts[0], f"link set {WIRE} down")

    def lose_from(self, host):
        """What HOST sends is lost from now on, and nobody notices. The other direction works."""
        if self.wanlink:
            self.wanlink.set("loss=100%", host)
            return
        other = self._hosts[1 - self._hosts.index(host)]
        wrong = f"{self.address(other)} lladdr {NOBODY} dev {WIRE} nud permanent"
        self._ip(host, f"neighbour replace {wrong}")

    def mend(self):
        """Undoes cut and lose_from. A far link is as it was built."""
        if self.wanlink:
            self.wanlink.set(f"loss=0% {self._wan_settings}")
        for host, other in (self._hosts, self._hosts[::-1]):
            self._ip(host, f"link set {WIRE} up")
            if not self.wanlink:
                host.run(["ip", "neighbour", "del", self.address(other), "dev", WIRE], check=False)


def bits_per_second(rate):
    match = RATE.fullmatch(rate)
    if not match:
        raise LabError(f"rate {rate!r} is none: write 100mbit, 2.5gbit or the like")
    return int(float(match[1]) * 1000 ** " kmg".index(match[2] or " "))


def _bridge(*ports):
    return (
        "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "link set br0 addrgenmode none",
        "link set br0 up",
        *(f"link set {port} addrgenmode none" for port in ports),
        *(f"link set {port} master br0 up" for port in ports),
    )

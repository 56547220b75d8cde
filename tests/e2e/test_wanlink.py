#!/usr/bin/python3
"""bench/wanlink does what it says: before anything is concluded from what goes over it. What is compared are the link's own figures with
each other, never with how fast the machine is.

    test_wanlink.py [NAME...]     tests by name; wanlink is in $WATARI_BUILD/bench
"""

import json
import statistics
import sys
import time

from harness import check, equal, run, test

from lab import Lab, LabError

PORT = 5000
# Answers each datagram.
ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.77.0.2", {PORT}))
print("ready", flush=True)
while True:
    s.sendto(*s.recvfrom(2000))
"""
# Sends COUNT numbered datagrams, PAUSE seconds apart; prints the numbers that came back and the round trips, in ms.
PROBE = f"""
import json, select, socket, sys, time
count, pause = int(sys.argv[1]), float(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
s.connect(("10.77.0.2", {PORT}))
sent, numbers, trips = [], [], []
def take(seconds):
    while select.select([s], [], [], seconds)[0]:
        number = int(s.recv(2000).split()[0])
        numbers.append(number)
        trips.append((time.monotonic() - sent[number]) * 1000)
for number in range(count):
    sent.append(time.monotonic())
    s.send(b"%d " % number + bytes(100))
    take(0)
    time.sleep(pause)
take(0.5)
print(json.dumps([numbers, trips]))
"""
# Takes one connection's bytes to their end and prints how many there were, and in which time.
SINK = f"""
import json, socket, time
with socket.create_server(("10.77.0.2", {PORT})) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    began, total = time.monotonic(), 0
    while part := connection.recv(1 << 20):
        total += len(part)
    print(json.dumps([total, time.monotonic() - began]))
"""
SEND = f"""
import socket, sys
with socket.create_connection(("10.77.0.2", {PORT})) as s:
    s.sendall(bytes(int(sys.argv[1])))
"""


def python(host, script, *words, **options):
    return host.popen(["/usr/bin/python3", "-c", script, *map(str, words)], **options)


class World:
    def __init__(self, lab):
        self.lab = lab
        self.wan = lab.network.wanlink

    def reset(self):
        self.wan.set("delay=0ms jitter=0ms loss=0% reorder=0% rate=none queue=50ms")

    def probe(self, count, pause):
        """(numbers in the order of their answers, round trips in ms)"""
        echo = python(self.lab.east, ECHO, stdout=-1, text=True)
        try:
            equal(echo.stdout.readline(), "ready\n", "the echo")
            done = self.lab.west.run(["/usr/bin/python3", "-c", PROBE, str(count), str(pause)])
            return json.loads(done.stdout)
        finally:
            echo.kill()
            echo.wait()
            echo.stdout.close()

    def trip(self):
        return statistics.median(self.probe(15, 0.01)[1])

    def rate(self, size, middle=None):
        """Bytes a second at which SIZE bytes of TCP came through; MIDDLE is called while they do."""
        sink = python(self.lab.east, SINK, stdout=-1, text=True)
        try:
            equal(sink.stdout.readline(), "ready\n", "the sink")
            sender = python(self.lab.west, SEND, size)
            if middle:
                middle()
            sender.wait(30)
            total, seconds = json.loads(sink.stdout.readline())
        finally:
            sink.kill()
            sink.wait()
            sink.stdout.close()
        equal(total, size, "bytes that came through")
        return total / seconds


@test
def each_packet_is_on_its_way_for_the_delay(world):
    bare = world.trip()
    world.wan.set("delay=30ms")
    near = world.trip()
    world.wan.set("delay=90ms")
    far = world.trip()
    check(near >= 60 and far >= 180, f"faster than the link: {near} and {far} ms")
    # What the machine adds is in all three.
    check(2 < (far - bare) / (near - bare) < 4, f"{bare}, {near}, {far} ms of a round trip for 0, 30, 90 of delay")


@test
def each_direction_for_itself(world):
    world.wan.set("delay=60ms", world.lab.west)
    one = world.trip()
    world.wan.set("delay=60ms", world.lab.east)
    both = world.trip()
    check(60 <= one < both and both >= 120, f"{one} ms with delay one way, {both} with both")


@test
def as_many_are_lost_as_was_said(world):
    numbers, _ = world.probe(500, 0.0005)
    equal(sorted(numbers), list(range(500)), "answers over a link that loses nothing")
    before = world.wan.show()["west"]
    world.wan.set("loss=20%", world.lab.west)
    numbers, _ = world.probe(2000, 0.0005)
    after = world.wan.show()["west"]
    lost = after["lost"] - before["lost"]
    # The kernel sends a packet of its own now and then (neighbours, multicast groups), which may be lost as well.
    check(0 <= lost - (2000 - len(numbers)) <= 5, f"{2000 - len(numbers)} answers did not come, and the link says it lost {lost}")
    check(0.16 < lost / 2000 < 0.24, f"{lost} of 2000 lost at 20 %")
    equal(after["dropped"], before["dropped"], "dropped packets")


@test
def jitter_keeps_the_order_and_reordering_does_not(world):
    world.wan.set("delay=20ms jitter=10ms")
    numbers, trips = world.probe(300, 0.002)
    equal(numbers, list(range(300)), "the order of answers with jitter")
    check(max(trips) - min(trips) > 8, f"round trips of {min(trips)} to {max(trips)} ms with 10 ms of jitter each way")
    world.wan.set("jitter=0ms reorder=10%", world.lab.west)
    numbers, _ = world.probe(500, 0.0005)
    equal(sorted(numbers), list(range(500)), "answers, in any order")
    late = sum(one > other for one, other in zip(numbers, numbers[1:]))
    check(10 < late < 250, f"{late} of 500 answers after a later one, at 10 %")


@test
def no_faster_than_the_rate(world):
    world.wan.set("delay=5ms rate=16mbit")
    slow = world.rate(4_000_000)
    world.wan.set("rate=64mbit")
    fast = world.rate(16_000_000)
    check(slow * 8 < 16e6 and fast * 8 < 64e6, f"faster than the link: {slow} and {fast} bytes/s")
    check(2 < fast / slow < 6, f"{slow} and {fast} bytes/s at rates of 1 to 4")


@test
def changes_while_it_carries(world):
    world.wan.set("delay=5ms rate=8mbit")

    def widen():
        time.sleep(0.5)
        world.wan.set("rate=80mbit")

    # At 8 Mbit/s all of it would take 8 s.
    check(world.rate(8_000_000, widen) * 8 > 16e6, "the rate was not changed under way")


@test
def what_the_queue_does_not_hold_is_dropped(world):
    before = world.wan.show()["west"]
    # 500 datagrams of 130 bytes at once: half a second of this rate.
    world.wan.set("rate=1mbit queue=100ms", world.lab.west)
    numbers, trips = world.probe(500, 0)
    after = world.wan.show()["west"]
    dropped = after["dropped"] - before["dropped"]
    check(0 <= dropped - (500 - len(numbers)) <= 5,
          f"{500 - len(numbers)} answers did not come, and the link says it dropped {dropped}")
    check(200 < dropped < 490, f"{dropped} of 500 dropped")
    check(max(trips) > 80, f"no packet waited longer than {max(trips)} ms")


@test
def what_makes_no_sense_is_refused_and_changes_nothing(world):
    world.wan.set("delay=40ms")
    for words, part in (
        ("delay=0ms loss=150%", '"150%" is not a share'),
        ("delay=0ms rate=fast", '"fast"'),
        ("delay=10", '"10" has no unit'),
        ("delay=0ms colour=red", 'there is no "colour"'),
        ("delay", '"delay" is not KEY=VALUE'),
    ):
        try:
            world.wan.set(words)
        except LabError as error:
            check(part in str(error), f"{words}: {error}")
        else:
            raise AssertionError(f"{words} was taken")
    check(world.trip() >= 80, "a refused command changed the delay")


def main():
    with Lab(wan="delay=0ms") as lab:
        passed, failed = run(World(lab), before_each=World.reset)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

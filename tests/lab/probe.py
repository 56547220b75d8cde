#!/usr/bin/python3
"""Watches a guest from outside: asks its echo port all the time, and tells how long it kept silent.

As a module: `with Probe(lab.outside, guest.address) as probe: ...; report = probe.stop()`.
As a program, in the namespace from where it looks: probe.py ADDRESS, until standard input ends; the
report is then one JSON object on standard output.
"""

import dataclasses
import json
import pathlib
import select
import socket
import struct
import subprocess
import sys
import time

PORT = 7
INTERVAL = 0.005
# What is under way when the probe ends may still come back.
LAST_WAIT = 0.5
QUESTION = struct.Struct("!Q")
ANSWER = struct.Struct("!QQQ")


@dataclasses.dataclass
class Report:
    """GAP_MS: the longest time without an answer, and GAP_AT_S when it began, after the first
    question. PAUSE_GAP_MS: that around the moment when the guest's clock stood still longest, which is
    when it was paused, if it was: other silences are hosts that are busy. ANSWERED and LOST count questions. COPIES: sentences, each a proof that two copies of
    the guest ran at a time, or that one went back in time; none is as it should be. SKIPPED:
    answers that the guest counted and nobody got. STALL_MS: the longest time the probe itself did
    not come to ask; a gap is not the guest's fault when this is as long."""

    gap_ms: float = 0.0
    gap_at_s: float = 0.0
    pause_gap_ms: float = 0.0
    sent: int = 0
    answered: int = 0
    lost: int = 0
    skipped: int = 0
    stall_ms: float = 0.0
    copies: list = dataclasses.field(default_factory=list)


class Judge:
    """Takes the answers one by one, in the order they came."""

    def __init__(self):
        self.report = Report()
        self._questions = set()
        self._counter = None
        self._clock = None
        self._stood_still = 0.0  # ms, of the guest's clock, the longest
        self._start = self._last = None

    def answer(self, now, question, counter, clock):
        report = self.report
        if question in self._questions:
            report.copies.append(f"question {question} was answered twice")
        elif self._counter is not None and counter <= self._counter:
            report.copies.append(f"answer {counter} came after answer {self._counter}")
        elif self._clock is not None and clock < self._clock:
            report.copies.append(f"the guest's clock went back by {self._clock - clock} ns")
        elif self._counter is not None:
            report.skipped += counter - self._counter - 1
        if self._clock is not None:
            self._pause(now, clock)
        self._questions.add(question)
        self._counter = counter
        self._clock = clock
        self._gap(now)

    @property
    def answered(self):
        """Questions that have their answer."""
        return len(self._questions)

    def _pause(self, now, clock):
        gap = (now - self._last) * 1000
        stood_still = gap - (clock - self._clock) / 1e6
        if stood_still > self._stood_still:
            self._stood_still = stood_still
            self.report.pause_gap_ms = gap

    def _gap(self, now):
        if self._start is None:
            self._start = self._last = now
        gap = (now - self._last) * 1000
        if gap > self.report.gap_ms:
            self.report.gap_ms = gap
            self.report.gap_at_s = self._last - self._start
        self._last = now

    def finish(self, sent, now):
        """The silence at the end counts: a guest that never comes back has no short downtime."""
        if self._last is not None:
            self._gap(now)
        self.report.sent = sent
        self.report.answered = self.answered
        self.report.lost = sent - self.report.answered
        return self.report


def watch(address, ended):
    """Asks until ENDED(link, seconds), which waits so long for an answer, is true."""
    judge = Judge()
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setblocking(False)
        link.connect((address, PORT))
        due = time.monotonic()
        while not ended(link, max(0.0, due - time.monotonic())):
            _take(link, judge)
            now = time.monotonic()
            if now >= due:
                judge.report.stall_ms = max(judge.report.stall_ms, (now - due) * 1000)
                _ask(link, sent)
                sent += 1
                due = max(due + INTERVAL, now)
        stopped = time.monotonic()
        while judge.answered < sent and time.monotonic() < stopped + LAST_WAIT:
            time.sleep(INTERVAL)
            _take(link, judge)
    return judge.finish(sent, stopped)


def _ask(link, number):
    try:
        link.send(QUESTION.pack(number))
    except OSError:
        pass  # no such neighbour for the moment: the question is lost, and counted so


def _take(link, judge):
    while True:
        try:
            datagram = link.recv(2048)
        except OSError:
            return
        if len(datagram) == ANSWER.size:
            judge.answer(time.monotonic(), *ANSWER.unpack(datagram))


class Probe:
    """Runs this program in HOST until stop()."""

    def __init__(self, host, address):
        self._process = host.popen(
            ["/usr/bin/python3", "-S", "-E", "-B", pathlib.Path(__file__).resolve(), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def stop(self):
        """Ends it and returns its Report."""
        out, _ = self._process.communicate(timeout=20)
        return Report(**json.loads(out))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)

    def ended(link, wait):
        readable, _, _ = select.select([sys.stdin, link], [], [], wait)
        return sys.stdin in readable

    print(json.dumps(dataclasses.asdict(watch(sys.argv[1], ended))))


if __name__ == "__main__":
    main()

"""watarid in both hosts of a lab, trusting each other, and the watari client to ask them.

    with Lab() as lab, Agents(lab, build) as agents:
        outcome = agents.migrate(guest, "--mode", "quick")
"""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time

from .errors import LabError

STATE = "/var/lib/watari"
RUN = "/run/watari"
CONTROL = f"{RUN}/control.sock"
CONFIG = "/etc/watari/watarid.conf"
LOG = "/var/tmp/watarid.log"
POOL = "/srv/watari/pool"
OTHER_POOL = "/srv/watari/other"


class Outcome:
    """One call of `watari migrate --json`: its exit code, its events, the last of them."""

    def __init__(self, code, events, stderr):
        self.code = code
        self.events = events
        self.stderr = stderr

    @property
    def result(self):
        if not self.events or self.events[-1].get("event") != "result":
            raise LabError(f"no result; exit {self.code}: {self.stderr.strip()}")
        return self.events[-1]

    @property
    def error(self):
        """(id, text) of what went wrong: from the result, or from a refusal before there was a migration."""
        for event in reversed(self.events):
            if event.get("error"):
                return event["error"]["id"], event["error"]["text"]
        return None, self.stderr

    def __repr__(self):
        return f"exit {self.code}, {self.error if self.code else self.result['result']}"


class Agents:
    """BUILD holds the three programs. Each host has a pool at POOL and a second one at OTHER_POOL."""

    def __init__(self, lab, build):
        self.lab = lab
        self.build = pathlib.Path(build).resolve()
        self._daemons = {}
        self._logs = []

    def __enter__(self):
        for host in self.lab.hosts:
            self._prepare(host)
            self.start(host)
        for host in self.lab.hosts:
            other = self.lab.other(host)
            self.ask(host, "trust", "add", other.name, self.lab.network.address(other), self.fingerprint(other))
        return self

    def __exit__(self, *_):
        for host in self.lab.hosts:
            daemon = self._daemons.pop(host.name, None)
            if daemon and daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(30)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        for log in self._logs:
            log.close()

    def _prepare(self, host):
        for directory in (STATE, RUN):
            host.path(directory).chmod(0o700)
        for directory in (POOL, OTHER_POOL):
            host.path(directory).mkdir(parents=True, exist_ok=True)
        host.write(
            CONFIG,
            f"[watarid]\nhost-name = {host.name}\n"
            f"[pools]\nfast = {POOL}\nother = {OTHER_POOL}\n"
            "[launch]\nallow-path = /srv/watari/boot\n",
        )

    def start(self, host):
        """Starts the daemon of HOST (again) and waits until it answers."""
        log = open(host.path(LOG), "ab")
        self._logs.append(log)
        host.path(CONTROL).unlink(missing_ok=True)
        self._daemons[host.name] = host.popen([self.build / "watarid"], stdout=log, stderr=log)
        host.wait_for_file(CONTROL, 40)

    def log(self, host):
        return host.read(LOG)

    def daemon(self, host):
        return self._daemons[host.name]

    def kill(self, host):
        """kill -9 of the daemon."""
        daemon = self._daemons[host.name]
        daemon.kill()
        daemon.wait()

    def client(self, host, *words, **options):
        """A running `watari --json WORDS` in HOST."""
        return host.popen(
            [self.build / "watari", "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def ask(self, host, *words, code=0, timeout=60):
        """Runs a subcommand to its end and returns its last line as an object (None when it prints none)."""
        done = host.run([self.build / "watari", "--json", *words], check=False, timeout=timeout)
        if done.returncode != code:
            raise LabError(f"{host.name}: watari {' '.join(map(str, words))}: exit {done.returncode}: {done.stderr}{done.stdout}")
        lines = done.stdout.splitlines()
        return json.loads(lines[-1]) if lines else None

    def fingerprint(self, host):
        return self.ask(host, "id")["fingerprint"]

    def start_migration(self, guest, *words, at=None):
        """Begins to move GUEST to the other host; AT: {phase: function}, called when that phase begins."""
        return Running(self, guest.host, self.lab.other(guest.host), guest, words, at or {})

    def migrate(self, guest, *words, at=None, timeout=240):
        """Moves GUEST to the other host and returns the Outcome; when it was done, the guest is attached there."""
        return self.start_migration(guest, *words, at=at).wait(timeout)


class Running:
    """A migration under way, its events read by a thread of its own."""

    def __init__(self, agents, source, destination, guest, words, at):
        self.source, self.destination, self.guest = source, destination, guest
        self.events = []
        self._at = dict(at)
        self._failure = None
        self._client = agents.client(source, "migrate", guest.name, "--to", destination.name, *words)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def id(self):
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            for event in list(self.events):
                if "id" in event:
                    return event["id"]
            time.sleep(0.01)
        raise LabError("the migration has said nothing")

    def ended(self):
        return not self._reader.is_alive()

    def interrupt(self):
        """Ctrl-C."""
        self._client.send_signal(signal.SIGINT)

    def _read(self):
        try:
            for line in self._client.stdout:
                event = json.loads(line)
                self.events.append(event)
                action = self._at.pop(event.get("phase"), None) if event.get("event") == "phase" else None
                if action:
                    action()
        except Exception as error:  # pylint: disable=broad-except  # told by wait()
            self._failure = error

    def wait(self, timeout=240):
        self._reader.join(timeout)
        if self._reader.is_alive():
            self._client.kill()
            raise LabError(f"the migration of {self.guest.name} does not end within {timeout} s: {self.events[-2:]}")
        if self._failure:
            self._client.kill()
            raise self._failure
        stderr = self._client.stderr.read()
        outcome = Outcome(self._client.wait(timeout), self.events, stderr)
        if outcome.code == 0 and outcome.events and outcome.events[-1].get("result") == "done":
            where = outcome.result["where"]
            directory = os.path.dirname(where["qmp"])
            self.guest.attach(self.destination, where["qmp"], f"{directory}/serial.sock")
        return outcome

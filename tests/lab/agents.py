"""watarid in both hosts of a lab, trusting each other, and the watari client to ask them.

    with Lab() as lab, Agents(lab, build) as agents:
        outcome = agents.migrate(guest, "--mode", "quick")

In a host nothing supervises watarid, so that it is two processes: the guardian, which was started, and its child, the daemon proper.
"""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time

from .errors import LabError
from .host import parent_of, state_of

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
            daemon = self._daemons.get(host.name)
            if daemon and daemon.poll() is None:
                self.thaw(host)
                daemon.terminate()
                try:
                    daemon.wait(30)
                except subprocess.TimeoutExpired:
                    self.kill(host)
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

    def start(self, host, pause_at=()):
        """Starts the daemon of HOST (again) and waits until it answers. PAUSE_AT: the points (agent/common/pause_point.h) where it stops
        for paused(), each once in the life of a daemon."""
        environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        environment["WATARI_PAUSE_AT"] = ",".join(pause_at)
        log = open(host.path(LOG), "ab")
        self._logs.append(log)
        host.path(CONTROL).unlink(missing_ok=True)
        self._daemons[host.name] = host.popen([self.build / "watarid"], stdout=log, stderr=log, env=environment)
        self.wait_for(host)

    def wait_for(self, host):
        """Until the daemon of HOST, just started or started again by its guardian, answers."""
        host.wait_for_file(CONTROL, 40)

    def log(self, host):
        return host.read(LOG)

    def daemon(self, host):
        """The process that was started: the guardian. SIGTERM ends both, and its exit code is the daemon's."""
        return self._daemons[host.name]

    def daemon_pid(self, host):
        """Pid, as seen from outside, of the daemon proper, or None when it is dead at the moment."""
        guardian = self._daemons[host.name].inner_pid
        return next((pid for pid in host.find("watarid") if parent_of(pid) == guardian), None)

    def kill(self, host):
        """kill -9 of watarid, until it is started again: the guardian first, who would do that."""
        guardian = self._daemons[host.name]
        guardian.kill()
        guardian.wait()
        host.end(host.find("watarid"))

    def kill_daemon_only(self, host):
        """kill -9 of the daemon proper: its guardian starts it again (wait_for). Nothing when it is dead at the moment."""
        pid = self.daemon_pid(host)
        if pid:
            host.path(CONTROL).unlink(missing_ok=True)
            host.end([pid])

    def freeze(self, host):
        """SIGSTOP of the daemon proper: it does nothing, and what is sent to it waits in its sockets."""
        host.signal(self.daemon_pid(host), signal.SIGSTOP)

    def thaw(self, host):
        """SIGCONT, after freeze() or at a pause point."""
        pid = self.daemon_pid(host)
        if pid:
            host.signal(pid, signal.SIGCONT)

    def paused(self, host):
        """Whether the daemon of HOST has been stopped: has reached its pause point."""
        pid = self.daemon_pid(host)
        return pid is not None and state_of(pid) == "T"

    def reboot(self, host):
        """HOST loses its power: watarid, movers, QEMUs and all else end at once. Nothing is started again."""
        host.reboot()
        self._daemons[host.name].wait()
        host.path(RUN).chmod(0o700)

    def may_start(self, host, what):
        """(may, why) as `watari may-start` answers in HOST, for a VM's name or the path of a disk."""
        done = host.run([self.build / "watari", "may-start", what, "--state-dir", STATE], check=False)
        return done.returncode == 0, (done.stdout + done.stderr).strip()

    def autostart(self, host, guest):
        """What a unit of the VM with `ExecStartPre=watari may-start` does when HOST has booted: starts it from the disks of that host, if
        it may. Returns whether it did."""
        may, _ = self.may_start(host, guest.name)
        if may:
            guest.start(host)
            guest.wait_ready()
        return may

    def running_in(self, guest):
        """The host that runs GUEST, or None. That two do is an error."""
        found = [host for host in self.lab.hosts if guest.runs_in(host)]
        if len(found) > 1:
            raise LabError(f"guest {guest.name} runs at both hosts")
        return found[0] if found else None

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

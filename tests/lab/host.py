"""One host of the lab: processes in namespaces of their own, with files and clocks of their own.

What a host sees: the machine's file system, read-only, except for /etc, /run, /srv, /tmp, /var/lib
and /var/tmp, which are its own and which no other host sees. Its monotonic and boot clocks are
ahead of the machine's by some hundred seconds. Everything in it ends when the Lab that made it
does.
"""

import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import time
import uuid

from .errors import LabError

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
# No site packages, for these start often, and no bytecode files in a tree that is not theirs.
SCRIPT = (PYTHON, "-S", "-E", "-B")
PRIVATE = ("/etc", "/run", "/srv", "/tmp", "/var/lib", "/var/tmp")
MADE_IN_ADVANCE = (
    "/etc/watari",
    "/run/lock",
    "/run/vms",
    "/run/watari",
    "/srv/watari",
    "/var/lib/watari",
)
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# What lies over it in a host that was rebooted.
NEW_BOOT_ID = "/var/tmp/boot_id"


class Process(subprocess.Popen):
    """A program in a host. Signals reach the program itself, not the process that waits for it."""

    def __init__(self, host, argv, cwd, **options):
        read_end, write_end = os.pipe()
        try:
            # A session of its own: Ctrl-C is for the one who runs the lab, and it ends the host.
            super().__init__(
                host.enter_argv(argv, cwd, "attached", write_end),
                pass_fds=(*options.pop("pass_fds", ()), write_end),
                start_new_session=options.pop("start_new_session", True),
                **options,
            )
        finally:
            os.close(write_end)
        with os.fdopen(read_end) as report:
            pid = report.read()
        self.inner_pid = int(pid) if pid else None
        try:
            self._pidfd = os.pidfd_open(self.inner_pid) if pid else None
        except ProcessLookupError:
            self._pidfd = None

    def send_signal(self, sig):
        if self.poll() is not None or self._pidfd is None:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, sig)
        except ProcessLookupError:
            pass

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=None):
        code = super().wait(timeout)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        return code


class Host:
    """Made and ended by Lab. NAME is its host name; DIRECTORY holds its files; HIDDEN and VISIBLE
    are directories that it sees empty, and that it sees wherever they are."""

    def __init__(self, name, directory, clock_offset, hidden=(), visible=()):
        self.name = name
        self.directory = pathlib.Path(directory)
        self.clock_offset = clock_offset
        self._specification = {
            "name": name,
            "clock_offset": clock_offset,
            "private": [[str(self.path(point)), point] for point in PRIVATE],
            "hidden": [str(path) for path in hidden],
            "visible": [str(path) for path in visible],
        }
        self._outer = None
        self._rebooted = False
        self.init_pid = None

    def start(self):
        for point in PRIVATE:
            if point != "/etc":
                self.path(point).mkdir(parents=True)
        shutil.copytree("/etc", self.path("/etc"), symlinks=True, ignore=_unreadable)
        shutil.rmtree(self.path("/etc/watari"), ignore_errors=True)
        for path in MADE_IN_ADVANCE:
            self.path(path).mkdir(parents=True)
        for path in ("/tmp", "/var/tmp"):
            self.path(path).chmod(0o1777)
        self._outer = subprocess.Popen(
            [*SCRIPT, HERE / "host_init.py", json.dumps(self._specification)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        words = self._outer.stdout.read().split()
        if len(words) != 2 or "ready" not in words:
            self.kill_all()
            raise LabError(f"host {self.name} cannot be made: do namespaces work here?")
        self.init_pid = int(next(word for word in words if word != "ready"))

    @property
    def alive(self):
        return self._outer is not None and self._outer.poll() is None

    def kill_all(self):
        """Ends the host: every process in it, its network and its mounts. Its files stay."""
        if self._outer is None:
            return
        self._outer.stdin.close()
        try:
            self._outer.wait(20)
        except subprocess.TimeoutExpired:
            self._outer.kill()
            self._outer.wait()
        self._outer.stdout.close()
        self._outer = None
        self.init_pid = None

    def enter_argv(self, argv, cwd, manner, report):
        if not self.alive:
            raise LabError(f"host {self.name} is not there")
        words = [str(word) for word in argv]
        place = (str(self.init_pid), str(cwd), manner, str(report))
        return [*SCRIPT, HERE / "host_enter.py", *place, *words]

    def nsenter_line(self):
        """The command by which a person enters the host."""
        return f"nsenter --target {self.init_pid} --all --wd=/ bash"

    def popen(self, argv, cwd="/", **options):
        """Starts ARGV in the host and returns it as subprocess.Popen would, with the pid as seen
        from outside in inner_pid. It is killed when the lab's process ends."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return Process(self, argv, cwd, **options)

    def run(self, argv, cwd="/", check=True, timeout=60, stdin_text=None):
        """Runs ARGV in the host to its end; returns subprocess.CompletedProcess with texts."""
        process = self.popen(
            argv,
            cwd,
            text=True,
            stdin=subprocess.DEVNULL if stdin_text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = process.communicate(stdin_text, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise LabError(f"{self.name}: no end within {timeout} s: {_line(argv)}") from None
        except BaseException:
            process.kill()
            process.communicate()
            raise
        if check and process.returncode != 0:
            raise LabError(f"{self.name}: {_line(argv)}: exit {process.returncode}: {err.strip()}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def spawn(self, argv, log):
        """Starts ARGV in the host, as nobody's child: it lives until it ends or the host does. Its
        output goes to the host's file LOG."""
        self.path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(self.path(log), "ab") as output:
            code = subprocess.call(
                self.enter_argv(argv, "/", "detached", -1),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if code != 0:
            raise LabError(f"{self.name}: cannot start {_line(argv)}: {self.path(log).read_text()}")

    def processes(self):
        """{pid as seen from outside: argv} of all that runs in the host but its first process."""
        own = os.readlink(f"/proc/{self.init_pid}/ns/pid")
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == self.init_pid:
                continue
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") == own:
                    words = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")[:-1]
                    found[int(entry)] = [os.fsdecode(word) for word in words]
            except OSError:
                continue  # it ended while we looked
        return found

    def find(self, program):
        """Pids, as seen from outside, of the host's processes whose program has this file name."""
        return [
            pid
            for pid, argv in self.processes().items()
            if argv and os.path.basename(argv[0]) == program
        ]

    def signal(self, pid, number):
        """Sends a signal to a process of this host, named by its pid as seen from outside."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise LabError(f"{self.name}: process {pid} has ended") from None
        try:
            if pid not in self.processes():
                raise LabError(f"{self.name}: process {pid} is none of this host")
            signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

    def end(self, pids, timeout=20):
        """Kills processes of this host, and waits until all their threads are gone."""
        limit = time.monotonic() + timeout
        own = self.processes()
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if pid in own:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                if not select.select([descriptor], [], [], max(0.0, limit - time.monotonic()))[0]:
                    raise LabError(f"{self.name}: process {pid} does not end")
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)

    def reboot(self):
        """As after a loss of power: no process is left, /run is empty, the boot id is another one.
        What a real one does besides is not done: what was not on the disk yet is not lost, and the
        clocks go on."""
        self.end(list(self.processes()))
        for path in self.path("/run").iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in MADE_IN_ADVANCE:
            self.path(path).mkdir(parents=True, exist_ok=True)
        self.write(NEW_BOOT_ID, f"{uuid.uuid4()}\n")
        if not self._rebooted:
            self.run(["mount", "--bind", NEW_BOOT_ID, BOOT_ID])
            self._rebooted = True

    def path(self, inside):
        """Where a file of the host's own lies, seen from outside. INSIDE: its path in the host."""
        inside = os.path.normpath(inside)
        for point in PRIVATE:
            if inside == point or inside.startswith(point + "/"):
                return self.directory / inside[1:]
        raise LabError(f"{inside} is none of host {self.name}'s own files ({', '.join(PRIVATE)})")

    def read(self, inside):
        return self.path(inside).read_text(encoding="utf-8", errors="replace")

    def write(self, inside, text):
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def wait_for_file(self, inside, timeout=10):
        """Until the file is there: a socket, mostly, of a daemon that was just started."""
        limit = time.monotonic() + timeout
        while not self.path(inside).exists():
            if time.monotonic() > limit:
                raise LabError(f"{self.name}: no {inside} within {timeout} s")
            time.sleep(0.02)


def _stat(pid):
    """The fields of /proc/PID/stat behind the name: state, parent, ...; none when it has ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def state_of(pid):
    fields = _stat(pid)
    return fields[0] if fields else None


def parent_of(pid):
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def busy_ticks(pid):
    """CPU time that the process has used, in ticks of the clock (a hundred a second); 0 when it has ended."""
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _line(argv):
    return " ".join(str(word) for word in argv)


def _unreadable(directory, names):
    """For copytree: what is no file, directory or link cannot be copied and is not missed."""
    paths = {name: os.path.join(directory, name) for name in names}
    kinds = (os.path.isfile, os.path.isdir, os.path.islink)
    return [name for name, path in paths.items() if not any(kind(path) for kind in kinds)]

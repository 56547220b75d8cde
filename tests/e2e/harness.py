"""What the end-to-end tests share: a table of tests, checks, and a line for each."""

import os
import pathlib
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from lab import Lab, LabError  # noqa: E402  # the path comes first
from lab.agents import Agents  # noqa: E402

BUILD = pathlib.Path(os.environ.get("WATARI_BUILD", "build")).resolve()
ALL = []
MORE = set()


def test(function):
    """Its name is the behaviour that it proves."""
    ALL.append(function)
    return function


def more(function):
    """As test(), but run only with --all or by name."""
    MORE.add(function)
    return test(function)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def equal(found, wanted, what):
    check(found == wanted, f"{what}: {found!r}, wanted {wanted!r}")


def eventually(condition, text, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(text)
        time.sleep(0.05)


def run(*arguments, before_each=None, after_failure=None):
    """Runs the tests named on the command line, or all (but for those of more() when there is no --all), each called with ARGUMENTS;
    returns (passed, failed)."""
    names = [word for word in sys.argv[1:] if word != "--all"]
    unknown = set(names) - {function.__name__ for function in ALL}
    if unknown:
        sys.exit(f"no such test: {' '.join(sorted(unknown))}")
    passed = failed = 0
    for function in ALL:
        wanted = function.__name__ in names if names else function not in MORE or "--all" in sys.argv
        if not wanted:
            continue
        began = time.monotonic()
        try:
            if before_each:
                before_each(*arguments)
            function(*arguments)
            passed += 1
            print(f"ok   {function.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:  # pylint: disable=broad-except  # the next test shall run
            failed += 1
            print(f"FAIL {function.__name__}: {error}", flush=True)
            if not isinstance(error, (AssertionError, LabError)):
                traceback.print_exc()
            if after_failure:
                after_failure(*arguments)
    return passed, failed


def run_with_agents(make_world, lines, before_each=None):
    """All tests of a program, each called with make_world(lab, agents), in one lab with agents; after a failure the last LINES of both
    daemons' logs are shown. Returns the exit code."""
    with Lab(visible=[BUILD]) as lab:
        lab.install_boot_files()
        with Agents(lab, BUILD) as agents:
            def show_logs(_):
                for host in lab.hosts:
                    print(f"--- {host.name}\n" + "\n".join(agents.log(host).splitlines()[-lines:]), flush=True)

            passed, failed = run(make_world(lab, agents), before_each=before_each, after_failure=show_logs)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0

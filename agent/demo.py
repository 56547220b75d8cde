"""Moves a running virtual machine between two agents on this machine: live there, quick back, while its workload
runs; then has the workload prove that its memory, its disk and its files are intact. Called by agent/demo."""

import argparse
import os
import pathlib
import shlex
import signal
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from lab import Disk, Guest, Lab, LabError, Load, image  # noqa: E402  # the path comes first
from lab.agents import POOL, Agents  # noqa: E402
from lab.guest import accelerator  # noqa: E402
from lab.laboratory import boot_files  # noqa: E402
from lab.probe import Probe  # noqa: E402

BUILD = pathlib.Path(os.environ.get("WATARI_BUILD", ROOT / "build"))
NAME = "demo"
IMAGE = f"{POOL}/{NAME}.qcow2"
FILES_MIB = 256


def parse():
    parser = argparse.ArgumentParser(prog="agent/demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--mem", type=int, default=512, metavar="MIB", help="the guest's memory (512)")
    parser.add_argument("--disk", type=int, default=4096, metavar="MIB", help="its disk (4096)")
    parser.add_argument("--dirty-rate", type=int, default=5, metavar="MIB", help="memory it dirties a second (5)")
    parser.add_argument("--link", metavar="RATE", help="of the wire between the hosts, 100mbit or the like (no limit)")
    parser.add_argument("--keep", action="store_true", help="leave both hosts up afterwards, and say how to play")
    options = parser.parse_args()
    if options.mem < 256 or options.disk < 1024 or options.dirty_rate < 0:
        parser.error("at least --mem 256, --disk 1024 and --dirty-rate 0")
    return options


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def boot(lab, options, boot_directory):
    files = min(FILES_MIB, options.disk // 8)
    say(f"making a {options.disk} MiB qcow2 disk with {files} MiB of real files")
    image.with_files(lab.west.path(IMAGE), options.disk << 20, files)
    kind = accelerator(boot_directory)
    load = Load(memory_mib=min(128, options.mem // 4), memory_rate=options.dirty_rate, disk_rate=512, files=0)
    guest = Guest(NAME, [Disk(IMAGE)], load, options.mem, accelerator=kind)
    lab.network.add_tap(guest.tap)
    say(f"booting the guest at {lab.west.name} ({'KVM' if kind == 'kvm' else 'emulated: no usable KVM here'})")
    guest.start(lab.west)
    guest.wait_ready()
    return guest


def show(event):
    if event.get("event") == "phase":
        say(f"  {event['phase']:10} {event['text']}")


def move(lab, agents, guest, mode):
    """Migrates, shows it, and returns a row of the table."""
    source, destination = guest.host, lab.other(guest.host)
    say(f"{source.name}# watari migrate {guest.name} --to {destination.name} --mode {mode}")
    wire = lab.network.wire_bytes()
    with Probe(lab.outside, guest.address) as probe:
        running = agents.start_migration(guest, "--mode", mode)
        shown = 0
        while not running.ended() or shown < len(running.events):
            for event in running.events[shown:]:
                show(event)
                shown += 1
            time.sleep(0.05)
        outcome = running.wait()
        report = probe.stop()
    if outcome.code != 0:
        raise LabError(f"the migration failed: {outcome}")
    if report.copies:
        raise LabError(f"two copies of the guest answered: {report.copies}")
    result = outcome.result
    if result["verified"]["memory"] is not True:
        raise LabError("the memory stream was not verified")
    moved = result["disk"]["bytes"] + result["memory"]["bytes"]
    return (
        f"{mode}, to {destination.name}",
        f"{result['total_ms'] / 1000:.1f} s",
        f"{result['downtime_ms']} ms",
        f"{report.pause_gap_ms:.0f} ms",
        f"{moved / 1048576:.0f} MiB",
        f"{(lab.network.wire_bytes() - wire) / 1048576:.0f} MiB",
        f"{moved / max(1, result['wire_bytes']):.1f}",
    )


def prove(guest):
    say("asking the workload to read back all it ever wrote")
    proof = guest.verify()
    say(f"  INTACT: {proof['memory']} pages of memory, {proof['disk']} disk blocks, {proof['files']} files")


def table(rows):
    head = ("", "total time", "downtime", "silent outside", "moved", "on the wire", "ratio")
    rows = [head, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    print()
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("  " + "   ".join(cells))
    print(flush=True)


def explain(lab, guest):
    here, there = guest.host, lab.other(guest.host)
    print(f"The guest {guest.name} runs at {here.name}. To play, from another terminal:")
    print(f"  enter {here.name}:   {here.nsenter_line()}")
    print(f"  enter {there.name}:   {there.nsenter_line()}")
    print(f"  there:        export PATH={shlex.quote(str(BUILD))}:$PATH")
    print(f"                watari list; watari migrate {guest.name} --to {there.name} --mode live; watari status")
    print(f"  its console:  nc -U {guest.serial_path}   (status, verify, stop, go)")
    print("Ctrl-C here ends it all.", flush=True)
    signal.pause()


def run(options):
    boot_directory = boot_files()
    with Lab(link=options.link) as lab:
        lab.install_boot_files(boot_directory)
        say(f"two hosts: {', '.join(f'{host.name} ({lab.network.address(host)})' for host in lab.hosts)}; "
            f"the wire between them: {options.link or 'no limit'}; starting watarid in each")
        with Agents(lab, BUILD) as agents:
            guest = boot(lab, options, boot_directory)
            rows = []
            for mode in ("live", "quick"):
                before = guest.status()
                rows.append(move(lab, agents, guest, mode))
                after = guest.status()
                if any(after[name] < before[name] for name in ("ticks", "pages", "blocks")):
                    raise LabError(f"the guest's counters went back: {before} {after}")
                prove(guest)
            table(rows)
            if options.keep:
                explain(lab, guest)


def main():
    options = parse()
    # A shell that starts us in the background has Ctrl-C ignored; then it must end us all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(options)
    except LabError as error:
        print(f"agent/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

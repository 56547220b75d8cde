"""What may come of each fault at each phase: the client's word, the id of the reason when there is one, and where the guest runs then (cell.py,
Played). Written down from what DESIGN and README promise; more than one where a race makes all of them right, as when a mover's death is
noticed by its daemon, by its peer or by QEMU first.

A pair of fault and phase that is not here would be another cell once more: what is struck is not there in that phase."""

from . import phases

ORDER = [phase.name for phase in phases.ALL]
BY_NAME = {phase.name: phase for phase in phases.ALL}
CELLS = {}

DONE = {"done destination"}
# The client's daemon died, and the guest is where it was, or where it went.
UNHEARD_HERE = {"no-daemon source"}
UNHEARD_THERE = {"no-daemon destination"}
# The only copy is killed, and the disks are whole at the source.
LOST = {"lost:qemu-ended source cold"}


def failed(*reasons):
    return {f"failed:{reason} source" for reason in reasons}


def row(fault, *parts):
    """PARTS: (first phase, last phase, what may come of it)."""
    for first, last, outcomes in parts:
        for phase in ORDER[ORDER.index(first):ORDER.index(last) + 1]:
            CELLS[f"{fault}@{phase}"] = outcomes


def split(name):
    """(fault, phase) of a cell's name."""
    fault, _, phase = name.partition("@")
    return fault, BY_NAME[phase]


# --- daemons ---

for FAULT in ("source-daemon-killed", "source-watarid-killed"):
    row(FAULT, ("connect", "loaded", UNHEARD_HERE), ("committed", "cleanup", UNHEARD_THERE))
for FAULT in ("destination-daemon-killed", "destination-watarid-killed"):
    row(
        FAULT,
        ("connect", "connect", DONE | failed("peer-unreachable")),  # it may be there again when it is dialled
        ("prepare", "prepare", failed("peer-lost")),
        ("bulk", "device-state", failed("destination-abandoned")),
        ("loaded", "cleanup", DONE),
    )

# --- movers: before the pause another may take over ---

MOVER = failed("mover-died", "qemu-migration-failed", "load-failed", "lane")
row(
    "source-mover-killed",
    ("prepare", "memory", DONE | MOVER),
    ("paused", "device-state", MOVER),
    ("loaded", "cleanup", DONE),  # it has done all it is for
)
row("destination-mover-killed", ("prepare", "memory", DONE | MOVER), ("paused", "device-state", MOVER))
row("mover-killed-with-writes-under-way", ("bulk", "memory", DONE | MOVER), ("paused", "paused", MOVER))

# --- QEMUs ---

row(
    "source-qemu-killed",
    ("connect", "paused", LOST),
    ("device-state", "cleanup", DONE),  # all of it is on its way: the loaded copy is the only one, and lives on
)
row(
    "destination-qemu-killed",
    # Its mover or its peer may notice first, that an export is gone or a lane or the stream.
    ("prepare", "device-state", failed("qemu-ended", "disk-write", "lane", "qemu-migration-failed", "destination-abandoned")),
    ("loaded", "committed", failed("destination-refused")),  # it cannot have run, and says so
    ("cleanup", "cleanup", {"done destination cold"}),
)

# --- whole hosts ---

for FAULT in ("source-host-killed", "source-host-rebooted"):
    row(
        FAULT,
        ("connect", "paused", {"no-daemon source cold", "gone source cold"}),
        # Its QEMU had given everything to the mover, which is dead too.
        ("device-state", "device-state", {"no-daemon source cold", "gone source cold"}),
        ("loaded", "cleanup", UNHEARD_THERE | {"gone destination"}),
    )
for FAULT in ("destination-host-killed", "destination-host-rebooted"):
    row(
        FAULT,
        ("connect", "connect", failed("peer-unreachable")),
        ("prepare", "prepare", failed("peer-lost")),
        ("bulk", "device-state", failed("destination-abandoned", "destination-refused")),
        ("loaded", "committed", failed("destination-refused")),
        ("cleanup", "cleanup", {"done destination cold"}),
    )

# --- stopped for ten seconds, which is longer than a link may be silent ---

row("source-daemon-stopped", ("connect", "connect", DONE), ("prepare", "prepare", DONE | failed("peer-lost", "link-lost")),
    ("bulk", "cleanup", DONE))
row("destination-daemon-stopped", ("connect", "prepare", DONE | failed("peer-lost", "link-lost", "peer-unreachable")),
    ("bulk", "cleanup", DONE))
for FAULT in ("source-mover-stopped", "destination-mover-stopped"):
    # Opening the lanes has a limit of its own, and QEMU gives an NBD client just ten seconds to say what it wants.
    row(FAULT, ("prepare", "prepare", DONE | failed("link-lost", "disk-read", "disk-write")), ("bulk", "device-state", DONE))
for FAULT in ("source-qemu-stopped", "destination-qemu-stopped"):
    row(FAULT, ("prepare", "cleanup", DONE))
# Before it has greeted it cannot be told from one whose monitor another program holds.
row("source-qemu-stopped", ("connect", "connect", DONE | failed("qmp-busy")))

# --- the link ---

for FAULT in ("link-down-5s", "link-down-30s", "source-sends-into-nothing", "destination-sends-into-nothing"):
    row(
        FAULT,
        ("connect", "prepare", failed("peer-unreachable", "peer-lost", "link-lost")),
        ("bulk", "memory", DONE),
        ("paused", "cleanup", DONE),
    )
# Longer than the guest may stand still. With LOADED in hand the source commits, link or not.
row("link-down-30s", ("paused", "device-state", failed("pause-too-long")))
row(
    "link-down-for-good",
    ("connect", "prepare", failed("peer-unreachable", "peer-lost", "link-lost")),
    ("bulk", "device-state", failed("link-lost")),
    ("loaded", "committed", {"undecided destination"}),
    ("cleanup", "cleanup", DONE),  # the source has the answer
)

# --- places that are full ---

row("pool-full", ("bulk", "memory", failed("no-space", "disk-write")))
for FAULT in ("source-journal-full", "destination-journal-full"):
    row(FAULT, ("bulk", "cleanup", DONE))
for FAULT in ("source-journal-read-only", "destination-journal-read-only"):
    row(FAULT, ("connect", "connect", failed("journal-unwritable")))

# One of each kind, where test_faults.py and test_handoff.py have none like it.
EVERY_DAY = (
    "source-daemon-killed@prepare",
    "destination-watarid-killed@device-state",
    "source-mover-killed@device-state",
    "mover-killed-with-writes-under-way@bulk",
    "source-qemu-killed@device-state",
    "destination-qemu-killed@passes",
    "source-host-killed@committed",
    "destination-host-killed@memory",
    "source-daemon-stopped@memory",
    "destination-mover-stopped@memory",
    "destination-qemu-stopped@paused",
    "link-down-5s@device-state",
    "link-down-for-good@committed",
    "destination-sends-into-nothing@paused",
    "destination-journal-full@device-state",
)

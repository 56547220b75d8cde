"""The phases in which a fault strikes, and how each is reached: the source's daemon stands still at a pause point (agent/common/pause_point.h)
when the phase begins. A fault strikes there, or, where the phase is data that move, when it has gone on for a while."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Phase:
    """POINT: where the source's daemon stops. GOES_ON: seconds from there to the fault, over a slow link; 0: it strikes there. MODE: of the
    migration. DISK_RATE: KiB/s that the guest writes to its disk until the fault, None for what it always does."""

    name: str
    point: str
    goes_on: float = 0
    mode: str = "quick"
    disk_rate: int | None = None


CONNECT = Phase("connect", "source-phase-preflight")
PREPARE = Phase("prepare", "source-phase-prepare")
BULK = Phase("bulk", "source-phase-bulk", goes_on=0.5)
# Live, and much to write: else so little is left after the bulk that memory begins at once.
PASSES = Phase("passes", "source-phase-passes", goes_on=0.2, mode="live", disk_rate=6000)
MEMORY = Phase("memory", "source-phase-memory", goes_on=0.7)
PAUSED = Phase("paused", "source-paused")
DEVICE_STATE = Phase("device-state", "source-device-state")
LOADED = Phase("loaded", "source-committing")
COMMITTED = Phase("committed", "source-committed")
CLEANUP = Phase("cleanup", "source-cleaning")

ALL = (CONNECT, PREPARE, BULK, PASSES, MEMORY, PAUSED, DEVICE_STATE, LOADED, COMMITTED, CLEANUP)

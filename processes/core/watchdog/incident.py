"""An incident: one cause, what was seen, what was done, and when it was over. Pure.

    opened   when a death that nobody asked for, or a verdict that is remedied, is found
    over     when the successor's pulse advances and, for kinds in THROUGH, a round of the canary is complete that began
             since then

Units: *_mono_s of CLOCK_MONOTONIC of the boot named in `boot_id`; *_wall_s since 1970.
"""

from __future__ import annotations

from typing import Final

import msgspec

from processes.core.records.ledger import Ledger
from processes.core.shown.status import IncidentView
from processes.core.values import rfc3339

EVENTS_MAX: Final = 200  # lines of one incident's story: a process that dies again and again must not fill memory
THROUGH: Final = frozenset({"queues", "hub", "gateway", "fanout"})  # kinds that a canary command runs through


class Incident(msgspec.Struct):
    """One incident, open or over."""

    id: str
    process: str
    verdict: str
    reason: str
    pid: int
    epoch: int
    boot_id: str
    good_mono_s: float  # the last good turn
    found_mono_s: float
    found_wall_s: float
    over_mono_s: float | None = None
    over_wall_s: float | None = None
    stuck_at: str | None = None
    remedy: str = ""
    ledger: Ledger | None = None  # as it was when the incident was found; None: not known
    lost: int = 0
    drill: bool = False
    evidence: list[str] = []
    events: list[str] = []
    killed: bool = False  # the watchdog's own kill, so the death itself is no further incident

    def tell(self, now_mono_s: float, line: str) -> None:
        """Add a line to the story, with the seconds since the incident was found."""
        if len(self.events) < EVENTS_MAX:
            self.events = [*self.events, f"{now_mono_s - self.found_mono_s:+.3f} s {line}"]


def end_of(incident: Incident, pid: int, epoch: int) -> str:
    """Return the story's last line. `pid`: of the process that is well now; `epoch`: the newest hub's."""
    who = f"process {pid}" if pid == incident.pid else f"process {pid} in its place"
    hub = f" under hub epoch {epoch}" if incident.process == "hub" else ""
    rounded = (
        ", and a command of the canary went all the way round" if incident.process.partition(":")[0] in THROUGH else ""
    )
    return f"well again: {who} turns{hub}{rounded}"


def is_over(incident: Incident, pid: int, advancing: bool, good_s: float, round_began_s: float | None) -> bool:
    """Return whether the process (its successor, if it was killed) has turned since the incident was found and, for
    kinds in THROUGH, a round of the canary that began since then is complete.

    `pid`, `advancing`, `good_s`: of the process now. `round_began_s`: when the canary's last complete round began;
    None: there was none.
    """
    if not advancing or good_s <= incident.found_mono_s or (incident.killed and pid == incident.pid):
        return False
    if incident.process.partition(":")[0] not in THROUGH:
        return True
    return round_began_s is not None and round_began_s > incident.found_mono_s


def lost_between(before: Ledger | None, after: Ledger | None) -> int:
    """Return how many accepted commands disappeared: `accepted` never shrinks, and is the sum over the states."""
    if after is None:
        return 0
    states = after.queued + after.sent + after.running + after.succeeded + after.failed
    states += after.rejected + after.expired + after.cancelled + after.lost
    gone = max(0, before.accepted - after.accepted) if before is not None else 0
    return max(gone, after.accepted - states)


def view(incident: Incident) -> IncidentView:
    """Return the incident as it is shown."""
    begun_wall_s = incident.found_wall_s - (incident.found_mono_s - incident.good_mono_s)
    over_s = incident.over_mono_s
    return IncidentView(
        id=incident.id,
        process=incident.process,
        verdict=incident.verdict,
        reason=incident.reason,
        begun_at=rfc3339(begun_wall_s),
        found_at=rfc3339(incident.found_wall_s),
        over_at=rfc3339(incident.over_wall_s),
        found_after_s=round(max(0.0, incident.found_mono_s - incident.good_mono_s), 3),
        recovered_after_s=None if over_s is None else round(over_s - incident.good_mono_s, 3),
        stuck_at=incident.stuck_at,
        lost=incident.lost,
        remedy=incident.remedy,
        pid=incident.pid or None,
        epoch=incident.epoch,
        drill=incident.drill,
        evidence=incident.evidence,
        events=incident.events,
    )

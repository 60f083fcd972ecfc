"""Decides what systemd is told of the whole installation: ready, status, and the ping that keeps systemd from
restarting it. Pure.

Ready is sent once, when the installation is well for the first time. The ping says that the watchdog judges and can
remedy. It stops in three cases, and comes back when the case is over:

    - supervisord has not answered for MUTE_S: nothing can be restarted any more;
    - the hub has been unwell for UNWELL_S though remedies ran, and storage is not blocked: the remedies do not help;
    - the watchdog itself does not turn, so nobody calls `notify`.

Blocked storage is no reason to stop, since a restart would not make room. Nor is a hub that an operator stopped.
"Unwell" ends only when the hub has advanced for WELL_S: a hub that dies every ten seconds is not well in between.

Units: *_s of CLOCK_MONOTONIC unless a length of time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from processes.core.shown.status import WELL, Overall, Report, Verdict
from processes.core.travels.pulse import Blocked

MUTE_S: Final = 30.0
UNWELL_S: Final = 600.0
WELL_S: Final = 30.0
PING_S: Final = 1.0  # between two pings; WatchdogSec is some seconds at the least, mostly minutes
AWAY_S: Final = 10.0  # a longer pause between two looks (the machine was suspended) does not count as unwell
STATUS_CHARS_MAX: Final = 200


class InstallationState(NamedTuple):
    """The installation, as systemd is to hear of it."""

    well: bool  # the hub advances and the canary is green
    hub_well: bool  # it advances, lags or is excused; or an operator stopped it
    blocked: bool  # a process waits for storage
    remedies: int  # for the hub, ever: kills, starts, successors
    supervisord_silent_s: float  # 0: it answers
    status: str


class NotifyState(msgspec.Struct, frozen=True):
    """What is remembered from look to look."""

    ready: bool = False
    looked_s: float | None = None
    pinged_s: float | None = None
    said: str = ""  # the last status
    unwell_s: float | None = None  # since when the hub is unwell; None: it is well
    well_s: float | None = None  # since when the hub is well again, while unwell_s stands
    remedies: int = 0  # their number when the hub became unwell


class Notification(NamedTuple):
    """What to send now. `why_not`: why no ping is sent though one is due."""

    ready: bool = False
    ping: bool = False
    status: str | None = None
    why_not: str = ""


def notify(before: NotifyState, seen: InstallationState, now_s: float) -> tuple[NotifyState, Notification]:
    """Return the state after this look, and what to send."""
    after = _followed(before, seen, now_s)
    why_not = refusal(after, seen, now_s)
    due = after.pinged_s is None or now_s - after.pinged_s >= PING_S
    ready = seen.well and not after.ready
    status = f"no longer answered for: {why_not}" if why_not else seen.status
    said = Notification(
        ready, due and not why_not, status[:STATUS_CHARS_MAX] if status != after.said else None, why_not
    )
    pinged_s = now_s if said.ping else after.pinged_s
    return msgspec.structs.replace(after, ready=after.ready or ready, pinged_s=pinged_s, said=status), said


def refusal(state: NotifyState, seen: InstallationState, now_s: float) -> str:
    """Return why no ping may be sent; empty if one may."""
    if seen.supervisord_silent_s >= MUTE_S:
        return f"supervisord is mute for {MUTE_S:.0f} s"
    if state.unwell_s is None or now_s - state.unwell_s < UNWELL_S or seen.blocked or seen.remedies <= state.remedies:
        return ""
    return f"the hub is unwell for {UNWELL_S / 60:.0f} min, and remedies do not help"


def seen(report: Report, remedies: int) -> InstallationState:
    """Return the state of the installation, by the watchdog's report."""
    hub = next((process for process in report.processes if process.name == "hub"), None)
    verdict = hub.verdict if hub is not None else Verdict.DEAD
    unwanted = hub is not None and not hub.wanted
    advancing = verdict in WELL
    status = str(report.verdict)
    if report.verdict is not Overall.OK and report.reasons:
        status += f": {report.reasons[0]}"
    known = report.fleet.hosts is not None
    fleet = f"{report.fleet.online} of {report.fleet.hosts} hosts online" if known else "hosts not known yet"
    return InstallationState(
        well=advancing and report.canary.ok,
        hub_well=advancing or verdict is Verdict.EXCUSED or unwanted,
        blocked=any(
            process.pulse is not None and process.pulse.blocked_on == Blocked.STORAGE for process in report.processes
        ),
        remedies=remedies,
        supervisord_silent_s=report.supervisord_silent_s or 0.0,
        status=" ".join(f"{status}; {fleet}".split()),
    )


def _followed(before: NotifyState, seen: InstallationState, now_s: float) -> NotifyState:
    """Return the state with this look entered."""
    away_s = now_s - before.looked_s if before.looked_s is not None else 0.0
    unwell_s, well_s, remedies = before.unwell_s, before.well_s, before.remedies
    if away_s >= AWAY_S and unwell_s is not None:
        unwell_s += away_s  # the machine was suspended: no remedy could help in that time
        well_s = None if well_s is None else well_s + away_s
    if not seen.hub_well:
        well_s = None
        if unwell_s is None:
            unwell_s, remedies = now_s, seen.remedies
    elif unwell_s is not None:
        well_s = well_s if well_s is not None else now_s
        if now_s - well_s >= WELL_S:
            unwell_s = well_s = None
    return msgspec.structs.replace(before, looked_s=now_s, unwell_s=unwell_s, well_s=well_s, remedies=remedies)

"""The status of the installation: as its watchdog wrote it, or from pulses and files if the watchdog is silent or gone.

For the CLI and the fanout: everything here reads files, never raises, and answers within a second.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters import proc
from processes.adapters.settings import Settings
from processes.adapters.state import desired_state, gave_up, pulse_file, reserved_file
from processes.adapters.state import hindrance as storage
from processes.core.records.ledger import Ledger
from processes.core.shown import status as reports
from processes.core.shown.status import (
    SILENT_AFTER_S,
    CanaryReport,
    CommandsReport,
    FleetReport,
    ProcessReport,
    PulseReport,
    Report,
    Verdict,
    Witness,
)
from processes.core.travels.pulse import Blocked, Pulse

DATABASE_S_MAX: Final = 0.5  # of the promised second; a database that is locked longer is left out
FROZEN_S_MIN: Final = 2.0  # starvation is not known here, so a process is not called frozen sooner than this
FILE_BYTES_MAX: Final = 4 << 20  # of a report; 100 processes are about 100 KiB

_report = msgspec.json.Decoder(Report)


def current_report(settings: Settings) -> Report:
    """Return the watchdog's report if it is fresh and its writer lives; else one made here, with the watchdog silent.

    Cost: 0.1 ms with a fresh report, else the pulses and at most DATABASE_S_MAX for the database.
    """
    now_s = time.monotonic()
    last = last_report(settings.report)
    if not _is_fresh(last, now_s):  # a full disk: then it is where it has its room beforehand
        last = _decoded(reserved_file.read(settings.report_reserve)) or last
    if last is not None and _is_fresh(last, now_s) and proc.alive(last.writer_pid, last.writer_start_ticks):
        return last
    return _own_report(settings, last, now_s)


def last_report(path: Path) -> Report | None:
    """Return the report as it was last written, however old; None if there is none that can be read."""
    try:
        with path.open("rb") as file:
            return _decoded(file.read(FILE_BYTES_MAX))
    except OSError:
        return None


def _decoded(content: bytes | None) -> Report | None:
    try:
        return None if content is None else _report.decode(content)
    except msgspec.DecodeError:
        return None


def _is_fresh(report: Report | None, now_s: float) -> bool:
    return report is not None and 0 <= now_s - report.at_mono_s <= SILENT_AFTER_S


def pulse_report(pulse: Pulse, now_s: float) -> PulseReport:
    """Return a pulse as the report shows it. Units: now_s in seconds of CLOCK_MONOTONIC."""
    return PulseReport(
        turn=pulse.turn,
        age_s=max(0.0, round(now_s - pulse.written_ns / 1e9, 3)),
        backlog=pulse.backlog,
        oldest_s=max(0.0, round(now_s - pulse.oldest_ns / 1e9, 3)) if pulse.oldest_ns and pulse.backlog else 0.0,
        blocked_on=pulse.blocked_on or None,
        received=pulse.received,
        stepped=pulse.stepped,
        committed=pulse.committed,
        published=pulse.published,
        delivered=pulse.delivered,
        connections=pulse.connections,
        dropped=pulse.dropped,
        errors=pulse.errors,
        in_hand=pulse.in_hand,
        dead_letters=pulse.dead_letters,
        suspended=pulse.suspended,
        refused=pulse.refused,
        accepted=pulse.accepted,
        waiting=pulse.waiting,
        turned_away=pulse.turned_away,
    )


def _own_report(settings: Settings, last: Report | None, now_s: float) -> Report:
    from processes.adapters.state import incidents_db  # noqa: PLC0415  # not wanted while the watchdog reports

    wanted = desired_state.read(settings)
    pulses = {name: pulse_file.last(settings.pulses, name) for name in settings.all_names()}
    # the last that anybody knows
    counted = {process.name: process.restarts for process in last.processes} if last else {}
    processes = [
        msgspec.structs.replace(_process(name, pulse, wanted, settings, now_s), restarts=counted.get(name, 0))
        for name, pulse in pulses.items()
    ]
    facts = _facts(settings)
    hub = pulses.get("hub")
    watchdog = pulses.get("watchdog")
    witness = reports.witness_of(processes)
    turns = witness is not Witness.SILENT
    is_blocked = turns or any(p.pulse is not None and p.pulse.blocked_on == Blocked.STORAGE for p in processes)
    hindrance = storage.now(settings.database, hub.pid if hub else 0) if is_blocked else ""
    heard_s = max(last.at_mono_s if last else 0.0, watchdog.written_ns / 1e9 if watchdog else 0.0)
    canary = _aged(last.canary, now_s) if last else CanaryReport()
    verdict, found = reports.judged(processes, canary, witness, hindrance)
    alive = any(p.name == "hub" and p.verdict is Verdict.ADVANCING for p in processes)
    fleet = FleetReport.of(hub)
    if fleet.hosts is not None and not alive:
        fleet = FleetReport(fleet.hosts, 0, fleet.hosts, 0)
    return Report(
        verdict=verdict,
        epoch=max(hub.epoch if hub else 0, facts.epoch),
        processes=processes,
        canary=canary,
        fleet=fleet,
        commands=CommandsReport.of(facts.ledger),
        incidents=incidents_db.totals(settings.incidents_database),
        reasons=[each.text for each in found],
        troubles=found + reports.quiet(processes),
        hindrance=hindrance,
        at_mono_s=now_s,
        watchdog_silent_s=None if turns else round(now_s - heard_s, 3) if 0 < heard_s <= now_s else 0.0,
    )


def _process(
    name: str, pulse: Pulse | None, desired: dict[str, str], settings: Settings, now_s: float
) -> ProcessReport:
    wanted = reports.is_wanted(name, desired)
    alive = pulse is not None and proc.alive(pulse.pid, pulse.start_ticks)
    why = gave_up.said(settings.run, name)
    if pulse is None or not alive:
        verdict, reason = (Verdict.DEAD, "not running") if wanted else (Verdict.STOPPED, "as asked")
        if wanted and why:
            reason = f"{reason}: {why}"
        return ProcessReport(
            name, "STOPPED" if not wanted else "UNKNOWN", None, None, 0, None, verdict, reason, wanted=wanted
        )
    age_s = max(0.0, now_s - pulse.written_ns / 1e9)  # it may have been written after the time was taken
    if pulse.written_ns == 0:
        verdict, reason = Verdict.STARTING, f"the one before it gave up: {why}" if why else ""
    elif name == "watchdog" and age_s > SILENT_AFTER_S:
        verdict, reason = Verdict.SILENT, f"no report for {age_s:.0f} s"
    elif name == "watchdog" or age_s < max(settings.file.watchdog.stall_s, FROZEN_S_MIN):
        verdict, reason = Verdict.ADVANCING, ""
    else:
        verdict, reason = Verdict.FROZEN, f"no turn for {age_s:.1f} s"
    uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME) - pulse.start_ticks / proc.TICKS_PER_S
    shown = pulse_report(pulse, now_s)
    return ProcessReport(name, "RUNNING", pulse.pid, round(uptime_s, 1), 0, None, verdict, reason, shown, wanted=wanted)


def _aged(canary: CanaryReport, now_s: float) -> CanaryReport:
    """Return the canary's state as a silent watchdog last wrote it: no longer a sign of health."""
    age_s = None if canary.round_mono_s is None else now_s - canary.round_mono_s
    return msgspec.structs.replace(
        canary, ok=False, ports=[], age_s=round(age_s, 3) if age_s is not None and age_s >= 0 else None
    )


class _Facts(msgspec.Struct, frozen=True):
    epoch: int = 0
    ledger: Ledger | None = None  # None: it could not be read


def _facts(settings: Settings) -> _Facts:
    """Return epoch and ledger, read on a thread that is left behind if the database does not answer in time."""
    from processes.adapters.state import fleet_db  # noqa: PLC0415  # not wanted while the watchdog reports

    found: list[_Facts] = []

    def read() -> None:
        try:
            found.append(fleet_db.reading(settings.database, lambda c: _Facts(fleet_db.epoch(c), fleet_db.ledger(c))))
        except (fleet_db.DatabaseUnreadable, msgspec.DecodeError, ValueError):
            found.append(_Facts())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(DATABASE_S_MAX)
    return found[0] if found else _Facts()

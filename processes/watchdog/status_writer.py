"""Makes the watchdog's report and writes it to run/watchdog.json, without holding up the judging loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters import ownership, proc
from processes.adapters.logs import Log
from processes.adapters.state import durable, pulse_file, reserved_file, status_file
from processes.core.shown import status as reports
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    ProcessReport,
    Report,
    Witness,
)
from processes.core.shown.troubles import TroubleCode, trouble
from processes.core.values import rfc3339
from processes.core.watchdog.verdict import Judgement
from processes.watchdog.evidence import on_thread
from processes.watchdog.inquiries import Inquiries
from processes.watchdog.process_reader import Subject

WRITE_S: Final = 1.0  # at least so often, and at every change of a verdict or of the canary
ASKED_S: Final = 3.0  # of a watchdog's life: by then supervisord has answered (ANSWER_S_MAX), or does not answer
NEW_S: Final = 6.0  # of a watchdog's life: its canary has connected and gone round by then, or it is red
HANG_S: Final = 5.0  # a write that takes longer is left behind
OWN_PID: Final = os.getpid()


def process_report(
    subject: Subject, judgement: Judgement, now_s: float, *, wanted: bool, restarts: int, note: str
) -> ProcessReport:
    """Return the row of one process."""
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - subject.start_ticks / proc.TICKS_PER_S
    pulse, known = subject.pulse, subject.supervised
    return ProcessReport(
        name=subject.name,
        state=reports.state_of(subject.pid, known.state, known.pid) if known else "UNKNOWN",
        pid=subject.pid or None,
        uptime_s=round(age_s, 2) if subject.alive else None,
        restarts=restarts,
        rss_bytes=subject.rss_bytes,
        verdict=judgement.verdict,
        reason=f"{judgement.reason}; {note}" if judgement.reason and note else judgement.reason or note,
        pulse=status_file.pulse_report(pulse, now_s) if pulse is not None and pulse.pid == subject.pid else None,
        cpu_percent=subject.cpu_percent,
        wanted=wanted,
    )


def make_report(
    processes: list[ProcessReport],
    canary: CanaryReport,
    inquiries: Inquiries,
    incidents: IncidentsReport,
    subjects: dict[str, Subject],
    *,
    began_s: float,
) -> Report:
    """Return the whole report of this moment. `began_s`: when this watchdog began."""
    hub, now_s = subjects["hub"].pulse, time.monotonic()
    heard_s = inquiries.supervisord_heard_s
    silent_s = None if heard_s is None else round(now_s - heard_s, 3)
    is_new = canary.round_mono_s is None and now_s - began_s < NEW_S
    witness = Witness.NEW if is_new else Witness.PRESENT
    verdict, found = reports.judged(processes, canary, witness, inquiries.hindrance)
    if inquiries.processes is None and now_s - began_s >= ASKED_S:  # before that it was hardly asked
        found = [*found, trouble(TroubleCode.SUPERVISORD, "supervisord does not answer")]
        verdict = reports.Overall.DEGRADED if verdict is reports.Overall.OK else verdict
    return Report(
        verdict=verdict,
        epoch=hub.epoch if hub else 0,
        processes=processes,
        canary=canary,
        fleet=FleetReport.of(hub),
        commands=CommandsReport.of(inquiries.ledger),
        incidents=incidents,
        reasons=[each.text for each in found],
        troubles=found + reports.quiet(processes),
        hindrance=inquiries.hindrance,
        queues=inquiries.queues,
        at=rfc3339(time.time()),
        at_mono_s=now_s,
        supervisord_silent_s=silent_s if inquiries.processes is None else None,
        writer_pid=OWN_PID,
        writer_start_ticks=pulse_file.start_ticks(OWN_PID) or 0,
    )


class Writer:
    """Writes the report on a thread, one at a time: a disk that hangs makes the report old, not the judgement."""

    def __init__(self, path: Path, reserve_path: Path, log: Log) -> None:
        """`reserve_path`: of a file with its room beforehand, which is written while the disk refuses."""
        self._path, self._reserve_path, self._log = path, reserve_path, log
        self._reserve: int | None = None  # its descriptor, which lives as long as this process
        self._writing: asyncio.Future[None] | None = None
        self._began_s = 0.0
        self._failed = False

    def due(self, changed: bool, now_s: float) -> bool:
        """Return whether it is time for a report and the last one is written or given up."""
        if self._writing is not None and not self._writing.done() and now_s - self._began_s < HANG_S:
            return False
        return changed or now_s - self._began_s >= WRITE_S

    def write(self, report: Report, now_s: float) -> None:
        """Begin to replace the file in one step. Never raises."""
        self._began_s = now_s
        content = msgspec.json.encode(report)
        self._writing = on_thread(lambda: self._replace(content))
        self._writing.add_done_callback(self._written)

    def _replace(self, content: bytes) -> None:
        # beside run/ are those that it is lent to: a fanout's own user, and no gateway's
        group = ownership.group_let_into(self._path.parent.parent)
        if self._reserve is None:  # while there is room: later there may be none
            with contextlib.suppress(OSError):
                self._reserve = reserved_file.reserve(self._reserve_path, group)
        try:
            durable.replace(self._path, content, durable=False, group=group)
        except OSError:
            if self._reserve is None:
                raise
            reserved_file.write(self._reserve, content)

    def _written(self, writing: asyncio.Future[None]) -> None:
        error = None if writing.cancelled() else writing.exception()
        if error is not None and not self._failed:
            self._log.error("the report cannot be written", error=str(error))
        self._failed = error is not None

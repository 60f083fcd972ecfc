"""A command that the hub has not acknowledged: where it is, and what the journal is to say of it next. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from processes.core.agent.effects import Effect, Observed, RecordEnd, RecordLaunch
from processes.core.agent.flow import Flow
from processes.core.agent.reboot import DONE_BEFORE, is_done
from processes.core.agent.remembered import Ended, JournalRow, JournalState, ReportStatus
from processes.core.older_python import StrEnum
from processes.core.values import Now

LAUNCHES_MAX: Final = 5  # tries to start a shim; each is safe, for only one can turn `unstarted` into `started`
LAUNCH_PAUSE_S: Final = 1.0
UPDATE_PAUSE_S_MAX: Final = 60.0  # between tries to write a row into a journal that takes none; guess
SPOOL_CUT: Final = "some of its output was lost: its spool was cut or removed"
CANCELLED: Final = Ended(ReportStatus.CANCELLED, None, "cancelled before it was started")


class CommandStage(StrEnum):
    """Where a command is in the agent; the values are the words of `known`."""

    ADMITTING = "admitting"
    ACCEPTED = "accepted"
    RUNNING = "started"
    FINISHED = "finished"


_BUSY: Final = (CommandStage.ADMITTING, CommandStage.ACCEPTED, CommandStage.RUNNING)


class OpenCommand:
    """A command that the hub has not acknowledged. Invariant: `ended` and `total` are set exactly in FINISHED."""

    def __init__(self, row: JournalRow, stage: CommandStage, *, by_kill: bool = False) -> None:
        self.row = row
        self.stage = stage
        self.by_kill = by_kill  # it entered by a cancel, not by a delivery
        self.is_cancelled = False  # a cancel came before anything was launched
        self.unrun: Ended | None = None  # how it ends without having run; told once it is durable
        self.is_updating = False  # a RecordLaunch or RecordEnd is under way
        self.update_boot_s = 0.0  # when that may be tried again
        self.update_pause_s = LAUNCH_PAUSE_S
        self.flow = Flow()
        self.pid: int | None = None
        self.launches = 0
        self.launched_boot_s = 0.0
        self.ended: Ended | None = None
        self.total: int | None = None
        self.reported = False  # on this connection, and not overdue
        self.report_boot_s = 0.0  # when the report is sent again

    def end(self, ended: Ended, total: int) -> None:
        """Called when its end is known, with the number of its output records."""
        self.stage, self.ended, self.total = CommandStage.FINISHED, ended, total

    @property
    def waits(self) -> bool:
        """True while the journal's next word of it, its launch or its end without a run, is still to be written.

        Nothing of it has run then. If the journal is gone, that word is never written, and nobody is told.
        """
        is_unwritten = self.row.state is JournalState.ADMITTED or self.unrun is not None
        return self.stage is CommandStage.ACCEPTED and is_unwritten

    @property
    def runs(self) -> bool:
        """True while it runs or is to be run."""
        return self.stage in _BUSY and self.row.state in (JournalState.ADMITTED, JournalState.LAUNCHED)

    def advance(self, now: Now, boot_id: str, *, is_offered: bool) -> list[Effect]:
        """Returns what writes the next step of a command that nothing runs of into the journal: its launch, or its end
        without a run.
        """
        if self.is_updating or now.boot_s < self.update_boot_s:
            return []
        if self.is_cancelled:
            self.unrun = self.unrun or CANCELLED
        elif self.row.state is JournalState.ADMITTED:
            self.unrun = self.unrun or _why_not(self.row, now, boot_id, is_offered=is_offered)
        self.is_updating = True
        launched = msgspec.structs.replace(self.row, state=JournalState.LAUNCHED)
        if self.unrun is None:
            return [RecordLaunch(launched)]
        ended = msgspec.structs.replace(launched, ended=self.unrun)
        # plant: end-first
        return [RecordEnd(ended)]

    def update_failed(self, now: Now) -> None:
        """Called when the journal took no row: the next try comes later each time."""
        self.is_updating = False
        self.update_boot_s = now.boot_s + self.update_pause_s
        self.update_pause_s = min(UPDATE_PAUSE_S_MAX, self.update_pause_s * 2)

    def updated(self, row: JournalRow) -> None:
        """Called when the row is durable."""
        self.row, self.is_updating, self.update_pause_s = row, False, LAUNCH_PAUSE_S
        if row.ended is not None:
            self.end(row.ended, 0)

    def unstarted(self, now: Now, boot_id: str, *, is_offered: bool, said: str = "") -> bool:
        """Returns True if a shim is to be started, now that it is proved that nothing ran: its shim could not be
        started, was killed before the start, or was to be started by the agent before this one. `said`: by its shim.
        """
        if self.launches == 0 or not is_offered:
            self.unrun = _why_not(self.row, now, boot_id, is_offered=is_offered)
            return self.unrun is None
        if now.boot_s - self.launched_boot_s < LAUNCH_PAUSE_S:
            return False
        if self.launches >= LAUNCHES_MAX:
            self.unrun = not_run(f"could not be started{said and f' ({said})'}", "not_started")
        return self.unrun is None

    def observed_again(self, seen: Observed) -> None:
        """Called when a command that has ended was looked at for its output: of a spool that was cut or removed since,
        there is no more to be waited for.
        """
        assert self.ended is not None, "finished without an end"
        assert self.total is not None, "finished without its number of records"
        # plant: spool-cut
        if seen.total is not None and seen.total < self.total:
            self.total = min(self.total, max(seen.total, self.flow.next))
            if SPOOL_CUT not in self.ended.message:
                message = f"{self.ended.message}; {SPOOL_CUT}".removeprefix("; ")
                self.ended = msgspec.structs.replace(self.ended, message=message)


def is_over(row: JournalRow, now: Now, boot_id: str) -> bool:
    """True once the command may not start any more."""
    left_s = row.left_s(now, boot_id)
    return left_s is not None and left_s <= 0


def not_run(why: str, reason: str) -> Ended:
    """The end of a command of which nothing ran."""
    return Ended(ReportStatus.ERROR, None, f"{why}: not run", reason)


def _why_not(row: JournalRow, now: Now, boot_id: str, *, is_offered: bool) -> Ended | None:
    if is_done(row, boot_id):
        return DONE_BEFORE
    if is_over(row, now, boot_id):
        return not_run("its time was over before it could be started", "expired")
    if not is_offered:
        return not_run("no longer offered when it could be started", "not_offered")
    return None

"""What an agent remembers of a command, and what it finds in a command's run folder. Pure."""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from processes.core.values import Now, Stream, Unknown

COMMAND_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")  # it stands in an environment variable and in logs


class JournalState(enum.StrEnum):
    """How far the journal has followed a command. Only `accepted` may ever lead to a run."""

    ACCEPTED = "accepted"  # to be run, running, or run and not yet acknowledged: the run folder knows which
    CANCELLED = "cancelled"  # its cancel came first: never run, still to be reported
    REJECTED = "rejected"  # refused; answered with the same words for ever
    SETTLED = "settled"  # its report was acknowledged


class ReportStatus(enum.StrEnum):
    """How a command ended; the contract's words."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class Ended(msgspec.Struct, frozen=True):
    """A command's end: the content of its report. `reason`: of an error that was not the program's own."""

    status: ReportStatus
    exit_code: int | None = None
    message: str = ""
    reason: str = ""


class JournalRow(msgspec.Struct, frozen=True):
    """One command in the journal.

    Units: *_boot_s of CLOCK_BOOTTIME of the boot `boot_id`; *_wall_s since 1970. `ttl_s` None: it may wait for ever.
    """

    command_id: str
    op: str
    state: JournalState
    boot_id: str
    written_boot_s: float
    written_wall_s: float
    ttl_s: float | None = None
    reason: str = ""  # of a rejection
    ended: Ended | None = None

    def left_s(self, now: Now, boot_id: str) -> float | None:
        """Seconds in which it may still start (0 or less: none); None: no limit.

        Across a reboot only the wall clock is left, which may have been set: the rest is clamped to 0 … ttl_s.
        """
        if self.ttl_s is None:
            return None
        if boot_id == self.boot_id:
            return self.ttl_s - (now.boot_s - self.written_boot_s)
        return min(self.ttl_s, max(0.0, self.ttl_s - (now.wall_s - self.written_wall_s)))


class SpoolRecord(msgspec.Struct, frozen=True):
    """One record of a command's output as it was spooled."""

    stream: Stream
    text: str


class Started(msgspec.Struct, frozen=True):
    """The last thing written before a command's program began."""

    pid: int
    start_ticks: int
    boot_id: str


class Folder(msgspec.Struct, frozen=True):
    """What a run folder says, looked at in this order: a shim holds its lock from before `started` to after `ended`.

    So `started`, then a free lock, then no `ended` means that the shim is gone without a word, and never that we looked
    too early.
    """

    launching: bool  # a shim was started by this very agent and has not ended yet
    started: Started | None
    locked: bool  # its shim lives
    ended: Ended | None


class FolderVerdict(enum.StrEnum):
    """What is true of a command by its run folder."""

    UNSTARTED = "unstarted"  # nothing ran and nothing is about to: it may be run
    LAUNCHING = "launching"
    RUNNING = "running"
    ENDED = "ended"


def judge(folder: Folder, boot_id: str) -> tuple[FolderVerdict, Ended | None]:
    """What is true of a command, and its end if it has one. With `started`, it never runs again."""
    if folder.ended is not None:
        return FolderVerdict.ENDED, folder.ended
    if folder.locked:
        return (FolderVerdict.RUNNING if folder.started is not None else FolderVerdict.LAUNCHING), None
    # plant: started
    if folder.started is not None:
        if folder.started.boot_id != boot_id:
            return FolderVerdict.ENDED, _unknown("the machine rebooted during the command", Unknown.REBOOTED)
        return FolderVerdict.ENDED, _unknown("the shim died", Unknown.SHIM_DIED)
    return (FolderVerdict.LAUNCHING if folder.launching else FolderVerdict.UNSTARTED), None


def _unknown(what: str, reason: Unknown) -> Ended:
    return Ended(ReportStatus.ERROR, None, f"{what}, outcome unknown", reason)

"""What an agent remembers of a command, and what it finds in a command's run folder. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from processes.core.older_python import StrEnum
from processes.core.values import Now, Stream, Unknown

COMMAND_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")  # it stands in an environment variable and in logs


class JournalState(StrEnum):
    """How far the journal has followed a command. The values are what stands in the journal's file.

    A journal of the version before knows no `admitted`: there `accepted` was written before anything was started and
    stayed, so each of its rows may have been started. Hence it is the word of `LAUNCHED`, and such a journal is taken
    over as it is.
    """

    ADMITTED = "admitted"  # to be run: nothing of it was ever started
    LAUNCHED = "accepted"  # it may have been started: it runs, ran, or its run folder proves that nothing ran yet
    CANCELLED = "cancelled"  # its cancel came first: never run, still to be reported
    REJECTED = "rejected"  # refused; answered with the same words for ever
    SETTLED = "settled"  # its report was acknowledged


class ReportStatus(StrEnum):
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
    """One command in the journal. `ended`: its end, where that was written before it was told. `back_s`: of a reboot
    of this machine, see reboot.py; None: it is none.

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
    back_s: float | None = None

    def left_s(self, now: Now, boot_id: str) -> float | None:
        """Seconds in which it may still start (0 or less: none); None: no limit.

        Across a reboot only the wall clock is left, which may have been set: the rest is clamped to 0 … ttl_s.
        """
        if self.ttl_s is None:
            return None
        if boot_id == self.boot_id:
            return self.ttl_s - max(0.0, now.boot_s - self.written_boot_s)
        return min(self.ttl_s, max(0.0, self.ttl_s - (now.wall_s - self.written_wall_s)))


class SpoolRecord(msgspec.Struct, frozen=True):
    """One record of a command's output as it was spooled."""

    stream: Stream
    text: str


class Started(msgspec.Struct, frozen=True):
    """What was written as the last thing before a command's program began."""

    pid: int
    start_ticks: int
    boot_id: str


class Folder(msgspec.Struct, frozen=True):
    """What a run folder and the machine's processes say of a command that the journal calls launched.

    They are looked at in this order: the shim, `started`, the lock, `unstarted`, `exit`. A shim holds the lock from
    before `started` to after `exit`, so `started`, then no shim, then no `exit` means that the shim is gone without a
    word, and never that somebody looked too early.
    """

    lives: bool  # its shim: the lock is held, or the process was found
    started: Started | None
    unstarted: bool  # the file that the shim turns into `started` is still there: proof that nothing ran
    ended: Ended | None


class FolderVerdict(StrEnum):
    """What is true of a command by its run folder."""

    UNSTARTED = "unstarted"  # it is proved that nothing ran, and nothing is about to: it may be run
    LAUNCHING = "launching"
    RUNNING = "running"
    ENDED = "ended"


def judge(folder: Folder, boot_id: str) -> tuple[FolderVerdict, Ended | None]:
    """Returns what is true of a launched command, and its end if it has one.

    A folder that says nothing (it vanished, or was emptied) is no proof that nothing ran: the outcome is unknown.
    """
    if folder.ended is not None:
        return FolderVerdict.ENDED, folder.ended
    if folder.lives:
        return (FolderVerdict.RUNNING if folder.started is not None else FolderVerdict.LAUNCHING), None
    # plant: started
    if folder.started is not None:
        if folder.started.boot_id not in ("", boot_id):  # "": the file was emptied
            return FolderVerdict.ENDED, _unknown("the machine rebooted during the command", Unknown.REBOOTED)
        return FolderVerdict.ENDED, _unknown("the shim died", Unknown.SHIM_DIED)
    # plant: proof-of-no-run
    if not folder.unstarted:
        return FolderVerdict.ENDED, _unknown("its run folder was removed or emptied", Unknown.UNREADABLE)
    return FolderVerdict.UNSTARTED, None


def _unknown(what: str, reason: Unknown) -> Ended:
    return Ended(ReportStatus.ERROR, None, f"{what}, outcome unknown", reason)

"""Run folders from the agent's side: reading what a shim wrote, asking it to stop. Everything here may block: call it
on a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
from pathlib import Path
from typing import Final

from processes.adapters.state import durable, lock
from processes.adapters.state.pulse_file import start_ticks
from processes.agent.shim import PIECE_BYTES_MAX, RECORD, STDERR
from processes.core.agent.flow import RECORD_BYTES
from processes.core.agent.remembered import Ended, Folder, ReportStatus, SpoolRecord, Started
from processes.core.values import Stream, Unknown

READ_BYTES_MAX: Final = 64 * 1024  # at one look: keeps the agent's turns short


def place(runs: Path, command_id: str) -> Path:
    """Where a command runs. A hash: an id from the network never becomes a path."""
    return runs / hashlib.sha256(command_id.encode()).hexdigest()[:32]


def prepare(folder: Path) -> None:
    """The folder exists, durably."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        durable.sync_folder(folder.parent)


def facts(folder: Path, launching: bool) -> Folder:
    """What the folder says. `launching` must have been asked before this call: see agent_values.Folder."""
    started = _fields(folder / "started")
    locked = lock.is_held(folder / "lock")
    ended = _fields(folder / "exit")
    return Folder(
        launching,
        None
        if started is None
        else Started(int(started.get("pid") or 0), int(started.get("start_ticks") or 0), started.get("boot_id", "")),
        locked,
        None if ended is None else _ended(ended),
    )


def cancel(folder: Path, name: str) -> None:
    """The wish to end stands in the folder; the shim, if there is one already, is woken to see it."""
    prepare(folder)
    durable.replace(folder / "cancel", f"{name}\n".encode())
    shim = _fields(folder / "lock") if lock.is_held(folder / "lock") else None
    pid = int((shim or {}).get("pid") or 0)
    if pid and start_ticks(pid) == int((shim or {}).get("start_ticks") or -1):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGUSR1)  # ended meanwhile: nothing is left to stop


def remove(folder: Path) -> None:
    """The folder is gone."""
    shutil.rmtree(folder, ignore_errors=True)


class SpoolReader:
    """Reads the records of one spool. Goes on where it stopped; any other offset is looked up from the beginning."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spool"
        self._next, self._place = 0, 0  # the offset of the next record, and its byte

    def read(self, first: int, room_bytes: int) -> list[SpoolRecord]:
        """Records from offset `first` on, as many as fit into `room_bytes` (a little more if one does not); only whole
        ones.
        """
        try:
            with self._path.open("rb") as file:
                if first != self._next and not self._seek(file.fileno(), first):
                    return []
                file.seek(self._place)
                chunk = file.read(min(room_bytes, READ_BYTES_MAX) + RECORD.size + PIECE_BYTES_MAX)
        except FileNotFoundError:
            return []
        return self._take(chunk, min(room_bytes, READ_BYTES_MAX))

    def total(self) -> int:
        """How many whole records there are. Cost: reads the heads from the last place on."""
        offset, at = self._next, self._place
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                while (after := _after(file.fileno(), at, size)) is not None:
                    offset, at = offset + 1, after
        except FileNotFoundError:
            return 0
        return offset

    def _take(self, chunk: bytes, room_bytes: int) -> list[SpoolRecord]:
        records: list[SpoolRecord] = []
        at = cost = 0
        while at + RECORD.size <= len(chunk) and cost < room_bytes:
            stream, length = RECORD.unpack_from(chunk, at)
            end = at + RECORD.size + length
            if end > len(chunk):
                break
            text = chunk[at + RECORD.size : end].decode(errors="replace")
            records.append(SpoolRecord(Stream.STDERR if stream == STDERR else Stream.STDOUT, text))
            at = end
            cost += length + RECORD_BYTES
        self._next += len(records)
        self._place += at
        return records

    def _seek(self, fd: int, first: int) -> bool:
        if first < self._next:
            self._next, self._place = 0, 0
        size = os.fstat(fd).st_size
        while self._next < first:
            after = _after(fd, self._place, size)
            if after is None:
                return False
            self._next, self._place = self._next + 1, after
        return True


def _after(fd: int, at: int, size: int) -> int | None:
    """Where the record after the one at `at` begins; None if that is not whole."""
    head = os.pread(fd, RECORD.size, at)
    if len(head) < RECORD.size:
        return None
    end = at + RECORD.size + int(RECORD.unpack(head)[1])
    return end if end <= size else None


def _fields(path: Path) -> dict[str, str] | None:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _ended(fields: dict[str, str]) -> Ended:
    try:
        code = fields.get("code", "")
        return Ended(ReportStatus(fields.get("status", "")), int(code) if code else None, fields.get("message", ""))
    except ValueError:
        return Ended(
            ReportStatus.ERROR, None, "the record of its end cannot be read, outcome unknown", Unknown.UNREADABLE
        )

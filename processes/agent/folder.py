"""Run folders from the agent's side: making them, reading what a shim wrote, asking it to stop.

What others removed is not there, and what cannot be read is as good as removed: neither raises. Everything here may
block: call it on a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from processes.adapters.state import durable, lock
from processes.adapters.state.pulse_file import start_ticks
from processes.agent.shim import PIECE_BYTES_MAX, RECORD, STDERR, STDOUT
from processes.core.agent.flow import RECORD_BYTES
from processes.core.agent.remembered import Ended, Folder, ReportStatus, SpoolRecord, Started
from processes.core.values import Stream, Unknown

READ_BYTES_MAX: Final = 64 * 1024  # at one look: keeps the agent's turns short
UNSTARTED_BYTES: Final = 512  # of `unstarted`: the room for what the shim writes into it, taken before the start
HOLE_MARK: Final = "[fleethub: output is missing here: its spool was cut]"
FILE_BYTES_MAX: Final = 16 * 1024  # of any file but the spool; a shim writes at most 4 KiB
WORDS_CHARS_MAX: Final = 300  # of what a shim said last
_PASSING: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN))


def place(runs: Path, command_id: str) -> Path:
    """Where a command runs. A hash: an id from the network never becomes a path."""
    return runs / hashlib.sha256(command_id.encode()).hexdigest()[:32]


def prepare(folder: Path) -> None:
    """Makes the folder with its `unstarted`, durably: leave to begin the program, once. To be called only while the
    journal says that nothing of this command was ever started. Raises: OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.replace(folder / "unstarted", b" " * UNSTARTED_BYTES)
    durable.sync_folder(folder.parent)


def facts(folder: Path, lives: bool) -> Folder:
    """What the folder says, read in the order that remembered.Folder asks for. `lives`: the shim was seen as a process,
    asked before this call.

    Raises: OSError, if this agent is short of something just now: ask again.
    """
    started = _fields(folder / "started")
    locked = _is_locked(folder)
    unstarted = _read(folder / "unstarted") is not None
    ended = _fields(folder / "exit")
    return Folder(
        lives or locked,
        None
        if started is None
        else Started(_number(started, "pid"), _number(started, "start_ticks"), started.get("boot_id", "")),
        unstarted,
        None if ended is None else _ended(ended),
    )


def last_words(folder: Path) -> str:
    """The last line that a shim said before it gave up; empty: none said anything. Raises: OSError, as `facts`."""
    lines = (_read(folder / "shim.err") or b"").decode(errors="replace").split("\n")
    return next((line.strip()[:WORDS_CHARS_MAX] for line in reversed(lines) if line.strip()), "")


def cancel(folder: Path, name: str) -> None:
    """Puts the wish to end into the folder, which is never made anew.

    Raises: OSError, if it is gone or takes no file.
    """
    durable.replace(folder / "cancel", f"{name}\n".encode())


def shim(folder: Path) -> int | None:
    """The pid of the shim that holds the folder's lock; None: the folder knows of none."""
    held = _fields(folder / "lock") if _is_locked(folder) else None
    pid = _number(held or {}, "pid")
    return pid if pid and start_ticks(pid) == _number(held or {}, "start_ticks") else None


def remove(folder: Path) -> None:
    """The folder is gone."""
    shutil.rmtree(folder, ignore_errors=True)


class SpoolReader:
    """Reads the records of one spool. Goes on where it stopped; any other offset is looked up from the beginning.

    A hole of zeros, where others cut the file, counts as one record: its mark. Behind anything else that is no record
    nothing is read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spool"
        self._next, self._place = 0, 0  # the offset of the next record, and its byte

    def read(self, first: int, room_bytes: int) -> list[SpoolRecord]:
        """Records from offset `first` on, as many as fit into `room_bytes` (a little more if one does not); only whole
        ones.
        """
        fd = _open(self._path)
        if fd is None:
            return []
        try:
            if first != self._next and not self._seek(fd, first):
                return []
            return self._take(fd, min(room_bytes, READ_BYTES_MAX))
        except OSError as error:
            _raise_if_passing(error)
            return []
        finally:
            os.close(fd)

    def total(self) -> int:
        """How many whole records there are. Cost: reads the heads from the last place on."""
        offset, at = self._next, self._place
        fd = _open(self._path)
        if fd is None:
            return 0
        try:
            size = os.fstat(fd).st_size
            if at > size:  # it was cut
                offset, at = 0, 0
            while (found := _record(fd, at, size)) is not None:
                offset, at = offset + 1, found[2]
        except OSError as error:
            _raise_if_passing(error)
        finally:
            os.close(fd)
        return offset

    def _take(self, fd: int, room_bytes: int) -> list[SpoolRecord]:
        size = os.fstat(fd).st_size
        records: list[SpoolRecord] = []
        cost = 0
        while cost < room_bytes and (found := _record(fd, self._place, size)) is not None:
            stream, begins, ends = found
            text = os.pread(fd, ends - begins, begins).decode(errors="replace") if stream else HOLE_MARK
            records.append(SpoolRecord(Stream.STDOUT if stream == STDOUT else Stream.STDERR, text))
            self._next, self._place = self._next + 1, ends
            cost += len(text) + RECORD_BYTES
        return records

    def _seek(self, fd: int, first: int) -> bool:
        if first < self._next:
            self._next, self._place = 0, 0
        size = os.fstat(fd).st_size
        while self._next < first:
            found = _record(fd, self._place, size)
            if found is None:
                return False
            self._next, self._place = self._next + 1, found[2]
        return True


def _record(fd: int, at: int, size: int) -> tuple[int, int, int] | None:
    """The record at this byte: its stream (0: a hole), where its text begins, and where the next record does. None:
    there is no whole one.
    """
    head = os.pread(fd, RECORD.size, at)
    if head[:1] == b"\0":
        return 0, at, _end_of_hole(fd, at, size)
    if len(head) < RECORD.size:
        return None
    stream, length = RECORD.unpack(head)
    ends = at + RECORD.size + length
    if stream not in (STDOUT, STDERR) or length > PIECE_BYTES_MAX or ends > size:
        return None
    return stream, at + RECORD.size, ends


def _end_of_hole(fd: int, at: int, size: int) -> int:
    """Where the zeros that begin at this byte end: at the head of a record, or at the file's end."""
    while at < size:
        chunk = os.pread(fd, READ_BYTES_MAX, at)
        rest = chunk.lstrip(b"\0")
        at += len(chunk) - len(rest)
        if rest or not chunk:
            break
    return at


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _raise_if_passing(error)
        return None


def _raise_if_passing(error: OSError) -> None:
    """Raises the error if only this agent is short of something just now: nobody may conclude anything from that."""
    if error.errno in _PASSING:
        raise error


def _is_locked(folder: Path) -> bool:
    try:
        return lock.is_held(folder / "lock")
    except OSError as error:
        _raise_if_passing(error)
        return False


def _read(path: Path) -> bytes | None:
    """The file's beginning; None: there is no such file, or it cannot be read and does not matter (see `facts`)."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError as error:
        _raise_if_passing(error)
        is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
        return None if is_missing else b""


def _fields(path: Path) -> dict[str, str] | None:
    """The file's `name=value` lines; none of them if it cannot be read; None if it is not there."""
    content = _read(path)
    if content is None:
        return None
    return dict(line.split("=", 1) for line in content.decode(errors="replace").splitlines() if "=" in line)


def _number(fields: dict[str, str], name: str) -> int:
    try:
        return int(fields.get(name, ""))
    except ValueError:
        return 0


def _ended(fields: dict[str, str]) -> Ended:
    """The end that `exit` tells. `message` is its last line: without it, the file was cut."""
    try:
        if "message" not in fields:
            raise ValueError
        code = fields.get("code", "")
        return Ended(ReportStatus(fields.get("status", "")), int(code) if code else None, fields.get("message", ""))
    except ValueError:
        return Ended(
            ReportStatus.ERROR, None, "the record of its end cannot be read, outcome unknown", Unknown.UNREADABLE
        )

"""An SQLite file, opened by whoever only reads it. The path may hold any character that the file system allows."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from processes.adapters import ownership
from processes.core.shown import short_ids

SUFFIXES: Final = ("", "-wal", "-shm")  # a database, its log, its shared memory
T = TypeVar("T")
Files = dict[str, tuple[int, int] | None]  # by the suffix of the name: device and inode of what is there


class NoFile(Exception):
    """What is at the path is no regular file: a pipe would be waited for without end, a device read without end."""


def files_at(path: Path) -> Files:
    """Return what is at the names of a database, its log and its shared memory.

    Whoever has it open has other files once they changed, though SQLite itself says nothing of it. Cost: three stats.
    """
    found: Files = {}
    for suffix in SUFFIXES:
        try:
            there = os.stat(f"{path}{suffix}")
            found[suffix] = (there.st_dev, there.st_ino)
        except OSError:
            found[suffix] = None
    return found


def show(path: Path) -> None:
    """Let the lesser user read the database, made if it is missing, whom its folder is open to; SQLite makes its log
    and its shared memory as open as it is. For its writer, before it opens it. Raises: OSError.
    """
    group = ownership.group_let_into(path.parent)
    if group is not None:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        for suffix in SUFFIXES:  # by name: whoever closes a database's file loses SQLite's locks on it
            ownership.let_read(Path(f"{path}{suffix}"), group)


class StillConnection(sqlite3.Connection):
    """One that reads a database without a log, and without a lock."""


class KeptReading(Generic[T]):
    """What one function reads of a database, read again only when somebody has committed meanwhile, over a connection
    that is kept: to open one costs ten times as much as to read. Used by one thread at a time.
    """

    def __init__(
        self, path: Path, open_it: Callable[[Path], sqlite3.Connection], read: Callable[[sqlite3.Connection], T]
    ) -> None:
        self._path, self._open, self._read = path, open_it, read
        self._connection: sqlite3.Connection | None = None
        self._files: Files = {}
        self._known: tuple[int, T] | None = None  # the database's version for this connection, and what was read of it

    def newest(self) -> T:
        """Return what there is to read now. After a failure the next call opens the database anew.

        Raises: sqlite3.Error, and what `open_it` and `read` raise.
        """
        try:
            found = self._found()
        except BaseException:
            self.close()
            raise
        if isinstance(self._connection, StillConnection):
            self.close()  # it would go on showing what it has read once
        return found

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._known = None

    def _found(self) -> T:
        if self._connection is not None and files_at(self._path) != self._files:
            self.close()  # a backup was restored meanwhile, or its log was taken away
        if self._connection is None:
            self._files = files_at(self._path)  # before it is opened: what is replaced meanwhile is noticed next time
            self._connection = self._open(self._path)
        (version,) = self._connection.execute(
            "PRAGMA data_version"
        ).fetchone()  # before it is read, for the same reason
        if self._known is None or self._known[0] != version:
            found = self._read(self._connection)
            if not is_settled(self._path, self._connection):
                raise sqlite3.OperationalError(f"somebody has just begun to write {self._path}")
            self._known = version, found
        return self._known[1]


def meant(connection: sqlite3.Connection, table: str, given: str, what: str, only: str = "TRUE") -> str:
    """Return the id in the table that is meant by `given`, which may be the beginning of one. `only`: of which rows.

    Raises: AmbiguousId, sqlite3.Error.
    """
    rows = connection.execute(
        f"SELECT id FROM {table} WHERE id >= ? AND id < ? AND {only} ORDER BY id LIMIT ?",  # noqa: S608 - ours
        (given, given + "\U0010ffff", short_ids.CANDIDATES_MAX + 1),
    )
    return short_ids.meant(given, [found for (found,) in rows], what)


def is_settled(path: Path, connection: sqlite3.Connection) -> bool:
    """Return whether what the connection has read counts: nobody may begin to write beside one without a lock."""
    return not isinstance(connection, StillConnection) or files_at(path)["-wal"] is None


def open_for_reading(path: Path, timeout_s: float, *, still: bool = False) -> sqlite3.Connection:
    """Return a connection that cannot write. Transactions are begun by hand.

    `still`: nobody writes meanwhile, so that a database without a log is read without making one beside it. So it is
    read by a user who cannot make one too: what was read then counts only if there is none afterwards either.
    Units: `timeout_s` is how long one call waits for a lock. Raises: OSError, NoFile, sqlite3.Error.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise NoFile(f"{path} is no regular file")
    still = still or not os.access(path.parent, os.W_OK)
    still = still and not path.with_name(path.name + "-wal").exists()
    name = path.absolute().as_uri()  # with ?, # and % of the path quoted: they would end or change it
    return sqlite3.connect(
        f"{name}?mode=ro{'&immutable=1' * still}",
        uri=True,
        factory=StillConnection if still else sqlite3.Connection,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )

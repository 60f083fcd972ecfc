"""The agent's journal: every command id it ever answered, durable before the answer. SQLite on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from processes.core.agent.remembered import JournalRow
from processes.core.errors import ResourceError
from processes.core.records import lasting_time
from processes.core.records.lasting_time import LastingTime
from processes.core.values import Now

KEPT_S: Final = 30 * 86400.0  # contract: ids are known so long; a command's time to live is 7 days at most
ROWS_MAX: Final = 200_000  # beyond, the oldest settled ones go; guess: 30 days of one command every 13 s. About 100 MB
PRUNE_EVERY_ROWS: Final = 1000  # whoever floods an agent with commands fills no disk until the hour's pruning
SCHEMA_VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE command (
  number INTEGER PRIMARY KEY,           -- the order of admission
  command_id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,                  -- remembered.JournalState
  written_wall_s REAL NOT NULL,
  record TEXT NOT NULL                  -- remembered.JournalRow as JSON
);
CREATE INDEX command_open ON command (number) WHERE state IN ('admitted', 'accepted', 'cancelled');
"""
_FULL, _CORRUPT, _NO_DATABASE = 13, 11, 26  # source: sqlite.org/rescode.html; named in sqlite3 from Python 3.11 on
_CODES: Final = {  # source: sqlite3ErrStr; before Python 3.11 an exception has the text alone
    "database or disk is full": _FULL,
    "database disk image is malformed": _CORRUPT,
    "file is not a database": _NO_DATABASE,
}

_Result = TypeVar("_Result")


class JournalFailed(ResourceError):
    """The journal could not be read or made durable: what depends on it must not happen. `reason`: for the hub."""

    def __init__(self, text: str, *, is_full: bool = False) -> None:
        super().__init__(text)
        self.reason = "disk_full" if is_full else "journal_failed"


class Journal:
    """Opened by `open`. All calls run one after the other on one thread, and are durable when they return."""

    def __init__(self, path: Path, *, rows_max: int = ROWS_MAX, prune_every_rows: int = PRUNE_EVERY_ROWS) -> None:
        self._path = path
        self._rows_max, self._prune_every_rows = rows_max, prune_every_rows
        self._thread = ThreadPoolExecutor(1, "journal")
        self._base: sqlite3.Connection | None = None
        self._file = (0, 0)  # device and inode of the file that was opened
        self.id = ""
        self.put_aside: Path | None = None  # where a damaged journal was put when this one was opened

    async def open(self) -> list[JournalRow]:
        """The commands not yet settled, in the order of admission. A journal that is missing is made, with a new id:
        by that the hub knows that whatever it had sent before may have been run, and sends it to nobody again.

        So is one that is damaged, which is kept beside it. Raises: JournalFailed; so does a journal of a newer version.
        """
        return await self._call(self._open_or_begin)

    async def is_ours(self) -> bool:
        """True while the file is the one that was opened, and can be read as such. A file that is only locked is."""
        return await self._call(self._is_ours)

    async def record(self, row: JournalRow) -> JournalRow | None:
        """None: the row is new, and durable. Else the row that was there, which stays. Raises: JournalFailed."""
        return await self._call(lambda: self._record(row))

    async def update(self, row: JournalRow) -> None:
        """The row replaces the one of its id, durably. Raises: JournalFailed."""
        await self._call(lambda: self._update(row))

    async def prune(self, now: Now, boot_id: str) -> None:
        """Settled and rejected rows that are too old or too many are gone. A wall clock that is wrong for an hour makes
        nothing old (core/records/lasting_time.py). Raises: JournalFailed.
        """
        await self._call(lambda: self._prune(now, boot_id))

    def close(self) -> None:
        """Closes it, after what is under way."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def _call(self, call: Callable[[], _Result]) -> _Result:
        def guarded() -> _Result:
            try:
                return call()
            except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
                is_full = _code(error) == _FULL or getattr(error, "errno", 0) == errno.ENOSPC
                raise JournalFailed(f"the journal {self._path}: {error}", is_full=is_full) from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    # on the thread

    def _open_or_begin(self) -> list[JournalRow]:
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._close()
            aside = self._path.with_name(f"{self._path.name}.damaged-{uuid.uuid4().hex[:8]}")
            self._path.rename(aside)
            self._path.with_name(f"{self._path.name}-journal").unlink(
                missing_ok=True
            )  # it would be taken for the new one's
            self.put_aside = aside
            return self._open()

    def _open(self) -> list[JournalRow]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        base = self._base = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        base.execute("PRAGMA journal_mode=DELETE")  # one file, no -wal; and writes into an unlinked one are refused
        base.execute(
            "PRAGMA synchronous=EXTRA"
        )  # FULL, and the folder too, so that a finished transaction stays finished
        verdict = base.execute("PRAGMA quick_check(1)").fetchone()[0]
        version = base.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"made by a newer version ({version})")
        if verdict != "ok":
            raise _Damaged(f"damaged: {verdict}")
        if not version:  # else nothing is written: an agent starts on a full disk too, and reports what ran
            new = f"INSERT INTO meta VALUES ('journal_id', '{uuid.uuid4().hex}');"  # noqa: S608 - hex digits
            base.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {new} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        found = base.execute("SELECT value FROM meta WHERE key = 'journal_id'").fetchone()
        if found is None:
            raise _Damaged("damaged: it has no id")
        self.id, self._file = str(found[0]), self._identity()
        rows = base.execute(
            "SELECT record FROM command WHERE state IN ('admitted', 'accepted', 'cancelled') ORDER BY number"
        )
        return [_row(record) for (record,) in rows]

    def _identity(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_dev, found.st_ino

    def _is_ours(self) -> bool:
        assert self._base is not None, "not open"
        try:
            if self._identity() != self._file:
                return False
            found = self._base.execute("SELECT value FROM meta WHERE key = 'journal_id'").fetchone()
            return found is not None and found[0] == self.id
        except FileNotFoundError:
            return False
        except OSError:
            return True  # nobody can say just now
        except sqlite3.Error as error:
            return not _is_damage(error)

    def _record(self, row: JournalRow) -> JournalRow | None:
        assert self._base is not None, "not open"
        statement = "INSERT OR IGNORE INTO command (command_id, state, written_wall_s, record) VALUES (?, ?, ?, ?)"
        inserted = self._base.execute(statement, (row.command_id, row.state.value, row.written_wall_s, _json(row)))
        if inserted.rowcount:
            if inserted.lastrowid and inserted.lastrowid % self._prune_every_rows == 0:
                self._drop_surplus()
            return None
        (found,) = self._base.execute("SELECT record FROM command WHERE command_id = ?", (row.command_id,)).fetchone()
        return _row(found)

    def _update(self, row: JournalRow) -> None:
        statement = "UPDATE command SET state = ?, record = ? WHERE command_id = ?"
        if not self._write(statement, (row.state.value, _json(row), row.command_id)):
            raise sqlite3.DatabaseError(f"it does not know {row.command_id} any more")

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        assert self._base is not None, "not open"
        return self._base.execute(statement, values).rowcount

    def _prune(self, now: Now, boot_id: str) -> None:
        assert self._base is not None, "not open"
        found = self._base.execute("SELECT value FROM meta WHERE key = 'lasting_time'").fetchone()
        before = None if found is None else msgspec.json.decode(found[0], type=LastingTime)
        lasting = lasting_time.after(before, boot_id, now)
        self._write("INSERT OR REPLACE INTO meta VALUES ('lasting_time', ?)", (msgspec.json.encode(lasting).decode(),))
        self._write(
            "DELETE FROM command WHERE state IN ('settled', 'rejected') AND written_wall_s < ?",
            (lasting.believed_wall_s - KEPT_S,),
        )
        self._drop_surplus()

    def _drop_surplus(self) -> None:
        statement = (
            "DELETE FROM command WHERE state IN ('settled', 'rejected') "
            "AND number <= (SELECT max(number) FROM command) - ?"
        )
        with contextlib.suppress(sqlite3.Error):  # the row before it is durable; the next time is not far
            self._write(statement, (self._rows_max,))

    def _close(self) -> None:
        if self._base is not None:
            self._base.close()


class _Damaged(sqlite3.DatabaseError):
    """The file is a database, and not a whole journal."""


def _is_damage(error: sqlite3.Error) -> bool:
    """True if the file itself is no journal any more, rather than locked, full or not writable."""
    is_whole = _code(error) not in (_CORRUPT, _NO_DATABASE) and "no such table" not in str(error)
    return isinstance(error, _Damaged) or not is_whole


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 if the error has none."""
    code: int = getattr(error, "sqlite_errorcode", _CODES.get(str(error), 0))
    return code & 0xFF


def _json(row: JournalRow) -> str:
    return msgspec.json.encode(row).decode()


def _row(record: str) -> JournalRow:
    return msgspec.json.decode(record, type=JournalRow)

"""The truth in SQLite, in the state folder: what one machine has.

Every transaction is one function call on aiosqlite's thread, so a loop that is cancelled or dies can never leave one
open. After BUSY and FULL the same batch is tried again. After an I/O error, or when the file is damaged, the hub must
end and rebuild its memory from the disk: a failed fsync may have thrown away pages that the cache still holds as
written.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import aiosqlite

from processes.adapters import clock
from processes.adapters.state import epoch_file, fleet_db, revocations, sqlite_file
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.adapters.state.sqlite_file import Files
from processes.core.hub.step import StoredState
from processes.core.hub.turn import CommitBatch
from processes.core.records import beginning
from processes.core.travels.pulse import Pulse
from processes.core.values import Now, Position
from processes.hub import store
from processes.hub.store import RETRY_S, Blocked, StorageBlocked, StorageBroken

T = TypeVar("T")


class SqliteStore:
    """The open database. One caller at a time (the hub's loop has at most one batch in commit)."""

    def __init__(self, path: Path, connection: aiosqlite.Connection, epoch: int) -> None:
        self._path, self._connection, self.epoch = path, connection, epoch
        self._files = sqlite_file.files_at(path)
        self._boot_id = clock.boot_id()
        self._is_lost = False
        self.call_since_ns = 0  # since when a writing call has not returned; 0: none is under way
        self.written = 0  # rows, as the database knows it too
        self.has_log = True  # something was committed since the log was folded in

    @classmethod
    async def open(cls, path: Path, beside: Path, last: Pulse | None = None) -> SqliteStore:
        """Return the database, checked, with an epoch newer than any before: max(database, the file beside it) + 1,
        durable in both. `last`: the predecessor's last pulse.

        Raises: StorageBlocked, if it is locked or the disk is full (try again); StorageBroken, with what to do.
        """
        fleet_db.finish_restore(path)
        fleet_db.forget_stale_memory(path)
        if refusal := await asyncio.to_thread(fleet_db.refusal, path, beside, last):
            raise StorageBroken(f"{refusal}. {beginning.ADVICE}")
        try:
            connection = await aiosqlite.Connection(lambda: fleet_db.open_for_writing(path), iter_chunk_size=64)
        except sqlite3.Error as error:
            raise _of_sqlite(error) from error
        except OSError as error:
            raise store.of_disk(error, path) from error
        except DatabaseUnreadable as error:
            raise StorageBroken(str(error)) from None
        try:
            epoch = await _on_thread(connection, lambda sqlite: begin_epoch(sqlite, beside))
        except BaseException:
            await connection.close()
            raise
        return cls(path, connection, epoch)

    async def restored(self) -> StoredState:
        """Return the state from which a hub starts, in which what was ever made void is void, on disk too.

        Raises: StorageBlocked, StorageBroken.
        """
        path = revocations.beside(self._path)
        return await _on_thread(self._connection, lambda sqlite: store.restored(sqlite, path))

    async def position(self) -> Position:
        """Return up to where the events are dealt with. Raises: StorageBlocked, StorageBroken."""
        return await _on_thread(self._connection, fleet_db.position)

    async def commit(self, batch: CommitBatch, blocked: Blocked) -> list[tuple[str, str]]:
        """Put the batch on disk. Tried again for ever while the database is locked or full; `blocked` is told of each
        failure. Return the hosts whose record could not be written as it is, and why: it was written without the words
        of its agent.

        Raises: StorageBroken.
        """
        tries, written, beside = 0, self.written + len(batch.writes), revocations.beside(self._path)
        while True:
            try:
                unsaid = await self._call(lambda sqlite: store.commit(sqlite, batch, self.epoch, written, beside))
                self.written, self.has_log = written, True
                return unsaid
            except StorageBlocked as error:
                blocked(str(error))
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1

    is_of_another = False
    is_shared = False  # the state folder's lock is the lease

    async def renew(self, position: Position, blocked: Blocked) -> None:
        """Nothing: the lock lasts as long as the process."""

    async def prune(self, now: Now, kept_s: float, output_bytes_max: int) -> int:
        """Lets go some of what is past its time; returns how many rows, 0 when nothing is left to do.

        Raises: StorageBlocked, StorageBroken.
        """
        boot_id = self._boot_id
        return await self._call(lambda sqlite: store.prune(sqlite, now, boot_id, kept_s, output_bytes_max))

    async def fold_log(self) -> None:
        """Brings what was committed out of the log into the database file, as far as readers let it.

        Raises: StorageBlocked, StorageBroken.
        """
        self.has_log = False
        await self._call(_fold_log)

    async def close(self) -> None:
        """Closes the database, its log folded in. One that was taken away is left to the process's end: SQLite would
        remove what stands in its place.
        """
        if not self._is_lost:
            await self._connection.close()

    async def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Returns the result of a writing call, once it is certain that it did not go into a file that has no name any
        more.

        Raises: StorageBlocked, StorageBroken.
        """
        self.call_since_ns = time.monotonic_ns()
        try:
            await self._still_there()
            result = await _on_thread(self._connection, call)
            await self._still_there()
            return result
        finally:
            self.call_since_ns = 0

    async def _still_there(self) -> None:
        """Raises: StorageBroken, if the database or its log was removed or replaced; what they hold is kept first."""
        now = sqlite_file.files_at(self._path)
        if now == self._files:
            return
        self._is_lost = True
        lost = self._path.name + next(suffix for suffix, ours in self._files.items() if now[suffix] != ours)
        kept = await _on_thread(self._connection, lambda sqlite: _saved(sqlite, self._path, self._files, now))
        raise StorageBroken(f"{lost} was removed or replaced under the hub: {kept}")


def _saved(sqlite: sqlite3.Connection, path: Path, ours: Files, now: Files) -> str:
    """Bring to safety what our open descriptors hold of files that have lost their names; return how that went."""
    try:
        if now[""] == ours[""]:
            _, log, folded = sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if log == folded:
                return "all that was committed is in the database file, and a new hub goes on with it"
            return f"{folded} of {log} pages of its log could be brought into the database file"
        aside = fleet_db.aside_name(path)
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        fleet_db.copy(sqlite, aside)
        return f"all that was committed is in {aside}: fleethub down, then fleethub restore {aside}"
    except (OSError, sqlite3.Error) as error:
        return f"and what was committed could not be kept: {error}"


async def _on_thread(connection: aiosqlite.Connection, call: Callable[[sqlite3.Connection], T]) -> T:
    """Make one call on the database's thread, and return its result. Raises: StorageBlocked, StorageBroken."""
    try:
        # one function, one transaction: aiosqlite has no public way to do this
        result: T = await connection._execute(call, connection._conn)  # type: ignore[no-untyped-call]
        return result
    except sqlite3.Error as error:
        raise _of_sqlite(error) from error


def _of_sqlite(error: sqlite3.Error) -> StorageBlocked | StorageBroken:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    told = f"{getattr(error, 'sqlite_errorname', 'error')}: {error}"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL):
        return StorageBlocked(told)
    return StorageBroken(f"the database failed: {told}")


def begin_epoch(sqlite: sqlite3.Connection, beside: Path) -> int:
    """Return a new epoch, durable in the database and in the file beside it. Raises: StorageBlocked, StorageBroken."""
    damage = [row[0] for row in sqlite.execute("PRAGMA quick_check(5)")]
    if damage != ["ok"]:
        raise StorageBroken(
            f"the database is damaged and is not touched; restore a backup. It says: {'; '.join(map(str, damage))}"
        )
    epoch = max(fleet_db.epoch(sqlite), epoch_file.read(beside)) + 1

    def work() -> None:
        store.put_meta(sqlite, epoch=str(epoch), written="0")

    # In this order: a kill between the two must not make the database look older than what ran here.
    store.in_transaction(sqlite, work)
    try:
        epoch_file.write(beside, epoch)
    except OSError as error:
        raise store.of_disk(error, beside) from error
    _fold_log(sqlite)
    return epoch


def _fold_log(sqlite: sqlite3.Connection) -> None:
    """Bring into the database file what stands in its log, as far as readers let it; never waits for them."""
    sqlite.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

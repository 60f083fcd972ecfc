"""Reads fleet.db on a connection's own thread: never blocks the loop, has a deadline, and notices a replaced file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import aiosqlite

from processes.adapters.state import fleet_db, sqlite_file
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.adapters.state.sqlite_file import Files

READ_S_MAX: Final = 3.0  # a page of anything takes milliseconds; after so long the disk is not well
WAITING_MAX: Final = 200  # reads at a time; guess: as many as one second serves

T = TypeVar("T")


class _Replaced(Exception):
    """The file at the path, or its log, is another one than ours: it was restored from a backup, or taken away."""


class DatabaseReader:
    """One connection, opened when it is first needed, and opened anew after a failure."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: aiosqlite.Connection | None = None
        self._files: Files = {}
        self._waiting = 0
        self._opening = asyncio.Lock()

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of one short reading function. Raises: DatabaseUnreadable; its text is fit for a person."""
        if self._waiting >= WAITING_MAX:
            raise DatabaseUnreadable(f"{WAITING_MAX} reads wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(READ_S_MAX):
                try:
                    return await self._read(read)
                except _Replaced:
                    self._drop()
                    return await self._read(read)
        except TimeoutError:
            self._drop()
            raise DatabaseUnreadable(f"{self._path} did not answer within {READ_S_MAX:g} s") from None
        except (sqlite3.Error, ValueError, OSError, _Replaced) as error:
            self._drop()
            raise DatabaseUnreadable(f"{self._path} cannot be read: {error}") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the thread, without waiting for the read that it may be making."""
        self._drop()

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        async with self._opening:
            if self._db is None:
                db = aiosqlite.Connection(self._open, 64)
                db._thread.daemon = True  # a disk that hangs must not keep a process from its end
                self._db = await db
        db, open_one = self._db, self._db._conn

        def call(connection: sqlite3.Connection) -> T:
            if sqlite_file.files_at(self._path) != self._files:
                raise _Replaced
            found = read(connection)
            if not sqlite_file.is_settled(self._path, connection):
                raise _Replaced
            return found

        try:
            result: T = await db._execute(call, open_one)  # type: ignore[no-untyped-call]
        finally:
            if isinstance(open_one, sqlite_file.StillConnection) and self._db is db:
                self._drop()  # it would go on showing what it has read once
        return result

    def _open(self) -> sqlite3.Connection:
        connection = fleet_db.open_for_reading(self._path)
        self._files = sqlite_file.files_at(self._path)
        return connection

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.stop()

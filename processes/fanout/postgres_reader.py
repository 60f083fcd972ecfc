"""Reads the truth in PostgreSQL as database_reader.py does in SQLite: on a thread, with a deadline."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, cast

import psycopg

from processes.adapters.postgres.connection import Connection, PostgresAway
from processes.adapters.postgres.sql import Sql
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.fanout.database_reader import READ_S_MAX, WAITING_MAX

T = TypeVar("T")


class PostgresReader:
    """One connection that only reads."""

    def __init__(self, url: str, name: str) -> None:
        self._connection = Connection(url, name, session={"default_transaction_read_only": "on"})
        self._waiting = 0

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of one short reading function. Raises: DatabaseUnreadable; its text is fit for a person."""
        if self._waiting >= WAITING_MAX:
            raise DatabaseUnreadable(f"{WAITING_MAX} reads wait already")
        self._waiting += 1
        try:
            return await self._connection.call(lambda psql: read(cast(Any, Sql(psql))), READ_S_MAX)
        except (PostgresAway, psycopg.Error, ValueError) as error:
            raise DatabaseUnreadable(f"PostgreSQL cannot be read: {' '.join(str(error).split())}") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the connection, without waiting for the read that it may be making."""
        self._connection.close()

"""Reads the truth where it is: in the state folder's SQLite, or in the PostgreSQL of `store.url`. It blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, cast

from processes.adapters.settings import Settings
from processes.adapters.state import fleet_db
from processes.adapters.state.fleet_db import DatabaseUnreadable

T = TypeVar("T")


def reading(settings: Settings, read: Callable[[sqlite3.Connection], T]) -> T:
    """Return the result of one reading function, called with a connection of its own, as of one moment.

    Raises: DatabaseUnreadable.
    """
    if not settings.file.store.url:
        return fleet_db.reading(settings.database, read)
    import psycopg  # noqa: PLC0415  # only where it is wanted: its import takes 0.2 s

    from processes.adapters.postgres import connection as postgres  # noqa: PLC0415
    from processes.adapters.postgres.sql import Sql  # noqa: PLC0415

    try:
        with postgres.opened_for_reading(settings.file.store.url, "reader") as connection:
            return read(cast(Any, Sql(connection)))
    except psycopg.Error as error:
        raise DatabaseUnreadable(f"PostgreSQL cannot be read: {' '.join(str(error).split())}") from None

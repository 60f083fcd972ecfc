"""What reads and writes the fleet's database: a connection of SQLite's, or one of PostgreSQL's on which the same
statements can be made (adapters/postgres/sql.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Return how many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row; None if there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Reading(Protocol):
    """A connection. Its calls raise errors of its own kind."""

    def execute(self, statement: str, values: Any = ..., /) -> Cursor:
        """Return a cursor with the statement's rows."""
        ...

    def executemany(self, statement: str, rows: Iterable[Any], /) -> object:
        """Make the statement once for each row of values."""
        ...

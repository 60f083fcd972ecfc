"""The statements of SQLite's database on PostgreSQL: the same ones, with what the two write differently put into
PostgreSQL's words. tests/hub/test_hub_store_contract.py reads and writes everything on both.

They are in the subset that both know (ON CONFLICT, booleans, window functions). What is left is here: the places of
parameters, group_concat, and what is looked for often by json_extract, in whose place PostgreSQL has columns. hex,
json_each, the rest of json_extract and rowid are made by the schema (schema.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from processes.adapters.postgres.connection import Psycopg

_WORDS: Final = (
    (re.compile(r"PRAGMA user_version"), "SELECT value::int FROM meta WHERE key = 'version'"),
    (re.compile(r"coalesce\(json_extract\(record, '\$\.state'\), 'running'\)"), "state"),
    (re.compile(r"json_extract\(record, '\$\.(run|output_bytes)'\)"), r"\1"),
    (re.compile(r"group_concat\(([\w.]+)\)"), r"string_agg(\1, ',')"),
    (re.compile(r"%"), "%%"),
    (re.compile(r"\?"), "%s"),
)


@functools.lru_cache(maxsize=1000)
def translated(statement: str) -> str:
    """Return the statement as PostgreSQL has it."""
    for pattern, word in _WORDS:
        statement = pattern.sub(word, statement)
    return statement


class Sql:
    """A connection on which SQLite's statements can be made, as on sqlite3's own."""

    def __init__(self, connection: Psycopg) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[object] = (), /) -> Any:
        """Return a cursor with the statement's rows. Raises: psycopg.Error."""
        return self._connection.execute(translated(statement), values)

    def executemany(self, statement: str, rows: Iterable[Sequence[object]], /) -> Any:
        """Make the statement once for each row of values. Raises: psycopg.Error."""
        with self._connection.cursor() as cursor:
            cursor.executemany(translated(statement), rows)
            return cursor

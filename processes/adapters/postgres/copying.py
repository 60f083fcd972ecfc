"""Copies the truth between SQLite and PostgreSQL, table by table, and proves that both hold the same.

The target carries a mark (a row of its table meta): whose database is copied, as of which epoch, and up to which row.
Each batch is one transaction with its mark, so a kill anywhere leaves a copy that goes on where it stood; one of
another epoch begins anew.

Which tables and columns there are is asked of the schema (adapters/state/fleet_schema.py): a table that a later
version has is copied without a word here.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from processes.adapters.state import fleet_schema
from processes.adapters.state.reading import Reading
from processes.core.errors import LocalError
from processes.core.records.command import Command
from processes.core.records.run import Run

BATCH: Final = 500  # rows; of the largest, output, they are at most some 30 MB
MOVING: Final = "moving"  # the mark's key in the table meta, while it goes on …
MOVED: Final = "moved"  # … and once all is there
OWN: Final = ("version", "epoch", "written", MOVING, MOVED)  # keys of meta that each database has for itself
# what SQLite finds in a record, and PostgreSQL has as columns beside it
DERIVED: Final[Mapping[str, tuple[type[msgspec.Struct], tuple[str, ...]]]] = {
    "commands": (Command, ("run", "output_bytes")),
    "runs": (Run, ("state",)),
}
ORDER: Final = {"replies": ("rowid",)}  # what a table is read by, if not by its key: the newest replies are kept


class Differs(LocalError):
    """What was copied is not what was to be copied."""


class Mark(msgspec.Struct):
    """How far a copy has come. `home`: whose database it is of; `epoch`: the newest hub of the database it is of;
    `table`, `after`: up to which row of which table, which are copied in one order; `after` None: none yet.
    """

    home: str
    epoch: int
    table: str = ""
    after: list[Any] | None = None


class Copied(NamedTuple):
    """A table: its columns, and those that its rows are read in order of."""

    name: str
    columns: tuple[str, ...]
    order: tuple[str, ...]


def tables() -> list[Copied]:
    """Return every table of the truth except meta, in the order in which they are copied."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        fleet_schema.migrate(made)
        names = [name for (name,) in made.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        found = []
        for name in names:
            rows = made.execute(f"PRAGMA table_info({name})").fetchall()
            key = sorted((row[5], row[1]) for row in rows if row[5])
            found.append(
                Copied(name, tuple(row[1] for row in rows), ORDER.get(name, tuple(column for _, column in key)))
            )
    return [table for table in found if table.name != "meta"]


@contextlib.contextmanager
def one_transaction(db: Reading) -> Iterator[None]:
    """Do what is inside in one transaction. Raises: what the database raises."""
    db.execute("BEGIN")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(Exception):
            db.execute("ROLLBACK")
        raise


def mark(db: Reading, key: str) -> Mark | None:
    """Return the mark that a database carries; None: it has none that can be read."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    with contextlib.suppress(msgspec.MsgspecError):
        return None if row is None else msgspec.json.decode(row[0], type=Mark)
    return None


def put_meta(db: Reading, key: str, value: str) -> None:
    """Write one row of the table meta, in the caller's transaction."""
    db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))


def put_mark(db: Reading, key: str, it: Mark) -> None:
    """Write the mark, in the caller's transaction."""
    put_meta(db, key, msgspec.json.encode(it).decode())


def counts(db: Reading) -> dict[str, int]:
    """Return how many rows each table has."""
    return {
        table.name: int(db.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])  # noqa: S608  # our own names
        for table in tables()
    }


class Copying:
    """One copy. `beat`: called between batches; it may raise, and then the copy stands where it is."""

    def __init__(
        self, source: Reading, target: Reading, begun: Mark, *, beat: Callable[[], None] = lambda: None,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self._source, self._target, self._mark = source, target, begun
        self._beat, self._told = beat, told
        self._tables = tables()

    def begin_anew(self) -> None:
        """Empty the target's tables, and mark it as a copy that has nothing yet."""
        with one_transaction(self._target):
            for table in self._tables:
                self._target.execute(f"DELETE FROM {table.name}")  # noqa: S608  # our own names
            self._target.execute("DELETE FROM meta WHERE key = ?", (MOVED,))
            put_mark(self._target, MOVING, self._mark)

    def copy(self) -> None:
        """Copy all rows that are not there yet."""
        left = [table for table in self._tables if table.name >= self._mark.table]
        for table in left:
            after = self._mark.after if table.name == self._mark.table else None
            copied = 0
            while rows := _rows(self._source, table, after):
                after = list(rows[-1][len(table.columns) :])
                self._mark.table, self._mark.after = table.name, after
                with one_transaction(self._target):
                    self._put(table, [row[: len(table.columns)] for row in rows])
                    put_mark(self._target, MOVING, self._mark)
                copied += len(rows)
                self._told(f"{table.name}: {copied} rows copied")
                self._beat()

    def copy_meta(self) -> None:
        """Copy what the table meta says of the fleet, in the caller's transaction."""
        for key, value in _meta(self._source).items():
            put_meta(self._target, key, value)

    def verify(self) -> dict[str, int]:
        """Return how many rows each table has, in both. Raises: Differs; the copy must then begin anew."""
        found = {}
        for table in self._tables:
            there, here = (self._digest(db, table) for db in (self._source, self._target))
            if there != here:
                with one_transaction(self._target):
                    put_mark(self._target, MOVING, msgspec.structs.replace(self._mark, epoch=-1))
                raise Differs(
                    f"{table.name} has {there[0]} rows with digest {there[1][:12]}, and its copy {here[0]} with "
                    f"{here[1][:12]}"
                )
            found[table.name] = here[0]
            self._told(f"{table.name}: {here[0]} rows, digest {here[1][:12]} in both")
        return found

    def verify_meta(self) -> None:
        """Check what `copy_meta` has copied, in the same transaction. Raises: Differs."""
        if _meta(self._source) != _meta(self._target):
            raise Differs("the table meta is not as its copy")

    def _put(self, table: Copied, rows: Sequence[tuple[Any, ...]]) -> None:
        columns, values = list(table.columns), [list(row) for row in rows]
        if not isinstance(self._target, sqlite3.Connection):
            kind, derived = DERIVED.get(table.name, (msgspec.Struct, ()))
            is_open = columns.index("open") if "open" in columns else None
            record = columns.index("record") if derived else 0
            for row in values:
                if is_open is not None:
                    row[is_open] = bool(row[is_open])
                if derived:
                    decoded = msgspec.json.decode(row[record], type=kind)
                    row += [getattr(decoded, name) for name in derived]
            columns += derived
        places = ", ".join("?" * len(columns))
        self._target.executemany(
            f"INSERT INTO {table.name} ({_quoted(columns)}) VALUES ({places})",  # noqa: S608  # our own names
            [tuple(row) for row in values],
        )

    def _digest(self, db: Reading, table: Copied) -> tuple[int, str]:
        """Return how many rows there are, and the sum of their digests: the two order odd texts differently."""
        total, number, after = 0, 0, None
        while rows := _rows(db, table, after):
            after = list(rows[-1][len(table.columns) :])
            for row in rows:
                place = number if table.name in ORDER else 0
                told = repr([place, *(_plain(value) for value in row[: len(table.columns)])])
                total += int.from_bytes(hashlib.sha256(told.encode()).digest())
                number += 1
            self._beat()
        return number, f"{total % 2**256:064x}"


def _rows(db: Reading, table: Copied, after: list[Any] | None) -> list[tuple[Any, ...]]:
    """Return the next rows behind a place, each with its own place behind its columns."""
    order = _quoted(table.order)
    where = f"WHERE ({order}) > ({', '.join('?' * len(table.order))})" if after is not None else ""
    columns = _quoted(table.columns)
    return db.execute(
        f"SELECT {columns}, {order} FROM {table.name} {where} ORDER BY {order} LIMIT {BATCH}",  # noqa: S608
        tuple(after or ()),
    ).fetchall()


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _plain(value: object) -> object:
    """Return the value as both databases give it."""
    if isinstance(value, bool):
        return int(value)
    return bytes(value) if isinstance(value, memoryview | bytearray) else value


def _meta(db: Reading) -> dict[str, str]:
    return {key: value for key, value in db.execute("SELECT key, value FROM meta") if key not in OWN}

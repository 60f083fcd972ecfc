"""The hub's state as tables of rows, and one overlay over all of them. Pure.

A new kind of state is one more Table in the memory. If it is durable, the database has a table of the same name, and
hub/store.py maps a row to its columns. Reading, changing, removing, restoring and counting rows is written once for all
kinds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Row = TypeVar("Row")


class Table(dict[str, Row]):
    """Rows by their key, in the order in which they came. Changed by `put_row` and `drop_row` alone.

    `name`: the database's table of the same rows, if the kind is durable; else only a name.
    `class_of`: the class in which a row counts; None: in none. `kept`: how many rows of a class the memory keeps; past
    it the oldest of that class leave the memory (the database still has them).

    Invariant: counts[c] is the number of rows of class c, and at most kept[c] where that is given.
    """

    def __init__(
        self,
        name: str,
        *,
        durable: bool = False,
        class_of: Callable[[str, Row], str | None] | None = None,
        kept: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.durable = name, durable
        self.counts: Counter[str] = Counter()
        self._class_of, self._kept = class_of, dict(kept or {})
        self._ages: dict[str, dict[str, None]] = {name: {} for name in self._kept}  # class → keys, oldest first

    def put_row(self, key: str, row: Row) -> None:
        """Make this the row of the key. Cost: constant."""
        if self._class_of is None:
            self[key] = row
            return
        before = self.get(key)
        was = self._class_of(key, before) if before is not None else None
        self[key] = row
        now = self._class_of(key, row)
        if was != now:
            self._leave(key, was)
            self._enter(key, now)

    def renew_row(self, key: str, row: Row) -> None:
        """Make this the row of the key, which has a row of the same class already. Cost: less than `put_row`."""
        assert key in self
        self[key] = row

    def drop_row(self, key: str) -> None:
        """Remove the row, if there is one. Cost: constant."""
        row = self.pop(key, None)
        if row is not None and self._class_of is not None:
            self._leave(key, self._class_of(key, row))

    def _enter(self, key: str, name: str | None) -> None:
        if name is None:
            return
        self.counts[name] += 1
        if name in self._ages:
            self._ages[name][key] = None
            if len(self._ages[name]) > self._kept[name]:
                self.drop_row(next(iter(self._ages[name])))

    def _leave(self, key: str, name: str | None) -> None:
        if name is None:
            return
        self.counts[name] -= 1
        if name in self._ages:
            del self._ages[name][key]


class Overlay:
    """The changes of one step over any tables: reads fall through; the tables do not change until `apply_rows`."""

    __slots__ = ("_changed",)

    def __init__(self) -> None:
        self._changed: dict[str, tuple[Table[Any], dict[str, Any]]] = {}  # table's name → the table, and its new rows

    def get(self, table: Table[Row], key: str) -> Row | None:
        """Return the row of this key, as of this overlay; None if there is none."""
        changed = self._changed.get(table.name)
        if changed is not None and key in changed[1]:
            row: Row | None = changed[1][key]
            return row
        return table.get(key)

    def set(self, table: Table[Row], key: str, row: Row | None) -> None:
        """Make this the row of the key; None removes it. The last row that is set for a key counts."""
        changed = self._changed.get(table.name)
        if changed is None:
            changed = self._changed[table.name] = (table, {})
        changed[1][key] = row

    def changed(self, table: Table[Row]) -> Mapping[str, Row | None]:
        """Return the table's rows that were set here, by key, in the order in which each key was first set."""
        found = self._changed.get(table.name)
        return found[1] if found is not None else {}

    def apply_rows(self) -> None:
        """Make all changes, table by table, and in order within each."""
        for table, rows in self._changed.values():
            for key, row in rows.items():
                if row is None:
                    table.drop_row(key)
                else:
                    table.put_row(key, row)

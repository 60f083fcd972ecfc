"""A reader of the database while a hub begins or ends: the log beside it comes or goes, and nobody hears of that."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processes.adapters.state import fleet_db, sqlite_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "fleet.db"
    with contextlib.closing(fleet_db.open_for_writing(found)):
        return found


def tokens(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM tokens").fetchone()[0])


def opens(monkeypatch: pytest.MonkeyPatch, tries: list[Callable[..., Any]]) -> None:
    """Have each of the next tries to open it go so."""
    real = sqlite_file.open_for_reading

    def tried(*words: Any, **named: Any) -> sqlite3.Connection:
        how = tries.pop(0) if tries else real
        return how(*words, **named)

    monkeypatch.setattr(sqlite_file, "open_for_reading", tried)


def gone(*_: object, **__: object) -> sqlite3.Connection:
    """The log went after somebody saw that it was there."""
    return sqlite3.connect("file:/nowhere/fleet.db?mode=ro", uri=True)


def test_a_log_that_goes_while_it_is_opened_costs_another_try(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, [gone, gone])
    assert fleet_db.reading(path, tokens) == 0
    opens(monkeypatch, [gone] * fleet_db.READ_MAX)
    with pytest.raises(fleet_db.DatabaseUnreadable, match="cannot be read"):
        fleet_db.reading(path, tokens)


def test_a_log_that_comes_while_it_is_read_costs_another_try(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [False, False]
    monkeypatch.setattr(sqlite_file, "is_settled", lambda *_: seen.pop(0) if seen else True)
    assert fleet_db.reading(path, tokens) == 0
    seen += [False] * fleet_db.READ_MAX
    with pytest.raises(fleet_db.DatabaseUnreadable, match="just begun"):
        fleet_db.reading(path, tokens)


def test_what_is_locked_or_damaged_is_told_at_once(path: Path) -> None:
    calls = []

    def broken(connection: sqlite3.Connection) -> int:
        calls.append(connection)
        return tokens(connection) + int(connection.execute("SELECT * FROM there_is_none").fetchone()[0])

    with pytest.raises(fleet_db.DatabaseUnreadable):
        fleet_db.reading(path, broken)
    assert len(calls) == 1

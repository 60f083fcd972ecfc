"""What the watchdog asks of the database: the ledger as it is committed, and rows that the ledger misses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from processes.adapters.state import fleet_db
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.core.records.ledger import Ledger
from processes.watchdog.inquiries import kept_tally


def made(path: Path, ledger: Ledger, rows: int) -> sqlite3.Connection:
    connection = fleet_db.open_for_writing(path)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('ledger', ?)", (msgspec.json.encode(ledger).decode(),))
    for number in range(rows):
        connection.execute(
            "INSERT INTO commands (number, id, host, state, open, created_wall_s, record) VALUES (?, ?, 'a', 'queued', 1, 0, '{}')",
            (number, str(number)),
        )
    return connection


def test_an_open_command_without_a_row_is_missing(tmp_path: Path) -> None:
    path, ledger = tmp_path / "fleet.db", Ledger(accepted=5, queued=2, running=1, succeeded=2)
    made(path, ledger, 3).close()
    file = kept_tally(path)
    assert file.newest() == (ledger, 0)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM commands WHERE number = 0")
    assert file.newest() == (ledger, 1)
    connection.close()


def test_what_is_not_committed_is_not_seen_and_what_is_committed_later_is(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    writer = made(path, Ledger(accepted=1, queued=1), 1)
    file = kept_tally(path)
    assert file.newest() == (Ledger(accepted=1, queued=1), 0)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM commands")
    assert file.newest() == (Ledger(accepted=1, queued=1), 0)
    writer.execute("COMMIT")
    assert file.newest()[1] == 1
    writer.close()


def test_between_two_looks_the_log_can_be_folded_in(tmp_path: Path) -> None:
    """A reader that stayed in its transaction would let it grow for ever."""
    path = tmp_path / "fleet.db"
    writer = made(path, Ledger(), 5)
    file = kept_tally(path)
    file.newest()
    assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert path.with_name("fleet.db-wal").stat().st_size == 0
    writer.close()


def test_a_restored_file_is_read_in_place_of_the_old_one(tmp_path: Path) -> None:
    path, backup = tmp_path / "fleet.db", tmp_path / "backup.db"
    made(path, Ledger(accepted=1, queued=1), 1).close()
    made(backup, Ledger(accepted=7, succeeded=7), 0).close()
    file = kept_tally(path)
    file.newest()
    backup.replace(path)
    assert file.newest() == (Ledger(accepted=7, succeeded=7), 0)
    path.unlink()
    with pytest.raises(DatabaseUnreadable):
        file.newest()

"""Databases in folders of every name, and what the beginning of an id finds in them."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from processes.adapters.state import fleet_db, incidents_db, sqlite_file
from processes.adapters.state.sqlite_file import KeptReading
from processes.core.shown.short_ids import CANDIDATES_MAX, AmbiguousId
from processes.core.watchdog.incident import Incident
from processes.watchdog.incident_store import Store

NAMES = [
    "st#f",
    "st?q",
    "st?mode=memory",
    "a%41",
    "100%",
    "a b",
    "it's",
    'q"q',
    ";",
    "$x`id`",
    "*{a,b}",
    "ü🚀",
    "-x",
    "&",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_database_is_made_and_read_in_a_folder_of_any_name_and_nothing_beside_it(tmp_path: Path, name: str) -> None:
    """The bug it would catch: a `#` or `?` in the path ends it, and another database is read and made."""
    folder = tmp_path / name
    folder.mkdir()
    with contextlib.closing(fleet_db.open_for_writing(folder / "fleet.db")) as connection:
        connection.execute("INSERT INTO meta (key, value) VALUES ('epoch', '7')")
    assert fleet_db.reading(folder / "fleet.db", fleet_db.epoch) == 7
    store = Store(folder / "incidents.db", folder / "incidents", 10, 1 << 20)
    incident = Incident(
        id="i1", process="hub", verdict="dead", reason="", pid=7, epoch=1, boot_id="b", good_mono_s=1.0,
        found_mono_s=2.0, found_wall_s=1e9,
    )  # fmt: skip
    store.save(incident)
    store.close()
    assert [view.id for view in incidents_db.incidents(folder / "incidents.db")] == ["i1"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def table() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE things (id TEXT PRIMARY KEY, host TEXT)")
    rows = [(f"aaaa{number:02}", "web1") for number in range(CANDIDATES_MAX + 5)]
    rows += [("bbbb", "web1"), ("bbbbb", "web1"), ("cccc1", "canary"), ("cccc2", "web1"), ("50%_x", "web1")]
    connection.executemany("INSERT INTO things VALUES (?, ?)", rows)
    return connection


@pytest.mark.parametrize(
    ("typed", "id_"),
    [("aaaa03", "aaaa03"), ("bbbb", "bbbb"), ("cccc", "cccc2"), ("aaab", "aaab"), ("50%_", "50%_x"), ("%%%%", "%%%%")],
)
def test_the_beginning_of_an_id_finds_that_one_and_no_row_that_is_left_out(
    table: sqlite3.Connection, typed: str, id_: str
) -> None:
    assert sqlite_file.meant(table, "things", typed, "things", "host <> 'canary'") == id_


def test_of_many_ids_that_begin_so_the_first_are_named(table: sqlite3.Connection) -> None:
    with pytest.raises(AmbiguousId, match="several things begin with 'aaaa'") as refused:
        sqlite_file.meant(table, "things", "aaaa", "things")
    assert refused.value.candidates == [f"aaaa{number:02}" for number in range(CANDIDATES_MAX)]


def rows(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall()


@pytest.mark.parametrize("seed", range(12))
def test_a_reading_that_is_kept_finds_what_a_fresh_one_finds_and_no_more_often_than_it_must(
    tmp_path: Path, seed: int
) -> None:
    """Whatever is done to the database between two looks: commits, a fold of its log, a writer that ends, another
    database in its place. What is not committed is not seen, and nobody is kept from folding.
    """
    dice, path, backup = random.Random(seed), tmp_path / "fleet.db", tmp_path / "backup.db"
    reads = 0

    def opened() -> sqlite3.Connection:
        connection = fleet_db.open_for_writing(path)
        connection.execute("PRAGMA synchronous = OFF")  # quicker
        return connection

    def counted(connection: sqlite3.Connection) -> list[tuple[str, str]]:
        nonlocal reads
        reads += 1
        return rows(connection)

    writer = opened()
    kept = KeptReading(path, fleet_db.open_for_reading, counted)
    for number in range(40):
        match dice.choice(("look", "look", "commit", "commit", "rollback", "fold", "reopen", "replace")):
            case "look":
                assert kept.newest() == fleet_db.reading(path, rows)
                before = reads
                assert kept.newest() == fleet_db.reading(path, rows)
                assert reads == before
            case "commit":
                writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"k{dice.randrange(3)}", str(number)))
            case "rollback":
                writer.execute("BEGIN IMMEDIATE")
                writer.execute("INSERT OR REPLACE INTO meta VALUES ('never', 'seen')")
                assert ("never", "seen") not in kept.newest()
                writer.execute("ROLLBACK")
            case "fold":
                assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            case "reopen":
                writer.close()
                writer = opened()
            case "replace":
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                shutil.copy(path, backup)
                writer.execute("INSERT OR REPLACE INTO meta VALUES ('lost', ?)", (str(number),))
                writer.close()
                for suffix in sqlite_file.SUFFIXES:
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                backup.replace(path)
                writer = opened()
    kept.close()
    writer.close()


def test_a_reading_that_failed_is_made_anew(tmp_path: Path) -> None:
    path, fails = tmp_path / "fleet.db", [True]

    def read(connection: sqlite3.Connection) -> int:
        if fails:
            raise sqlite3.OperationalError("disk I/O error")
        return len(rows(connection))

    kept = KeptReading(path, fleet_db.open_for_reading, read)
    with pytest.raises(fleet_db.DatabaseUnreadable):
        kept.newest()
    fleet_db.open_for_writing(path).close()
    with pytest.raises(sqlite3.OperationalError):
        kept.newest()
    fails.clear()
    assert kept.newest() == len(fleet_db.reading(path, rows))
    kept.close()


def test_without_a_lock_each_look_reads_anew_and_what_somebody_writes_beside_it_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    fleet_db.open_for_writing(path).close()

    def still(place: Path) -> sqlite3.Connection:
        return sqlite_file.open_for_reading(place, 1.0, still=True)

    kept = KeptReading(path, still, rows)
    before = kept.newest()
    writer = fleet_db.open_for_writing(path)
    writer.execute("INSERT OR REPLACE INTO meta VALUES ('new', '1')")
    assert kept.newest() == [*before, ("new", "1")]
    kept.close()
    writer.close()

    def written_meanwhile(connection: sqlite3.Connection) -> list[tuple[str, str]]:
        path.with_name("fleet.db-wal").touch()
        return rows(connection)

    unsettled = KeptReading(path, still, written_meanwhile)
    with pytest.raises(sqlite3.OperationalError, match="begun to write"):
        unsettled.newest()

"""Databases in folders of every name, and what the beginning of an id finds in them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from processes.adapters.state import fleet_db, incidents_db, sqlite_file
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

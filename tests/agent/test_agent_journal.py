"""The agent's journal: durable when it returns, one answer for one id, never silently anew."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processes.agent.journal import KEPT_S, Journal, JournalFailed
from processes.core.agent.remembered import Ended, JournalRow, JournalState, ReportStatus
from processes.core.values import Now


def row(command_id: str = "c1", state: JournalState = JournalState.ADMITTED, written_wall_s: float = 1e9) -> JournalRow:
    return JournalRow(command_id, "pull", state, "boot", 5.0, written_wall_s, 60.0)


def play(path: Path, claim: Callable[[Journal, list[JournalRow]], Coroutine[Any, Any, None]], **limits: int) -> str:
    """Opens it, runs the claim, closes it; returns the journal's id."""

    async def scene() -> str:
        journal = Journal(path, **limits)
        await claim(journal, await journal.open())
        journal.close()
        return journal.id

    return asyncio.run(scene())


def test_id_is_recorded_once_and_the_first_row_stays(tmp_path: Path) -> None:
    async def first(journal: Journal, rows: list[JournalRow]) -> None:
        assert rows == []
        assert await journal.record(row()) is None
        assert await journal.record(row(state=JournalState.REJECTED)) == row()

    async def later(journal: Journal, rows: list[JournalRow]) -> None:
        assert rows == [row()]
        settled = msgspec.structs.replace(row(), state=JournalState.SETTLED, ended=Ended(ReportStatus.ERROR, 7, "bad"))
        await journal.update(settled)
        assert await journal.record(row()) == settled

    async def last(journal: Journal, rows: list[JournalRow]) -> None:
        assert rows == []

    path = tmp_path / "state" / "journal.db"
    assert play(path, first) == play(path, later) == play(path, last)


def test_new_file_is_a_new_journal(tmp_path: Path) -> None:
    async def nothing(journal: Journal, _: list[JournalRow]) -> None:
        assert journal.id

    path = tmp_path / "journal.db"
    before = play(path, nothing)
    path.unlink()
    assert play(path, nothing) != before


def test_unsettled_come_back_in_the_order_of_admission(tmp_path: Path) -> None:
    async def write(journal: Journal, _: list[JournalRow]) -> None:
        for command_id, state in (
            ("z", JournalState.ADMITTED),
            ("r", JournalState.REJECTED),
            ("a", JournalState.CANCELLED),
            ("m", JournalState.ADMITTED),
        ):
            await journal.record(row(command_id, state))

    async def read(_: Journal, rows: list[JournalRow]) -> None:
        assert [found.command_id for found in rows] == ["z", "a", "m"]

    play(tmp_path / "journal.db", write)
    play(tmp_path / "journal.db", read)


def test_ids_are_kept_30_days_and_open_ones_for_ever(tmp_path: Path) -> None:
    async def claim(journal: Journal, _: list[JournalRow]) -> None:
        for command_id, state in (
            ("open", JournalState.ADMITTED),
            ("noted", JournalState.CANCELLED),
            ("old", JournalState.REJECTED),
        ):
            await journal.record(row(command_id, state))
        await journal.record(row("young", JournalState.REJECTED, 1e9 + 2))
        hours = int(KEPT_S / 3600) + 25  # from the first look on; a day of it the wall clock is doubted
        for hour in range(hours):
            await journal.prune(Now(hour * 3600.0, 1e9 + 1 + (hour - hours + 1) * 3600.0 + KEPT_S), "boot")
        known = [
            command_id
            for command_id in ("open", "noted", "old", "young")
            if await journal.record(row(command_id)) is not None
        ]
        assert known == ["open", "noted", "young"]

    play(tmp_path / "journal.db", claim)


@pytest.mark.parametrize("boots", [("boot", "boot", "boot"), ("boot", "next", "last")], ids=["one boot", "reboots"])
def test_a_clock_that_is_wrong_for_an_hour_forgets_no_id(tmp_path: Path, boots: tuple[str, str, str]) -> None:
    """A year ahead, and back. An id that was forgotten would be run again, should it ever come again."""
    path = tmp_path / "journal.db"

    async def claim(journal: Journal, _: list[JournalRow]) -> None:
        await journal.record(row("old", JournalState.REJECTED))
        for number, (boot, ahead_s) in enumerate(zip(boots, (0.0, 400 * 86400.0, 0.0), strict=True)):
            await journal.prune(Now(number * 3600.0, 1e9 + number * 3600.0 + ahead_s), boot)
        assert await journal.record(row("old")) is not None

    play(path, claim)


@pytest.mark.parametrize("fault", ["unlinked", "replaced", "locked"])
def test_row_that_cannot_be_durable_is_an_error(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "journal.db"

    async def claim(journal: Journal, _: list[JournalRow]) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        if fault == "locked":
            other.execute("BEGIN EXCLUSIVE")
        else:
            path.unlink()
            if fault == "replaced":
                path.write_bytes(b"")
        with pytest.raises(JournalFailed, match=r"journal\.db"):
            await journal.record(row())
        other.close()

    play(path, claim)


def test_journal_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    before = path.read_bytes()

    async def scene() -> None:
        journal = Journal(path)
        with pytest.raises(JournalFailed, match="newer version"):
            await journal.open()
        journal.close()

    asyncio.run(scene())
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["journal.db"]


async def _write_some(journal: Journal, _: list[JournalRow]) -> None:
    for number in range(40):
        await journal.record(row(f"c{number}"))


@pytest.mark.parametrize(
    "fault", ["garbage", "cut in the middle", "cut to one page", "its table dropped", "its id gone"]
)
def test_damaged_journal_is_kept_aside_and_a_new_one_has_another_id(tmp_path: Path, fault: str) -> None:
    """By the new id the hub knows that nothing it had sent may be sent again: kept apart, never guessed at."""
    path = tmp_path / "journal.db"
    old_id = play(path, _write_some)
    with path.open("r+b") as file:
        match fault:
            case "garbage":
                file.write(b"garbage " * 1000)
            case "cut in the middle":
                file.truncate(path.stat().st_size // 2)
            case "cut to one page":
                file.truncate(4096)
            case _:
                other = sqlite3.connect(path, isolation_level=None)
                other.execute("DROP TABLE command" if fault == "its table dropped" else "DELETE FROM meta")
                other.close()
    before = path.read_bytes()

    async def claim(journal: Journal, rows: list[JournalRow]) -> None:
        assert rows == []
        assert journal.put_aside is not None
        assert journal.put_aside.read_bytes() == before
        assert await journal.record(row()) is None
        assert await journal.is_ours()

    new_id = play(path, claim)
    assert new_id not in ("", old_id)

    async def again(journal: Journal, rows: list[JournalRow]) -> None:
        assert (rows, journal.put_aside) == ([row()], None)

    assert play(path, again) == new_id


@pytest.mark.parametrize("fault", ["emptied", "removed", "replaced", "cut", "overwritten", "locked", "fine"])
def test_journal_knows_that_its_file_is_gone_or_damaged_and_writes_nothing_into_another(
    tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "journal.db"

    async def claim(journal: Journal, _: list[JournalRow]) -> None:
        await _write_some(journal, [])
        other = sqlite3.connect(path, isolation_level=None)
        match fault:
            case "emptied":
                path.write_bytes(b"")
            case "removed":
                path.unlink()
            case "replaced":
                path.rename(tmp_path / "away")
                path.write_bytes((tmp_path / "away").read_bytes())
            case "cut":
                os.truncate(path, path.stat().st_size // 2)
            case "overwritten":
                path.write_bytes(b"garbage " * 4000)
            case "locked":
                other.execute("BEGIN EXCLUSIVE")
        whole = fault in ("locked", "fine")
        assert await journal.is_ours() is whole
        if not whole:
            with pytest.raises(JournalFailed):
                await journal.update(msgspec.structs.replace(row("c30"), state=JournalState.LAUNCHED))
        other.close()

    play(path, claim)


OLD_JOURNAL = Path(__file__).parent / "journal_of_803da06.sql"


def test_journal_of_the_version_before_is_taken_over_without_a_write_and_all_it_accepted_counts_as_launched(
    tmp_path: Path,
) -> None:
    """It was written before anything was started, and nothing after: so each may have been run."""
    path = tmp_path / "journal.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.executescript(OLD_JOURNAL.read_text())
    other.close()
    before = path.read_bytes()

    async def claim(journal: Journal, rows: list[JournalRow]) -> None:
        assert journal.id == "5d6c9c4f3f0a4f0b8f7f2f5f0a1b2c3d"
        assert [(found.command_id, found.state) for found in rows] == [
            ("accepted-1", JournalState.LAUNCHED),
            ("cancelled-1", JournalState.CANCELLED),
            ("accepted-2", JournalState.LAUNCHED),
        ]
        assert path.read_bytes() == before
        known = await journal.record(row("settled-1"))
        assert known is not None
        assert known.ended == Ended(ReportStatus.ERROR, 7, "bad")
        assert await journal.record(row("new")) is None
        await journal.update(msgspec.structs.replace(rows[0], state=JournalState.SETTLED))

    async def again(_: Journal, rows: list[JournalRow]) -> None:
        assert [found.command_id for found in rows] == ["cancelled-1", "accepted-2", "new"]

    assert play(path, claim) == play(path, again)


def test_every_commit_is_synced_to_the_disk(tmp_path: Path) -> None:
    async def claim(journal: Journal, _: list[JournalRow]) -> None:
        def pragma() -> tuple[object, ...]:
            assert journal._base is not None
            return tuple(
                journal._base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
            )

        assert await journal._call(pragma) == ("delete", 3)  # EXTRA

    play(tmp_path / "journal.db", claim)


def test_a_flood_of_commands_grows_no_journal_beyond_its_rows_until_the_days_pruning(tmp_path: Path) -> None:
    async def claim(journal: Journal, _: list[JournalRow]) -> None:
        await journal.record(row("open"))
        for number in range(60):
            await journal.record(row(f"r{number}", JournalState.REJECTED))

    play(tmp_path / "journal.db", claim, rows_max=20, prune_every_rows=10)
    base = sqlite3.connect(tmp_path / "journal.db")
    known = [command_id for (command_id,) in base.execute("SELECT command_id FROM command ORDER BY number")]
    base.close()
    assert known[0] == "open", "what is not yet reported stays"
    assert known[-1] == "r59"
    assert 20 <= len(known) <= 31


def test_journal_that_is_there_already_is_opened_without_a_write(tmp_path: Path) -> None:
    """An agent must start on a full disk too: it has commands to report."""
    path = tmp_path / "journal.db"

    async def write(journal: Journal, _: list[JournalRow]) -> None:
        await journal.record(row())

    play(path, write)
    before = path.stat().st_mtime_ns

    async def read(_: Journal, rows: list[JournalRow]) -> None:
        assert rows == [row()]

    play(path, read)
    assert path.stat().st_mtime_ns == before

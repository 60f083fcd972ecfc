"""The agent's journal: durable when it returns, one answer for one id, never silently anew."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processes.agent.journal import KEPT_S, Journal, JournalFailed
from processes.core.agent.remembered import Ended, JournalRow, JournalState, ReportStatus


def row(command_id: str = "c1", state: JournalState = JournalState.ACCEPTED, written_wall_s: float = 1e9) -> JournalRow:
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
        await journal.settle(settled)
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
            ("z", JournalState.ACCEPTED),
            ("r", JournalState.REJECTED),
            ("a", JournalState.CANCELLED),
            ("m", JournalState.ACCEPTED),
        ):
            await journal.record(row(command_id, state))

    async def read(_: Journal, rows: list[JournalRow]) -> None:
        assert [found.command_id for found in rows] == ["z", "a", "m"]

    play(tmp_path / "journal.db", write)
    play(tmp_path / "journal.db", read)


def test_ids_are_kept_30_days_and_open_ones_for_ever(tmp_path: Path) -> None:
    async def claim(journal: Journal, _: list[JournalRow]) -> None:
        for command_id, state in (
            ("open", JournalState.ACCEPTED),
            ("noted", JournalState.CANCELLED),
            ("old", JournalState.REJECTED),
        ):
            await journal.record(row(command_id, state))
        await journal.record(row("young", JournalState.REJECTED, 1e9 + 2))
        await journal.prune(1e9 + KEPT_S + 1)
        known = [
            command_id
            for command_id in ("open", "noted", "old", "young")
            if await journal.record(row(command_id)) is not None
        ]
        assert known == ["open", "noted", "young"]

    play(tmp_path / "journal.db", claim)


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


@pytest.mark.parametrize("fault", ["garbage", "newer"])
def test_journal_that_cannot_be_trusted_is_refused_and_left_as_it_is(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "journal.db"
    if fault == "garbage":
        path.write_bytes(b"garbage " * 1000)
    else:
        other = sqlite3.connect(path)
        other.execute("PRAGMA user_version = 99")
        other.close()
    before = path.read_bytes()

    async def scene() -> None:
        journal = Journal(path)
        with pytest.raises(JournalFailed):
            await journal.open()
        journal.close()

    asyncio.run(scene())
    assert path.read_bytes() == before


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

"""The real hub, and files that are taken away from under it or before it begins: nothing that was accepted is lost in
silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec
import pytest
from doubles.small_house import Peer, SmallHouse

from processes.adapters.state import fleet_db, fleet_schema
from processes.cli.__main__ import execute
from processes.core.travels import messages
from processes.core.travels.messages import GiveCommand


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


async def give(peer: Peer, request_id: str = "") -> str:
    reply = await peer.ask(GiveCommand("pull", ["a"]), request_id=request_id)
    assert reply.status in (200, 202), reply.body
    (view,) = msgspec.json.decode(reply.body)["commands"]
    return str(view["id"])


def ended(house: SmallHouse) -> str:
    """Waits until the hub has ended by itself; what it said."""
    assert house.processes["hub"].wait(20) == 70
    stderr = house.processes["hub"].stderr
    assert stderr is not None
    return stderr.read().decode()


def commands(path: Path) -> set[str]:
    return {command.id for command in fleet_db.reading(path, lambda c: fleet_db.commands(c, limit=-1))}


@pytest.mark.parametrize("taken", ["-wal", "-shm"])
def test_a_log_that_is_removed_under_the_hub_is_seen_before_anything_is_acknowledged_and_nothing_is_lost(
    taken: str,
) -> None:
    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                accepted = {await give(peer) for _ in range(3)}
                (house.state / f"fleet.db{taken}").unlink()
                asked = asyncio.create_task(give(peer, "later"))
                said = await asyncio.to_thread(ended, house)
                assert f"fleet.db{taken} was removed or replaced under the hub" in said
                assert "a new hub goes on with it" in said
                assert not asked.done()
                house.start("hub")
                accepted.add(await asked)
                accepted.add(await give(peer))
                assert commands(house.state / "fleet.db") == accepted

    run(work())


def test_a_database_that_is_removed_under_the_hub_is_kept_aside_and_no_other_begins_in_its_place() -> None:
    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                accepted = {await give(peer) for _ in range(3)}
                (house.state / "fleet.db").unlink()
                asked = asyncio.create_task(give(peer, "later"))
                said = await asyncio.to_thread(ended, house)
                (aside,) = (house.state / "replaced").glob("fleet-*.db")
                assert f"fleethub restore {aside}" in said
                assert commands(aside) >= accepted
                house.start("hub")
                said = await asyncio.to_thread(ended, house)
                assert "fleet.db is missing" in said
                assert "fleethub up --new" in said
                assert not (house.state / "fleet.db").exists()
                asked.cancel()

    run(work())


def test_a_log_that_is_removed_after_a_kill_is_missed_by_the_next_hub_and_one_goes_on_with_what_is_left_on_demand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a reader, as every fanout is one, still has the log open that has no name any more."""

    async def work() -> None:
        with SmallHouse() as house:
            monkeypatch.setenv("FLEETHUB_STATE", str(house.state))
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                with contextlib.closing(fleet_db.open_for_reading(house.state / "fleet.db")) as reader:
                    await give(peer)
                    fleet_db.hosts(reader)
                    house.kill("hub")
                    (house.state / "fleet.db-wal").unlink()
                    for _ in range(2):
                        house.start("hub")
                        said = await asyncio.to_thread(ended, house)
                        assert "rows that hub 1 wrote: its log" in said
                house.kill("queues")
                assert execute(["backup", str(house.state / "left.db")]) == 0
                assert execute(["restore", str(house.state / "left.db")]) == 0
                house.start("queues")
                house.start("hub")
                reply = await peer.ask(messages.EnrollHost("late", "hash"))
                assert reply.status == 201

    run(work())


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def older(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as sqlite, sqlite:
        sqlite.execute("UPDATE meta SET value = '0' WHERE key = 'epoch'")


def with_a_trigger(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as sqlite, sqlite:
        sqlite.execute("CREATE TRIGGER backdoor AFTER INSERT ON audit BEGIN SELECT 1; END")


def of_a_newer_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as sqlite, sqlite:
        sqlite.execute(f"PRAGMA user_version = {fleet_schema.VERSION + 1}")


def another_program_s(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as sqlite, sqlite:
        sqlite.execute("CREATE TABLE bookmarks (url)")


def of_no_database(path: Path) -> None:
    path.write_text("not a database, but long enough to be looked at " * 20)


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (emptied, "is empty"), (removed, "is missing"), (older, "is an older one"), (with_a_trigger, "trigger backdoor"),
    (of_a_newer_version, "a newer fleethub wrote it"), (another_program_s, "table bookmarks"),
    (of_no_database, "is damaged"),
]  # fmt: skip


def test_no_hub_begins_with_what_is_not_its_database_and_nothing_is_changed() -> None:
    with SmallHouse() as house:
        deadline = time.monotonic() + 20
        while house.pulse().turn == 0:
            assert time.monotonic() < deadline, house.log()
            time.sleep(0.02)
        house.kill("hub", 15)
        database, kept = house.state / "fleet.db", house.state / "kept"
        assert not (house.state / "fleet.db-wal").exists()
        shutil.copy(database, kept)
        for change, says in CHANGES:
            shutil.copy(kept, database)
            change(database)
            before = database.read_bytes() if database.exists() else None
            house.start("hub")
            said = ended(house)
            assert says in said, said
            assert "Traceback" not in said
            assert "fleethub restore" in said
            assert (database.read_bytes() if database.exists() else None) == before, change
        shutil.copy(kept, database)
        house.start("hub")
        while house.pulse().turn == 0 or house.pulse().pid != house.processes["hub"].pid:
            assert time.monotonic() < deadline + 60, house.log()
            time.sleep(0.02)


def test_soon_after_a_commit_the_database_file_alone_holds_it() -> None:
    """The bug it would catch: who copies fleet.db has a shell of 4 KiB, for everything is in its log."""

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                alone = house.state / "alone.db"
                shutil.copy(house.state / "fleet.db", alone)
                assert fleet_db.reading(alone, fleet_db.epoch) == 1, "the very first commit"
                alone.unlink()
                await peer.connect("a", "c1")
                accepted = await give(peer)

                def folded() -> bool:
                    for path in house.state.glob("alone.db*"):
                        path.unlink()
                    shutil.copy(house.state / "fleet.db", alone)
                    return accepted in commands(alone)

                await peer.until(folded, 30)
                reply = await peer.ask(messages.EnrollHost("late", "hash"))
                assert reply.status == 201

    run(work())

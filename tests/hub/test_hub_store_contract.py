"""What every store of the hub promises, proved of each: SQLite in the state folder, and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import psycopg
import pytest
from doubles.postgres_server import PostgresServer, binary

from processes.adapters.postgres import connection
from processes.adapters.postgres.sql import Sql
from processes.adapters.state import fleet_db, revocations, sqlite_file
from processes.adapters.state.reading import Reading
from processes.core.alarms.conditions import AlarmFacts
from processes.core.errors import Fenced
from processes.core.hub.effects import AddAudit, AddOutput, AddTransition, Drop, Put, Revoke, Write
from processes.core.hub.turn import CommitBatch
from processes.core.records.command import Command, State, Transition
from processes.core.records.condition import SilenceRecord
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.records.host import HostRecord
from processes.core.records.ledger import Ledger
from processes.core.records.request import KeptReply, KeyEntry, OperatorToken
from processes.core.records.run import HostPart, Part, Run, RunState, part_key
from processes.core.records.saved_query import SavedQuery
from processes.core.travels import audit
from processes.core.travels.audit import AuditLine, Kind
from processes.core.travels.messages import Json
from processes.core.values import Now, OutputRecord, Position, Role, Stream
from processes.hub import store
from processes.hub.postgres_store import Door
from processes.hub.sqlite_store import SqliteStore
from processes.hub.store import Store
from processes.watchdog import alarm_facts

WALL_S = 1.7e9
LEASE_S = 3.0
ODD = "a\0b\x1ac\n'; DROP TABLE hosts; -- % %s ? \U0001f600"


class Place(Protocol):
    """Where a store is, for hubs that begin there one after another."""

    folder: Path

    async def opened(self, home: str = "here") -> Store: ...

    def reading(self) -> contextlib.AbstractContextManager[Reading]: ...


OPENED: list[Store] = []  # by the test that runs: a thread of one that is left open would keep pytest from its end


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def guarded() -> None:
        try:
            await work()
        finally:
            while OPENED:
                with contextlib.suppress(Exception):  # most are closed
                    async with asyncio.timeout(1.0):
                        await OPENED.pop().close()

    asyncio.run(guarded())


class SqlitePlace:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def opened(self, home: str = "here") -> Store:
        OPENED.append(await SqliteStore.open(self.folder / "fleet.db", self.folder / "epoch"))
        return OPENED[-1]

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        with contextlib.closing(fleet_db.open_for_reading(self.folder / "fleet.db")) as connection:
            yield connection


class PostgresPlace:
    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.folder, self.url = folder, fresh_database(server)

    async def opened(self, home: str = "here") -> Store:
        with psycopg.connect(self.url, autocommit=True) as psql:  # the lease is over
            if psql.execute("SELECT to_regclass('hub')").fetchone() != (None,):
                psql.execute("UPDATE hub SET expires = '-infinity'")
        opened = await Door(self.url, home, home, LEASE_S, self.folder / "epoch").leads()
        assert opened is not None
        OPENED.append(opened)
        return opened

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        with psycopg.connect(self.url, autocommit=True) as psql:
            psql.adapters.register_loader("text", connection._TextLoader)
            psql.adapters.register_dumper(str, connection._TextDumper)
            yield Sql(psql)


def fresh_database(server: PostgresServer, made: list[int] = []) -> str:  # noqa: B006  # counts
    """Return the URL of a new, empty database."""
    made.append(0)
    name = f"fleet{len(made)}"
    with psycopg.connect(server.url(), autocommit=True) as psql:
        psql.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return server.url(name)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return SqlitePlace(tmp_path)
    if binary("initdb") is None:
        pytest.skip("no PostgreSQL on this machine")
    return PostgresPlace(request.getfixturevalue("server"), tmp_path)


def batch(*writes: Write, number: int = 1, position: int = 0) -> CommitBatch:
    return CommitBatch(list(writes), Ledger(), number, Position(7, position), Now(0.0, WALL_S))


def not_blocked(says: str) -> None:
    raise AssertionError(says)


def command(name: str, number: int, state: State = State.QUEUED, **more: Any) -> Command:
    return Command(name, number, "a", "a-1", "pull", "ann", WALL_S, 60.0, WALL_S + 60, 60.0, "boot", state, **more)


def everything() -> dict[tuple[str, str], Any]:
    """Return a row of each kind, with text in it that is hard to keep."""
    running = Run("r1", 3, ["pull"], 1, 1, None, 60.0, ODD, WALL_S)
    return {
        ("hosts", "a"): HostRecord("a", "a-1", "hash", WALL_S),
        ("commands", "c1"): command("c1", 1, run="r1"),
        ("commands", "c2"): command("c2", 2, State.LOST, finished_wall_s=WALL_S, output_bytes=3),
        ("runs", "r1"): running,
        ("run_hosts", "r1"): ("a",),
        ("run_parts", part_key("r1", "a")): HostPart("a", Part.ACTIVE, command_id="c1"),
        ("replies", "q1"): KeptReply("q1", 202, Json(b'{"a":1}'), WALL_S),
        ("keys", ODD): KeyEntry(ODD, "digest", ("c1",), WALL_S),
        ("deadletters", "1-1"): DeadLetter("1-1", WALL_S, "kind", Why.RAISED, name="n", error=ODD, event=b"\0\xff"),
        ("queries", "q"): SavedQuery("q", "name=a", ODD, WALL_S),
        ("silences", "s"): SilenceRecord("s", "name=a", ODD, "ann", WALL_S, WALL_S, WALL_S + 60),
        ("tokens", "t"): OperatorToken("t", Role.ADMIN, ODD, WALL_S),
    }


def test_what_is_committed_is_there_for_the_next_hub_of_a_newer_epoch(place: Place) -> None:
    """Each kind of row, with NUL and quotes in its text; changed by a later batch, and dropped."""
    rows = everything()

    async def work() -> None:
        first = await place.opened()
        await first.commit(batch(*(Put(t, k, row) for (t, k), row in rows.items()), number=9, position=5), not_blocked)
        await first.commit(batch(*(Put(t, k, row) for (t, k), row in rows.items()), number=9, position=6), not_blocked)
        await first.close()
        second = await place.opened()
        assert second.epoch == first.epoch + 1
        found = await second.restored()
        assert {(table, key): row for table in found.rows for key, row in found.rows[table]} == rows
        assert (found.next_number, await second.position()) == (9, Position(7, 6))
        await second.commit(batch(*(Drop(table, key) for table, key in rows)), not_blocked)
        found = await second.restored()
        assert {table: kept for table, kept in found.rows.items() if kept} == {}
        await second.close()

    run(work)


def test_a_batch_of_an_older_hub_is_fenced_and_leaves_nothing(place: Place) -> None:
    async def work() -> None:
        old = await place.opened("old")
        new = await place.opened("new")
        blocked: list[str] = []  # once: its session was ended
        with pytest.raises(Fenced):
            await old.commit(batch(Put("hosts", "a", HostRecord("a", "a-1", "hash", WALL_S))), blocked.append)
        if old.is_shared:
            with pytest.raises(Fenced):
                await old.renew(Position(7, 99), blocked.append)
            with pytest.raises(Fenced):
                await old.prune(Now(0.0, WALL_S), 1.0, 1)
        assert (await new.restored()).rows["hosts"] == []
        assert await new.position() == Position(0, 0)
        await new.close()
        await old.close()

    run(work)


def test_each_opening_is_a_newer_epoch_whatever_was_committed(place: Place) -> None:
    async def work() -> None:
        epochs = []
        for number in range(5):
            opened = await place.opened(f"home{number % 2}")
            epochs.append(opened.epoch)
            await opened.close()
        assert epochs == [1, 2, 3, 4, 5]
        assert (place.folder / "epoch").read_text() == "5\n"

    run(work)


def test_the_audit_trail_is_one_chain_and_output_is_kept_as_it_came_once(place: Place) -> None:
    """NUL and a line of 1 MiB included; a piece that comes twice stands there once."""
    pieces = (OutputRecord(0, Stream.STDOUT, ODD), OutputRecord(len(ODD), Stream.STDERR, "x" * (1 << 20)))

    async def work() -> None:
        opened = await place.opened()
        step = AddTransition(Transition("c1", WALL_S, None, State.QUEUED, ODD, "ann"))
        line = AddAudit(AuditLine(WALL_S, Kind.HOST, "a", ODD, "ann"))
        await opened.commit(batch(Put("commands", "c1", command("c1", 1)), step, line), not_blocked)
        await opened.commit(batch(AddOutput("c1", pieces), AddOutput("c1", pieces[1:])), not_blocked)
        await opened.close()
        with place.reading() as reading:
            assert fleet_db.output(reading, "c1", 0, bytes_max=1 << 22) == list(pieces)
            assert [each.reason for each in fleet_db.transitions(reading, "c1")] == [ODD]
            lines = fleet_db.audit(reading)
            assert [each.after for each in lines] == [ODD, "queued"]
            hashes = [b""]
            for each in reversed(lines):
                hashes.append(audit.chained(hashes[-1], each))
            assert [bytes.fromhex(each.hash or "") for each in reversed(lines)] == hashes[1:]
            assert fleet_db.command(reading, "c1") == command("c1", 1)

    run(work)


def test_every_reading_finds_the_same_in_each_store(place: Place) -> None:
    rows = everything()

    async def work() -> None:
        opened = await place.opened()
        await opened.commit(batch(*(Put(t, k, row) for (t, k), row in rows.items()), number=9, position=5), not_blocked)
        await opened.close()
        with place.reading() as it:
            c1, c2, run = rows["commands", "c1"], rows["commands", "c2"], rows["runs", "r1"]
            assert (fleet_db.epoch(it), fleet_db.written(it), fleet_db.position(it)) == (1, len(rows), Position(7, 5))
            assert fleet_db.ledger(it) == Ledger()
            assert fleet_db.hosts(it) == [fleet_db.host(it, "a")] == [rows["hosts", "a"]]
            assert fleet_db.commands(it) == [c2, c1]
            assert fleet_db.commands(it, before=2, host="a", state=State.QUEUED, run="r1", open_only=True) == [c1]
            assert fleet_db.commands(it, run="r2") == []
            assert fleet_db.runs(it, state=RunState.RUNNING) == [run] == [fleet_db.run(it, "r1")]
            assert fleet_db.runs(it, state=RunState.SUCCEEDED) == []
            whole = fleet_db.whole_run(it, "r1")
            assert whole is not None
            assert [part.command_id for part in whole.hosts] == ["c1"]
            assert fleet_db.open_parts(it) == [("r1", rows["run_parts", part_key("r1", "a")])]
            assert (
                fleet_db.dead_letters(it, limit=9) == [fleet_db.dead_letter(it, "1-1")] == [rows["deadletters", "1-1"]]
            )
            facts = alarm_facts._rows(cast(Any, it), AlarmFacts())
            assert facts.put_aside == [("1-1", "kind (raised): fleethub deadletter 1-1")]
            assert (facts.suspended, facts.hosts, facts.audit_head) == ([], [], "")
            assert sqlite_file.meant(cast(Any, it), "commands", "c1", "command") == "c1"
            assert fleet_db.silences(it) == [rows["silences", "s"]]
            assert fleet_db.conditions(it, limit=9, host="a") == []
            assert fleet_db.saved_queries(it) == [rows["queries", "q"]]
            assert fleet_db.tokens(it) == [rows["tokens", "t"]]
            assert [view.label for _, view in fleet_db.token_views(it, WALL_S)] == [ODD]

    run(work)


def test_what_is_past_its_time_goes_and_too_much_output_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers by their number, commands with their output, keys without their commands, runs with their hosts."""
    kept = 3
    monkeypatch.setattr(store, "REPLIES_KEPT_MAX", 20)

    async def work() -> None:
        opened = await place.opened()
        names = [f"q{number}" for number in range(20 + kept)]
        writes: list[Write] = [Put("replies", name, KeptReply(name, 202, Json(b"{}"), WALL_S)) for name in names]
        over = command("c1", 1, State.SUCCEEDED, finished_wall_s=WALL_S, output_bytes=3)
        piece = AddOutput("c1", (OutputRecord(0, Stream.STDOUT, "abc"),))
        await opened.commit(batch(*writes, Put("commands", "c1", over), piece), not_blocked)
        await opened.commit(batch(Put("keys", "k", KeyEntry("k", "d", ("gone",), 0.0))), not_blocked)
        for passed_s in (0.0, 40 * 86400.0):  # a clock is believed as far as time has passed
            while await opened.prune(Now(1.0 + passed_s, WALL_S + passed_s), 90 * 86400.0, 2):
                pass
        found = await opened.restored()
        assert [name for name, _ in found.rows["replies"]] == names[kept:], "oldest first"
        assert found.rows["keys"] == []
        assert [(each.output_bytes, each.output_truncated) for _, each in found.rows["commands"]] == [(0, True)]
        await opened.close()

    run(work)


def test_what_was_ever_made_void_here_is_void_in_whatever_database_is_found(place: Place) -> None:
    """Also in a batch that takes it away: the list beside the database is written first."""

    async def work() -> None:
        opened = await place.opened()
        tokens: list[Write] = [
            Put("tokens", name, OperatorToken(name, Role.ADMIN, "", WALL_S)) for name in ("good", "void")
        ]
        await opened.commit(batch(*tokens), not_blocked)
        await opened.commit(batch(Revoke("void")), not_blocked)
        assert revocations.read(place.folder / "revoked") == {"void"}
        assert [name for name, _ in (await opened.restored()).rows["tokens"]] == ["good"]
        await opened.close()
        with place.reading() as it:
            assert [token.token_hash for token in fleet_db.tokens(it)] == ["good"]

    run(work)


def test_what_no_store_can_keep_is_refused_by_check(place: Place) -> None:
    """Lone surrogates: the barrier puts them aside before any store sees them, the same for each."""
    lone = AddOutput("c1", (OutputRecord(0, Stream.STDOUT, "\ud800"),))
    with pytest.raises(UnicodeError):
        store.check(lone)

    async def work() -> None:
        opened = await place.opened()
        with pytest.raises(UnicodeError):
            await opened.commit(batch(lone), not_blocked)
        await opened.commit(batch(Put("hosts", "a", HostRecord("a", "a-1", "hash", WALL_S))), not_blocked)
        await opened.close()

    run(work)

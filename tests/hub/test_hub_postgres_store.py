"""The hub's lease and its store in PostgreSQL: never two holders, a COMMIT whose answer is lost, and two real hubs."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from doubles.commit_cutter import CommitCutter
from doubles.deadline import until
from doubles.postgres_server import PostgresServer, binary
from doubles.small_house import Peer, SmallHouse

from processes.adapters.postgres import connection as postgres
from processes.adapters.postgres import lease, schema
from processes.adapters.postgres.connection import Connection, transaction
from processes.adapters.state import fleet_schema
from processes.core.errors import Fenced
from processes.core.hub.effects import AddAudit
from processes.core.hub.turn import CommitBatch
from processes.core.records.ledger import Ledger
from processes.core.travels.audit import AuditLine, Kind
from processes.core.travels.messages import GiveCommand
from processes.core.values import Now, Position
from processes.hub.postgres_store import Door, PostgresStore
from processes.hub.store import StorageBroken

pytestmark = pytest.mark.skipif(binary("initdb") is None, reason="no PostgreSQL on this machine")

LEASE_S = 3.0
WALL_S = 1.7e9


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    name = f"fleet{abs(hash(request.node.nodeid))}"
    with psycopg.connect(server.url(), autocommit=True) as psql:
        psql.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return server.url(name)


def expiries(url: str, rounds: int, lease_s: float = 0.05) -> list[tuple[int, str]]:
    """Have three hubs fight for the lease until it was taken so often, each of which commits while it believes that it
    leads; return what each committed, in the order of the commits.
    """
    with psycopg.connect(url, autocommit=True) as psql:
        schema.migrate(psql)
        psql.execute("CREATE TABLE held (place BIGINT GENERATED ALWAYS AS IDENTITY, epoch BIGINT, holder TEXT)")
    failed: list[BaseException] = []

    def hub(name: str) -> None:
        try:
            psql, epoch, commits = psycopg.connect(url, autocommit=True), 0, 0
            while epoch < rounds and not failed:
                try:
                    if not epoch:
                        taken = lease.acquire(psql, name, name, lease_s, young_s=0.0)
                        if taken is None:
                            if lease.leader(psql).epoch >= rounds:
                                break
                            time.sleep(lease_s / 20)
                            continue
                        epoch, commits, wrote = taken.epoch, taken.commits, 0
                    with transaction(psql):
                        lease.fence(psql, epoch, commits + 1, lease_s)
                        psql.execute("INSERT INTO held (epoch, holder) VALUES (%s, %s)", (epoch, name))
                    commits, wrote = commits + 1, wrote + 1
                    if wrote >= 2:  # it freezes: its lease runs out, and it goes on as if nothing had been
                        time.sleep(lease_s * 1.5)
                except Fenced:
                    epoch = 0
                except psycopg.OperationalError:  # the next one ended its session; it believes that it leads
                    psql.close()
                    psql = psycopg.connect(url, autocommit=True)
                    commits = psql.execute("SELECT commits FROM hub").fetchone()[0]  # type: ignore[index]
            psql.close()
        except BaseException as error:
            failed.append(error)

    hubs = [threading.Thread(target=hub, args=(name,)) for name in "abc"]
    for each in hubs:
        each.start()
    for each in hubs:
        each.join()
    assert failed == []
    with psycopg.connect(url) as psql:
        return psql.execute("SELECT epoch, holder FROM held ORDER BY place").fetchall()


def test_of_hubs_that_fight_for_the_lease_no_two_ever_hold_one_epoch(url: str) -> None:
    held = expiries(url, 20)
    epochs = [epoch for epoch, _ in held]
    assert epochs == sorted(epochs), "an older hub committed after a newer one"
    assert len({epoch for epoch, _ in held}) == len(set(held)) >= 10


@pytest.mark.parametrize("cut", ["before", "half", "after"])
def test_a_commit_that_is_cut_is_there_once(server: PostgresServer, url: str, tmp_path: Path, cut: str) -> None:
    """The bugs it would catch: a batch is lost, or its lines stand in the trail twice."""

    async def work() -> None:
        with CommitCutter(server.port) as cutter:
            through = url.replace(f":{server.port}/", f":{cutter.port}/")
            connection = Connection(through, "hub", prepare=False, opened=postgres.fit)
            await connection.call(schema.migrate, 60.0)
            taken = await connection.call(lambda psql: lease.acquire(psql, "a", "a", 60.0), 60.0)
            assert taken is not None
            opened = PostgresStore(connection, taken, 60.0, tmp_path / "epoch")
            told: list[str] = []
            for number in range(4):
                cutter.cut = cut
                line = AddAudit(AuditLine(WALL_S, Kind.HOST, f"h{number}", "enrolled", "ann"))
                batch = CommitBatch([line], Ledger(), 1, Position(1, number), Now(0.0, WALL_S))
                await opened.commit(batch, told.append)
            assert (cutter.cuts, len(told)) == (4, 4)
            await opened.close()
        with psycopg.connect(url) as psql:
            assert psql.execute("SELECT subject FROM audit ORDER BY number").fetchall() == [
                (f"h{n}",) for n in range(4)
            ]

    asyncio.run(work())


@pytest.mark.parametrize("back", ["commits = commits - 1", "epoch = epoch - 1"])
def test_a_database_that_went_back_ends_the_hub_aloud(url: str, tmp_path: Path, back: str) -> None:
    async def work() -> None:
        opened = await Door(url, "a", "a", LEASE_S, tmp_path / "epoch").leads()
        assert opened is not None
        await opened.renew(Position(1, 1), lambda says: None)
        with psycopg.connect(url, autocommit=True) as psql:
            psql.execute(f"UPDATE hub SET {back}")
        with pytest.raises(StorageBroken, match="lost acknowledged commits"):
            await opened.renew(Position(1, 2), lambda says: None)
        await opened.close()
        if back.startswith("epoch"):
            door = Door(url, "a", "a", LEASE_S, tmp_path / "epoch")
            with pytest.raises(StorageBroken, match="the file epoch says that hub 1 has run here"):
                await door.leads()
            door.close()

    asyncio.run(work())


def test_an_own_lease_is_taken_at_once_unless_the_last_life_was_short(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as psql:
        schema.migrate(psql)
        first = lease.acquire(psql, "a", "a", 60.0)
        assert first is not None
        assert not first.is_of_another
        assert lease.acquire(psql, "a", "a", 60.0) is None, "it has led for less than YOUNG_S"
        assert lease.acquire(psql, "b", "b", 60.0, young_s=0.0) is None
        again = lease.acquire(psql, "a", "a", 60.0, young_s=0.0)
        assert again is not None
        assert (again.epoch, again.is_of_another) == (first.epoch + 1, False)
        lease.release(psql, again.epoch)
        other = lease.acquire(psql, "b", "b", 60.0)
        assert other is not None
        assert other.is_of_another
        assert lease.leader(psql)[:2] == (other.epoch, "b")
        with pytest.raises(lease.WentBack):
            lease.acquire(psql, "c", "c", 60.0, epoch_beside=99)


def test_a_kill_in_the_middle_of_a_migration_leaves_a_whole_version(url: str) -> None:
    broken = {**schema.MIGRATIONS, schema.VERSION + 1: "CREATE TABLE one (n INT); CREATE TABLE one (n INT)"}
    mended = {**schema.MIGRATIONS, schema.VERSION + 1: "CREATE TABLE one (n INT); CREATE TABLE two (n INT)"}
    with psycopg.connect(url, autocommit=True) as psql:
        with pytest.raises(psycopg.errors.DuplicateTable):
            schema.migrate(psql, broken)
        assert schema.version_of(psql) == schema.VERSION
        schema.migrate(psql, mended)
        assert schema.version_of(psql) == schema.VERSION + 1
        schema.migrate(psql, mended)
        with pytest.raises(postgres.PostgresUnfit, match="a newer fleethub made it"):
            schema.migrate(psql)


def test_a_server_that_may_lose_what_it_acknowledges_is_refused(server: PostgresServer, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as psql:
        postgres.fit(psql)
        for name in ("fsync", "full_page_writes"):
            psql.execute(f"ALTER SYSTEM SET {name} = off")
            psql.execute("SELECT pg_reload_conf()")
            until(lambda name=name: psql.execute(f"SHOW {name}").fetchone() == ("off",))  # type: ignore[misc]
            with pytest.raises(postgres.PostgresUnfit, match=f"{name} = off"):
                postgres.fit(psql)
            psql.execute(f"ALTER SYSTEM RESET {name}")
            psql.execute("SELECT pg_reload_conf()")
            until(lambda name=name: psql.execute(f"SHOW {name}").fetchone() == ("on",))  # type: ignore[misc]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_hub_that_stands_by_leads_when_the_other_is_gone_and_a_thawed_one_ends_itself(url: str, fault: int) -> None:
    """With what the other had accepted. The bug it would catch: two hubs that both commit."""
    first = SmallHouse(FLEETHUB_STORE_URL=url, FLEETHUB_MACHINE_NAME="m1", FLEETHUB_HUB_LEASE_S="2")
    second = SmallHouse(FLEETHUB_STORE_URL=url, FLEETHUB_MACHINE_NAME="m2", FLEETHUB_HUB_LEASE_S="2")

    async def work() -> None:
        with first:
            async with Peer(first) as peer:
                await peer.connect("a", "c1")
                reply = await peer.ask(GiveCommand("pull", ["a"], "key"))
                assert reply.status == 202, reply.body
                with second:
                    await peer.until(lambda: second.pulse().blocked_on == "standby")
                    turn = second.pulse().turn
                    await peer.until(lambda: second.pulse().turn > turn)
                    first.processes["hub"].send_signal(fault)
                    async with Peer(second) as other:
                        assert other.epochs() == [peer.epochs()[-1] + 1]
                        again = await other.ask(GiveCommand("pull", ["a"], "key"))
                        assert again.status == 200
                        ids = [msgspec.json.decode(each.body)["commands"][0]["id"] for each in (reply, again)]
                        assert ids[0] == ids[1]
                        if fault == signal.SIGSTOP:
                            first.processes["hub"].send_signal(signal.SIGCONT)
                            assert first.processes["hub"].wait(60) == 70
                            assert "fenced" in first.log() or "gave_up" in first.log(), first.log()
                            assert other.epochs()[-1] == peer.epochs()[-1] + 1
                            assert second.pulse().blocked_on == ""

    asyncio.run(work())


def test_both_databases_are_of_one_version() -> None:
    """Whoever adds a table to one adds it to the other."""
    assert schema.VERSION == fleet_schema.VERSION

"""What the queues in PostgreSQL promise besides the contract (test_adapters_queues.py): faults, the edges' role, upkeep."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest
from doubles.deadline import WAIT_S, until
from doubles.postgres_server import PostgresServer, binary
from doubles.queue_engines import START, PostgresHouse, until_back
from doubles.queue_ledger import Ledger

from processes.adapters.postgres import queue_schema, queues
from processes.adapters.postgres.queues import PostgresQueues
from processes.adapters.queues import QueuesAway
from processes.core.errors import Fenced
from processes.core.travels.queue_calls import QueueRefused
from processes.core.values import Position

SHORT_S = 0.5  # for a call that gets no answer


@pytest.fixture
def house(volatile_postgres: PostgresServer) -> Iterator[PostgresHouse]:
    """The engine."""
    found = PostgresHouse(volatile_postgres)
    yield found
    asyncio.run(found.close())


@pytest.fixture
def owner(house: PostgresHouse) -> Iterator[psycopg.Connection]:
    """Asks the database itself."""
    asyncio.run(_once(house.link("hub").stats))
    with psycopg.connect(house.url, autocommit=True) as connection:
        yield connection


async def _once(call: Callable[[], Awaitable[object]]) -> None:
    await call()


def _backend(owner: psycopg.Connection, name: str) -> int:
    row = owner.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", (name,)).fetchone()
    assert row is not None
    return int(row[0])


def _ended(owner: psycopg.Connection, pid: int) -> Callable[[], bool]:
    return lambda: owner.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() is None


def test_an_append_that_was_given_up_is_not_carried_out_behind_a_later_one(
    house: PostgresHouse, owner: psycopg.Connection
) -> None:
    """The server's process that has it stands still, and goes on when nobody waits for it any more."""

    async def run() -> None:
        link = house.link("late", timeout_s=WAIT_S)
        await link.append("events", [b"before"])
        pid = _backend(owner, "fleethub late calls")
        link._calls._timeout_s = SHORT_S
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(QueuesAway, match="no answer in time"):
                await link.append("events", [b"given up"])
            link._calls._timeout_s = WAIT_S
            await link.append("events", [b"later"])
        finally:
            os.kill(pid, signal.SIGCONT)
        await asyncio.to_thread(until, _ended(owner, pid))
        await link.append("events", [b"last"])
        assert (await link.read("events", START)).items == [b"before", b"later", b"last"]

    asyncio.run(run())


def test_calls_to_a_server_that_stands_still_fail_in_time_and_then_go_on(
    house: PostgresHouse, volatile_postgres: PostgresServer
) -> None:
    async def run() -> None:
        link = house.link("frozen", timeout_s=SHORT_S)
        await until_back(lambda: link.append("events", [b"a"]))
        await until_back(lambda: link.read("events", START))
        with volatile_postgres.frozen():
            for call in (
                lambda: link.append("events", [b"x"]), lambda: link.read("events", START, wait_s=0), link.stats,
                link.ping,
            ):  # fmt: skip
                with pytest.raises(QueuesAway):
                    await asyncio.wait_for(call(), WAIT_S)
        assert (await until_back(lambda: link.read("events", START))).items[0] == b"a"
        await until_back(lambda: link.append("events", [b"b"]))

    asyncio.run(run())


def test_the_hub_s_row_of_the_truth_fences_too(house: PostgresHouse, owner: psycopg.Connection) -> None:
    """Whoever took the lease shuts out the hub before it, though no call of its own has come yet."""

    async def run() -> None:
        hub, gateway = house.link("hub"), house.link("gateway")
        hub.epoch = 5
        at = (await hub.append("events", [b"a"])).position
        owner.execute("CREATE TABLE public.hub (id INT PRIMARY KEY, epoch BIGINT NOT NULL)")
        try:
            owner.execute("INSERT INTO public.hub VALUES (1, 5)")
            await hub.acknowledge("events", at)
            owner.execute("UPDATE public.hub SET epoch = 6")
            for call in (
                lambda: hub.append("events", [b"x"]), lambda: hub.read("events", at), lambda: hub.acknowledge("events", at)
            ):  # fmt: skip
                with pytest.raises(Fenced) as fenced:
                    await call()
                assert fenced.value.newest_epoch == 6
            assert (await gateway.append("events", [b"b"])).position.sequence == 2
        finally:
            owner.execute("DROP TABLE public.hub")

    asyncio.run(run())


def test_an_edge_does_what_it_must_and_nothing_else(
    house: PostgresHouse, owner: psycopg.Connection, volatile_postgres: PostgresServer
) -> None:
    owner.execute(f"CREATE ROLE {queue_schema.EDGE} LOGIN")

    async def run() -> None:
        hub, after = house.link("hub"), house.link("hub")
        await after.ping()  # a connection of the owner's grants what the new role may
        edge = PostgresQueues(house.url.replace("postgres@", f"{queue_schema.EDGE}@"), "gateway", timeout_s=WAIT_S)
        posing = PostgresQueues(house.url.replace("postgres@", f"{queue_schema.EDGE}@"), "hub", timeout_s=WAIT_S)
        try:
            hub.epoch, edge.epoch, posing.epoch = 3, 99, 99
            assert (await edge.append("events", [b"a"])).accepted
            assert (await hub.read("events", START)).items == [b"a"], "an epoch that never was fences nobody"
            at = (await hub.append("deliveries/gateway", [b"b"])).position
            assert (await edge.read("deliveries/gateway", START)).items == [b"b"]
            await edge.acknowledge("deliveries/gateway", at)
            for call in (
                lambda: edge.append("broadcasts/fanout", [b"x"]), lambda: edge.read("events", START),
                lambda: edge.acknowledge("events", at), lambda: posing.append("events", [b"x"]),
                lambda: posing.read("deliveries/gateway", START),
            ):  # fmt: skip
                with pytest.raises(QueueRefused) as refused:
                    await call()
                assert refused.value.code == "not_yours"
            assert {each.name for each in await edge.stats()} == {"events", "deliveries/gateway"}
            with psycopg.connect(edge._url, autocommit=True) as connection:
                for statement in (
                    "SELECT * FROM fleethub_queues.queue", "DELETE FROM fleethub_queues.pack_0",
                    "UPDATE fleethub_queues.fence SET epoch = 1", "SELECT fleethub_queues.fh_sweep()",
                    "SELECT fleethub_queues.fenced('gateway', 1, true)", "SELECT fleethub_queues.make('events')",
                    "UPDATE fleethub_queues.version SET version = 0", "CREATE TABLE fleethub_queues.hub ()",
                ):  # fmt: skip
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement.encode())
        finally:
            await edge.close()
            await posing.close()

    try:
        asyncio.run(run())
    finally:
        owner.execute(f"DROP OWNED BY {queue_schema.EDGE}; DROP ROLE {queue_schema.EDGE}".encode())


def test_whoever_may_not_make_the_tables_is_told_what_to_do(
    house: PostgresHouse, owner: psycopg.Connection, volatile_postgres: PostgresServer
) -> None:
    owner.execute("CREATE ROLE stranger LOGIN")
    owner.execute("DROP SCHEMA fleethub_queues CASCADE")

    async def run() -> None:
        link = PostgresQueues(house.url.replace("postgres@", "stranger@"), "gateway", timeout_s=WAIT_S)
        try:
            with pytest.raises(QueuesAway, match="begin with the hub's user"):
                await link.append("events", [b"x"])
            assert (await house.link("hub").append("events", [b"x"])).accepted, "whoever may makes them anew"
        finally:
            await link.close()

    try:
        asyncio.run(run())
    finally:
        owner.execute("DROP ROLE stranger")


def test_a_pooler_in_between_is_refused(house: PostgresHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says at the beginning that the session is another one than the one that answers."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 1))

    async def run() -> None:
        with pytest.raises(QueuesAway, match="PgBouncer: name PostgreSQL itself"):
            await house.link("hub").append("events", [b"x"])

    asyncio.run(run())


def test_a_server_that_is_too_old_is_refused(house: PostgresHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "VERSION_MIN", 10**9)

    async def run() -> None:
        with pytest.raises(QueuesAway, match="14 or newer is needed"):
            await house.link("hub").append("events", [b"x"])

    asyncio.run(run())


def test_what_is_acknowledged_gives_its_room_back(house: PostgresHouse, owner: psycopg.Connection) -> None:
    """A table that is neither in use nor the next one, and empty, is truncated; one that keeps an item is not."""

    async def run() -> None:
        link = house.link("hub")
        end = (await link.append("events", [b"x" * 1000] * 3000)).position
        other = (_number(owner) + 2) % 4
        table = f"fleethub_queues.pack_{other}"
        owner.execute(
            f"WITH p AS (DELETE FROM {_current(owner)} RETURNING *) INSERT INTO {table} SELECT * FROM p".encode()
        )  # as if it had been appended at another time
        await link.acknowledge("events", Position(end.epoch, 2999))
        assert _swept(owner, table) > 3_000_000
        assert (await link.read("events", Position(end.epoch, 2999))).items == [b"x" * 1000]
        await link.acknowledge("events", end)
        until(lambda: _swept(owner, table) < 100_000)

    asyncio.run(run())


def _swept(owner: psycopg.Connection, table: str) -> int:
    """The bytes of the table after a look for those that can be truncated."""
    owner.execute("SELECT fleethub_queues.fh_sweep()")
    row = owner.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()
    assert row is not None
    return int(row[0])


def _number(owner: psycopg.Connection) -> int:
    row = owner.execute("SELECT extract(epoch FROM clock_timestamp())::BIGINT / 10 % 4").fetchone()
    assert row is not None
    return int(row[0])


def _current(owner: psycopg.Connection) -> str:
    for number in range(4):
        if owner.execute(f"SELECT FROM fleethub_queues.pack_{number} LIMIT 1".encode()).fetchone() is not None:
            return f"fleethub_queues.pack_{number}"
    raise AssertionError


def test_the_ledger_balances_when_the_server_is_killed_under_four_publishers() -> None:
    """A backend, then the postmaster: `bin/queue-ledger` does it many times."""
    if binary("postgres") is None:
        pytest.skip("there is no PostgreSQL on this machine: bin/test installs it")
    with PostgresServer(fsync="off") as server:
        assert asyncio.run(Ledger(server).run(1)).startswith("2 kills: ")


def test_a_second_gateway_of_one_name_reads_nothing_until_the_first_has_ended(house: PostgresHouse) -> None:
    """The bug it would catch: two installations with one queues.url take each other's deliveries."""

    async def run() -> None:
        first, second = house.link("gateway"), house.link("gateway")
        await first.append("events", [b"a"])
        assert (await first.read("events", START)).items == [b"a"]
        with pytest.raises(QueuesAway, match=r"another gateway reads there: queues\.url is for one installation"):
            await second.read("events", START)
        assert (await house.link("hub").read("events", START)).items == [b"a"], "hubs are told apart by their epochs"
        await first.close()
        assert (await until_back(lambda: second.read("events", START))).items == [b"a"]

    asyncio.run(run())

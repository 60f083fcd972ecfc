"""The contract of every engine of the queues (adapters/queues.py): the process `queues`, PostgreSQL, and the double of
the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S
from doubles.queue_engines import START, House, MemoryHouse, PostgresHouse, RealHouse, until_back

from processes.adapters.queues import QueuesAway
from processes.core.errors import Fenced
from processes.core.travels.queue_calls import APPEND_ITEMS_MAX, Batch, QueueRefused
from processes.core.values import Position

Claim = Callable[[House], Awaitable[None]]


@pytest.fixture(params=["real", "postgres", "memory"])
def prove(request: pytest.FixtureRequest, folder: Path) -> Callable[[Claim], None]:
    """Proves a claim of an engine, in an event loop."""
    server = request.getfixturevalue("volatile_postgres") if request.param == "postgres" else None

    async def run(claim: Claim) -> None:
        house: House = PostgresHouse(server) if server else RealHouse(folder) if request.param == "real" else MemoryHouse()
        try:
            await asyncio.wait_for(claim(house), 2 * WAIT_S)
        finally:
            await house.close()

    return lambda claim: asyncio.run(run(claim))


def test_what_is_appended_is_read_until_it_is_acknowledged(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        writer, reader = house.link("gateway"), house.link("hub")
        appended = await writer.append("events", [b"a", b"", b"\xff" * 70_000])
        assert appended.accepted
        assert appended.position.sequence == 3
        batch = await reader.read("events", START)
        assert batch == Batch([b"a", b"", b"\xff" * 70_000], appended.position, False)
        assert await reader.read("events", START) == batch
        await reader.acknowledge("events", batch.position)
        assert (await reader.read("events", START, wait_s=0)).items == []
        (stats,) = await writer.stats()
        assert (stats.name, stats.items, stats.appended, stats.acknowledged) == ("events", 0, 3, 3)
        assert await writer.ping() >= 0

    prove(claim)


def test_a_waiting_read_returns_when_something_is_appended(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        writer, reader = house.link("hub"), house.link("fanout")
        nothing = await reader.read("broadcasts/fanout", START, wait_s=0)
        began_s = asyncio.get_running_loop().time()
        reading = asyncio.create_task(reader.read("broadcasts/fanout", nothing.position, wait_s=10))
        done, _ = await asyncio.wait((reading,), timeout=0.05)
        assert not done
        await writer.append("broadcasts/fanout", [b"a"])
        assert (await asyncio.wait_for(reading, WAIT_S)).items == [b"a"]
        assert asyncio.get_running_loop().time() - began_s < 10, "not only once its time was over"

    prove(claim)


def test_a_read_of_nothing_returns_empty_after_its_wait(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        started_s = asyncio.get_running_loop().time()
        batch = await house.link("hub").read("events", START, wait_s=0.1)
        assert asyncio.get_running_loop().time() - started_s >= 0.09
        assert batch.items == []
        assert not batch.gap
        assert batch.position.epoch > 0

    prove(claim)


def test_items_max_and_bytes_max_cut_a_batch(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        await link.append("events", [b"x" * 10] * 9)
        assert len((await link.read("events", START, items_max=4)).items) == 4
        assert len((await link.read("events", START, bytes_max=35)).items) == 3
        assert len((await link.read("events", START, items_max=0, bytes_max=0)).items) == 1

    prove(claim)


def test_a_restart_is_a_gap_for_the_reader_and_then_goes_on(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        before = (await link.append("events", [b"a"])).position
        house.restart()
        gap = await until_back(lambda: link.read("events", before, wait_s=5))
        assert (gap.items, gap.gap) == ([], True)
        assert gap.position.epoch not in {0, before.epoch}
        await until_back(lambda: link.append("events", [b"b"]))
        assert await link.read("events", gap.position) == Batch([b"b"], Position(gap.position.epoch, 1), False)

    prove(claim)


def test_a_read_that_waits_over_a_restart_is_told_that_the_queues_went_away(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        reading = asyncio.create_task(link.read("events", START, wait_s=10))
        await asyncio.wait((reading,), timeout=0.05)
        house.restart()
        with pytest.raises(QueuesAway):
            await reading

    prove(claim)


def test_a_full_queue_refuses_and_a_lossy_append_leaves_a_gap(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        for _ in range(2):
            assert (await link.append("deliveries/gateway", [b"x"] * 9000, bulk=True)).accepted
        assert not (await link.append("deliveries/gateway", [b"x"], bulk=True)).accepted
        assert (await link.append("deliveries/gateway", [b"x"] * 2000)).accepted
        refused = await link.append("deliveries/gateway", [b"x"])
        assert refused == (False, Position(refused.position.epoch, 20_000))
        assert not (await link.append("deliveries/gateway", [b"x", b"y"], lossy=True)).accepted
        end = await link.read("deliveries/gateway", refused.position, wait_s=5)
        assert (end.items, end.gap, end.position.sequence) == ([], True, 20_002)
        (stats,) = await link.stats()
        assert (stats.items, stats.refused, stats.dropped) == (20_000, 2, 2)

    prove(claim)


def test_an_older_hub_is_fenced_in_append_read_and_acknowledge(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        old, new, gateway = house.link("hub"), house.link("hub"), house.link("gateway")
        old.epoch, new.epoch = 3, 4
        position = (await old.append("events", [b"a"])).position
        await new.append("events", [b"b"])
        for call in (
            lambda: old.append("events", [b"x"]),
            lambda: old.read("events", START),
            lambda: old.acknowledge("events", position),
        ):
            with pytest.raises(Fenced) as fenced:
                await call()
            assert (fenced.value.own_epoch, fenced.value.newest_epoch) == (3, 4)
        assert (await gateway.read("events", START)).items == [b"a", b"b"]

    prove(claim)


def test_a_hub_that_waits_in_a_read_is_fenced_when_its_successor_comes(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        old, new = house.link("hub"), house.link("hub")
        old.epoch, new.epoch = 3, 4
        waiting = asyncio.create_task(old.read("events", START, wait_s=10))
        done, _ = await asyncio.wait((waiting,), timeout=0.05)
        assert not done
        await new.append("broadcasts/fanout", [b"a"])
        with pytest.raises(Fenced):
            await asyncio.wait_for(waiting, WAIT_S)

    prove(claim)


def test_a_newest_epoch_is_learned_from_the_others_after_a_restart(prove: Callable[[Claim], None]) -> None:
    """`queues` forgets the hub's epoch when it dies; a gateway that has seen it shuts the thawed hub out again."""

    async def claim(house: House) -> None:
        gateway, old = house.link("gateway"), house.link("hub")
        gateway.epoch, old.epoch = 4, 3
        house.restart()
        await gateway.append("events", [b"a"])
        with pytest.raises(Fenced):
            await old.read("events", START)

    prove(claim)


def test_calls_that_cannot_be_are_refused_with_the_reason(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        for code, call in (
            ("unknown_queue", lambda: link.append("nope", [b"x"])),
            ("unknown_queue", lambda: link.read("broadcasts/", START)),
            ("unknown_queue", lambda: link.acknowledge("deliveries", START)),
            ("too_big", lambda: link.append("events", [b""] * (APPEND_ITEMS_MAX + 1))),
        ):
            with pytest.raises(QueueRefused) as refused:
                await call()
            assert refused.value.code == code
        here = (await link.append("events", [b"x"])).position
        with pytest.raises(QueueRefused) as refused:
            await link.read("events", Position(here.epoch, 2))
        assert refused.value.code == "bad_position"
        assert (await link.read("events", START)).items == [b"x"]

    prove(claim)


def test_a_closed_link_is_away(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        await link.ping()
        await link.close()
        for call in (link.ping, link.stats, lambda: link.read("events", START)):
            with pytest.raises(QueuesAway):
                await call()

    prove(claim)


def test_calls_of_one_link_happen_in_the_order_in_which_they_were_made(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("gateway")
        items = [b"%d" % number for number in range(100)]
        appended = await asyncio.gather(*(link.append("events", [item]) for item in items))
        assert [one.position.sequence for one in appended] == list(range(1, 101))
        assert (await link.read("events", START)).items == items
        acknowledging = link.acknowledge("events", appended[-1].position)
        stats, _, last = await asyncio.gather(link.stats(), acknowledging, link.stats())
        assert (stats[0].items, last[0].items) == (100, 0)

    prove(claim)


def test_a_read_that_waits_holds_no_other_call_up(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        reading = asyncio.create_task(link.read("events", START, wait_s=10))
        await asyncio.wait((reading,), timeout=0.05)
        await link.append("broadcasts/fanout", [b"a"])
        assert (await link.read("broadcasts/fanout", START)).items == [b"a"]
        await link.ping()
        assert not reading.done()
        await link.append("events", [b"b"])
        assert (await reading).items == [b"b"]

    prove(claim)


def test_a_cancelled_read_holds_nothing_up_and_takes_nothing_with_it(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        reading = asyncio.create_task(link.read("events", START, wait_s=10))
        await asyncio.wait((reading,), timeout=0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await link.append("events", [b"a"])
        assert (await link.read("events", START)).items == [b"a"]

    prove(claim)

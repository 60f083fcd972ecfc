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
from processes.core.travels.queue_calls import APPEND_BYTES_MAX, APPEND_ITEMS_MAX, Batch, QueueRefused
from processes.core.values import Position

Claim = Callable[[House], Awaitable[None]]


@pytest.fixture(params=["real", "postgres", "memory"])
def prove(request: pytest.FixtureRequest, folder: Path) -> Callable[[Claim], None]:
    """Proves a claim of an engine, in an event loop."""
    server = request.getfixturevalue("volatile_postgres") if request.param == "postgres" else None

    async def run(claim: Claim) -> None:
        house: House = (
            PostgresHouse(server) if server else RealHouse(folder) if request.param == "real" else MemoryHouse()
        )
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


def test_the_bounds_hold_to_the_item(prove: Callable[[Claim], None]) -> None:
    """What fits exactly is taken; one more is refused, and with it all that came together; nine tenths for bulk."""

    async def claim(house: House) -> None:
        link = house.link("hub")
        for queue, items_max, bulk_max in (
            ("broadcasts/fanout", 20_000, 18_000), ("deliveries/gateway", 20_000, 18_000), ("events", 100_000, 95_000),
        ):  # fmt: skip
            bulk = queue != "events"  # of which no bulk is taken long before
            for start in range(0, bulk_max, 9000):
                assert (await link.append(queue, [b""] * min(9000, bulk_max - start), bulk=bulk)).accepted
            assert not (await link.append(queue, [b""], bulk=True)).accepted
            assert not (await link.append(queue, [b""] * (items_max - bulk_max + 1))).accepted, "all or nothing"
            assert (await link.append(queue, [b""] * (items_max - bulk_max))).accepted
            assert (await link.append(queue, [])).accepted
            full = await link.append(queue, [b""])
            assert full == (False, Position(full.position.epoch, items_max))
            await link.acknowledge(queue, Position(full.position.epoch, 1))
            assert (await link.append(queue, [b""])).position.sequence == items_max + 1
        assert [(q.items, q.appended, q.acknowledged, q.refused) for q in await link.stats()] == [
            (20_000, 20_001, 1, 2003), (20_000, 20_001, 1, 2003), (100_000, 100_001, 1, 5003),
        ]  # fmt: skip

    prove(claim)


def test_the_bounds_hold_to_the_byte(prove: Callable[[Claim], None]) -> None:
    """Also while a part of what was appended together is acknowledged."""

    async def claim(house: House) -> None:
        link, queue, bytes_max = house.link("hub"), "broadcasts/fanout", 32 << 20
        sizes = [1 << 20] * 22 + [(1 << 20) - 7, 7]
        here = (await link.append(queue, [b"x" * size for size in sizes], bulk=True)).position
        bulk_left = bytes_max * 9 // 10 - (23 << 20)
        assert not (await link.append(queue, [b"x" * (bulk_left + 1)], bulk=True)).accepted
        assert (await link.append(queue, [b"x" * bulk_left], bulk=True)).accepted
        left = bytes_max - (23 << 20) - bulk_left
        assert not (await link.append(queue, [b"x" * left, b"x"])).accepted
        assert (await link.append(queue, [b"x" * left])).accepted
        assert not (await link.append(queue, [b"x"])).accepted
        assert (await link.stats())[0].bytes == bytes_max
        await link.acknowledge(queue, Position(here.epoch, 23))
        assert (await link.stats())[0].bytes == bytes_max - (23 << 20) + 7
        await link.acknowledge(queue, here)
        assert (await link.stats())[0].bytes == bytes_max - (23 << 20)

    prove(claim)


def test_a_part_of_what_was_appended_together_is_read_and_acknowledged(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("hub")
        items = [b"%d" % number * (number % 7) for number in range(1, 1301)]
        here = (await link.append("events", items)).position
        sizes, at, found = list(map(len, items)), START, list[bytes]()
        while len(found) < len(items):
            batch = await link.read("events", at, items_max=137, wait_s=0)
            assert not batch.gap
            at, found = batch.position, found + batch.items
            await link.acknowledge("events", at)
            stats = (await link.stats())[0]
            assert (stats.items, stats.bytes) == (1300 - at.sequence, sum(sizes[at.sequence :]))
            assert await link.read("events", START, items_max=1, wait_s=0) == await link.read(
                "events", at, items_max=1, wait_s=0
            )
        assert (found, at) == (items, here)

    prove(claim)


def test_as_much_as_one_append_may_have_is_read_again(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        link = house.link("gateway")
        tail = APPEND_BYTES_MAX // APPEND_ITEMS_MAX
        for items in ([bytes([n % 256]) * tail for n in range(APPEND_ITEMS_MAX)], [b"y" * APPEND_BYTES_MAX]):
            end = (await link.append("events", items)).position
            at, found = START, list[bytes]()
            while at != end:
                batch = await link.read("events", at, items_max=APPEND_ITEMS_MAX, bytes_max=8 << 20)
                at, found = batch.position, found + batch.items
            assert found == items
            await link.acknowledge("events", end)
        assert (await link.stats())[0].items == 0

    prove(claim)


def test_a_lossy_append_is_one_gap_wherever_the_reader_stands(prove: Callable[[Claim], None]) -> None:
    """The items before it come without a gap, those behind it with it, once."""

    async def claim(house: House) -> None:
        link, queue = house.link("hub"), "deliveries/gateway"
        for _ in range(2):
            await link.append(queue, [b"a"] * 10_000)
        epoch = (await link.append(queue, [b"lost"] * 3, lossy=True)).position.epoch
        await link.acknowledge(queue, Position(epoch, 19_990))
        await link.append(queue, [b"b"])
        before = await link.read(queue, Position(epoch, 19_990))
        assert before == Batch([b"a"] * 10, Position(epoch, 20_000), False)
        behind = await link.read(queue, before.position)
        assert behind == Batch([b"b"], Position(epoch, 20_004), True)
        assert await link.read(queue, Position(epoch, 20_003)) == Batch([b"b"], Position(epoch, 20_004), False)
        nothing = await link.read(queue, behind.position, wait_s=0)
        assert nothing == Batch([], behind.position, False)

    prove(claim)


def test_two_readers_both_see_every_item(prove: Callable[[Claim], None]) -> None:
    async def claim(house: House) -> None:
        one, other, writer = house.link("hub"), house.link("hub"), house.link("gateway")
        both = [asyncio.create_task(each.read("events", START, wait_s=10)) for each in (one, other)]
        end = (await writer.append("events", [b"a", b"b"])).position
        batches = await asyncio.gather(*both)
        assert batches == [Batch([b"a", b"b"], end, False)] * 2
        await one.acknowledge("events", end)
        await writer.append("events", [b"c"])
        assert (await other.read("events", end)).items == [b"c"]
        assert await other.read("events", Position(end.epoch, 1)) == await one.read("events", end)
        assert (await writer.stats())[0].readers in (0, 2), "the double does not count them"

    prove(claim)

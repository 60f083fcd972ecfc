"""A queue read beside a loop: nothing is acknowledged before it was handled, and `queues` may be away."""

from __future__ import annotations

import asyncio

import pytest
from doubles.deadline import WAIT_S
from doubles.queue_link import MemoryQueueLink, MemoryQueues

from processes.adapters.queue_reader import QueueReader
from processes.core.travels.queue_calls import Batch

QUEUE = "deliveries/gateway:0"


async def taken(reader: QueueReader, woken: asyncio.Event) -> Batch:
    """The next batch with items; a gap, as at the first reading of a queue, may come before it."""
    for _ in range(20):
        reader.ask()
        async with asyncio.timeout(WAIT_S):
            await woken.wait()
        woken.clear()
        batch = reader.take()
        if batch is not None and batch.items:
            return batch
    raise AssertionError("no items came")


def test_a_batch_is_acknowledged_by_the_asking_after_it_and_not_by_the_taking() -> None:
    async def run() -> None:
        memory, woken = MemoryQueues(), asyncio.Event()
        link = MemoryQueueLink(memory, "hub")
        reader = QueueReader(link, QUEUE, 2, woken.set)
        assert reader.take() is None
        await link.append(QUEUE, [b"1", b"2", b"3"])
        assert (await taken(reader, woken)).items == [b"1", b"2"]
        depth = next(stats.items for stats in await link.stats() if stats.name == QUEUE)
        assert depth == 3  # whoever dies now is given them again
        assert reader.take() is None  # once is enough
        assert (await taken(reader, woken)).items == [b"3"]
        assert next(stats.items for stats in await link.stats() if stats.name == QUEUE) == 1
        reader.cancel()

    asyncio.run(run())


def test_while_queues_is_away_it_says_so_and_goes_on_afterwards() -> None:
    async def run() -> None:
        memory, woken = MemoryQueues(), asyncio.Event()
        link = MemoryQueueLink(memory, "hub")
        reader = QueueReader(link, QUEUE, 10, woken.set)
        memory.away = True
        reader.ask()
        async with asyncio.timeout(WAIT_S):
            while not reader.away:
                await asyncio.sleep(0)
        assert reader.take() is None
        memory.away = False
        await link.append(QUEUE, [b"1"])
        assert (await taken(reader, woken)).items == [b"1"]
        assert not reader.away
        reader.cancel()

    asyncio.run(run())


def test_a_reader_whose_task_dies_ends_its_process() -> None:
    """What nobody expected comes out of `take`, and so out of the loop: never a loop that waits for a dead task."""

    async def run() -> None:
        link, woken = MemoryQueueLink(MemoryQueues(), "hub"), asyncio.Event()

        async def broken(*_: object, **__: object) -> Batch:
            raise RuntimeError("a mistake of ours")

        link.read = broken  # type: ignore[method-assign]
        reader = QueueReader(link, QUEUE, 2, woken.set)
        reader.ask()
        async with asyncio.timeout(WAIT_S):
            await woken.wait()
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            reader.take()

    asyncio.run(run())

"""The link to `queues`, over a real server in threads of this process; what is said of every link holds for the double
too.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
from doubles.deadline import WAIT_S
from doubles.queue_link import MemoryQueueLink, MemoryQueues

from processes.adapters.queue_link import QueueLink, QueuesAway
from processes.core.errors import Fenced
from processes.core.travels.queue_calls import APPEND_ITEMS_MAX, Batch, QueueRefused
from processes.core.values import Position
from processes.queues.server import Server

START = Position(0, 0)
AnyLink = QueueLink | MemoryQueueLink


class RealHouse:
    """A server in this process, at a socket in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "queues.sock"
        self._links: list[QueueLink] = []
        self._start()

    def _start(self) -> None:
        self.server = Server(self.socket, structlog.stdlib.get_logger("fleethub"))
        self.server.start()

    def restart(self) -> None:
        self.server.close()
        self._start()

    def link(self, role: str, timeout_s: float = 5.0) -> QueueLink:
        self._links.append(QueueLink(self.socket, role, timeout_s=timeout_s))
        return self._links[-1]

    async def close(self) -> None:
        for link in self._links:
            await link.close()
        self.server.close()


class MemoryHouse:
    """The double."""

    def __init__(self) -> None:
        self.memory = MemoryQueues()

    def restart(self) -> None:
        self.memory.restart()

    def link(self, role: str) -> MemoryQueueLink:
        return MemoryQueueLink(self.memory, role)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="fhq"))
    yield made
    shutil.rmtree(made)


Claim = Callable[["RealHouse | MemoryHouse"], Awaitable[None]]


@pytest.fixture(params=["real", "memory"])
def prove(request: pytest.FixtureRequest, folder: Path) -> Callable[[Claim], None]:
    """Runs a claim in an event loop, with a house that is closed behind it."""

    async def run(claim: Claim) -> None:
        house = RealHouse(folder) if request.param == "real" else MemoryHouse()
        try:
            await asyncio.wait_for(claim(house), 2 * WAIT_S)
        finally:
            await house.close()

    return lambda claim: asyncio.run(run(claim))


@contextlib.asynccontextmanager
async def real_house(folder: Path) -> AsyncIterator[RealHouse]:
    house = RealHouse(folder)
    try:
        yield house
    finally:
        await house.close()


# Of every link


def test_what_is_appended_is_read_until_it_is_acknowledged(prove: Callable[[Claim], None]) -> None:
    async def claim(house: RealHouse | MemoryHouse) -> None:
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
    async def claim(house: RealHouse | MemoryHouse) -> None:
        writer, reader = house.link("hub"), house.link("fanout")
        nothing = await reader.read("broadcasts/fanout", START, wait_s=0)
        reading = asyncio.create_task(reader.read("broadcasts/fanout", nothing.position, wait_s=10))
        done, _ = await asyncio.wait((reading,), timeout=0.05)
        assert not done
        await writer.append("broadcasts/fanout", [b"a"])
        assert (await asyncio.wait_for(reading, WAIT_S)).items == [b"a"]

    prove(claim)


def test_a_read_of_nothing_returns_empty_after_its_wait(prove: Callable[[Claim], None]) -> None:
    async def claim(house: RealHouse | MemoryHouse) -> None:
        started_s = asyncio.get_running_loop().time()
        batch = await house.link("hub").read("events", START, wait_s=0.1)
        assert asyncio.get_running_loop().time() - started_s >= 0.09
        assert batch.items == []
        assert not batch.gap
        assert batch.position.epoch > 0

    prove(claim)


def test_items_max_and_bytes_max_cut_a_batch(prove: Callable[[Claim], None]) -> None:
    async def claim(house: RealHouse | MemoryHouse) -> None:
        link = house.link("hub")
        await link.append("events", [b"x" * 10] * 9)
        assert len((await link.read("events", START, items_max=4)).items) == 4
        assert len((await link.read("events", START, bytes_max=35)).items) == 3
        assert len((await link.read("events", START, items_max=0, bytes_max=0)).items) == 1

    prove(claim)


def test_a_restart_is_a_gap_for_the_reader_and_then_goes_on(prove: Callable[[Claim], None]) -> None:
    async def claim(house: RealHouse | MemoryHouse) -> None:
        link = house.link("hub")
        before = (await link.append("events", [b"a"])).position
        house.restart()
        gap = await until_back(lambda: link.read("events", before, wait_s=5))
        assert (gap.items, gap.gap) == ([], True)
        assert gap.position.epoch not in {0, before.epoch}
        await until_back(lambda: link.append("events", [b"b"]))
        assert await link.read("events", gap.position) == Batch([b"b"], Position(gap.position.epoch, 1), False)

    prove(claim)


def test_a_full_queue_refuses_and_a_lossy_append_leaves_a_gap(prove: Callable[[Claim], None]) -> None:
    async def claim(house: RealHouse | MemoryHouse) -> None:
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
    async def claim(house: RealHouse | MemoryHouse) -> None:
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
    async def claim(house: RealHouse | MemoryHouse) -> None:
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

    async def claim(house: RealHouse | MemoryHouse) -> None:
        gateway, old = house.link("gateway"), house.link("hub")
        gateway.epoch, old.epoch = 4, 3
        house.restart()
        await gateway.append("events", [b"a"])
        with pytest.raises(Fenced):
            await old.read("events", START)

    prove(claim)


def test_calls_that_cannot_be_are_refused_with_the_reason(prove: Callable[[Claim], None]) -> None:
    async def claim(house: RealHouse | MemoryHouse) -> None:
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
    async def claim(house: RealHouse | MemoryHouse) -> None:
        link = house.link("hub")
        await link.ping()
        await link.close()
        for call in (link.ping, link.stats, lambda: link.read("events", START)):
            with pytest.raises(QueuesAway):
                await call()

    prove(claim)


# Of the real link


def test_a_link_without_a_server_is_away_at_once(folder: Path) -> None:
    async def claim() -> None:
        link = QueueLink(folder / "queues.sock", "hub")
        for call in (link.ping, link.stats, lambda: link.append("events", [b"x"])):
            with pytest.raises(QueuesAway, match="No such file"):
                await call()
        await link.close()

    asyncio.run(claim())


def test_a_server_that_does_not_answer_costs_the_deadline_and_no_more(folder: Path) -> None:
    """A listening socket that nobody accepts from is what a stopped server looks like."""

    async def claim() -> None:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(folder / "queues.sock"))
            silent.listen(0)
            (folder / "queues.key").write_bytes(b"k" * 32)
            link = QueueLink(folder / "queues.sock", "hub", timeout_s=0.5)
            turns = asyncio.create_task(turning())
            results = await asyncio.gather(
                *(link.append("events", [b"x"]) for _ in range(40)), link.read("events", START, wait_s=0.1),
                link.ping(), link.stats(),
                return_exceptions=True,
            )  # fmt: skip
            assert all(isinstance(result, QueuesAway) for result in results)
            assert turned[0] > 5, "the loop itself is never held"
            turns.cancel()
            await link.close()

    async def turning() -> None:
        while True:
            await asyncio.sleep(0.01)
            turned[0] += 1

    turned = [0]

    asyncio.run(claim())


def test_a_writer_that_was_idle_during_a_restart_notices_nothing(folder: Path) -> None:
    """Its old connection has ended; that is seen before anything is written to it."""

    async def claim() -> None:
        async with real_house(folder) as house:
            link = house.link("gateway")
            for _ in range(5):
                assert (await link.append("events", [b"x"])).position.sequence == 1
                house.restart()

    asyncio.run(claim())


def test_a_cancelled_read_gives_its_connection_up_and_the_next_read_does_not_wait_for_it(folder: Path) -> None:
    async def claim() -> None:
        async with real_house(folder) as house:
            link = house.link("hub")
            position = (await link.read("events", START, wait_s=0)).position
            for _ in range(3):
                reading = asyncio.create_task(link.read("events", position, wait_s=10))
                await asyncio.wait((reading,), timeout=0.05)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                assert (await asyncio.wait_for(link.read("events", position, wait_s=0), WAIT_S)).items == []

    asyncio.run(claim())


def test_a_cancelled_append_does_not_disturb_the_others_in_the_line(folder: Path) -> None:
    async def claim() -> None:
        async with real_house(folder) as house:
            link = house.link("gateway")
            tasks = [asyncio.create_task(link.append("events", [b"%d" % number])) for number in range(50)]
            await asyncio.sleep(0)
            tasks[25].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [index for index, result in enumerate(results) if isinstance(result, BaseException)] == [25]
            items = (await link.read("events", START)).items
            assert [item for item in items if item != b"25"] == [b"%d" % number for number in range(50) if number != 25]

    asyncio.run(claim())


def test_a_key_of_another_start_opens_nothing(folder: Path) -> None:
    async def claim() -> None:
        async with real_house(folder) as house:
            (folder / "queues.key").write_bytes(b"0" * 32)
            with pytest.raises(QueuesAway, match="digest"):
                await house.link("hub").ping()

    asyncio.run(claim())


def test_calls_end_under_a_loop_that_never_idles(folder: Path) -> None:
    """With bootstrap's switch interval the link's threads get their turn beside a loop that spins in 2 ms
    turns.
    """

    async def spin(spinning: list[bool]) -> None:
        loop = asyncio.get_running_loop()
        while spinning:
            until_s = loop.time() + 0.002
            while loop.time() < until_s:
                pass
            await asyncio.sleep(0)

    async def claim() -> None:
        async with real_house(folder) as house:
            link = house.link("hub", timeout_s=20.0)
            spinning = [True]
            spinner = asyncio.create_task(spin(spinning))
            for number in range(1, 21):
                assert (await link.append("events", [b"x"])).position.sequence == number
            assert len((await link.read("events", START)).items) == 20
            spinning.clear()
            await spinner

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        asyncio.run(claim())
    finally:
        sys.setswitchinterval(before_s)


def test_the_threads_of_a_link_end_with_it(folder: Path) -> None:
    async def claim() -> None:
        async with real_house(folder) as house:
            link = house.link("hub")
            await asyncio.gather(link.ping(), link.stats(), link.read("events", START, wait_s=0))
            assert len(threads()) == 3
            await link.close()
            deadline_s = asyncio.get_running_loop().time() + WAIT_S
            while threads() and asyncio.get_running_loop().time() < deadline_s:
                await asyncio.sleep(0.005)
            assert threads() == []

    def threads() -> list[str]:
        return [
            thread.name
            for thread in threading.enumerate()
            if thread.name.startswith("queues-") and thread not in before
        ]

    before = threading.enumerate()  # a test before this one may have left one that is still in its deadline
    asyncio.run(claim())


_T = TypeVar("_T")


async def until_back(call: Callable[[], Awaitable[_T]]) -> _T:
    """The call's result, tried again while the server is being replaced."""
    deadline_s = asyncio.get_running_loop().time() + WAIT_S
    while True:
        try:
            return await call()
        except QueuesAway:
            assert asyncio.get_running_loop().time() < deadline_s
            await asyncio.sleep(0.005)

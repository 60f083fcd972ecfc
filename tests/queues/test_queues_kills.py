"""`queues` and its readers killed with SIGKILL, again and again: real processes, real sockets."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S
from doubles.queue_nursery import Nursery

from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import QueuesAway
from processes.core.travels.queue_calls import Appended
from processes.core.values import Position

KILLS, READER_KILLS = 100, 20


@pytest.fixture
def socket() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fhq"))
    yield folder / "queues.sock"
    shutil.rmtree(folder)


class Writer:
    """Appends numbered items without a pause, tries again what failed, and notes what was accepted in which epoch."""

    def __init__(self, link: QueueLink) -> None:
        self._link = link
        self.accepted: dict[int, list[bytes]] = {}  # in order
        self.unknown: set[bytes] = set()  # the call failed: appended or not
        self.number = 0

    async def run(self) -> None:
        while True:
            items = [b"%d" % (self.number + index) for index in range(3)]
            self.number += 3
            try:
                appended = await self._link.append("events", items)
            except QueuesAway:
                self.unknown.update(items)
                await asyncio.sleep(0.001)
                continue
            assert appended.accepted
            self.accepted.setdefault(appended.position.epoch, []).extend(items)


class Reader:
    """Follows the queue, acknowledges, and notes what came in which epoch, and how many gaps it was told."""

    def __init__(self, link: QueueLink) -> None:
        self._link = link
        self.read: dict[int, list[bytes]] = {}
        self.gaps = 0
        self.epochs: list[int] = []  # every one it stood in, in order

    async def run(self) -> None:
        position = Position(0, 0)
        while True:
            try:
                batch = await self._link.read("events", position)
                self.gaps += batch.gap
                if batch.position.epoch != position.epoch:
                    assert batch.gap == (position.epoch != 0)
                    self.epochs.append(batch.position.epoch)
                position = batch.position
                self.read.setdefault(position.epoch, []).extend(batch.items)
                await self._link.acknowledge("events", position)
            except QueuesAway:
                await asyncio.sleep(0.001)


async def until(true: Callable[[], bool]) -> None:
    """Returns once it is true."""
    deadline_s = asyncio.get_running_loop().time() + WAIT_S
    while not true():
        assert asyncio.get_running_loop().time() < deadline_s
        await asyncio.sleep(0.001)


def test_a_hundred_kills_in_a_row_are_a_gap_each_and_nothing_else(socket: Path) -> None:
    """After each kill both sides go on by themselves; what one epoch's memory took comes in order, once, without a
    hole.
    """

    async def drill(nursery: Nursery) -> None:
        writing, reading = QueueLink(socket, "gateway"), QueueLink(socket, "hub")
        writer, reader = Writer(writing), Reader(reading)
        nursery.start()
        tasks = [asyncio.create_task(writer.run()), asyncio.create_task(reader.run())]
        for kill in range(KILLS + 1):
            await until(lambda: len(writer.accepted) == len(reader.epochs) == kill + 1)  # noqa: B023
            await until(lambda: len(reader.read[reader.epochs[-1]]) >= 9)
            if kill < KILLS:
                nursery.kill()
                nursery.start()
        for task in tasks:
            assert not task.done(), task.exception()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await writing.close()
        await reading.close()

        assert reader.gaps == KILLS
        assert reader.epochs == list(writer.accepted)
        for epoch, items in reader.read.items():
            numbers = [int(item) for item in items]
            assert numbers == sorted(set(numbers))
            known = [item for item in items if item not in writer.unknown]
            assert known == writer.accepted[epoch][: len(known)]

    with Nursery("server", socket) as nursery:
        asyncio.run(drill(nursery))
    assert not list(socket.parent.glob("*.new"))


def test_a_reader_killed_while_it_waits_takes_nothing_with_it(socket: Path) -> None:
    """Twenty in a row: whatever is appended behind each death comes to the successor, whole."""

    async def until_readers(link: QueueLink, count: int) -> None:
        deadline_s = asyncio.get_running_loop().time() + WAIT_S
        while (await link.stats())[0].readers != count:
            assert asyncio.get_running_loop().time() < deadline_s

    async def drill(readers: Nursery) -> None:
        link = QueueLink(socket, "gateway")
        successor = QueueLink(socket, "hub")
        position = (await successor.read("events", Position(0, 0), wait_s=0)).position
        for kill in range(READER_KILLS):
            await until_readers(link, 1)  # the dead one's thread has ended too
            readers.start()
            await until_readers(link, 2)
            readers.kill()
            items = [b"%d.%d" % (kill, index) for index in range(50)]
            assert (await link.append("events", items)).accepted
            batch = await successor.read("events", position, wait_s=10)
            assert (batch.items, batch.gap) == (items, False)
            position = batch.position
            await successor.acknowledge("events", position)
        await link.close()
        await successor.close()

    with Nursery("server", socket) as servers, Nursery("reader", socket) as readers:
        servers.start()
        asyncio.run(drill(readers))


def stopped(task: Path) -> bool:
    """True when this thread runs no more."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_stopped_server_costs_its_callers_their_deadline_and_goes_on_when_it_is_continued(socket: Path) -> None:
    async def drill(nursery: Nursery) -> None:
        link = QueueLink(socket, "gateway", timeout_s=0.5)
        known = (await appended(link)).position
        os.kill(nursery.pid, signal.SIGSTOP)
        while not all(stopped(task) for task in Path(f"/proc/{nursery.pid}/task").iterdir()):
            await asyncio.sleep(0)  # the signal is on its way; the test's own deadline ends this
        for _ in range(3):
            results = await asyncio.gather(link.append("events", [b"b"]), link.ping(), link.read("events", known,
            wait_s=0.1),
                                           return_exceptions=True)  # fmt: skip
            assert [type(result) for result in results] == [QueuesAway] * 3
        os.kill(nursery.pid, signal.SIGCONT)
        assert (await appended(link)).position.epoch == known.epoch
        await link.close()

    async def appended(link: QueueLink) -> Appended:
        deadline_s = asyncio.get_running_loop().time() + WAIT_S
        while True:
            try:
                return await link.append("events", [b"a"])
            except QueuesAway:
                assert asyncio.get_running_loop().time() < deadline_s

    with Nursery("server", socket) as nursery:
        nursery.start()
        asyncio.run(drill(nursery))


def test_the_folder_the_socket_and_the_key_are_for_this_user_alone_and_the_key_is_new_at_each_start(
    socket: Path,
) -> None:
    with Nursery("server", socket) as nursery:
        keys = set()
        for _ in range(3):
            nursery.start()
            assert [path.stat().st_mode & 0o777 for path in (socket.parent, socket, socket.with_suffix(".key"))] == [
                0o700,
                0o600,
                0o600,
            ]
            keys.add(socket.with_suffix(".key").read_bytes())
            assert sorted(os.listdir(socket.parent)) == ["queues.key", "queues.sock"]
            nursery.kill()
        assert len(keys) == 3
        assert {len(key) for key in keys} == {32}

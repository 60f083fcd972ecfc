"""The link to `queues`, over a real server in the event loop of the test."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import uvloop
from doubles.deadline import WAIT_S
from doubles.queue_engines import START, real_house, until_back
from doubles.served import Served, serving

from processes.adapters import queue_line
from processes.adapters.queue_line import Line
from processes.adapters.queue_link import QueueLink
from processes.adapters.queue_socket import on_thread
from processes.adapters.queues import QueuesAway


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


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_reply_that_came_while_only_the_loop_was_late_counts(
    folder: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """On asyncio's loop and on uvloop, which all processes run on."""

    async def claim(served: Served) -> None:
        link = QueueLink(folder / "queues.sock", "gateway", timeout_s=0.2)
        await until_back(lambda: link.append("events", [b"a"]))
        before = served.ask(served.server.counts).received
        appending = asyncio.create_task(link.append("events", [b"b"]))
        for _ in range(2):  # the call is made in the first pass of the event loop, and sent at its end
            await asyncio.sleep(0)
        overdue_s = asyncio.get_running_loop().time() + 0.25
        while served.ask(served.server.counts).received == before or asyncio.get_running_loop().time() < overdue_s:
            pass  # the event loop does not turn
        assert (await appending).accepted
        await link.close()

    with serving(folder / "queues.sock") as served, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(claim(served))


def test_a_reply_of_which_only_a_part_is_there_at_its_deadline_has_a_moment_more_and_once() -> None:
    """The bugs it would catch: no moment, so a busy loop loses replies that are there; one that holds up who waits, or
    another and another, while a server sends a byte now and then.
    """

    class Watched(asyncio.SelectorEventLoop):
        def __init__(self) -> None:
            super().__init__()
            self.now_s = 100.0
            self.due_s: list[float] = []

        def time(self) -> float:
            return self.now_s

        def call_at(self, when: float, *call: object, **_: object) -> asyncio.TimerHandle:
            self.due_s.append(when)
            return asyncio.TimerHandle(when, lambda: None, (), self)

    class Half:
        """A connection of whose next reply a part is there."""

        def __init__(self, call: queue_line._Call) -> None:
            self.sent, self.was_late = deque([call]), False

        def readable(self) -> bool:
            return True

        def abort(self) -> None:
            self.sent.clear()

    loop = Watched()
    future: asyncio.Future[bytes] = loop.create_future()
    line = queue_line.Line(Path("queues.sock"), "hub", 5.0)
    line._connection = Half(queue_line._Call(b"?", future, loop.now_s, False))  # type: ignore[assignment]
    loop.now_s += 0.3
    line._expire(loop)
    assert not future.done()
    (due_s,) = loop.due_s
    assert 0.01 <= due_s - loop.now_s <= 0.2, "some passes of a busy loop, and nothing that a caller would notice"
    loop.now_s = due_s
    line._expire(loop)
    assert isinstance(future.exception(), TimeoutError)
    assert line._connection is None
    assert len(loop.due_s) == 1
    loop.close()


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


@pytest.mark.parametrize("is_open", [True, False], ids=["sent", "unsent"])
def test_a_cancelled_append_does_not_disturb_the_others_in_the_line(folder: Path, is_open: bool) -> None:
    async def claim() -> None:
        async with real_house(folder) as house:
            link = house.link("gateway")
            if is_open:
                await link.stats()  # the calls go out at the end of a pass, and wait for their replies
            tasks = [asyncio.create_task(link.append("events", [b"%d" % number])) for number in range(50)]
            for _ in range(2):
                await asyncio.sleep(0)
            tasks[25].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [index for index, result in enumerate(results) if isinstance(result, BaseException)] == [25]
            items = (await link.read("events", START)).items
            assert [item for item in items if item != b"25"] == [b"%d" % number for number in range(50) if number != 25]

    asyncio.run(claim())


class Written:
    """In the place of a line's connection: keeps what is written to it."""

    def __init__(self) -> None:
        self.sent: deque[Any] = deque()
        self.writes: list[int] = []

    def send(self, calls: Collection[Any]) -> None:
        self.sent.extend(calls)
        self.writes.append(len(calls))

    def readable(self) -> bool:
        return False


def test_calls_of_one_pass_of_the_loop_are_one_write(folder: Path) -> None:
    """Then whoever reads what they append gets it together: an answer needs no further read behind what it changed."""

    async def claim() -> None:
        line, written = Line(folder / "queues.sock", "calls", WAIT_S), Written()
        line._connection = written  # type: ignore[assignment]
        for count in (3, 1):
            calls = [asyncio.create_task(line.exchange(b"x")) for _ in range(count)]
            while len(written.sent) < count:
                await asyncio.sleep(0)
            while written.sent:
                written.sent.popleft().future.set_result(b"")
            await asyncio.gather(*calls)
        assert written.writes == [3, 1]
        line._connection = None
        line.close()

    asyncio.run(claim())


def test_a_key_of_another_start_opens_nothing(folder: Path) -> None:
    async def claim() -> None:
        async with real_house(folder) as house:
            (folder / "queues.key").write_bytes(b"0" * 32)
            with pytest.raises(QueuesAway, match="digest"):
                await house.link("hub").ping()

    asyncio.run(claim())


def test_calls_end_under_a_loop_that_never_idles(folder: Path) -> None:
    """With bootstrap's switch interval the thread that opens a connection gets its turn beside a loop that spins in 2 ms
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


def test_a_link_has_no_thread_once_its_connections_are_open(folder: Path) -> None:
    async def claim() -> None:
        async with real_house(folder) as house:
            link = house.link("hub")
            await asyncio.gather(link.ping(), link.stats(), link.read("events", START, wait_s=0))
            deadline_s = asyncio.get_running_loop().time() + WAIT_S
            while threads() and asyncio.get_running_loop().time() < deadline_s:
                await asyncio.sleep(0.005)
            started = threading.Thread.start
            threading.Thread.start = refuse  # type: ignore[method-assign, assignment]
            try:
                await asyncio.gather(link.stats(), link.append("events", [b"x"]), link.read("events", START))
            finally:
                threading.Thread.start = started  # type: ignore[method-assign]

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def threads() -> list[str]:
        return [
            thread.name
            for thread in threading.enumerate()
            if thread.name.startswith("queues-") and thread not in before
        ]

    before = threading.enumerate()  # a test before this one may have left one that is still in its deadline
    asyncio.run(claim())


def test_what_a_thread_has_opened_for_nobody_is_closed_though_the_loop_has_ended() -> None:
    may_end = threading.Event()
    closed: list[str] = []

    def work() -> str:
        may_end.wait(WAIT_S)
        return "a connection"

    async def give_up() -> None:
        opening = on_thread("opening", work, closed.append)
        opening.cancel()
        may_end.set()  # the loop does not run from here until it is closed
        for thread in [each for each in threading.enumerate() if each.name == "opening"]:
            thread.join(WAIT_S)
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(give_up())
    loop.run_forever()
    assert task.done()
    loop.close()
    assert closed == ["a connection"]

"""What one link asks for at most, and what it makes of a server that does not answer as it should."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S
from doubles.queue_engines import START

from processes.adapters import queue_line, queue_link
from processes.adapters.queue_link import QueueLink
from processes.adapters.queue_socket import prove_as_server
from processes.adapters.queues import QueuesAway
from processes.core.errors import LocalError
from processes.core.travels.queue_calls import DoneReply, StatsReply, encode

DONE, STATS = encode(DoneReply()), encode(StatsReply([]))
KEY = b"k" * 32


class OddServer:
    """Answers each call with the next of these lists of messages, and says nothing once they are used up."""

    def __init__(self, listener: socket.socket, answers: list[list[bytes]]) -> None:
        self.connections = 0
        self._listener, self._answers = listener, answers

    def run(self) -> None:
        """Serves one connection after the other, until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                prove_as_server(sock, KEY)
                with Connection(sock.detach()) as connection, contextlib.suppress(EOFError):
                    while True:
                        connection.recv_bytes()
                        answers = self._answers.pop(0) if self._answers else []
                        said = b"".join(struct.pack("!i", len(answer)) + answer for answer in answers)
                        os.write(connection.fileno(), said)  # at once, as send_bytes would do with each


@contextlib.contextmanager
def odd(folder: Path, *answers: list[bytes]) -> Iterator[OddServer]:
    with silent(folder) as listener:
        found = OddServer(listener, list(answers))
        thread = threading.Thread(target=found.run)
        thread.start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S)


@contextlib.contextmanager
def silent(folder: Path) -> Iterator[socket.socket]:
    """A socket at which nobody accepts: what a stopped server looks like."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "queues.sock"))
        listener.listen(0)
        (folder / "queues.key").write_bytes(KEY)
        yield listener


def test_more_calls_than_may_wait_are_refused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_line, "WAITING_MAX", 3)
    monkeypatch.setattr(queue_link, "PINGS_MAX", 2)

    async def claim() -> None:
        link = QueueLink(folder / "queues.sock", "hub", timeout_s=WAIT_S)
        waiting = [asyncio.create_task(link.stats()) for _ in range(3)]
        waiting += [asyncio.create_task(link.ping()) for _ in range(2)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(QueuesAway, match="3 calls wait already"):
            await link.stats()
        with pytest.raises(QueuesAway, match="2 pings wait already"):
            await link.ping()
        await link.close()
        assert all(isinstance(each, QueuesAway) for each in await asyncio.gather(*waiting, return_exceptions=True))

    with silent(folder):
        asyncio.run(claim())


def test_a_link_that_reads_too_many_queues_is_a_fault_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_link, "READING_MAX", 2)

    async def claim() -> None:
        link = QueueLink(folder / "queues.sock", "hub")
        for queue in ("events", "broadcasts/fanout:0"):
            with pytest.raises(QueuesAway):
                await link.read(queue, START)
        with pytest.raises(LocalError, match="cannot read broadcasts/fanout:1 too"):
            await link.read("broadcasts/fanout:1", START)
        await link.close()

    asyncio.run(claim())


def test_after_a_reply_that_nobody_asked_for_the_connection_is_not_used_again(folder: Path) -> None:
    """What comes next on it could be taken for the answer to another call."""

    async def claim(server: OddServer) -> None:
        link = QueueLink(folder / "queues.sock", "hub", timeout_s=WAIT_S)
        assert await link.stats() == []
        assert await link.stats() == []
        assert server.connections == 2
        await link.close()

    with odd(folder, [STATS, STATS], [STATS]) as server:
        asyncio.run(claim(server))


def test_a_reply_of_another_kind_is_never_taken_for_an_answer(folder: Path) -> None:
    async def claim() -> None:
        link = QueueLink(folder / "queues.sock", "hub", timeout_s=WAIT_S)
        with pytest.raises(LocalError, match="answered StatsCall with DoneReply"):
            await link.stats()
        await link.close()

    with odd(folder, [DONE]):
        asyncio.run(claim())


def test_a_call_has_its_deadline_though_the_timer_is_of_one_before_it(folder: Path) -> None:
    async def claim() -> None:
        link = QueueLink(folder / "queues.sock", "hub", timeout_s=0.5)
        assert await link.stats() == []
        await asyncio.sleep(0.05)  # so that this one's deadline is later than the one before
        with pytest.raises(QueuesAway, match="no answer in time"):
            await asyncio.wait_for(link.stats(), WAIT_S)
        await link.close()

    with odd(folder, [STATS]):
        asyncio.run(claim())

"""The engines of the queues that the contract is proved of: each a house that can be restarted, with links to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import psycopg
import structlog
from doubles.deadline import WAIT_S, until
from doubles.postgres_server import PostgresServer
from doubles.queue_link import MemoryQueueLink, MemoryQueues
from psycopg import errors

from processes.adapters.postgres.queues import PostgresQueues
from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import Queues, QueuesAway
from processes.core.values import Position
from processes.queues.server import Server

START = Position(0, 0)


class House(Protocol):
    """An engine. `restart`: it loses everything, and is there again."""

    def restart(self) -> None: ...

    def link(self, role: str) -> Queues: ...

    async def close(self) -> None: ...


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


class PostgresHouse:
    """A server that the tests share, one after another; nothing is left of the test before."""

    def __init__(self, server: PostgresServer) -> None:
        self.url = server.url()
        self._links: list[PostgresQueues] = []
        with psycopg.connect(self.url, autocommit=True) as connection, contextlib.suppress(errors.InvalidSchemaName):
            connection.execute(
                "TRUNCATE fleethub_queues.queue, fleethub_queues.client, fleethub_queues.fence,"
                " fleethub_queues.pack_0, fleethub_queues.pack_1, fleethub_queues.pack_2, fleethub_queues.pack_3"
            )

    def restart(self) -> None:
        """One of its processes is killed: the server ends all others, and empties the queues."""
        with (
            psycopg.connect(self.url, autocommit=True) as victim,
            psycopg.connect(self.url, autocommit=True) as witness,
        ):
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            until(lambda: not answers(witness))  # the server has noticed
        until(self._is_up)

    def _is_up(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False

    def link(self, role: str, timeout_s: float = WAIT_S) -> PostgresQueues:
        self._links.append(PostgresQueues(self.url, role, timeout_s=timeout_s))
        return self._links[-1]

    async def close(self) -> None:
        for link in self._links:
            await link.close()


def answers(connection: psycopg.Connection) -> bool:
    """Whether the server answers on it."""
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


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


@contextlib.asynccontextmanager
async def real_house(folder: Path) -> AsyncIterator[RealHouse]:
    """A house that is closed at the end."""
    house = RealHouse(folder)
    try:
        yield house
    finally:
        await house.close()


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

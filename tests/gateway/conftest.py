"""A gateway in the test's own loop, on a real port, with its queues in memory and the hub's side in the test's
hands.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from doubles.agent_wire import AgentWire
from doubles.deadline import WAIT_S
from doubles.hub_side import HubSide
from doubles.queue_link import MemoryQueueLink, MemoryQueues

from processes.adapters.listener import Listener
from processes.adapters.state.pulse_file import PulseFile
from processes.core.budgets import HOST_CONNECTIONS_MAX
from processes.core.connections import agents_limits
from processes.core.travels.messages import AgentRegistered, DeliverRegistered
from processes.gateway.gate import Gate
from processes.gateway.loop import Loop
from processes.gateway.tokens import Tokens


class House:
    """One gateway and everything around it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.memory = MemoryQueues()
        self.hub = HubSide(MemoryQueueLink(self.memory, "hub"))
        self.canary = folder / "canary.json"
        self.log = structlog.testing.CapturingLogger()
        self.gate = Gate("gateway", "boot", Tokens(self.canary), self.log, **options)  # type: ignore[arg-type]
        self.pulse = PulseFile(folder / "pulse", "gateway")
        self.stop = asyncio.Event()
        self.loop = Loop(self.gate, MemoryQueueLink(self.memory, "gateway"), self.pulse, self.stop)
        self.port = 0
        self.listener: Listener
        self.wires: list[AgentWire] = []

    async def agent(self, token: str, name: str = "", **payload: Any) -> AgentWire:
        """An agent that has connected, registered, and was told so by the hub."""
        wire = await self.dial(token)
        wire.register(name or token, **payload)
        registered = await self.hub.event(AgentRegistered, host=token)
        await self.hub.deliver(DeliverRegistered(self.hub.epoch, registered.connection, token, f"id-of-{token}"))
        await wire.hear("registered")
        return wire

    async def dial(self, token: str | None, **options: Any) -> AgentWire:
        """A connection that was let in. Raises: NotLetIn."""
        wire = await AgentWire.dial(self.port, token, **options)
        self.wires.append(wire)
        return wire

    def connection(self, host: str) -> str:
        """The id of the host's registered connection."""
        member = self.gate.roster.of_host(host)
        assert member is not None
        return member.connection.id

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits for a condition inside this process."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def _house(
    folder: Path, *, room: int = 1000, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[House]:
    house = House(folder, **options)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    house.port = sock.getsockname()[1]
    limits = agents_limits(room, HOST_CONNECTIONS_MAX)
    house.listener = Listener(sock, tls, limits, house.gate.socket, house.log)  # type: ignore[arg-type]
    house.listener.start()
    task = asyncio.create_task(house.loop.run())
    try:
        yield house
        assert not task.done(), task.exception()
    finally:
        for wire in house.wires:
            await wire.hang_up()
        house.stop.set()
        await asyncio.wait_for(task, WAIT_S)
        house.listener.close()
        sock.close()
        await house.loop.drain()


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[House]]:
    """Opens a gateway: `async with house() as h`."""
    return lambda **options: _house(tmp_path, **options)

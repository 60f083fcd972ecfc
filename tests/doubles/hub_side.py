"""The hub as a gateway sees it: a test reads what came to `events` and delivers what it likes."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Protocol, TypeVar

from doubles.deadline import WAIT_S

from processes.core.travels import messages
from processes.core.travels.messages import CensusTaken, Delivery, Event, HubStarted, Token, TokensPiece
from processes.core.travels.queue_calls import Appended, Batch
from processes.core.values import Position

E = TypeVar("E")


class Link(Protocol):
    """What is used of a queue link, the real one or its double."""

    epoch: int

    async def append(self, queue: str, items: list[bytes]) -> Appended: ...

    async def read(self, queue: str, after: Position, *, wait_s: float = 1.0) -> Batch: ...

    async def acknowledge(self, queue: str, position: Position) -> None: ...


def hash_of(secret: str) -> str:
    """As the token table names a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def token_of(host: str, secret: str = "") -> Token:
    """The row of a host whose token is its own name, or `secret`."""
    return Token(hash_of(secret or host), host, f"id-of-{host}")


class HubSide:
    """One hub life."""

    def __init__(self, link: Link, gateway: str = "gateway", epoch: int = 1) -> None:
        self.link, self.gateway = link, gateway
        self.seen: list[Event] = []  # everything read and not yet asked for
        self._position = Position(0, 0)
        self.succeed(epoch)

    def succeed(self, epoch: int) -> None:
        """From now on it is the hub of this epoch."""
        self.epoch = self.link.epoch = epoch

    async def deliver(self, *deliveries: Delivery) -> None:
        """Appends them to the gateway's queue."""
        appended = await self.link.append(
            messages.deliveries_of(self.gateway), [messages.encode(one) for one in deliveries]
        )
        assert appended.accepted

    async def start(self, *hosts: str) -> None:
        """Says that this hub has started, and that these hosts may connect, each with its name as token."""
        await self.deliver(HubStarted(self.epoch), TokensPiece(self.epoch, 0, True, [token_of(host) for host in hosts]))

    async def read(self) -> None:
        """Reads and acknowledges one batch of events into `seen`."""
        batch = await self.link.read(messages.EVENTS, self._position, wait_s=0.2)
        self._position = batch.position
        if batch.items:
            self.seen.extend(messages.decode_event(item) for item in batch.items)
            await self.link.acknowledge(messages.EVENTS, batch.position)

    async def event(self, kind: type[E], **fields: Any) -> E:
        """The first event of this kind with these fields; it and nothing else leaves `seen`."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for place, event in enumerate(self.seen):
                    if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
                        del self.seen[place]
                        return event
                await self.read()

    async def census(self, number: int | None = None) -> list[messages.Connection]:
        """The connections of the next whole census (of this number)."""
        connections: list[messages.Connection] = []
        while True:
            piece = await self.event(CensusTaken) if number is None else await self.event(CensusTaken, census=number)
            connections = connections if piece.piece else []
            connections.extend(piece.connections)
            if piece.last:
                return connections

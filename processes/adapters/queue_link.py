"""The client of `queues`: an engine of queues.py. Its calls never block the event loop, have deadlines, and find a
restarted server again.

There is one connection for appends, acknowledgements and stats (so they happen in the order of the calls), one for each
queue that is read, and a fresh one for each ping. Connections are opened and authenticated on a thread
(queue_socket.py); all else happens on the event loop. A call that fails raises; the next call opens a fresh connection.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

from processes.adapters.queue_line import Line
from processes.adapters.queue_socket import FAILURES
from processes.adapters.queues import QueuesAway
from processes.core.errors import Fenced, LocalError
from processes.core.travels import queue_calls
from processes.core.travels.queue_calls import (
    EPOCH_MAX,
    AnyCall,
    Appended,
    AppendedReply,
    Batch,
    BatchReply,
    DoneReply,
    FencedReply,
    QueueRefused,
    QueueStats,
    RefusedReply,
    StatsReply,
    check_append,
    limits_of,
)
from processes.core.values import Position

READING_MAX: Final = 64  # queues read over one link; every process reads one
PINGS_MAX: Final = 8  # pings under way; each has a connection and, at its start, a thread of its own

_Reply = TypeVar("_Reply", AppendedReply, BatchReply, StatsReply, DoneReply)


class QueueLink:
    """A process's access to all queues. `epoch`: the hub epoch sent with every call; its owner sets it."""

    def __init__(self, socket: Path, role: str, *, timeout_s: float = 2.0) -> None:
        self.epoch = 0
        self._socket, self._role, self._timeout_s = socket, role, timeout_s
        self._calls = Line(socket, "calls", timeout_s)
        self._pings: set[Line] = set()
        self._reads: dict[str, Line] = {}
        self._client, self._numbers = secrets.randbelow(EPOCH_MAX), itertools.count(1)
        self._closed = False

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        """Append all items, or none if the queue is full. bulk: nine tenths count as full.

        lossy: items that do not fit use up their sequence numbers, so that the reader sees a gap.
        Raises: QueuesAway; Fenced; QueueRefused, for more items than an append may have, or for a queue that cannot be.
        """
        limits_of(queue)
        check_append(items)
        call = queue_calls.AppendCall(
            self._role, self.epoch, queue, list(items), bulk, lossy, self._client, next(self._numbers)
        )
        return (await self._ask(self._calls, call, AppendedReply)).appended

    async def read(
        self, queue: str, after: Position, *, items_max: int = 1000, bytes_max: int = 1 << 20, wait_s: float = 1.0
    ) -> Batch:  # fmt: skip
        """Return the next items after a position, or none after `wait_s` (at most 10 s). Reading removes nothing.

        Raises: QueuesAway; Fenced; QueueRefused.
        """
        line = self._reads.get(queue)
        if line is None:
            limits_of(queue)
            if len(self._reads) >= READING_MAX:
                raise LocalError(f"a link that reads {READING_MAX} queues cannot read {queue} too")
            line = self._reads[queue] = Line(self._socket, queue, self._timeout_s)
        call = queue_calls.read_call(
            self._role, self.epoch, queue, after, items_max=items_max, bytes_max=bytes_max, wait_s=wait_s
        )
        return (await self._ask(line, call, BatchReply, call.wait_s)).batch

    async def acknowledge(self, queue: str, position: Position) -> None:
        """Let `queues` remove every item up to the position. Raises: QueuesAway; Fenced; QueueRefused."""
        limits_of(queue)
        await self._ask(self._calls, queue_calls.AcknowledgeCall(self._role, self.epoch, queue, *position), DoneReply)

    async def stats(self) -> list[QueueStats]:
        """Return every queue's figures as they are now. Raises: QueuesAway."""
        return (await self._ask(self._calls, queue_calls.StatsCall(self._role, self.epoch), StatsReply)).queues

    async def ping(self) -> float:
        """Return the time of a round trip over a fresh connection, answered by the loop that has the queues.

        Units: seconds. Raises: QueuesAway.
        """
        if len(self._pings) >= PINGS_MAX:
            raise QueuesAway(f"{PINGS_MAX} pings wait already")
        started_s = time.monotonic()
        line = Line(self._socket, "ping", self._timeout_s)
        self._pings.add(line)
        try:
            await self._ask(line, queue_calls.PingCall(self._role, self.epoch), DoneReply)
        finally:
            self._pings.discard(line)
            line.close()
        return time.monotonic() - started_s

    async def close(self) -> None:
        """End the connections; calls that still wait fail."""
        self._closed = True
        for line in (self._calls, *self._pings, *self._reads.values()):
            line.close()

    async def _ask(self, line: Line, call: AnyCall, kind: type[_Reply], wait_s: float = 0.0) -> _Reply:
        if self._closed:
            raise QueuesAway("the link is closed")
        try:
            answer = await line.exchange(queue_calls.encode(call), wait_s)
        except FAILURES as error:
            raise QueuesAway(f"queues at {self._socket} is away: {error or type(error).__name__}") from error
        reply = queue_calls.decode_reply(answer)
        match reply:
            case FencedReply(own_epoch, newest_epoch):
                raise Fenced(own_epoch, newest_epoch)
            case RefusedReply(code, message):
                raise QueueRefused(code, message)
            case _ if isinstance(reply, kind):
                return reply
        raise LocalError(f"queues answered {type(call).__name__} with {type(reply).__name__}")

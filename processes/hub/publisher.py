"""From the hub to the queues: messages in order, appended by a task of its own, so that the hub's loop never waits for
a queue.

The messages that wait for a queue are bounded. When there are more, all of them are dropped and counted, and the
queue's reader is told to take everything anew (HubStarted) once it can be reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from processes.adapters import failpoint
from processes.adapters.logs import Log
from processes.adapters.queues import Queues, QueuesAway
from processes.core.hub import step
from processes.core.hub.effects import Effects
from processes.core.hub.memory import Memory
from processes.core.shown.replica import Replica
from processes.core.travels import messages
from processes.core.travels.messages import (
    Broadcast,
    Change,
    Changed,
    DeliverAck,
    Delivery,
    HostsHeard,
    HubStarted,
    SnapshotPiece,
    TryAgain,
)
from processes.core.values import Position

WAITING_BYTES_MAX: Final = 32 << 20  # per queue, while `queues` is away; as much as the queue itself holds
CHUNK_ITEMS_MAX: Final = 1000
ROUND_BYTES_MAX: Final = 4 << 20  # of all appends that are under way: encoding more would stop the hub's loop
CHUNKS_MAX: Final = 4  # appends to one queue that are under way: what changed, and the answer behind it, go together
RETRY_S: Final = 0.05
SNAPSHOT_ROWS: Final = 200  # a piece


class Chunk(NamedTuple):
    """One append: its items, and whether they are bulk."""

    items: list[bytes]
    bulk: bool


class Waiting:
    """The messages that wait for one queue."""

    def __init__(self) -> None:
        self.items: deque[tuple[bytes, bool]] = deque()  # the item, and whether it is bulk
        self.bytes = 0
        self.put = self.sent = 0  # items, since the beginning
        self.start_anew = True  # before anything else the reader must be told to take everything anew

    def chunks(self, room: int) -> list[Chunk]:
        """Return the next items as appends: each all bulk or none, all within `room` bytes, but one item at least. They
        stay until `done`.
        """
        found: list[Chunk] = []
        for item, bulk in self.items:
            room -= len(item)
            if found and room < 0:
                break
            if not found or found[-1].bulk != bulk or len(found[-1].items) == CHUNK_ITEMS_MAX:
                if len(found) == CHUNKS_MAX:
                    break
                found.append(Chunk([], bulk))
            found[-1].items.append(item)
        return found

    def done(self, count: int) -> None:
        """Called when the first `count` items are in the queue."""
        for _ in range(count):
            item, _ = self.items.popleft()
            self.bytes -= len(item)
        self.sent += count


Mark = dict[str, tuple[Waiting, int]]  # what was put in up to now: of each queue, what waited and how many items


class Publisher:
    """All queues that the hub writes, and the rows of the state as operators see them, for snapshots."""

    def __init__(
        self, link: Queues, memory: Memory, log: Log, unsaid: Callable[[str, str, str], None] = lambda *_: None
    ) -> None:
        """`unsaid` is told of what could not be put in: what it was, of which host, and why."""
        self._unsaid = unsaid
        self._link, self._epoch, self._log = link, memory.epoch, log
        self._deliveries = {name: messages.deliveries_of(name) for name in memory.rules.gateways}
        self._broadcasts = {name: messages.broadcasts_of(name) for name in memory.rules.fanouts}
        self._waiting = {queue: Waiting() for queue in (*self._broadcasts.values(), *self._deliveries.values())}
        self._hearing: set[str] = set()  # fanouts that know HostsHeard
        self._replica = Replica()
        for change in step.all_changes(memory, lambda host, error: self._left_out("host", host, error)):
            self._replica.apply(change)
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._acknowledge: Position | None = None  # the newest
        self._due: tuple[Position, Mark] | None = None  # the one before it, until what was said before it is in
        self._next = 0  # the queue with which the next round begins
        self._acknowledged = Position(0, 0)
        self.published = self.delivered = self.dropped = 0
        self.away = False  # the last call failed
        self._wake.set()

    def tell(self, effects: Effects) -> None:
        """Put in the messages of these effects, but those for a gateway or fanout that is not configured any more."""
        for gateway, delivery in effects.deliveries:
            if isinstance(delivery, DeliverAck) and delivery.offset is None:
                failpoint.reach("hub.report_committed")
            if gateway in self._deliveries:
                self._put_delivery(self._deliveries[gateway], delivery)
        self._show(effects.changes)
        for queue in self._broadcasts.values():
            for grew in effects.grew:
                self.put(queue, grew)
        for wanted in effects.snapshots:
            if wanted.fanout in self._broadcasts:
                (self._hearing.add if wanted.hears else self._hearing.discard)(wanted.fanout)
                self._put_snapshot(self._broadcasts[wanted.fanout], wanted.snapshot)
        for fanout, name in effects.tried_again:
            if fanout in self._broadcasts:
                self.put(self._broadcasts[fanout], TryAgain(self._epoch, name))
        for fanout, reply in effects.replies:
            if fanout in self._broadcasts:
                self.put(self._broadcasts[fanout], reply, bulk=False)

    def _show(self, changes: list[Change | HostsHeard]) -> None:
        """Put in what changed, in order: consecutive changes as one message, and heartbeats as they came."""
        gathered: list[Change] = []
        ledger = next(
            (change for change in reversed(changes) if isinstance(change, Change) and change.kind == "ledger"), None
        )
        for change in changes:
            if isinstance(change, Change):
                if (change.kind != "ledger" or change is ledger) and self._applied(change):
                    gathered.append(change)
                continue
            self._tell_changes(gathered)
            gathered = []
            for host, fields in change.hosts:
                self._replica.hear(host, fields)
            self._tell_heard(change)
        self._tell_changes(gathered)

    def _tell_changes(self, changes: list[Change]) -> None:
        if changes:
            item = messages.encode(Changed(self._epoch, changes))
            for queue in self._broadcasts.values():
                self._put_item(queue, item)

    def _tell_heard(self, heard: HostsHeard) -> None:
        item, older = messages.encode(heard), b""
        for fanout, queue in self._broadcasts.items():
            if fanout not in self._hearing:
                older = older or messages.encode(
                    Changed(self._epoch, [Change("host", host, fields) for host, fields in heard.hosts])
                )
            self._put_item(queue, item if fanout in self._hearing else older)

    # What the barrier has let through does not raise here. If it does all the same, what is wrong is left out and its
    # host is blamed: the loop, and what the others said, go on.

    def _put_delivery(self, queue: str, delivery: Delivery) -> None:
        try:
            self.put(queue, delivery)
            self.delivered += 1
        except Exception as error:
            self._left_out(type(delivery).__name__, getattr(delivery, "host", ""), error)

    def _applied(self, change: Change) -> bool:
        try:
            self._replica.apply(change)
            return True
        except Exception as error:
            self._left_out(change.kind, change.id if change.kind == "host" else "", error)
            return False

    def _left_out(self, what: str, host: str, error: Exception) -> None:
        self._log.error("something of a host could not be published", what=what, host=host, exc_info=error)
        self._unsaid(what, host, "".join(traceback.format_exception(error)))

    def _put_snapshot(self, queue: str, snapshot: str) -> None:
        pieces = list(self._replica.pieces(SNAPSHOT_ROWS))
        for number, piece in enumerate(pieces):
            self.put(queue, SnapshotPiece(self._epoch, snapshot, number, number == len(pieces) - 1, piece))

    def put(self, queue: str, message: Broadcast | Delivery, *, bulk: bool = True) -> None:
        """Put a message behind those that wait for the queue. Only replies are not bulk, and may use its last tenth."""
        self._put_item(queue, messages.encode(message), bulk=bulk)

    def _put_item(self, queue: str, item: bytes, *, bulk: bool = True) -> None:
        waiting = self._waiting[queue]
        if waiting.bytes + len(item) > WAITING_BYTES_MAX:
            self.dropped += len(waiting.items) + 1
            self._log.warning("dropped messages that waited for queues", queue=queue, count=len(waiting.items) + 1)
            self._waiting[queue] = Waiting()
        else:
            waiting.put += 1
            waiting.items.append((item, bulk))
            waiting.bytes += len(item)
        self._idle.clear()
        self._wake.set()

    def acknowledge(self, position: Position) -> None:
        """Have the events up to this position acknowledged."""
        if position != self._acknowledged:
            self._acknowledge = self._acknowledged = position
            self._wake.set()

    def mark(self) -> Mark:
        """Return what `has_said` needs to know of now."""
        return {queue: (waiting, waiting.put) for queue, waiting in self._waiting.items()}

    def has_said(self, mark: Mark) -> bool:
        """Return whether every queue has what was put in up to the mark, or its reader knows that it was dropped."""
        for queue, (before, put) in mark.items():
            waiting = self._waiting[queue]
            if waiting.start_anew or (waiting is before and waiting.sent < put):
                return False
        return True

    @property
    def backlog(self) -> int:
        """Return how many messages wait."""
        return sum(len(waiting.items) for waiting in self._waiting.values())

    async def run(self) -> None:
        """Append messages until cancelled. Raises: Fenced, when a newer hub has taken over."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._carry()
                if not self.backlog:
                    self._idle.set()
            except QueuesAway as error:
                if not self.away:
                    self._log.warning("queues is away", error=str(error))
                self.away = True
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until every message is in its queue, for at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def _carry(self) -> None:
        """Append what waits, round by round, and acknowledge what was said, until nothing is left to do."""
        while True:
            if self._due is None and self._acknowledge is not None:
                self._due, self._acknowledge = (self._acknowledge, self.mark()), None
            appends = self._round()
            if appends:
                await self._append_all(appends)
            if self._due is not None and self.has_said(self._due[1]):
                await self._link.acknowledge(messages.EVENTS, self._due[0])
                self._due = None
                failpoint.reach("hub.after_acknowledge")
            elif not appends:
                return
            self.away = False

    def _round(self) -> list[tuple[str, Waiting, Chunk]]:
        """Return the appends of a round: of each queue what is next, within ROUND_BYTES_MAX of all. The round after a
        full one begins behind the queue that filled it.
        """
        queues, room = list(self._waiting), ROUND_BYTES_MAX
        found: list[tuple[str, Waiting, Chunk]] = []
        for place in range(self._next, self._next + len(queues)):
            queue = queues[place % len(queues)]
            waiting = self._waiting[queue]
            for chunk in self._chunks(waiting, room):
                found.append((queue, waiting, chunk))
                room -= sum(map(len, chunk.items))
            if room <= 0:
                self._next = (place + 1) % len(queues)
                return found
        self._next = 0
        return found

    def _chunks(self, waiting: Waiting, room: int) -> list[Chunk]:
        if waiting.start_anew:
            return [Chunk([messages.encode(HubStarted(self._epoch))], False)]
        return waiting.chunks(room)

    async def _append_all(self, appends: list[tuple[str, Waiting, Chunk]]) -> None:
        if any(queue.startswith(messages.deliveries_of("")) for queue, _, _ in appends):
            failpoint.reach("hub.before_send")
        # begun in order, so they happen in order: what was appended is always the first part
        outcomes = await asyncio.gather(*(self._append(q, *chunk) for q, _, chunk in appends), return_exceptions=True)
        for (queue, waiting, chunk), outcome in zip(appends, outcomes, strict=True):
            if outcome is not None:
                raise outcome
            self._appended(queue, waiting, chunk)

    def _appended(self, queue: str, waiting: Waiting, chunk: Chunk) -> None:
        """Called when the chunk is in the queue, or was dropped by it."""
        if waiting.start_anew:
            waiting.start_anew = False
            return
        delivers = queue.startswith(messages.deliveries_of(""))
        failpoint.reach("hub.after_send" if delivers else "hub.answered" if not chunk.bulk else "")
        if self._waiting[queue] is waiting:  # not dropped meanwhile
            waiting.done(len(chunk.items))

    async def _append(self, queue: str, items: list[bytes], bulk: bool) -> None:
        appended = await self._link.append(queue, items, bulk=bulk, lossy=True)
        if appended.accepted:
            self.published += len(items)
        else:  # their numbers are used up: the reader meets a gap and takes everything anew
            self.dropped += len(items)
            self._log.warning("a queue is full, dropped", queue=queue, count=len(items))

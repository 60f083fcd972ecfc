"""Named queues, bounded in items and bytes, replayable until acknowledged. Pure.

A queue numbers its items from 1. Reading removes nothing; acknowledging lets go of everything up to a position. So a
reader that dies in the middle takes nothing with it, and its successor goes on from its own durable position, or from
what is still there.

    1 … acknowledged      dealt with, gone
    … newest              kept, in order; a number missing among them was burned by a lossy append while the queue was
                          full

A reader is told of every loss, once, as a gap: when the epoch is another one than its own (the memory began empty
again), and where numbers were burned. A batch never reaches over a hole: the items behind it come in the next batch,
and that one is the gap's.

An append may stay under way after its caller has given it up (this process was stopped) and be carried out later,
behind what that caller appended since. So a client numbers its appends, and one that comes after a higher number is
refused: nobody waits for it.

Two readers of one queue both see everything, and an acknowledgement of either lets go for both: nothing is shared out
among readers. Who must be the only reader (the hub) is fenced by its epoch; the others hold the lock of their process
name.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from processes.core.errors import Fenced
from processes.core.travels.queue_calls import (
    Appended,
    Batch,
    QueueLimits,
    QueueRefused,
    QueueStats,
    limits_of,
)
from processes.core.values import Position

HUB: Final = "hub"  # the only role that an older epoch shuts out
QUEUES_MAX: Final = 200  # a queue for each gateway and fanout, and room for renumbered ones; guess
# whose last number is remembered, the longest silent goes first; four times the connections there may be
CLIENTS_MAX: Final = 1_000


class BoundedQueue:
    """One queue. Invariant: 0 <= acknowledged <= every kept sequence - 1 < newest; kept sequences rise; both limits
    hold.

    Shape: three lists, one entry an item: its sequence, the bytes appended up to and with it since the epoch began,
    itself.
    Cost: logarithmic in the backlog, but for an acknowledgement, which moves the rest (measured: 40 µs at 100,000
    items).
    """

    def __init__(self, name: str, epoch: int, limits: QueueLimits) -> None:
        self.name, self.epoch, self.limits = name, epoch, limits
        self._sequences: list[int] = []
        self._ends_bytes: list[int] = []
        self._items: list[bytes] = []
        self._since: deque[tuple[int, float]] = deque()  # (last sequence of an append, when)
        self._newest = 0
        self._acknowledged_sequence = 0
        self._gone_bytes = 0  # of everything acknowledged
        self.appended = self.refused = self.dropped = self.acknowledged = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size_bytes(self) -> int:
        """Bytes of the kept items."""
        return self._ends_bytes[-1] - self._gone_bytes if self._items else 0

    @property
    def newest(self) -> Position:
        """Where a reader stands that has seen everything."""
        return Position(self.epoch, self._newest)

    def append(self, items: Sequence[bytes], now_s: float, *, bulk: bool = False, lossy: bool = False) -> Appended:
        """Appends all, or nothing if they do not fit. bulk: into nine tenths only. lossy: what does not fit burns its
        numbers.

        Units: now_s of any clock that only rises; the ages in `stats` are told by it.
        """
        tenths = 9 if bulk else 10
        items_max, bytes_max = (limit * tenths // 10 for limit in self.limits)
        if len(self) + len(items) > items_max or self.size_bytes + sum(map(len, items)) > bytes_max:
            if lossy:
                self._newest += len(items)
                self.dropped += len(items)
            else:
                self.refused += len(items)
            return Appended(False, self.newest)
        end_bytes = self._ends_bytes[-1] if self._items else self._gone_bytes
        for item in items:
            end_bytes += len(item)
            self._newest += 1
            self._sequences.append(self._newest)
            self._ends_bytes.append(end_bytes)
            self._items.append(item)
        if items:
            self._since.append((self._newest, now_s))
        self.appended += len(items)
        return Appended(True, self.newest)

    def read(self, after: Position, items_max: int, bytes_max: int) -> Batch:
        """The next items after a position; none if there are none yet. One item is given whatever its size.

        A position of epoch 0 stands before the oldest kept item. One that was acknowledged already: on from there.
        Raises: QueueRefused, for a position that this queue has not reached.
        """
        sequence, gap = self._start(after)
        first = bisect.bisect_right(self._sequences, sequence)
        if first == len(self._items):  # nothing kept; whatever was numbered since is burned
            return Batch([], self.newest, gap or sequence < self._newest)
        gap = gap or self._sequences[first] != sequence + 1
        before_bytes = self._ends_bytes[first - 1] if first else self._gone_bytes
        last = bisect.bisect_right(
            self._ends_bytes, before_bytes + bytes_max, first, min(len(self._items), first + items_max)
        )
        last = max(last, first + 1)
        # up to the next hole: the distance of number and index grows there
        distance = self._sequences[first] - first
        last = bisect.bisect_right(range(last), distance, first, key=lambda index: self._sequences[index] - index)
        # plant: read-keeps
        return Batch(self._items[first:last], Position(self.epoch, self._sequences[last - 1]), gap)

    def acknowledge(self, position: Position) -> None:
        """Lets go of every item up to the position. One of another epoch, or acknowledged already, changes nothing.

        Raises: QueueRefused, for a position that this queue has not reached.
        """
        if position.epoch != self.epoch or position.sequence <= self._acknowledged_sequence:
            return
        self._check_reached(position)
        count = bisect.bisect_right(self._sequences, position.sequence)
        if count:
            self._gone_bytes = self._ends_bytes[count - 1]
            del self._sequences[:count], self._ends_bytes[:count], self._items[:count]
        self._acknowledged_sequence = position.sequence
        self.acknowledged += count
        while self._since and self._since[0][0] <= position.sequence:
            self._since.popleft()

    def stats(self, now_s: float, readers: int = 0) -> QueueStats:
        """The queue as it is now."""
        return QueueStats(
            self.name, self.epoch, len(self), self.size_bytes, *self.limits, max(0.0, now_s - self._since[0][1]) if self._items else 0.0,
            self.appended, self.refused, self.dropped, self.acknowledged, readers,
        )  # fmt: skip

    def _start(self, after: Position) -> tuple[int, bool]:
        if after.epoch == self.epoch:
            self._check_reached(after)
            return max(after.sequence, self._acknowledged_sequence), False
        oldest = self._sequences[0] - 1 if self._items else self._newest
        # plant: emptied-is-gap
        return oldest, after.epoch != 0

    def _check_reached(self, position: Position) -> None:
        if position.sequence > self._newest:
            raise QueueRefused(
                "bad_position",
                f"{self.name} stands at {self._newest} of epoch {self.epoch}, not at {position.sequence}",
            )


class QueueSet:
    """All queues of one memory: made at first use, of one epoch, closed to hubs that were replaced."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.hub_epoch = 0  # the newest that anybody spoke of
        self._queues: dict[str, BoundedQueue] = {}
        # number of the last append, by client; lately heard of last
        self._clients: OrderedDict[int, int] = OrderedDict()

    def admit(self, role: str, hub_epoch: int) -> bool:
        """Notes the caller's hub epoch; True if it is news.

        Raises: Fenced, for a hub that a newer one has replaced.
        """
        if hub_epoch > self.hub_epoch:
            self.hub_epoch = hub_epoch
            return True
        # plant: fence
        if role == HUB and hub_epoch < self.hub_epoch:
            raise Fenced(hub_epoch, self.hub_epoch)
        return False

    def admit_append(self, client: int, number: int) -> None:
        """Notes the append; one without a number passes. Raises: QueueRefused, for one that its caller has given up."""
        if not number:
            return
        newest = self._clients.get(client, 0)
        # plant: append-once
        if number <= newest:
            raise QueueRefused("given_up", f"append {number} comes after append {newest} of the same client")
        self._clients[client] = number
        self._clients.move_to_end(client)
        if len(self._clients) > CLIENTS_MAX:
            self._clients.popitem(last=False)

    def named(self, name: str) -> BoundedQueue:
        """The queue of this name. Raises: QueueRefused."""
        queue = self._queues.get(name)
        if queue is None:
            limits = limits_of(name)
            if len(self._queues) >= QUEUES_MAX:
                raise QueueRefused("too_many_queues", f"no room for {name}: there are {QUEUES_MAX} queues")
            queue = self._queues[name] = BoundedQueue(name, self.epoch, limits)
        return queue

    def all(self) -> list[BoundedQueue]:
        """Every queue that was used, oldest first."""
        return list(self._queues.values())

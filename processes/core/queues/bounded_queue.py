"""Named queues, bounded in items and bytes, replayable until acknowledged. Pure.

A queue numbers its items from 1. Reading removes nothing; acknowledging removes every item up to a position. So a
reader that dies in the middle loses nothing: its successor goes on from its own durable position, or from the oldest
item that is kept.

    1 … acknowledged      handled and removed
    … newest              kept, in order. If a number is missing, a lossy append found the queue full and used it up

A reader hears of every loss once, as a gap: when the queue has another epoch than the reader's position (the memory of
`queues` began empty again), and where numbers are missing. A batch never spans missing numbers: the items behind them
come in the next batch, and that batch has the gap.

An append may still be under way when its caller has given it up (because this process was stopped), and would then be
carried out behind later appends of the same caller. So a client numbers its appends, and an append that comes after one
with a higher number is refused: nobody waits for it.

Two readers of one queue both see every item, and an acknowledgement by either removes items for both: items are not
shared out among readers. The hub, which must be the only reader, is fenced by its epoch; every other process is the
only reader because it holds the lock of its name.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from processes.core.errors import Fenced
from processes.core.travels.queue_calls import Appended, Batch, QueueLimits, QueueRefused, QueueStats, limits_of
from processes.core.values import Position

HUB: Final = "hub"  # the only role that is refused for an old epoch
QUEUES_MAX: Final = 200  # one for each gateway and fanout, and room for more of them; guess
# clients whose last append number is remembered; the longest silent goes first. Four times the connections
CLIENTS_MAX: Final = 1_000


class BoundedQueue:
    """One queue.

    Invariant: 0 <= acknowledged <= every kept sequence - 1 < newest; kept sequences rise; both limits hold.
    Shape: three lists with one entry an item: its sequence; the bytes appended since the epoch began, up to and
    including the item; the item itself.
    Cost: logarithmic in the backlog, except for an acknowledgement, which moves all items behind it (measured: 40 µs at
    100,000 items).
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
        """Return the bytes of the kept items."""
        return self._ends_bytes[-1] - self._gone_bytes if self._items else 0

    @property
    def newest(self) -> Position:
        """Return the position of a reader that has seen every item."""
        return Position(self.epoch, self._newest)

    def append(self, items: Sequence[bytes], now_s: float, *, bulk: bool = False, lossy: bool = False) -> Appended:
        """Append all items, or none if they do not fit.

        bulk: the items must fit into nine tenths of the queue, and less than `bulk_items_max` be kept. lossy: items
        that do not fit use up their numbers.
        Units: now_s in seconds of any clock that only rises; `stats` computes ages by it.
        """
        tenths = 9 if bulk else 10
        items_max, bytes_max = self.limits.items_max * tenths // 10, self.limits.bytes_max * tenths // 10
        is_full = len(self) + len(items) > items_max or self.size_bytes + sum(map(len, items)) > bytes_max
        if is_full or (bulk and len(self) >= self.limits.bulk_items_max):
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
        """Return the next items after a position; none if there are none yet. One item comes whatever its size.

        A position of epoch 0 stands before the oldest kept item. If `after` was acknowledged already, reading goes on
        after the acknowledged items.
        Raises: QueueRefused, for a position that this queue has not reached.
        """
        sequence, gap = self._start(after)
        first = bisect.bisect_right(self._sequences, sequence)
        if first == len(self._items):  # no item is kept behind it: every later number was used up by a lossy append
            return Batch([], self.newest, gap or sequence < self._newest)
        gap = gap or self._sequences[first] != sequence + 1
        before_bytes = self._ends_bytes[first - 1] if first else self._gone_bytes
        last = bisect.bisect_right(
            self._ends_bytes, before_bytes + bytes_max, first, min(len(self._items), first + items_max)
        )
        last = max(last, first + 1)
        # end the batch at the next missing number: from there on number - index is larger
        distance = self._sequences[first] - first
        last = bisect.bisect_right(range(last), distance, first, key=lambda index: self._sequences[index] - index)
        # plant: read-keeps
        return Batch(self._items[first:last], Position(self.epoch, self._sequences[last - 1]), gap)

    def acknowledge(self, position: Position) -> None:
        """Remove every item up to the position. A position of another epoch, or acknowledged already, changes nothing.

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
        """Return the queue's figures as they are now."""
        return QueueStats(
            self.name, self.epoch, len(self), self.size_bytes, self.limits.items_max, self.limits.bytes_max,
            max(0.0, now_s - self._since[0][1]) if self._items else 0.0,
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
    """All queues of one epoch. A queue is made at its first use. Hubs that were replaced are refused."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.hub_epoch = 0  # the newest that any caller has named
        self._queues: dict[str, BoundedQueue] = {}
        self._clients: OrderedDict[int, int] = OrderedDict()  # client → number of its last append; latest at the end

    def admit(self, role: str, hub_epoch: int) -> bool:
        """Note the hub epoch that the caller names, and return True if it is newer than all before.

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
        """Note the number of an append; 0 always passes. Raises: QueueRefused, if its caller has given it up."""
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
        """Return the queue of this name; make it if there is none. Raises: QueueRefused."""
        queue = self._queues.get(name)
        if queue is None:
            limits = limits_of(name)
            if len(self._queues) >= QUEUES_MAX:
                raise QueueRefused("too_many_queues", f"no room for {name}: there are {QUEUES_MAX} queues")
            queue = self._queues[name] = BoundedQueue(name, self.epoch, limits)
        return queue

    def all(self) -> list[BoundedQueue]:
        """Return every queue that was used, the oldest first."""
        return list(self._queues.values())

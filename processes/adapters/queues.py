"""What every engine of the queues promises, whatever does the work. tests/adapters/test_adapters_queues.py is the
contract that each engine passes: queue_link.py (the process `queues`), and the double of the tests.

An engine may lose everything at any time, and must then be of another epoch: what is lost is repaired end to end. It
never loses something in the middle, and never carries out an append that its caller has given up behind a later one,
without telling the reader (`gap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from processes.core.errors import ResourceError
from processes.core.travels.queue_calls import Appended, Batch, QueueStats
from processes.core.values import Position


class QueuesAway(ResourceError):
    """`queues` does not answer: it is not running, stopped, or busy past the deadline. Retry with backoff."""


class Queues(Protocol):
    """Named queues between the processes, bounded and replayable, as core/queues/bounded_queue.py describes them.

    No call blocks the event loop, and each has a deadline. Calls are carried out in the order in which they are made;
    reads of different queues hold nobody up. `epoch`: the hub epoch sent with every call; its owner sets it.
    """

    epoch: int

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        """Append all items, or none if the queue is full. bulk: nine tenths count as full.

        lossy: items that do not fit use up their sequence numbers, so that the reader sees a gap.
        After QueuesAway they may have been appended or not. Once a later append of the same link has happened, they
        will not be any more.
        Raises: QueuesAway; Fenced; QueueRefused, for more items than an append may have, or for a queue that cannot be.
        """
        ...

    async def read(
        self, queue: str, after: Position, *, items_max: int = 1000, bytes_max: int = 1 << 20, wait_s: float = 1.0
    ) -> Batch:  # fmt: skip
        """Return the next items after a position, or none after `wait_s` (at most 10 s). Reading removes nothing.

        Raises: QueuesAway; Fenced; QueueRefused.
        """
        ...

    async def acknowledge(self, queue: str, position: Position) -> None:
        """Let every item up to the position be removed. Raises: QueuesAway; Fenced; QueueRefused."""
        ...

    async def stats(self) -> list[QueueStats]:
        """Return every queue's figures as they are now. Raises: QueuesAway."""
        ...

    async def ping(self) -> float:
        """Return the time of a round trip that begins with nothing that was open before.

        Units: seconds. Raises: QueuesAway.
        """
        ...

    async def close(self) -> None:
        """End the connections; calls that still wait fail."""
        ...

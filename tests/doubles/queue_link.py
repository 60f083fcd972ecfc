"""`queues` in memory: the same methods as the real link over the same pure queues, without process, thread or
socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from processes.adapters.queues import QueuesAway
from processes.core.queues.bounded_queue import QueueSet
from processes.core.travels import queue_calls
from processes.core.travels.queue_calls import Appended, Batch, QueueStats, check_append, limits_of
from processes.core.values import Position


class MemoryQueues:
    """What the links of one test share. `away`: every call fails as if the process were gone."""

    def __init__(self) -> None:
        self.away = False
        self._starts = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self.restart()

    def restart(self) -> None:
        """Killed and started anew: nothing is left, the epoch is another one, and whoever waited met the end."""
        self._starts += 1
        self.queues = QueueSet(self._starts)
        self.tell()

    def tell(self) -> None:
        """Wakes every waiting reader, to look again."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, wait_s: float) -> None:
        """Returns at the next `tell`, or after `wait_s`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait((future,), timeout=wait_s)
        finally:
            self._waiting.discard(future)


class MemoryQueueLink:
    """As processes.adapters.queue_link.QueueLink."""

    def __init__(self, memory: MemoryQueues, role: str) -> None:
        self.epoch = 0
        self._memory, self._role = memory, role
        self._closed = False

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        limits_of(queue)
        check_append(items)
        appended = self._queues().named(queue).append(items, self._now_s(), bulk=bulk, lossy=lossy)
        self._memory.tell()
        return appended

    async def read(
        self, queue: str, after: Position, *, items_max: int = 1000, bytes_max: int = 1 << 20, wait_s: float = 1.0
    ) -> Batch:  # fmt: skip
        call = queue_calls.read_call(
            self._role, self.epoch, queue, after, items_max=items_max, bytes_max=bytes_max, wait_s=wait_s
        )
        deadline_s = self._now_s() + call.wait_s
        started_in = self._memory.queues
        while True:
            queues = self._queues(call.hub_epoch)
            if queues is not started_in:
                raise QueuesAway("queues was started anew")
            batch = queues.named(queue).read(after, call.items_max, call.bytes_max)
            left_s = deadline_s - self._now_s()
            if batch.items or batch.gap or left_s <= 0:
                return batch
            after = batch.position
            await self._memory.wait(left_s)

    async def acknowledge(self, queue: str, position: Position) -> None:
        self._queues().named(queue).acknowledge(position)

    async def stats(self) -> list[QueueStats]:
        now_s = self._now_s()
        return [queue.stats(now_s) for queue in self._queues().all()]

    async def ping(self) -> float:
        self._queues()
        return 0.0

    async def close(self) -> None:
        self._closed = True
        self._memory.tell()

    def _queues(self, epoch: int | None = None) -> QueueSet:
        if self._memory.away or self._closed:
            raise QueuesAway("queues is away")
        if self._memory.queues.admit(self._role, self.epoch if epoch is None else epoch):
            self._memory.tell()
        return self._memory.queues

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()

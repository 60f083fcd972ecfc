"""Reads one queue for a loop that must not wait: one batch at a time, acknowledged after it was handled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from processes.adapters.queues import Queues, QueuesAway
from processes.core.travels.queue_calls import Batch
from processes.core.values import Position

AWAY_S_MIN: Final = 0.05  # before reading again when `queues` is away; doubles
AWAY_S_MAX: Final = 1.0


class QueueReader:
    """Has one read under way at most. `away`: `queues` did not answer the last time. `wake`: called for each batch."""

    def __init__(self, link: Queues, queue: str, items_max: int, wake: Callable[[], None]) -> None:
        self.queue, self.away = queue, False
        self._link, self._items_max, self._wake = link, items_max, wake
        self._position, self._handled = Position(0, 0), False
        self._task: asyncio.Task[Batch] | None = None
        self._acknowledging: asyncio.Task[None] | None = None

    def take(self) -> Batch | None:
        """Return the batch that has come since the last call, if any. The next `ask` acknowledges it: handle it before.

        Raises: Fenced; QueueRefused.
        """
        if self._acknowledging is not None and self._acknowledging.done():
            self._acknowledging.result()
            self._acknowledging = None
        if self._task is None or not self._task.done():
            return None
        batch = self._task.result()
        self._task = None
        self._position, self._handled = batch.position, self._handled or bool(batch.items) or batch.gap
        return batch

    def ask(self) -> None:
        """Start to read the next batch, unless that is under way already."""
        loop = asyncio.get_running_loop()
        if self._handled and self._acknowledging is None:
            self._handled = False
            self._acknowledging = loop.create_task(self._acknowledge(self._position))
        if self._task is None:
            self._task = loop.create_task(self._read(self._position))
            self._task.add_done_callback(lambda _: self._wake())

    def cancel(self) -> None:
        """Stop waiting for a batch."""
        for task in (self._task, self._acknowledging):
            if task is not None:
                task.cancel()

    async def _acknowledge(self, position: Position) -> None:
        """Acknowledge beside the next read, which needs not wait for it. What fails is in the next acknowledgement."""
        with contextlib.suppress(QueuesAway):
            await self._link.acknowledge(self.queue, position)

    async def _read(self, after: Position) -> Batch:
        wait_s = AWAY_S_MIN
        while True:
            try:
                batch = await self._link.read(self.queue, after, items_max=self._items_max)
                self.away = False
                return batch
            except QueuesAway:
                self.away = True
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, AWAY_S_MAX)

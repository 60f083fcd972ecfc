"""What one loop waits for between two turns: something to do, or the end of a time."""

from __future__ import annotations

import asyncio


class Wake:
    """Set by whoever has something for the loop's next turn; cleared by the wait that it ends.

    Cost: a wait makes a future, and no task or timer: one timer is set anew only when it is over, or too late.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_set = False
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = self._until_s = 0.0

    def set(self) -> None:
        """Let the wait under way end, or the next one."""
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, wait_s: float) -> None:
        """Wait until it is set, for `wait_s` at most; others get their turn in any case. One caller at a time."""
        if self._is_set or wait_s <= 0:
            await asyncio.sleep(0)
        else:
            self._until_s = self._loop.time() + wait_s
            self._watch()
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._is_set = False

    def _watch(self) -> None:
        if self._timer is not None:
            if self._timer_s <= self._until_s:
                return
            self._timer.cancel()
        self._timer, self._timer_s = self._loop.call_at(self._until_s, self._look), self._until_s

    def _look(self) -> None:
        self._timer = None
        if self._future is None:
            return
        if self._loop.time() < self._until_s:
            self._watch()
        elif not self._future.done():
            self._future.set_result(None)

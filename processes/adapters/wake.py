"""What one loop waits for between two turns: something to do, or the end of a time."""

from __future__ import annotations

import asyncio

from processes.adapters.timer import Timer


class Wake:
    """Set by whoever has something for the loop's next turn; cleared by the wait that it ends.

    Cost: a wait makes a future, and no task; a timer only as timer.py says.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_set = False
        self._future: asyncio.Future[None] | None = None
        self._limit = Timer(self._end)

    def set(self) -> None:
        """Let the wait under way end, or the next one."""
        self._is_set = True
        self._end()

    async def wait(self, wait_s: float) -> None:
        """Wait until it is set, for `wait_s` at most; others get their turn in any case. One caller at a time."""
        if self._is_set or wait_s <= 0:
            await asyncio.sleep(0)
        else:
            self._limit.set(wait_s)
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
                self._limit.forget()
        self._is_set = False

    def _end(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

"""A timer that is put off again and again, such as the limit of a wait that nearly always ends before."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

STEPS_PER_S: Final = 1000  # of uvloop's clock. Source: libuv, uv_now


def not_before(
    loop: asyncio.AbstractEventLoop, due_s: float, call: Callable[..., object], *args: Any
) -> asyncio.TimerHandle:
    """Have it called at the first step of the loop's clock after `due_s`, a millisecond later at most.

    uvloop rounds a wait to whole steps, so that a timer may be over before its time. Who then finds that nothing is due
    yet and waits for the rest, which is no step, is called again at once, some hundred times until the clock moves.
    """
    return loop.call_at(math.floor(due_s * STEPS_PER_S + 1) / STEPS_PER_S, call, *args)


class Timer:
    """Calls `over` when the time that was set last is over.

    Cost: to set it costs nothing while a timer of the event loop runs that ends before: that one is set anew then.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._due_s: float | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._handle_s = 0.0

    def set(self, wait_s: float) -> None:
        """Let it be over in `wait_s`, whatever was set before."""
        self._due_s = self._loop.time() + wait_s
        if self._handle is not None and self._handle_s > self._due_s:
            self._handle.cancel()
            self._handle = None
        if self._handle is None:
            self._start(self._due_s)

    def forget(self) -> None:
        """Do not call `over` for what was set."""
        self._due_s = None

    def close(self) -> None:
        """Leave nothing in the event loop."""
        self.forget()
        if self._handle is not None:
            self._handle.cancel()

    def _start(self, due_s: float) -> None:
        self._handle, self._handle_s = not_before(self._loop, due_s, self._look), due_s

    def _look(self) -> None:
        self._handle = None
        if self._due_s is None:
            return
        if self._loop.time() < self._due_s:
            self._start(self._due_s)
        else:
            self._due_s = None
            self._over()

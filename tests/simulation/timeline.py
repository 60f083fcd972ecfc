"""Virtual time: an asyncio event loop that never waits, and lives (processes) in it that can die between any two
effects.

The loop's clock jumps to whatever comes next, so an hour of waiting costs nothing and the same seed gives the same run.
Every task and callback belongs to the life in whose context it was begun; a dead life's tasks are cancelled, its I/O
raises and its callbacks are dropped, so that nothing it would have done later happens.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from processes.core.values import Now

T = TypeVar("T")


class Stuck(Exception):
    """Nothing will ever happen any more."""


class _Handle(asyncio.Handle):
    """asyncio's, without its debugging."""

    def __init__(
        self, callback: Callable[..., object], arguments: tuple[object, ...], loop: VirtualLoop, context: Any
    ) -> None:
        self._callback, self._args, self._loop = callback, arguments, loop
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's event loop with its turn replaced: instead of waiting for the next timer, it is that time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Part of asyncio."""
        return self.now_s

    def call_soon(self, callback: Callable[..., object], *args: object, context: Any = None) -> _Handle:
        """Part of asyncio."""
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: object, context: Any = None) -> _Handle:  # type: ignore[override]
        """Part of asyncio."""
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: object, context: Any = None) -> _Handle:  # type: ignore[override]
        """Part of asyncio."""
        handle = _Handle(callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def forget_all(self) -> None:
        """Nothing is left to do."""
        self._timers.clear()
        self._ready.clear()  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("no task and no timer is left")
            self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()


class Clock:
    """The clocks of one machine: CLOCK_BOOTTIME begins anew with a boot, wall time may be set."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self._loop, self._name = loop, name
        self.boots = 0
        self.booted_s = 0.0
        self.wall_offset_s = 1.7e9
        self.set_s: list[float] = []  # when wall time was set
        self.rebooted_s: list[float] = []

    @property
    def boot_id(self) -> str:
        """This boot's."""
        return f"{self._name}-boot-{self.boots}"

    def reboot(self) -> None:
        """Boot time begins again."""
        self.boots += 1
        self.rebooted_s.append(self._loop.now_s)
        self.booted_s = self._loop.now_s - 5.0

    def set(self, by_s: float) -> None:
        """Somebody sets the wall clock."""
        self.wall_offset_s += by_s
        self.set_s.append(self._loop.now_s)

    def misled_since(self, at_s: float) -> bool:
        """True if the clock was set and the machine rebooted since: then only wall time was left, and it was wrong."""
        return any(at_s <= set_s for set_s in self.set_s) and any(at_s <= rebooted_s for rebooted_s in self.rebooted_s)

    def now(self) -> Now:
        """Both clocks."""
        return Now(self._loop.now_s - self.booted_s, self._loop.now_s + self.wall_offset_s)


class Life:
    """One process from its start to its end. `fuse`: after so many I/O operations it dies; 0: it does not."""

    def __init__(
        self, loop: VirtualLoop, name: str, clock: Clock, on_end: Callable[[Life, BaseException | None], None]
    ) -> None:
        self.loop, self.name, self.clock = loop, name, clock
        self.alive = True
        self.fuse = 0
        self.dies_at = ""  # the I/O operation, as `spend` names it, at which it dies
        self.stalled_until_s = 0.0
        self.ended_by = ""
        self.machine: Any = None  # of an agent's life
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._on_end = on_end

    def begin(self, main: Coroutine[Any, Any, None]) -> None:
        """`main` runs; the life ends with it."""
        self.context.run(self.loop.create_task, self._main(main))

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this life, begun from outside."""
        return self.context.run(self.loop.create_task, coroutine)

    def later(self, delay_s: float, call: Callable[..., object], *arguments: object) -> None:
        """The call happens in this life, unless it has ended by then. A stalled life does it once it goes on."""
        self.loop.call_later(delay_s, self._later, call, arguments, context=self.context)

    def _later(self, call: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if not self.alive:
            return
        if self.stalled_until_s > self.loop.now_s:
            self.loop.call_at(self.stalled_until_s, self._later, call, arguments, context=self.context)
            return
        try:
            call(*arguments)
        except asyncio.CancelledError:
            if self.alive:
                raise

    def spend(self, what: str) -> None:
        """One I/O operation begins or has just ended. Raises: CancelledError, if the life ends here or has ended."""
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self.end(f"fuse at {what}")
        if what == self.dies_at:
            self.end(f"killed {what}")
        if not self.alive:
            raise asyncio.CancelledError(self.name)

    def end(self, why: str, error: BaseException | None = None) -> None:
        """SIGKILL: nothing more happens in this life."""
        if self.alive:
            self.alive = False
            self.ended_by = why
            for task in list(self.tasks):
                task.cancel()
            self._on_end(self, error)

    async def _main(self, main: Coroutine[Any, Any, None]) -> None:
        try:
            await main
        except asyncio.CancelledError:
            self.end("cancelled")
        except BaseExceptionGroup as group:
            self.end(repr(group.exceptions[0]), group.exceptions[0])
        except Exception as error:
            self.end(repr(error), error)
        else:
            self.end("stopped")


LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("LIFE")


def task_of_a_life(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:
    """The loop's task factory: a task belongs to the life that began it."""
    task = asyncio.Task(coro, loop=loop, **options)
    life = LIFE.get(None)
    if life is not None:
        life.tasks[task] = None
        task.add_done_callback(lambda done: life.tasks.pop(done, None))
        if not life.alive:
            task.cancel()
    return task
